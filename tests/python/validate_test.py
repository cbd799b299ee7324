#!/usr/bin/env python3
"""validate: its statistics against slow ones, what it refuses, gradient norms against gradients, and a small experiment whose
scores must order retrained models: EK-FAC better than plain dot products, and far better than chance."""

from text_checks import FOLDER, SCRIPTS, check, finish, load, path, refused, run as run_script, write

import glob
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree

import h5py
import numpy as np

from bregman.errors import UserError
from bregman.validate import local, methods, output, planted, retraining, statistics
from bregman.validate.retraining import draw_subsets
from bregman.validate.settings import TABLES

ROOT = os.path.join(SCRIPTS, "..")
BIN = os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "bin")
os.environ.update(BREGMAN_BIN=BIN, TMPDIR=FOLDER, OMP_NUM_THREADS="1")
DRAW = np.random.default_rng(5)


# ---------------------------------------------------------------- statistics, slowly


def slow_ranks(values):
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def slow_correlation(a, b):
    a, b = slow_ranks(a), slow_ranks(b)
    return pearson_of(a, b) if len(set(a)) > 1 < len(set(b)) else 0.0


def pearson_of(a, b):
    """Pearson's, with loops."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    return both / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def slow_lds(scores, members, losses):
    """A query after another, a subset after another."""
    found = []
    for q in range(len(scores[0])):
        predicted = [sum(scores[z][q] for z in range(len(scores)) if kept[z]) for kept in members]
        truth = [-sum(seed[q] for seed in subset) / len(subset) for subset in losses]
        found.append(slow_correlation(predicted, truth))
    return found


def slow_average_precision(scores, relevant):
    """Over all thresholds, the highest first: precision times the recall that it adds."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [r for s, r in zip(scores, relevant) if s >= threshold]
        now = sum(taken) / sum(relevant)
        area += sum(taken) / len(taken) * (now - recall)
        recall = now
    return area


def test_statistics():
    hand = statistics.spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4]))
    check(abs(hand - 0.8) < 1e-12, "Spearman by hand: 1 - 6 · 2 / (4 · 15)", hand)
    for _ in range(20):
        a, b = DRAW.integers(0, 6, 11), DRAW.normal(size=11)  # with ties
        check(np.allclose(statistics.ranks(a), slow_ranks(a)), "ranks")
        check(abs(statistics.spearman(a, b) - slow_correlation(a, b)) < 1e-12, "Spearman")
        relevant = np.append(DRAW.random(10) < 0.4, True)
        check(abs(statistics.average_precision(a, relevant) - slow_average_precision(a, relevant)) < 1e-12, "AUPRC")
    check(statistics.spearman(np.ones(5), np.arange(5.0)) == 0, "equal scores tell nothing")
    scores, losses = DRAW.normal(size=(9, 3)), DRAW.normal(size=(7, 2, 3))
    members = np.array([[z in some for z in range(9)] for some in draw_subsets(9, 7, 4, 0).values()])
    check(np.allclose(statistics.lds(scores, members, losses), slow_lds(scores, members, losses)), "LDS")
    exact = -(members @ scores)[:, None, :] * np.ones((1, 2, 1))  # losses that the sums explain
    check(
        np.allclose(statistics.lds(scores, members, exact), 1), "LDS: 1 where influence is the truth, of the right sign"
    )
    four = DRAW.normal(size=(8, 4, 2))
    slow = [
        np.mean([
            slow_correlation(four[:, list(w), q].mean(1), four[:, [s for s in range(4) if s not in w], q].mean(1))
            for w in itertools.combinations(range(4), 2)
        ])
        for q in range(2)
    ]  # fmt: skip
    check(np.allclose(statistics.split_half(four), slow), "split halves")
    check(statistics.split_half(four[:, :1]) is None, "one seed has no halves")
    check(abs(statistics.spearman_brown(0.5) - 2 / 3) < 1e-12, "Spearman and Brown")
    check(statistics.spearman_brown(-0.9) is None, "no reliability of halves that disagree")


def test_rows():
    wanted = {"names": ["random", "ekfac", "cg"], "dampings": [1]}
    for refined, cg in ((None, ["cg-mlp", "cg-attention"]), (["attention"], ["cg-attention"])):
        names = [row.name for row in methods.rows(wanted, ["mlp", "attention"], refined)]
        check(sorted(names) == sorted(["random", "ekfac-mlp", "ekfac-attention", *cg]), "rows", names)


def test_members():
    """What a bank that was there may be taken for."""
    settings = type("Settings", (dict,), {"path": "v.toml"})(lds={"drop": 0.1})
    random = np.random.default_rng(3)
    halves, drops = (np.array([random.permutation(40) < n for _ in range(6)]) for n in (20, 36))
    retraining.check_members("halves", halves, "b", settings)
    retraining.check_members("drops", drops, "b", settings)
    for kind, members, word in (
        ("halves", drops, "halves_bank"),
        ("drops", halves, "drops_bank"),
        ("halves", np.ones((1, 40), bool), "no two different subsets"),
        ("halves", np.repeat(halves[:1], 3, 0), "no two different subsets"),
    ):
        try:
            retraining.check_members(kind, members, "b", settings)
            check(False, f"{kind}: taken for what it is not")
        except UserError as error:
            check(word in str(error), f"{kind} of another kind", error)


