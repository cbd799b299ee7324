#!/usr/bin/env python3
"""The page of a comparison of models: its numbers are those of an invented file, computed again slowly, and what is not known
is no number."""

from text_checks import FOLDER, check, finish, path, refused, run, write

import json
import math
import os
import re
import subprocess
import sys
from html import unescape
from xml.etree import ElementTree

import h5py
import make_sample
import numpy as np
from bregman.files import input_identity
from bregman.report import tails
from bregman.report.estimates import mean, median, number, ratio

MODELS = ["32M", "2M", "8M", "8M@100", "8M@20", "8M:cg", "<script>alert(1)</script>", "bm25"]
PARAMETERS = [32e6, 2e6, 8e6, 8e6, 8e6, 8e6, 64e6, math.nan]
SCALES = ["2M", "8M", "32M", "<script>alert(1)</script>"]
N_QUERIES, K, N_TAIL, COUNT, SEQUENCES = 12, 6, 400, 5000, 10
KINDS = ["fact", "<b>other</b>"]
RELATIONS = ["plain", "reversed", "<img src=x>"]
EXPONENT = 2.5
NAN = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)
TEXT = h5py.string_dtype("utf-8")
FILES = ("--tokens", "b.h5", "a.h5", "--queries", "queries.h5", "--model", "model")


class Invented:
    """Values of a comparison's datasets, by path, drawn with a fixed seed; change them, then write()."""

    def __init__(self, models=MODELS, parameters=PARAMETERS, queries=N_QUERIES, k=K):
        random = self.random = np.random.default_rng(3)
        m, q, _ = self.shape = len(models), queries, k
        with h5py.File(path("queries.h5")) as file:
            names = file["id"].asstr()[:queries]
        self.text = {"model": models, "query": names, "kind": [KINDS[i % 2] for i in range(q)]}
        self.values = v = {
            "parameters": np.array(parameters, float),
            "loss": random.uniform(1, 5, (m, q)),
            "count": np.full((m, q), COUNT),
            "mean": random.normal(0, 1, (m, q)),
            "sd": random.uniform(1, 2, (m, q)),
            "top_percent": random.uniform(0, 1, (m, q)),
        }
        v["loss"][-1] = np.nan
        self._places(models, random)
        v["tail"] = np.sort(1 + random.pareto(EXPONENT - 1, (m, q, N_TAIL)), axis=2)[:, :, ::-1].copy()
        v["agreement/spearman"] = random.uniform(-1, 1, (m, m, q))
        v["agreement/top"] = random.uniform(0, 1, (m, m, q))
        self._pairs(random)
        self._layers(models, random)

    def _places(self, models, random):
        v, shape = self.values, self.shape
        v["top/sequence"] = np.array(
            [[random.permutation(SEQUENCES)[: shape[2]] for _ in range(shape[1])] for _ in models]
        )
        v["top/score"] = np.sort(random.normal(5, 1, shape).astype(np.float32), axis=2)[:, :, ::-1].copy()
        v["top/overlap"] = random.uniform(0, 1, shape)
        v["top/run"] = random.integers(0, 20, shape)
        v["top/bm25_place"] = random.choice([-1, 1, 100, 101, 900], shape)
        v["top/sparsity"] = random.uniform(0, 1, shape)
        v["top/sparsity"][:, 0] = np.nan

    def _pairs(self, random):
        m, q, _ = self.shape
        pairs = [(i, relation) for i in range(q) for relation in RELATIONS]
        self.text["pair/relation"] = [relation for _, relation in pairs]
        self.values["pair/query"] = np.array([i for i, _ in pairs], int)
        self.values["pair/sequences"] = random.integers(1, 4, len(pairs))
        scored = self.values["pair/scored"] = np.tile(self.values["pair/sequences"], (m, 1))
        scored[:, 4] = 0
        for name in ("mean", "z", "place", "percentile", "positive", "top"):
            values = random.uniform(0.1, 1, (m, len(pairs)))
            self.values[f"pair/{name}"] = np.where(scored > 0, values, np.nan)

    def _layers(self, models, random):
        counts = [0 if name == "bm25" else 5 + 3 * (name == "32M") for name in models]
        names = [["embedding", *map(str, range(n - 2)), "head"] for n in counts if n]
        share = [random.dirichlet(np.ones(n), self.shape[1]).T for n in counts if n]
        self.text["layer/name"] = [name for of in names for name in of]
        self.values["layer/count"] = np.array(counts, np.uint32)
        self.values["layer/share"] = np.concatenate(share)

    def write(self, name):
        with h5py.File(path(name), "w") as file:
            file.attrs.update(format="bregman/comparison", format_version=1, corpus_sequences=SEQUENCES, bm25="okapi")
            for key, values in self.values.items():
                file[key] = values
            for key, values in self.text.items():
                file.create_dataset(key, data=list(values), dtype=TEXT)
            tokens = [path("a.h5"), path("b.h5")]
            file.create_dataset("corpus/file", data=["a.h5", "b.h5"], dtype=TEXT)
            file.create_dataset("corpus/hash", data=[input_identity(p) for p in tokens], dtype=TEXT)
            file["corpus/sequences"] = np.array([5, 5])
        return self