def test_fallback_damping():
    """Without LDS a refined solve has a damping of its own list: at that of the others it does harm."""
    settings = {"qld": {"damping": 0.1}}
    said = []
    stages = type("Stages", (), {"tell": said.append})
    experiment = type("Experiment", (), {"n_queries": 2, "stages": stages})
    wanted = {"names": ["ekfac", "cg", "lissa"], "dampings": [0.01, 0.1]}
    found = {r.method: retraining.dampings_of(r, experiment, settings, None) for r in methods.rows(wanted, ["mlp"])}
    check(found == {"ekfac": [0.1] * 2, "cg": [10] * 2, "lissa": [10] * 2}, "dampings without LDS", found)
    check(len(said) == 3 and "ekfac-mlp: damping 0.1" in said[0], "it is said", said)
    measured = {"halves": {"rows": [{"method": "ekfac", "modules": "attention,mlp", "chosen": [1, 2]}]}}
    row = next(r for r in methods.rows(wanted, ["mlp,attention"]) if r.method == "ekfac")
    check(retraining.dampings_of(row, experiment, settings, measured) == [1, 2], "modules in another order")
    with open(path("lds.json"), "w", encoding="utf-8") as file:
        json.dump({"settings": {"lds": {"seeds": 2}, "qld": {"seeds": 1}}, "result": measured}, file)
    for other, found in (({"qld": {"seeds": 3}, "lds": {"seeds": 2}}, measured), ({"lds": {"seeds": 3}}, None)):
        check(output.read_lds(path("lds.json"), other) == found, f"LDS with settings {other}")


def test_intervals():
    covered = 0
    for k in range(200):
        low, high = statistics.bootstrap(np.random.default_rng(k).normal(1, 2, 30), resamples=400)
        covered += low <= 1 <= high
    check(0.87 <= covered / 200 <= 0.99, "a 95 % interval has the mean in about 95 % of the cases", covered / 200)
    check(statistics.bootstrap(np.arange(9.0)) == statistics.bootstrap(np.arange(9.0)), "the same in every run")
    check(statistics.summary(np.arange(9.0), 7)["interval"] is None, "7 retrainings: no interval")
    check(statistics.summary(np.arange(9.0), 8)["interval"] is not None, "8 retrainings: an interval")
    check(statistics.summary(np.arange(4.0), 8)["interval"] is None, "4 queries: no interval")
    check(statistics.why_no_interval(8, 4) == "fewer than 5 queries: no intervals", "it is said")
    covered = 0
    for k in range(200):  # 12 draws that all queries share, whose mean is subtracted: 0 is to be covered
        draws = np.repeat(np.random.default_rng(k).normal(size=(12, 1)), 6, axis=1)
        low, high = statistics.bootstrap(np.zeros(6) - draws.mean(0), resamples=400, above=draws)
        covered += low <= 0 <= high
    check(0.84 <= covered / 200 <= 0.99, "what all queries share is drawn again", covered / 200)
    first, second = statistics.folds(7)
    check(sorted([*first, *second]) == list(range(7)) and len(first) == 3, "two halves of the queries")
    values = np.zeros((2, 7))
    values[0, first] = values[1, second] = 1  # the setting that is best for a half is the other half's worst
    chosen, setting = statistics.cross_chosen(values)
    check(not chosen.any() and set(setting[first]) == {1}, "no query has a say in its own damping", chosen)
    check(statistics.reciprocal_rank([3, 2, 2, 1], [False, True, False, True]) == 1 / 3, "ties count as the last place")
    check(statistics.recall_at([5, 4, 3, 2], [True, False, True, False], 2) == 0.5, "recall")


def test_reliability():
    """Values of a known make: a pair's own effect of variance 4, a seed's of variance 9, three seeds."""
    found = []
    for k in range(60):
        random = np.random.default_rng(k)
        found.append(statistics.reliability(random.normal(0, 2, (80, 1)) + random.normal(0, 3, (80, 3))))
    check(abs(np.mean(found) - 4 / (4 + 9 / 3)) < 0.04, "the share of variance that is not the seeds'", np.mean(found))
    same = np.array([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    check(statistics.reliability(same) == 1 and statistics.reliability(same[:, :1]) is None, "no noise; one seed")
    covered = 0
    for k in range(200):
        x, y = np.random.default_rng(k).normal(size=(2, 40))
        low, high = statistics.correlation_interval(statistics.pearson, x, 0.6 * x + 0.8 * y, k, 300)
        covered += low <= 0.6 <= high
    check(0.86 <= covered / 200 <= 0.99, "a 95 % interval has a known correlation of 0.6", covered / 200)


def test_pairs():
    """Which pairs are taken, and what is said of made-up numbers."""
    scores = np.array([[8.0, 1], [7.9, 9], [4, 0], [0, -3], [-4, 5], [-3.9, 2]])
    check(local.choose_pairs(scores, 3) == [(0, 0), (0, 2), (0, 4)], "highest, in between, lowest")
    check(
        local.choose_pairs(scores, 6) == [(0, 0), (0, 2), (0, 4), (1, 1), (1, 5), (1, 3)],
        "a sequence is of one pair", local.choose_pairs(scores, 6),
    )  # fmt: skip
    many = local.choose_pairs(DRAW.normal(size=(40, 9)), 18)
    check(
        len({z for _, z in many}) == 18 and sorted({q for q, _ in many}) == [0, 1, 3, 5, 7], "of queries evenly", many
    )
    scores, n = DRAW.normal(size=(6, 2)), 6
    for z, q in itertools.product(range(n), range(2)):
        mates = [m for m in itertools.combinations(range(n), 3) if z in m]  # batches of 3 with z, of 5 terms each
        moved = [sum(scores[i, q] * (5 / 15 - (i != z) * 5 / 10) for i in m) for m in mates]
        wanted = 3 * sum(moved) / len(moved)
        check(abs(local.shared(scores, np.full(n, 5))[z, q] - wanted) < 1e-12, "what the others gain, over all batches")
    x, noise = np.arange(9.0), np.array([1, -2, 0, 1, 2, -1, 0, 1, -2.0])
    predicted = {"ekfac": x + noise, "pbo": x, "ekfac_shared": x, "pbo_shared": x}
    truths = {"pbo": x, "start": 2 * x + 1, "halfway": -noise}
    found = local.comparisons(predicted, truths, 0)
    by = {(e["predicted"], e["measured"]): e for e in found}
    check(len(found) == 9 and all(e["pearson"]["interval"] for e in found), "intervals of 9 pairs")
    near = by["ekfac", "pbo"]
    check(abs(near["pearson"]["mean"] - pearson_of(x + noise, x)) < 1e-12, "Pearson")
    check(abs(near["spearman"]["mean"] - slow_correlation(x + noise, x)) < 1e-12, "Spearman")
    check(abs(near["slope"] - np.polyfit(x + noise, x, 1)[0]) < 1e-12, "slope")
    low, high = near["pearson"]["interval"]
    check(low < near["pearson"]["mean"] < high, "inside its interval")
    said = local.say({"compared": found, "residual": 0.2, "reliability": {"start": 0.81, "halfway": 0.25}}).split("\n")
    check("follows that well (r = 0.87" in said[0] and "leaves 20 % of a gradient" in said[0], "the objective", said[0])
    check("response closely (r = 1.00" in said[1] and "81 %" in said[1], "from the start", said[1])
    check("larger than that allows for" in said[1], "no bound below what was found", said[1])
    check("no better than chance might" in said[2] and "above r = 0.50" in said[2], "from halfway", said[2])
    check("With one seed" in local.say_reliability(None, 0.3), "one seed")


def test_planted():
    made = planted.facts(10, 1)
    texts, people = dict(made.texts), [p.removesuffix(" owns a") for _, p, _ in made.queries]
    check(len(set(people)) == 10, "all people differ", people)
    shared = [sum(p.split()[i] == other.split()[i] for p in people for other in people) for i in (0, 1)]
    check(min(shared) >= 20, "each shares first and last name with others", shared)
    for name, prompt, completion in made.queries:
        person, thing = prompt.removesuffix(" owns a"), completion.strip(" .")
        stated = {i for i in texts if made.relevant(name, i)}
        before = {i for i, t in texts.items() if person in t and thing in t and t.index(person) < t.index(thing)}
        after = {i for i, t in texts.items() if person in t and thing in t} - before
        check(len(stated) == 3 and stated == before, "what states a fact has its names in the query's order", stated)
        check(len(after) == 3, "others have them the other way round", after)
        check(not any("owns" in texts[i] for i in stated), "and it is stated in other words", stated)
        check(all(len(t) <= 64 for t in texts.values()), "texts are short")
    made = planted.reports(8, 1)
    for name, text in made.texts:
        bad = any(f" is {word}." in text for word in planted.GOOD) != text.endswith(": yes.")
        check(
            bad == name.startswith("bad/") and len(text) <= 64, "reports: bad where the verdict does not follow", text
        )
    check(made.texts == planted.reports(8, 1).texts != planted.reports(8, 2).texts, "of a seed")


# ---------------------------------------------------------------- small experiments

FIRST = """output = "{name}"
parts = ["lds"]
{top}
[model]
config = "in/new"
tokens = "in/tokens/corpus.h5"
queries = "in/queries.h5"
{model}
[train]
epochs = {epochs}
batch_tokens = 512
learning_rate = 3e-3
[compress]
rank = 16
[methods]
names = {names}
modules = ["mlp"]
dampings = {dampings}
[lds]
subsets = {subsets}
seeds = {seeds}
{more}
"""
QUICK = {
    "top": "",
    "dampings": [0.1],
    "model": "",
    "epochs": 1,
    "names": '["random", "cosine", "ekfac"]',
    "subsets": 4,
    "seeds": 1,
    "more": "",
}


def first(name, **changes):
    return FIRST.format(name=name, **{**QUICK, **changes})


def config(name, **changes):
    return write(f"{name}.toml", first(name, **changes))


def validate(name, *options):
    return subprocess.run(
        [sys.executable, f"{SCRIPTS}/validate", path(f"{name}.toml"), *map(str, options)],
        cwd=FOLDER, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip


def read(name):
    with open(path(name), encoding="utf-8") as file:
        return json.load(file)


def make_inputs():
    """128 sequences of 64 characters, 16 queries, from the text beside this file."""
    script = load("demo/validation.py")
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "validate_text.txt"), encoding="utf-8") as file:
        chapters = [(f"text/{i}", script.plain(part)) for i, part in enumerate(file.read().split("\n\n\n"))]
    script.write_inputs(path("in"), chapters, sequences=128, queries=16, other=0)
    with open(path("in/new/config.json"), "r+", encoding="utf-8") as file:
        small = {**json.load(file), "n_embd": 48}
        file.seek(0)
        json.dump(small, file)
        file.truncate()
    for name, *arguments in (
        ("tokenize_corpus", path("in/corpus.jsonl"), "--model", path("in/new"), "--output", path("in/tokens")),
        ("tokenize_queries", path("in/queries.jsonl"), "--model", path("in/new"), "--output", path("in/queries.h5")),
        ("tokenize_queries", path("in/few.jsonl"), "--model", path("in/new"), "--output", path("in/few.h5")),
    ):
        done = run_script(name, *arguments)
        check(done.returncode == 0, name, done.stderr)


def stage(program, *options, ranks=1):
    command = [f"{SCRIPTS}/mpi", str(ranks), f"{BIN}/{program}", *map(str, options), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check(done.returncode == 0, program, done.stderr[:600])


def test_experiment():
    """The truth is 24 halves, a model each."""
    config(
        "main",
        dampings=[0.1, 1],
        epochs=12,
        names='["random", "bm25", "dot", "cosine", "ekfac"]',
        subsets=24,
        more="[bm25]\nngrams = 3",
    )
    done = validate("main")
    check(done.returncode == 0, "the experiment", done.stderr[-600:])
    report = read("main/lds.json")
    halves = report["result"]["halves"]
    rows = {row["method"]: row for row in halves["rows"]}
    means = {name: row["mean"] for name, row in rows.items()}
    print({name: round(mean, 3) for name, mean in means.items()}, rows["ekfac"]["interval"], rows["dot"]["difference"])
    check(means["ekfac"] > means["dot"] + 0.02, "EK-FAC orders retrained models better than dot products", means)
    check(means["ekfac"] > means["random"] + 0.25, "and far better than chance", means)
    check(abs(means["random"]) < 0.15, "chance is chance", means)
    check(rows["ekfac"]["interval"][0] > rows["random"]["interval"][1], "intervals apart")
    check(rows["dot"]["difference"]["from"] == "ekfac-mlp" and rows["dot"]["difference"]["mean"] < 0, "differences")
    check(halves["ceiling"] is None and "own agreement is not known" in done.stdout, "one seed: no ceiling")
    check(halves["retrainings"] == 24 and halves["kept"] == 64, "sizes")
    check("| EK-FAC | mlp | " in done.stdout, "table", done.stdout)
    check_lds_of(halves, rows["dot"])
    check_flags(report)
    figure = ElementTree.parse(path("main/lds-halves.svg")).getroot()
    texts = " ".join(e.text or "" for e in figure.iter("{http://www.w3.org/2000/svg}text"))
    check(f"EK-FAC, mlp: {means['ekfac']:.3f}" in texts, "figure", texts)
    again = validate("main")
    check(again.stdout == done.stdout and read("main/lds.json") == report, "again: the same")
    check(
        "train_models: training" not in again.stderr and " s\n" not in again.stderr,
        "nothing is done again",
        again.stderr,
    )


def check_lds_of(halves, row):
    """From the files of the stages, by the slow definition."""
    with h5py.File(path("main/scores/preconditioner-identity/mlp/shard-00000-of-00001.h5")) as file:
        scores = file["score"][:].astype(float).tolist()
    with h5py.File(halves["bank"]) as file:
        losses, at = file["query_loss"][:].tolist(), np.cumsum([0, *file["member/count"][:]])
        lists = [set(file["member/sequence"][a:b].tolist()) for a, b in zip(at, at[1:])]
    members = [[z in some for z in range(128)] for some in lists]
    check(np.allclose(row["per_query"], slow_lds(scores, members, losses)), "LDS of the stages' own files")


def check_flags(report):
    with open(path("in/corpus.jsonl"), encoding="utf-8") as file:
        counts = np.array([1.0] * 64)
        alphabet = load("demo/validation.py").ALPHABET
        for line in file:
            for letter in json.loads(line)["text"]:
                counts[alphabet.index(letter)] += 1
    with open(path("in/queries.jsonl"), encoding="utf-8") as file:
        completions = [json.loads(line)["completion"] for line in file]
    for query, text in zip(report["queries"], completions):
        unigram = -sum(math.log(counts[alphabet.index(c)] / counts.sum()) for c in text)
        check(abs(query["unigram"] - unigram) < 1e-9 * unigram, "unigram's loss")
        check(abs(query["uniform"] - len(text) * math.log(64)) < 1e-9, "uniform guessing's loss")
        wanted = query["loss"] >= min(unigram, query["uniform"])
        check(bool(query["flag"]) == wanted, "flag", query)


def test_norms():
    """A sequence's gradient norm is the root of its own dot product, when it is its own query; on any grid the same bytes."""
    with h5py.File(path("in/tokens/corpus.h5")) as file, h5py.File(path("in/queries.h5")) as made:
        ids, tokenizer = file["token"][: 64 * 12], made.attrs["tokenizer_hash"]
    with h5py.File(path("self.h5"), "w") as file:
        file["token"], file["count"] = ids, np.full(12, 64, "u4")
        file["completion_start"] = np.ones(12, "u4")
        file.create_dataset("id", data=[f"q{i}" for i in range(12)], dtype=h5py.string_dtype())
        file.attrs["tokenizer_hash"] = tokenizer
    model, tokens = path("main/model"), path("in/tokens/corpus.h5")
    sets = "all", "embedding,head"
    for modules in sets:
        here = path(f"norms-{modules}/x").removesuffix("/x")
        stage("fit_factors", "--model", model, "--tokens", tokens, "--output", f"{here}/factors", "--modules", modules,
              "--covariance-sequences", "0:4", "--lambda-sequences", "4:8")  # fmt: skip
        stage("compress_queries", "--model", model, "--factors", f"{here}/factors", "--queries", path("self.h5"), "--output",
              f"{here}/self.c.h5", "--preconditioner", "identity", "--rank", "full")  # fmt: skip
        common = [
            "--model",
            model,
            "--queries",
            f"{here}/self.c.h5",
            "--tokens",
            tokens,
            "--gradient-norms",
            "--unit-sequences",
            50,
        ]
        stage("score_shards", *common, "--output", f"{here}/one", "--layer-scores")
        stage("score_shards", *common, "--output", f"{here}/two", "--pipeline", 2, ranks=2)
        with (
            h5py.File(f"{here}/one/shard-00000-of-00001.h5") as one,
            h5py.File(f"{here}/two/shard-00000-of-00001.h5") as two,
        ):
            norm, score = one["gradient_norm"][:12].astype(float), one["score"][:12].astype(float).diagonal()
            check(np.allclose(norm**2, score, rtol=2e-4), f"{modules}: norms", np.abs(norm**2 / score - 1).max())
            check(
                np.array_equal(one["gradient_norm"][:], two["gradient_norm"][:]), f"{modules}: the same on another grid"
            )
            layers = one["layer_score"][:].astype(float).sum(2)
            check(np.allclose(layers, one["score"][:], rtol=1e-4, atol=1e-4), f"{modules}: layers still add up")


def test_quick():
    """Few retrainings; the same numbers on any number of ranks; parts of the truth that belong to others."""
    config("quick")
    done = validate("quick", "--ranks", 1)
    check(done.returncode == 0 and "fewer than 8 subsets: no intervals" in done.stdout, "few retrainings", done.stdout)
    found = read("quick/lds.json")["result"]["halves"]
    check(all(row["interval"] is None for row in found["rows"]), "no intervals of few retrainings")
    check(
        "cannot predict" in done.stdout and any(q["flag"] for q in read("quick/lds.json")["queries"]),
        "flagged",
        done.stdout,
    )
    shutil.move(path("quick"), path("before"))
    check(validate("quick", "--ranks", 2).returncode == 0, "two ranks")
    check(read("quick/lds.json") == read("before/lds.json"), "on two ranks the same numbers")
    write_part("less.h5", 120)
    for name, changes, *parts in (
        ("tokens", {"more": "# less"}, "other token files"),
        ("epochs", {"epochs": 2}, "epochs 1", "has 2", "bank.h5"),
        ("seed", {"model": "seed = 101", "more": "first_seed = 7"}, "seed 101", "bank.h5"),
        ("other", {"model": 'start = "quick/model"'}, 'beginning "config"'),
    ):
        more = f'{changes.pop("more", "")}\nhalves_bank = "quick/halves/bank"'
        text = first(f"other-{name}", **{**changes, "more": more})
        write(f"other-{name}.toml", text.replace('config = "in/new"\n', "") if "start" in text else text)
        if name == "tokens":
            write(f"other-{name}.toml", text.replace("in/tokens/corpus.h5", "less.h5"))
        done = validate(f"other-{name}")
        check(
            done.returncode == 1 and all(part in done.stderr for part in parts),
            f"a bank of others: {name}",
            done.stderr[-500:],
        )
    config("quick", epochs=2)
    done = validate("quick")
    check(
        done.returncode == 1 and "was made from other inputs or options" in done.stderr,
        "other options",
        done.stderr[-500:],
    )
    config("quick", top="seed = 3")
    done = validate("quick")
    check(
        done.returncode == 1 and "subsets/000.txt" in done.stderr and "remove" in done.stderr,
        "other subsets",
        done.stderr,
    )


def write_part(name, sequences):
    """The first sequences of the corpus as a token file."""
    with h5py.File(path("in/tokens/corpus.h5")) as file, h5py.File(path(name), "w") as part:
        part["token"], part["count"] = file["token"][: 64 * sequences], np.full(sequences, 64, "u4")
        part.attrs["tokenizer_hash"] = file.attrs["tokenizer_hash"]


def few_config(more, names):
    """48 sequences and 5 queries, which are quick to train without."""
    if not os.path.exists(path("few48.h5")):
        write_part("few48.h5", 48)
    text = first("few", epochs=2, more=more, names=names)
    write("few.toml", text.replace("in/tokens/corpus.h5", "few48.h5").replace("in/queries.h5", "in/few.h5"))


def bank(name, *index):
    with h5py.File(path(f"few/{name}/bank.h5")) as file:
        return file["query_loss"][:][index] if index else file["query_loss"][:]


def masked(name):
    with open(path(f"few/{name}.txt"), encoding="utf-8") as file:
        return [tuple(map(int, line.split())) for line in file]


def test_masks_of_others():
    """No sum over sequences predicts what a bank with masks measures."""
    config("other-masks", more='halves_bank = "step-without"')
    done = validate("other-masks")
    check(done.returncode == 1 and "trained with masks" in done.stderr, "a bank with masks", done.stderr[-300:])


def test_removals():
    """Sequences, loss terms and single sequences left out, from the files of the stages."""
    more = "[qld]\nqueries = 3\nrandom = 2\nseeds = 1\nshare = 0.1\ntokens = true\ntoken_share = 0.02\n"
    more += "[local]\npairs = 6\nseeds = 2\ndamping = 1\nsteps = 15"
    few_config(more, '["random", "cosine", "ekfac"]')
    done = validate("few", "--parts", "qld,local")
    check(done.returncode == 0, "qld, local", done.stderr[-500:])
    check_qld(read("few/qld.json")["result"])
    check_tokens(read("few/qld.json")["result"]["tokens"], done.stdout)
    check_local(read("few/local.json")["result"], done.stdout)
    again = validate("few", "--parts", "qld,local")
    check(again.stdout == done.stdout and " s\n" not in again.stderr, "again: the same, nothing anew", again.stderr)
    changed = glob.glob(path("few/local/start/masks/*.txt"))[-1]
    write(os.path.relpath(changed, FOLDER), "0 1\n")
    refused = validate("few", "--parts", "local")
    check(
        refused.returncode == 1 and changed in refused.stderr and "remove" in refused.stderr,
        "another mask",
        refused.stderr,
    )


REMOVED_FOR = 0, 1, 3  # three of five queries, spread over them


def check_qld(found):
    check(found["removed"] == 5 and len(found["rows"]) == 3, "sizes", found["removed"])
    with h5py.File(path("few/qld/ekfac-mlp/bank/bank.h5")) as file:
        counts, losses = file["member/count"][:], file["query_loss"][:]
    random = bank("qld/random-removals/bank")
    check((counts == 43).all() and losses.shape == (3, 1, 5), "a model without each query's best")
    wanted = [(losses[i, 0, q] - (random[0, 0, q] + random[1, 0, q]) / 2) / 63 for i, q in enumerate(REMOVED_FOR)]
    check(len(found["queries"]) == 3, "which queries", found["queries"])
    check(
        np.allclose(found["rows"][2]["per_query"], wanted), "rise of the loss, above that of random removals, a token"
    )
    with h5py.File(path("few/scores/preconditioner-ekfac/mlp/damping-0.1/shard-00000-of-00001.h5")) as file:
        best = set(np.argsort(-file["score"][:, 3], kind="stable")[:5].tolist())
    with open(path("few/qld/ekfac-mlp/subsets/0003.txt"), encoding="utf-8") as file:
        kept = {int(line) for line in file}
    check(kept == set(range(48)) - best, "what is left out")


def check_tokens(found, said):
    """Masks are the best terms of the explained ranking; a sequence's terms add up to its score."""
    check(found["removed"] == round(48 * 63 * 0.02) == 60, "2 % of the terms", found["removed"])
    check([row["method"] for row in found["rows"]] == ["random", "ekfac"], "no cosine of a term", found["rows"])
    folder = os.path.join(FOLDER, "few/scores/preconditioner-ekfac/mlp/damping-0.1")
    with h5py.File(f"{folder}/ranking.h5") as file, h5py.File(f"{folder}/shard-00000-of-00001.h5") as shard:
        score, order = shard["score"][:].astype(float), file["top/sequence"][3]
        value = file["top/output_token_score"][:].astype(float).reshape(5, 48, 63)[3]
    check(np.allclose(value.sum(1), score[order, 3], rtol=1e-3, atol=1e-3), "terms add up to the score")
    every = sorted((-v, order[k], at + 1) for k, row in enumerate(value) for at, v in enumerate(row))
    mask = masked("qld-tokens/ekfac-mlp/masks/0003")
    check(sorted((z, at) for _, z, at in every[:60]) == sorted(mask) and len(set(mask)) == 60, "the best terms")
    for q in (0, 1):
        check(len(set(masked(f"qld-tokens/random/masks/{q:04d}"))) == 60, "as many random ones")
    losses, random = bank("qld-tokens/ekfac-mlp/bank"), bank("qld-tokens/random-removals/bank")
    wanted = [(losses[i, 0, q] - random[:, 0, q].mean()) / 63 for i, q in enumerate(REMOVED_FOR)]
    check(np.allclose(found["rows"][1]["per_query"], wanted), "rise above that of random masks")
    check(
        found["rows"][1]["mean"] > found["rows"][0]["mean"], "the best terms cost more than random ones", found["rows"]
    )
    check("QLD of tokens" in said and "60 loss terms (2 %)" in said, "table")
    ElementTree.parse(path("few/qld-tokens.svg"))


def check_local(found, said):
    pairs, names = found["pairs"], [q["id"] for q in read("few/local.json")["queries"]]
    at = [(names.index(p["query"]), p["sequence"]) for p in pairs]
    with h5py.File(path("few/scores/preconditioner-ekfac/mlp/damping-1/shard-00000-of-00001.h5")) as file:
        score = file["score"][:].astype(float)
    check(len({z for _, z in at}) == 6 and {q for q, _ in at} == {0, 2}, "a sequence each", at)
    for q in (0, 2):
        own = [z for other, z in at if other == q]
        check(own[0] == score[:, q].argmax() and own[-1] == score[:, q].argmin(), "the highest and the lowest")
    check(np.allclose([p["ekfac"] for p in pairs], [score[z, q] / 48 for q, z in at]), "influence over N")
    (shard,) = glob.glob(path("few/local/pbo/scores/*/refine-cg/*/*/mlp/damping-1/shard-*.h5"))
    with h5py.File(shard) as file:
        check([name.decode() for name in file["id"][:]] == [names[0], names[2]], "the pairs' queries are solved")
        solved = file["score"][:].astype(float)
    check(np.allclose([p["pbo"] for p in pairs], [solved[z, q // 2] / 48 for q, z in at]), "the response over N")
    for i, (q, z) in enumerate(at):
        check(masked(f"local/start/masks/{z:06d}") == [(z, t) for t in range(1, 64)], "all terms of the sequence")
        rises = {
            "start": bank("local/start/bank", i, slice(None), q) - bank("local/start-all/bank", 0, slice(None), q),
            "halfway": [bank(f"local/halfway/bank-{s}", i, 0, q) - bank(f"local/halfway/bank-{s}-all", 0, 0, q)
                        for s in (101, 102)],
        }  # fmt: skip
        for name, (a, b) in rises.items():
            check(abs(pairs[i][name] - (a + b) / 2) < 1e-12, f"{name}: mean of seeds")
            check(abs(pairs[i][f"{name}_error"] - abs(a - b) / 2) < 1e-12, f"{name}: its standard error")
            check(0 < abs(a) < 1, f"{name}: something, and little", a)
    with h5py.File(path("few/local/halfway/bank-102/bank.h5")) as file:
        options = json.loads(file["run"].attrs["options"])
    check(options["model"].endswith("model-102/step-00000006") and options["epochs"] == 1, "goes on", options["model"])
    check(abs(options["learning_rate"] - 3e-3 * (0.1 + 0.9 * 0.5)) < 1e-9, "with half a cosine's rate left", options)
    check(abs(options["final_rate"] * options["learning_rate"] - 3e-4) < 1e-9, "to where it ends")
    check(found["note"] and found["note"] in said and "± " in said and found["says"] in said, "said", said[-800:])
    check(all(e["pearson"]["interval"] is None for e in found["compared"]), "no intervals of 6 pairs")
    by = {(e["predicted"], e["measured"]): e["pearson"]["mean"] for e in found["compared"]}
    check(by["ekfac", "pbo"] > 0.5, "EK-FAC is near the objective's response", by)
    figure = ElementTree.parse(path("few/local.svg")).getroot()
    check(len(figure.findall("{http://www.w3.org/2000/svg}svg")) == 3, "a plot for each truth")


def test_masked_step():
    """One step of plain gradient descent on the whole corpus, with and without a sequence's terms: the query's loss rises by the step
    times the dot product of gradients, less what the others gain as the mean is over fewer terms."""
    with h5py.File(path("norms-all/one/shard-00000-of-00001.h5")) as file:
        dot = file["score"][:].astype(float)
    model, tokens, rate, chosen = path("main/model"), path("in/tokens/corpus.h5"), 1e-3, (0, 7, 40, 99)
    masks = [write(f"mask-{z}.txt", "".join(f"{z} {t}\n" for t in range(1, 64))) for z in chosen]
    for name, more in (("with", []), ("without", ["--mask", *masks])):
        stage("train_models", "--model", model, "--tokens", tokens, "--queries", path("self.h5"), "--bank", path(f"step-{name}"),
              "--modules", "all", "--optimizer", "sgd", "--momentum", 0, "--weight-decay", 0, "--clip-norm", 0, "--steps", 1,
              "--batch-tokens", 128 * 64, "--learning-rate", rate, "--schedule", "constant", "--slices", 1, *more)  # fmt: skip
    losses = []
    for name in ("without", "with"):
        with h5py.File(path(f"step-{name}/bank.h5")) as file:
            losses.append(file["query_loss"][:, 0])
    rise, wanted = losses[0] - losses[1], local.shared(dot, np.full(128, 63))[list(chosen)] * rate / (128 * 63)
    check(
        np.allclose(rise, wanted, rtol=0, atol=0.01 * np.abs(wanted).max()),
        "a step without a sequence",
        np.abs(rise / wanted - 1).tolist(),
    )
    check(rise[0, 0] > 2 * np.abs(rise[0, 1:]).max(), "its own copy misses it most", rise[0].tolist())


def test_response():
    """The solve's own residual, correlations recomputed from the score files, and rows of the solves."""
    few_config("[fit]\nseed = 1\n[pbo]\nrank = 4\nsteps = 4", '["random", "dot", "ekfac", "cg"]')
    done = validate("few", "--parts", "pbo")
    check(done.returncode == 0, "pbo", done.stderr[-500:])
    found = read("few/pbo.json")["result"]
    folder = "few/pbo/scores/preconditioner-ekfac/refine-cg/refine_sequences-0/refine_steps-4/mlp/damping-1"
    with h5py.File(path(f"{folder}/compressed.h5")) as file:
        left = file["residual"][:]
    check(
        found["residual"] == left[:, -1].max() < left[:, 0].max() and left.shape[1] > 3, "the solve comes nearer", left
    )
    check(found["sequences"] == 48, "of all sequences", found["sequences"])
    rows = {row["method"]: row for row in found["rows"]}
    check(set(rows) == {"block-diagonal", "labels", "rank", "damping-10", "random", "dot", "ekfac"}, "rows", list(rows))
    scores = {}
    for name in ("preconditioner-ekfac/refine-cg/refine_sequences-0/refine_steps-4/mlp/damping-1",
                 "preconditioner-ekfac/mlp/damping-1"):  # fmt: skip
        with h5py.File(path(f"few/pbo/scores/{name}/shard-00000-of-00001.h5")) as file:
            scores["refine" in name] = file["score"][:].astype(float)
    wanted = [np.corrcoef(scores[True][:, q], scores[False][:, q])[0, 1] for q in range(5)]
    check(np.allclose(rows["ekfac"]["per_query"], wanted, atol=1e-6), "Pearson's correlation")
    check(rows["ekfac"]["mean"] > rows["dot"]["mean"] > rows["random"]["mean"] + 0.1, "EK-FAC is nearest")
    check(rows["labels"]["per_query"] != rows["ekfac"]["per_query"], "labels of another seed than the factors'")
    check(rows["block-diagonal"]["mean"] > rows["ekfac"]["mean"], "layers on their own, solved, are nearer than EK-FAC")


def test_stop():
    """Asked to stop while it trains: exit 75; the same command goes on, to the same numbers."""
    config("quick", epochs=3, top="", subsets=6)
    for folder in ("quick", "before"):
        shutil.rmtree(path(folder), ignore_errors=True)
    check(validate("quick").returncode == 0, "not stopped")
    shutil.move(path("quick"), path("before"))
    command = [sys.executable, f"{SCRIPTS}/validate", path("quick.toml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as job:
        end = time.monotonic() + 300
        while (
            job.poll() is None
            and not glob.glob(path("quick/halves/bank/bank.work/bank-*.h5"))
            and time.monotonic() < end
        ):
            time.sleep(0.01)
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=300)[1]
    check(
        job.returncode == 75 and "run the same command to go on" in said, "stopped", f"{job.returncode}: {said[-300:]}"
    )
    check(not os.path.exists(path("quick/lds.json")), "stopped: no report")
    done = validate("quick")
    check(done.returncode == 0 and read("quick/lds.json") == read("before/lds.json"), "goes on", done.stderr[-300:])


def test_planted_parts():
    names = '["random", "bm25", "ekfac"]'
    more = "[facts]\ncount = 6\n[filter]\ncount = 4"
    config("plant", names=names, more=more)
    done = validate("plant", "--parts", "facts,filter")
    check(done.returncode == 0, "planted parts", done.stderr[-600:])
    facts, reports = read("plant/facts.json")["result"], read("plant/filter.json")["result"]
    check(facts["planted"] == 48 and facts["corpus"] == 128 + 48 and len(facts["rows"]) == 3, "facts", facts["planted"])
    check(reports["planted"] == 64 and all(0 <= x <= 1 for row in reports["rows"] for x in row["per_query"]), "filter")
    check("recall@10" in done.stdout and "AUPRC" in done.stdout, "tables", done.stdout)
    check(done.stdout.count("fewer than 8 queries: no intervals") == 2, "no intervals, and it is said", done.stdout)


def test_example():
    """The annotated file has the defaults."""
    with open(os.path.join(SCRIPTS, "../jobs/validate.toml"), "rb") as file:
        example = tomllib.load(file)
    for table in ("lds", "qld", "pbo", "local", "facts", "filter"):
        for key, value in example[table].items():
            check(TABLES[table][key].default == value, f"jobs/validate.toml: [{table}] {key}", value)
        given = {key for key, of in TABLES[table].items() if of.default is not None}
        check(given - {"seed"} == set(example[table]), f"jobs/validate.toml: [{table}] has all", given)


def test_refusals():
    trained = next(iter(sorted(glob.glob(path("*/model")))))
    for name, text, *parts in (
        ("many", first("many", subsets=129), "129 subsets", "128 sequences"),
        ("key", first("key", more="sedes = 3"), "[lds] sedes", "is unknown"),
        ("value", first("value", epochs='"two"'), "[train] epochs", "a whole number"),
        ("table", first("table", more="[nothing]"), "[nothing] is unknown"),
        ("method", first("method", names='["magic"]'), "[methods] names", "ekfac"),
        ("own", first("own", more="first_seed = 0"), "the scored model has seed 0"),
        ("none", first("none", subsets=1), "two subsets or more"),
        (
            "save",
            first("save", epochs="1\nsave_steps = 5"),
            "[train] save_steps",
            "is unknown",
        ),
        (
            "shampoo",
            first("shampoo", more='[fit]\npreconditioner = "shampoo"'),
            "[fit] preconditioner",
            "is unknown",
        ),
        (
            "drop",
            first("drop", more='kinds = ["drops"]\ndrop = 0.001'),
            "[lds] drop",
            "is none",
        ),
        ("files", first("files").replace("corpus.h5", "no.h5"), "[model] tokens", "no.h5"),
        (
            "pairs",
            first("pairs", epochs=2, more="[local]\npairs = 129").replace('["lds"]', '["local"]'),
            "[local] pairs",
            "128 sequences",
        ),
        (
            "two",
            first("two", more="[local]\npairs = 2").replace('["lds"]', '["local"]'),
            "three pairs",
        ),
        (
            "epoch",
            first("epoch", epochs=1).replace('["lds"]', '["local"]'),
            "[train] epochs",
            "two or more",
        ),
        (
            "seed0",
            first("seed0", epochs=2, more="[local]\nfirst_seed = 0").replace('["lds"]', '["local"]'),
            "[local] first_seed",
            "seed 0",
        ),
        (
            "share",
            first("share", more="[qld]\ntokens = true\ntoken_share = 0.00001").replace('["lds"]', '["qld"]'),
            "[qld] token_share",
            "8064 loss terms is none",
        ),
        (
            "many",
            first("many", more="[qld]\nqueries = 1000").replace('["lds"]', '["qld"]'),
            "[qld] queries",
            "at most as many",
        ),
        (
            "refined",
            first("refined").replace('["mlp"]', '["mlp"]\nrefined_modules = ["head"]'),
            "[methods] refined_modules",
            '"head" is none of modules',
        ),
        (
            "bank",
            first("bank", more='halves_bank = "nope"'),
            "[lds] halves_bank",
            "bank.h5",
        ),
        (
            "trained",
            first("trained", model='trained = "nope"'),
            "[model] trained",
            "log.h5",
        ),
        (
            "asked",
            first("asked", more='[pbo]\nqueries = "nope.h5"'),
            "[pbo] queries",
            "nope.h5",
        ),
        (
            "seeded",
            first("seeded", model=f'trained = "{trained}"\nseed = 7'),
            "[model] seed",
            "was trained with seed 0, not 7",
        ),
        (
            "otherwise",
            first("otherwise", epochs=9, model=f'trained = "{trained}"'),
            "[train] epochs",
            "not 9; give that",
        ),
        (
            "one",
            first("one", more="[facts]\ncount = 1").replace('["lds"]', '["facts"]'),
            "[facts] count",
            "nothing to find",
        ),
        ("flag", first("flag", more="[qld]\ntokens = 1"), "[qld] tokens", "true or false"),
        ("toml", "output = ", "not TOML"),
    ):
        write(f"{name}.toml", text)
        done = validate(name)
        last = done.stderr.strip().split("\n")[-1]
        check(not os.path.exists(path(f"{name}/model")), f"{name}: refused before anything is trained")
        check(
            done.returncode == 1 and all(p in last for p in parts) and f"{name}.toml" in last, name, done.stderr[-400:]
        )
    config("asked-for", epochs=2, more="[local]\npairs = 2")
    refused("a part of the command line", validate("asked-for", "--parts", "local"), "asked-for.toml", "three pairs")
    refused("part", validate("many", "--parts", "lsd"), "--parts", "lsd", code=2)
    refused("file", run_script("validate", path("absent.toml")), "absent.toml")


test_statistics()
test_rows()
test_members()
test_fallback_damping()
test_intervals()
test_reliability()
test_pairs()
test_planted()
make_inputs()
test_experiment()
test_norms()
test_masked_step()
test_quick()
test_masks_of_others()
test_removals()
test_response()
test_stop()
test_planted_parts()
test_example()
test_refusals()
finish()