def page(name, *options, files=FILES):
    return run(
        "report", "--comparison", f"{name}.h5", *files, "--output", f"{name}.html", "--json", f"{name}.json", *options
    )


def read(name):
    with open(path(name), encoding="utf-8") as file:
        return file.read()


def tables_of(name):
    """{table: {(labels): {column: value}}}"""
    return {
        table["id"]: {tuple(row["labels"]): dict(zip(table["columns"], row["values"])) for row in table["rows"]}
        for table in json.loads(read(f"{name}.json"))["tables"]
    }


def slow_mean(values):
    known = [float(x) for x in values if not math.isnan(x)]
    return sum(known) / len(known) if known else None


def same(found, wanted, name):
    """A value of the page, whose interval holds it, or None."""
    if wanted is None:
        check(found is None, name, found)
        return
    check(found is not None and abs(found["value"] - wanted) < 1e-9 * max(1, abs(wanted)), name, (found, wanted))
    if found["interval"] is None:
        check(found["value"] in (0, 1), f"{name}: values that are all the same", found)
        return
    low, high = found["interval"]
    check(low <= found["value"] <= high, f"{name}: interval", found)


def places(of, row, query, value):
    """Mean of value(place) over the filled places of a query; NaN where there are none."""
    filled = [p for p in range(of.shape[2]) if of.values["top/sequence"][row, query, p] >= 0]
    return sum(value(p) for p in filled) / len(filled) if filled else math.nan


def check_overlap(of, tables):
    v = of.values
    by_model = {}
    check([labels[0] for labels in tables["overlap"]] == [*SCALES, "bm25"], "scales by parameters, then BM25")
    for row, model in enumerate(MODELS):
        if (model,) not in tables["overlap"]:
            continue
        found, queries = tables["overlap"][(model,)], range(of.shape[1])
        overlap = [places(of, row, q, lambda p, q=q: v["top/overlap"][row, q, p]) for q in queries]
        run_ = [places(of, row, q, lambda p, q=q: v["top/run"][row, q, p]) for q in queries]
        first = [places(of, row, q, lambda p, q=q: v["top/bm25_place"][row, q, p] in (1, 100)) for q in queries]
        same(found["n-gram overlap"], slow_mean(overlap), f"{model}: overlap")
        by_model[model] = overlap
        same(found["longest common run (tokens)"], slow_mean(run_), f"{model}: run")
        same(found["among the first 100 by BM25"], slow_mean(first), f"{model}: among BM25's first")
        for kind in KINDS:
            own = [q for q in queries if of.text["kind"][q] == kind]
            cells = tables["kinds"][(kind, model)]
            same(cells["loss (nats a token)"], slow_mean(v["loss"][row, own]), f"{model}, {kind}: loss")
            same(cells["n-gram overlap"], slow_mean([overlap[q] for q in own]), f"{model}, {kind}: overlap")

    for other in ("2M", "bm25"):
        differences = [a - b for a, b in zip(by_model[SCALES[-1]], by_model[other])]
        found = tables["overlap-changes"][(f"{SCALES[-1]} \u2212 {other}",)]["n-gram overlap"]
        same(found, slow_mean(differences), f"difference from {other}")


def check_relations(of, tables):
    v = of.values
    for row, model in enumerate(MODELS):
        for relation in RELATIONS if (RELATIONS[0], model) in tables["relations"] else ():
            found, name = tables["relations"][(relation, model)], f"{model}, {relation}"
            pairs = [
                p for p, r in enumerate(of.text["pair/relation"]) if r == relation and v["pair/scored"][row, p] > 0
            ]
            check(found["pairs"] == len(pairs), name, "pairs")
            for column, dataset in (("percentile", "percentile"), ("z", "z"), ("share of first k", "top")):
                same(found[column], slow_mean(v[f"pair/{dataset}"][row, pairs]), f"{name}: {column}")
            place = sorted(v["pair/place"][row, pairs])
            middle = (place[(len(place) - 1) // 2] + place[len(place) // 2]) / 2
            same(found["best place (median)"], middle, f"{name}: place")
            chance = sum(v["pair/scored"][row, p] / COUNT for p in pairs)
            same(found["positive influence / chance"], sum(v["pair/positive"][row, pairs]) / chance, f"{name}: chance")
            if relation == "plain":
                continue
            both = [(p, 3 * (p // 3)) for p in pairs if v["pair/scored"][row, 3 * (p // 3)] > 0]
            above, below = (sum(v["pair/mean"][row, p] for p in side) for side in zip(*both))
            ratio = tables["word-order"][(relation, model)]["mean influence / that of plain"]
            same(ratio, above / below, f"{name}: beside plain")
    check(len(tables["relations-by-kind"]) == 3 * 2 * 5, "relations of several kinds by kind")
    for (relation, difference), found in tables["word-order-changes"].items():
        of_models = [v["pair/mean"][MODELS.index(name)] for name in difference.split(" \u2212 ")]
        pairs = [(p, 3 * (p // 3)) for p, r in enumerate(of.text["pair/relation"]) if r == relation]
        both = [sides for sides in pairs if all(math.isfinite(mean[p]) for mean in of_models for p in sides)]
        large, other = (sum(mean[p] for p, _ in both) / sum(mean[p] for _, p in both) for mean in of_models)
        same(found["mean influence / that of plain"], large - other, f"{relation}: {difference}")
    check(len(tables["word-order-changes"]) > 1, "changes of word order", len(tables["word-order-changes"]))


def check_layers(of, tables):
    first = 0
    thirds = {
        3: ("first third", "middle third", "last third"),
        6: sum(([t] * 2 for t in ("first third", "middle third", "last third")), []),
    }
    for model, n in zip(MODELS, of.values["layer/count"].astype(int)):
        share = of.values["layer/share"][first : first + n]
        first += n
        if ("all", model) not in tables["layers"]:
            continue
        parts = ["embedding", *thirds[n - 2], "head"]
        for part in dict.fromkeys(parts):
            wanted = sum(share[i].mean() for i in range(n) if parts[i] == part)
            same(tables["layers"][("all", model)][part], wanted, f"{model}: {part}")
    check(("all", "8M:cg") not in tables["layers"], "layers of scales only")


def check_others(of, tables):
    v = of.values
    for name in ("spearman", "top"):
        for row, model in enumerate(MODELS):
            for other, label in enumerate(MODELS):
                same(
                    tables[f"agreement-{name}"][(model,)][label],
                    slow_mean(v[f"agreement/{name}"][row, other]),
                    f"{name} {model} {label}",
                )
    check(list(tables["checkpoints-8M"]) == [("8M@20",), ("8M@100",), ("8M",)], "checkpoints by step, the model last")
    found = tables["checkpoints-8M"][("8M@100",)]["rank correlation with the last"]
    same(found, slow_mean(v["agreement/spearman"][3, 2]), "agreement with the last")
    check(list(tables["methods-8M"]) == [("8M",), ("8M:cg",), ("bm25",)], "methods of a size")
    check(tables["models"][("bm25",)]["parameters"] is None, "no number for what is not known")
    check(tables["queries"][("fact",)]["queries"] == 6, "queries of a kind")


def check_tails(of, tables):
    v = of.values
    for row, model in enumerate(MODELS):
        if (model,) not in tables["tail"]:
            continue
        found = tables["tail"][(model,)]
        exponents = []
        for values in v["tail"][row]:
            ordered = sorted(values)
            exponents.append(1 + (len(ordered) - 1) / sum(math.log(x / ordered[0]) for x in ordered[1:]))
        same(found["exponent"], slow_mean(exponents), f"{model}: exponent")
        check(abs(found["exponent"]["value"] - EXPONENT) < 0.1, f"{model}: the exponent that was drawn from")
        sparse = [
            places(of, row, q, lambda p, q=q: v["top/sparsity"][row, q, p] > 2 / 3) for q in range(1, of.shape[1])
        ]
        same(found[f"first {K}: on a token or two"], slow_mean(sparse), f"{model}: sparsity")


def test_absent():
    """What the file has only where there is some: kinds, related documents, layers."""
    for what in (["kind"], ["pair/"], ["layer/"], ["kind", "pair/", "layer/"]):
        made = Invented()
        for part in (made.text, made.values):
            for key in [key for key in part if key.startswith(tuple(what))]:
                del part[key]
        made.write("absent.h5")
        for made in ("absent.html", "absent.json"):
            if os.path.exists(path(made)):
                os.unlink(path(made))
        done = page("absent")
        check(done.returncode == 0, f"a page without {what}", done.stderr[-400:])
        tables = tables_of("absent")
        check(
            ("relations" in tables) == ("pair/" not in what) and ("layers" in tables) == ("layer/" not in what),
            f"{what}",
        )


def test_numbers():
    of = Invented()
    of.values["top/sequence"][1, 2, 3:] = -1
    of.values["top/sequence"][1, 3] = -1
    of.values["top/overlap"][1, 3] = np.nan
    of.write("c.h5")
    done = page("c")
    check(done.returncode == 0, "a page", done.stderr[-600:])
    tables = tables_of("c")
    for part in (check_overlap, check_relations, check_layers, check_others, check_tails):
        part(of, tables)
    html = read("c.html")
    shown = [number(cell["value"]) for cells in tables["overlap"].values() for cell in cells.values()]
    check(all(f">{value} <" in html for value in shown), "the page says what the numbers say", shown)
    check(html.count("model, by parameters") > 10, "figures against scale")
    check("<script>alert" not in html and "<img src=x>" not in html and "<b>other" not in html, "names are escaped")
    check("&lt;script&gt;alert(1)&lt;/script&gt;" in html, "hostile names are shown as they are")
    check("src=" not in html.replace("&lt;img src=x&gt;", "") and "http" not in html, "nothing from outside")
    check("In the beginning God created" in html and "bible/genesis-1" in html, "texts and documents")
    check(html.count('class="entry query"') == N_QUERIES and not NAN.search(html), "no NaN")
    first = read("c.html").split("Bregman \u00b7")[1].split("</span>", 1)[1]
    check(page("c", "--figures", path("figures")).returncode == 0, "a page of its own is replaced")
    check_figures(read("c.html"))
    check(first in read("c.html"), "the same numbers again")


def check_figures(html):
    """Each of the page is a file of its own, with its caption."""
    captions = re.findall(r"<figcaption><b>(.*?)</b>", html)
    found = [os.path.join(FOLDER, "figures", name) for name in os.listdir(path("figures"))]
    texts = ["".join(ElementTree.parse(name).getroot().itertext()) for name in found]
    check(len(found) == len(captions) > 5, "as many figures", f"{len(found)} of {len(captions)}")
    check(all(any(unescape(caption) in text for text in texts) for caption in captions), "captions", str(captions))


def test_unknown():
    of = Invented()
    for name in ("loss", "top_percent", "tail", "agreement/spearman", "layer/share", "top/sparsity"):
        of.values[name][:] = np.nan
    for name in ("mean", "z", "place", "percentile", "positive", "top"):
        of.values[f"pair/{name}"][:] = np.nan
    of.values["pair/scored"][:] = 0
    of.values["top/sequence"][:] = -1
    of.values["parameters"][2] = np.nan
    of.write("n.h5")
    done = page("n")
    check(done.returncode == 0, "nothing is known", done.stderr[-600:])
    tables = tables_of("n")
    check(tables["tail"][("2M",)]["exponent"] is None and tables["tail"][("2M",)]["queries fitted"] == 0, "no fit")
    check(tables["relations"][("plain", "2M")]["percentile"] is None, "no percentile")
    check([labels[1] for labels in tables["relations"]][:3] == ["32M", "2M", "8M"], "the file's order")
    html = read("n.html")
    check("\u2013" in html and not NAN.search(html), "dashes")
    check("in the order of the file" in html, "the order is said")


def test_small():
    one = Invented(["2M"], [2e6], queries=3, k=1).write("o.h5")
    done = page("o")
    check(done.returncode == 0, "one model, k of 1, three queries", done.stderr[-600:])
    check("nothing can be compared across scales" in read("o.html"), "one model is said")
    check("model, by parameters" not in read("o.html"), "no figure against scale")
    check("There are 3 queries only" in read("o.html"), "few queries are said")
    cell = tables_of("o")["overlap"][("2M",)]["n-gram overlap"]
    check(cell["interval"] is None and cell["n"] == 3, "no interval of few queries", cell)
    check(abs(cell["value"] - one.values["top/overlap"].mean()) < 1e-12, "mean of few queries")
    done = page("o", files=("--tokens", "a.h5", "b.h5"))
    check(done.returncode == 0 and "sequence " in read("o.html"), "without queries and model", done.stderr[-600:])
    of = Invented(["2M", "8M"], [2e6, 8e6])
    for name in [name for name in of.values if name.startswith("pair/")]:
        of.values[name] = of.values[name][..., :0]
    of.text["pair/relation"] = []
    of.write("r.h5")
    done = page("r")
    check(done.returncode == 0, "no related documents", done.stderr[-600:])
    check("relations" not in tables_of("r") and 'id="relations"' not in read("r.html"), "no table of none")


def test_refused():
    Invented(["2M", "bm25"], [2e6, math.nan], queries=3).write("w.h5")
    both = ("--ranking", "ranking.h5", *FILES)
    refused("two kinds of page", page("w", files=both), "--comparison", "not allowed with", "--ranking", code=2)
    refused("no page", run("report", *FILES, "--output", "x.html"), "--ranking --comparison is required", code=2)
    refused("a ranking's option", page("w", "--corpus-sequences", 9), "--corpus-sequences", code=2)
    with h5py.File(path("a.h5")) as file, h5py.File(path("z.h5"), "w") as other:
        for name in file:
            file.copy(name, other)
        other.attrs.update(file.attrs)
        other["token"][0] += 1
    refused("other token files", page("w", files=("--tokens", "z.h5", "b.h5")), '"z.h5"', "other token files")
    refused("too few token files", page("w", files=("--tokens", "a.h5")), "is not among those given")
    write("mine.html", "precious")
    refused("another page", page("w", "--output", "mine.html"), "mine.html", "choose another --output")
    write("mine.json", '{"precious": 1}')
    refused("other numbers", page("w", "--json", "mine.json"), "mine.json")
    check((read("mine.html"), read("mine.json")) == ("precious", '{"precious": 1}'), "they are left alone")
    refused("a ranking", page("ranking", files=FILES), "bregman/comparison")
    Invented([":cg"], [2e6], queries=3).write("w.h5")
    refused("a name that is none", page("w"), "SIZE[@STEP][:METHOD]")


def test_estimates():
    check(mean([math.nan] * 9) is None and median([]) is None, "nothing is known")
    check(mean([2.0] * 9).low is None, "no interval of what is always the same")
    check(mean([1, 2, 3, 4]).low is None and mean([1, 2, 3, 4, 5]).low is not None, "five queries")
    random = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        found = mean(random.normal(3, 1, 40))
        held += found.low <= 3 <= found.high
    check(180 <= held <= 198, "intervals hold the mean as often as they say", held)
    held = sum(found.low <= 3 <= found.high for found in (mean(random.normal(3, 1, 6)) for _ in range(400)))
    check(360 <= held, "also for few queries", held)
    check(mean([0, 0, 0, 0, 1]).low >= 0, "an interval stays where the values can be")
    check(median([5, 1, 2, 3, math.nan, 100]).value == 3, "median of what is known")
    above = random.uniform(1, 2, 30)
    check(abs(ratio(above, 2 * above).value - 0.5) < 1e-12, "ratio of means")
    check(ratio(above, -above) is None, "no ratio to what is below 0")
    loose = np.where(np.arange(30) < 1, 100.0, -3.0)
    check(ratio(above, loose).low is None, "no interval where a resample has no ratio")
    check(
        (number(None), number(-0.5), number(1e-5)) == ("\u2013", "\u22120.50", "1.00\u00d710\u207b\u2075"),
        "numbers as they are shown",
    )


def test_fits():
    random = np.random.default_rng(5)
    for exponent in (1.8, 3.0):
        fit = tails.fit(7 * (1 + random.pareto(exponent - 1, 4000)))
        check(abs(fit["exponent"] - exponent) < 4 * (exponent - 1) / math.sqrt(4000), "the exponent", fit)
        check(fit["p"] > 0.01, "a power law fits itself", fit)
        ratio = fit["against"]["exponential"]
        check(ratio["ratio"] > 0 and ratio["p"] < 0.05, "not an exponential", fit)
        check(all(fit["against"][name]["p"] > 0.001 for name in tails.NESTED), "nothing else is needed", fit)
    fit = tails.fit(5 + random.exponential(2, 4000))
    check(fit["p"] < 0.01, "an exponential is no power law", fit)
    check(all(r["ratio"] < 0 and r["p"] < 0.01 for r in fit["against"].values()), "all others are better", fit)
    for name, draw in (("weibull", 2 * random.weibull(0.5, 4000)), ("log_normal", random.lognormal(1, 1, 4000))):
        above = tails.fit(draw[draw > np.quantile(draw, 0.3)])["against"]
        best = min(above, key=lambda family: above[family]["ratio"])
        check(best == name and above[name]["p"] < 0.01, f"{name} is found", above)
    values = 1 + random.pareto(1, 300)
    check(
        tails.fit(values) == tails.fit(np.concatenate((values[::-1], [np.nan, -3, 0]))),
        "what is not above 0 is left out",
    )
    check(tails.fit(values[:19]) is None and tails.fit(values[:20]) is not None, "too few")
    check(tails.fit(np.full(50, 2.0)) is None, "all the same")


def test_goodness():
    """p is uniform where the power law holds, whatever its exponent and the number of scores."""
    random = np.random.default_rng(6)
    p = [tails.fit(1 + random.pareto(1.7, 60))["p"] for _ in range(200)]
    check(0.02 < np.mean(np.array(p) < 0.1) < 0.18 and 0.4 < np.mean(p) < 0.6, "p under the power law", np.mean(p))


subprocess.run(
    [sys.executable, make_sample.__file__, FOLDER, "--queries", str(N_QUERIES)], check=True, stdout=subprocess.DEVNULL
)
test_absent()
test_numbers()
test_unknown()
test_small()
test_refused()
test_estimates()
test_fits()
test_goodness()
if os.environ.get("KEEP"):
    subprocess.run(["cp", "-r", FOLDER, os.environ["KEEP"]], check=True)
finish()
