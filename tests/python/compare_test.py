#!/usr/bin/env python3
"""compare_scales: every number of compare.h5 against slow definitions of it, on three rankings of tiny models, in any number of
ranks; and what it refuses."""

from engine_checks import FOLDER, check, close, engine, finish, same_file

import itertools
import math
import os
import shutil
import subprocess

import h5py
import numpy as np

from check_goldens import write_tokens

DRAW = np.random.default_rng(11)
VOCABULARY, TOP, NGRAMS = 40, 4, 3
LENGTHS = DRAW.integers(5, 13, 60)
SEQUENCES = [DRAW.integers(0, VOCABULARY, n) for n in LENGTHS]
KINDS = ["fact", "code", "fact"]
# documents of one or two sequences; one is of no query, one is named twice, one is not in the corpus
RELATED = [
    ("q0", "same words", ["doc/3", "doc/4"]),
    ("q0", "paraphrase", ["doc/7", "doc/7"]),
    ("q1", "same words", ["doc/3", "elsewhere"]),
    ("q1", "left out", ["nowhere"]),
]
DOCUMENT = [i // 2 for i in range(40)] + list(range(20, 40))


def path(name):
    return os.path.join(FOLDER, name)


def make_queries(name="queries.h5", ids=("q0", "q1", "q2")):
    """Each begins as a sequence does, so that something overlaps."""
    queries = [np.concatenate([SEQUENCES[5 * i][:4], DRAW.integers(0, VOCABULARY, 3)]) for i in range(len(ids))]
    write_tokens(path(name), queries, 3)
    with h5py.File(path(name), "a") as file:
        text = h5py.string_dtype()
        file.create_dataset("kind", data=KINDS[: len(ids)], dtype=text)
        rows = [(q, relation, document) for q, relation, documents in RELATED for document in documents if q in ids]
        file["related/count"] = np.array([sum(row[0] == q for row in rows) for q in ids], "u4")
        file.create_dataset("related/relation", data=[row[1] for row in rows], dtype=text)
        file.create_dataset("related/document", data=[row[2] for row in rows], dtype=text)
    return path(name), queries


def make_tokens():
    write_tokens(path("tokens.h5"), SEQUENCES)
    with h5py.File(path("tokens.h5"), "a") as file:
        file["document"] = np.array(DOCUMENT, "i8")
        file["start"] = np.zeros(len(DOCUMENT), "i8")
        names = [f"doc/{i}" for i in range(max(DOCUMENT) + 1)]
        file.create_dataset("documents/id", data=names, dtype=h5py.string_dtype())
    return path("tokens.h5")


TOKENS = make_tokens()
QUERIES, QUERY_TOKENS = make_queries()


def rank(case, name, compress=(), score=(), queries=None):
    """(ranking, Engine) of a model of tests/goldens."""
    work = engine(case, name)
    factors = work.fit(TOKENS, "factors")
    compressed = work.compress(factors, queries or QUERIES, "compressed.h5", "--rank", 4, *compress)
    for shard in ("0/2", "1/2"):
        work.score(compressed, TOKENS, "scores", "--layer-scores", "--shard", shard, *score)
    return work.merge(work.path("scores"), "ranking.h5", "--top", 6), work


def compare(output, rankings, names, *more, ranks=0):
    work = engine("llama", "compare", ranks=ranks)
    given = ["--rankings", *rankings, "--names", *names, "--tokens", TOKENS, "--queries", QUERIES]
    command = work.command("compare_scales", *given, "--output", path(output), "--top", TOP, *more)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def scores_of(work):
    """[query, sequence] of a model, NaN where there is none; [query, sequence, layer]."""
    found = layers = None
    for shard in ("00000-of-00002", "00001-of-00002"):
        with h5py.File(f"{work.path('scores')}/shard-{shard}.h5") as file:
            if found is None:
                found = np.full((file["score"].shape[1], len(SEQUENCES)), np.nan)
                layers = np.full((*found.shape, file["layer_score"].shape[2]), np.nan)
            found[:, file["sequence"][()]] = file["score"][()].T
            layers[:, file["sequence"][()]] = file["layer_score"][()].transpose(1, 0, 2)
    return found, layers


# ---------------------------------------------------------------- slow definitions


def ngrams(tokens):
    return {tuple(tokens[i : i + n]) for n in range(1, NGRAMS + 1) for i in range(len(tokens) - n + 1)}


CORPUS_GRAMS = [ngrams(z) for z in SEQUENCES]


def idf(gram):
    n = sum(gram in grams for grams in CORPUS_GRAMS)
    return math.log((len(SEQUENCES) - n + 0.5) / (n + 0.5) + 1)


def slow_bm25():
    return np.array([[sum(idf(g) for g in ngrams(q) & grams) for grams in CORPUS_GRAMS] for q in QUERY_TOKENS])


def slow_run(a, b):
    runs = [n for i, j in itertools.product(range(len(a)), range(len(b)))
            for n in range(1, len(a) + 1) if i + n <= len(a) and j + n <= len(b) and all(a[i:i + n] == b[j:j + n])]  # fmt: skip
    return max(runs, default=0)


def order_of(scores):
    """Sequences with a score, best first, then by number."""
    return sorted((z for z in range(len(scores)) if not np.isnan(scores[z])), key=lambda z: (-scores[z], z))


def places(scores):
    """From 1, the mean where scores are equal."""
    return {
        z: 1 + sum(y > scores[z] for y in scores) + (sum(y == scores[z] for y in scores) - 1) / 2
        for z in order_of(scores)
    }


def slow_spearman(a, b):
    known = [z for z in range(len(a)) if not np.isnan(a[z])]
    x, y = ([places(s)[z] for z in known] for s in (a, b))
    return float(np.corrcoef(x, y)[0, 1])


def related_sequences(query, relation):
    documents = next(found for q, r, found in RELATED if (q, r) == (query, relation))
    return [z for z, d in enumerate(DOCUMENT) if f"doc/{d}" in documents]


def check_pairs(file, every):
    pairs = list(zip(file["pair/query"][()].tolist(), file["pair/relation"].asstr()[()].tolist()))
    wanted = [(int(q[1:]), relation) for q, relation, _ in RELATED]
    check(pairs == wanted, "pairs", pairs)
    for (m, scores), (p, (q, relation)) in itertools.product(enumerate(every), enumerate(pairs)):
        name = f"model {m}, query {q}, {relation}"
        inside, row = related_sequences(f"q{q}", relation), scores[q]
        scored = [z for z in inside if not np.isnan(row[z])]
        check(file["pair/sequences"][p] == len(inside), f"{name}: sequences")
        check(file["pair/scored"][m, p] == len(scored), f"{name}: scored")
        values = {key: file[f"pair/{key}"][m, p] for key in ("mean", "z", "place", "percentile", "positive", "top")}
        if not scored:
            check(all(np.isnan(v) for v in values.values()), f"{name}: nothing is known", values)
            continue
        known, place, top = row[~np.isnan(row)], places(row), order_of(row)[:TOP]
        below = [(sum(known < row[z]) + (sum(known == row[z]) - 1) / 2) / (len(known) - 1) for z in scored]
        slow = {
            "mean": row[scored].mean(),
            "z": (row[scored].mean() - known.mean()) / known.std(),
            "place": min(place[z] for z in scored),
            "percentile": np.mean(below),
            "positive": row[scored].clip(0).sum() / known.clip(0).sum(),
            "top": sum(z in top for z in scored) / len(top),
        }
        for key, value in slow.items():
            close(f"{name}: {key}", values[key], value, 1e-5)


def check_models(file, every):
    bm25 = every[-1]
    for m, q in itertools.product(range(len(every)), range(3)):
        row, name = every[m][q], f"model {m}, query {q}"
        known, order = row[~np.isnan(row)], order_of(row)
        check(file["count"][m, q] == len(known), f"{name}: count")
        close(f"{name}: mean", file["mean"][m, q], known.mean(), 1e-5)
        close(f"{name}: sd", file["sd"][m, q], known.std(), 1e-5)
        best = row[order[: math.ceil(len(known) / 100)]].clip(0).sum()
        close(f"{name}: best 1 %", file["top_percent"][m, q], best / known.clip(0).sum(), 1e-5)
        tail = file["tail"][m, q]
        check(len(tail) == 50, f"{name}: length of the tail", len(tail))
        close(f"{name}: tail", tail[: len(order)], row[order[:50]], 1e-6)
        check(np.isnan(tail[len(order) :]).all(), f"{name}: the tail's end")
        check(file["top/sequence"][m, q].tolist() == order[:TOP], f"{name}: best", file["top/sequence"][m, q])
        close(f"{name}: their scores", file["top/score"][m, q], row[order[:TOP]], 1e-6)
        for i, z in enumerate(order[:TOP]):
            weight = sum(map(idf, ngrams(QUERY_TOKENS[q])))
            close(f"{name}: overlap {i}", file["top/overlap"][m, q, i], bm25[q][z] / weight, 1e-6)
            check(file["top/run"][m, q, i] == slow_run(SEQUENCES[z], QUERY_TOKENS[q]), f"{name}: run {i}")
            place = order_of(bm25[q]).index(z) + 1 if bm25[q][z] > 0 else -1
            check(file["top/bm25_place"][m, q, i] == place, f"{name}: place by BM25", (place, i))


def check_agreement(file, every):
    for a, b, q in itertools.product(range(len(every)), range(len(every)), range(3)):
        found, wanted = file["agreement/spearman"][a, b, q], slow_spearman(every[a][q], every[b][q])
        close(f"spearman of {a} and {b}, query {q}", found, wanted, 1e-6)
        tops = [order_of(every[m][q])[:TOP] for m in (a, b)]
        close(f"best of {a} and {b}", file["agreement/top"][a, b, q], len(set(tops[0]) & set(tops[1])) / TOP, 1e-9)


def check_layers(file, layers, every):
    at = 0
    check(file["layer/count"][()].tolist() == [x.shape[2] for x in layers] + [0], "layers")
    for m, q in itertools.product(range(len(layers)), range(3)):
        at = sum(x.shape[2] for x in layers[:m])
        best = layers[m][q, order_of(every[m][q])[:TOP]].sum(0)
        close(f"layers of {m}, query {q}", file["layer/share"][at : at + len(best), q], best / best.sum(), 1e-4)


def check_sparsity(file, work):
    """Of the second model, which was explained; its ranking has more sequences than are compared."""
    check(np.isnan(file["top/sparsity"][0]).all(), "no token scores, no sparsity")
    found = 0
    with h5py.File(work.path("ranking.h5")) as ranking:
        count, values, at = ranking["top/count"][()], ranking["top/token_score"][()], 0
        for q, i in np.ndindex(count.shape):
            x = values[at : at + count[q, i]].astype(float)
            at += count[q, i]
            place = np.flatnonzero(file["top/sequence"][1, q] == ranking["top/sequence"][q, i])
            if place.size:
                slow = math.sqrt((x * x).sum()) / abs(x).sum()
                close(f"sparsity {q} {i}", file["top/sparsity"][1, q, place[0]], slow, 1e-6)
                found += 1
    check(found > TOP and np.isfinite(file["top/sparsity"][1]).sum() == found, "only of what is explained", found)


# ---------------------------------------------------------------- checks

candidates = path("candidates.h5")
with h5py.File(candidates, "w") as made:
    made["sequence"] = np.array([z for z in range(len(SEQUENCES)) if z % 5 != 2], "i8")
FIRST, FIRST_WORK = rank("llama", "first")
SECOND, SECOND_WORK = rank("gpt2", "second")
SECOND_WORK.score(SECOND_WORK.path("compressed.h5"), TOKENS, "scores", "--explain", SECOND)
THIRD, THIRD_WORK = rank("llama", "third", ["--preconditioner", "identity"], ["--candidates", candidates])
NAMES = ["small", "large", "small:dot"]
RANKINGS = [FIRST, SECOND, THIRD]
DONE = compare("compare.h5", RANKINGS, NAMES)
check(DONE.returncode == 0, "it runs", DONE.stderr)
PARTS = [scores_of(work) for work in (FIRST_WORK, SECOND_WORK, THIRD_WORK)]
EVERY = [scores for scores, _ in PARTS] + [slow_bm25()]
COMMON = ~np.isnan(EVERY[2][0])  # the third model has scored fewer; only what all have scored is compared
EVERY = [np.where(COMMON, scores, np.nan) for scores in EVERY]
check(0 < COMMON.sum() < len(SEQUENCES), "some sequences are candidates", COMMON.sum())
with h5py.File(path("compare.h5")) as made:
    check(made["model"].asstr()[()].tolist() == [*NAMES, "bm25"], "models")
    check(made["query"].asstr()[()].tolist() == ["q0", "q1", "q2"], "queries")
    check(made["kind"].asstr()[()].tolist() == KINDS, "kinds")
    check(np.isnan(made["loss"][()]).all() and np.isnan(made["parameters"][()]).all(), "what is not given is not known")
    check_models(made, EVERY)
    check_pairs(made, EVERY)
    check_agreement(made, EVERY)
    check_layers(made, [layers for _, layers in PARTS], EVERY)
    check_sparsity(made, SECOND_WORK)
for n_ranks in (2, 4):
    DONE = compare(f"ranks-{n_ranks}.h5", RANKINGS, NAMES, ranks=n_ranks)
    check(DONE.returncode == 0, f"{n_ranks} ranks", DONE.stderr)
    same_file(f"{n_ranks} ranks", path(f"ranks-{n_ranks}.h5"), path("compare.h5"))
check("already done" in compare("compare.h5", RANKINGS, NAMES).stderr, "again: already done")
# one model; losses and sizes
bank = path("losses")


def train(folder, rate):
    FIRST_WORK.run("train_models", "--model", FIRST_WORK.model, "--tokens", TOKENS, "--queries", QUERIES, "--bank", folder,
                   "--steps", 1, "--learning-rate", rate, "--weight-decay", 0, "--batch-tokens", 2, "--slices", 1)  # fmt: skip


train(bank, 0)
DONE = compare("one.h5", [FIRST], ["one"], "--losses", f"{bank}/bank.h5", "--models", FIRST_WORK.model, "--no-layers")
check(DONE.returncode == 0 and '"one" is the only model' in DONE.stderr, "one model", DONE.stderr)
with h5py.File(path("one.h5")) as made, h5py.File(f"{bank}/bank.h5") as trained:
    close("loss a token", made["loss"][0], trained["query_loss"][0, 0] / 4, 1e-9)
    check(np.isnan(made["loss"][1]).all(), "BM25 has no loss")
    check(made["parameters"][0] > 1000 and "layer" not in made, "parameters, and no layers")
# moved with its shards
shutil.copytree(FIRST_WORK.folder, path("moved"))
shutil.move(FIRST_WORK.folder, path("hidden"))
DONE = compare("moved.h5", [path("moved/ranking.h5")], ["one"])
check(DONE.returncode == 0, "a folder that was moved", DONE.stderr)
shutil.move(path("hidden"), FIRST_WORK.folder)
DONE = compare("one.h5", [FIRST], ["one"], "--losses", f"{bank}/bank.h5", "--no-layers")
check(DONE.returncode == 1 and "remove it" in DONE.stderr, "sizes are part of the call", DONE.stderr)


def refused(name, done, *parts, code=1):
    text = done.stderr.strip()
    check(done.returncode == code and all(part in text for part in parts), name, f"{done.returncode}: {text[-500:]}")


refused("too few names", compare("x.h5", RANKINGS, NAMES[:2]), "--names has 2 values", "3 rankings", code=2)
refused("a name twice", compare("x.h5", RANKINGS, ["a", "b", "a"]), '"a" is there twice', code=2)
for bad in ("bm25", "", "a@", "@5", "a@b", "a:", "a b", "bm25@5", "a:b@5"):
    refused(f"the name {bad!r}", compare("x.h5", [FIRST], [bad]), "SIZE[@STEP][:METHOD]", code=2)
refused("one ranking twice", compare("x.h5", [FIRST, FIRST], ["a", "b"]), "are one ranking", '"b"', code=2)
refused("no folder", compare("nowhere/x.h5", [FIRST], ["a"]), "cannot write into", "nowhere")
more = ("--models", SECOND_WORK.model)
refused("another model's size", compare("x.h5", [FIRST], ["a"], *more), SECOND_WORK.model, "is not the model")
more = ("--losses", f"{bank}/bank.h5")
refused("another model's losses", compare("x.h5", [SECOND], ["a"], *more), "is not of the model", SECOND)
train(path("trained"), 1e-3)
more = ("--losses", path("trained/bank.h5"))
refused("losses of a training", compare("x.h5", [FIRST], ["a"], *more), "were trained", "--learning-rate 0")
FEWER, _ = make_queries("fewer.h5", ("q0", "q1"))
SHORT, SHORT_WORK = rank("llama", "short", queries=FEWER)
refused("a query that one model lacks", compare("x.h5", [FIRST, SHORT], ["a", "b"]), SHORT, '"q2"')
plain = SHORT_WORK.score(FIRST_WORK.path("compressed.h5"), TOKENS, "plain-scores")
NO_LAYERS = SHORT_WORK.merge(plain, "plain.h5")
refused("no layer scores", compare("x.h5", [NO_LAYERS], ["a"]), "plain-scores/shard-00000-of-00001.h5", "--no-layers")
check(compare("plain.h5", [NO_LAYERS], ["a"], "--no-layers").returncode == 0, "compared without layers")
other = path("other.h5")
write_tokens(other, SEQUENCES[::-1])
elsewhere = SHORT_WORK.score(FIRST_WORK.path("compressed.h5"), other, "other-scores", "--layer-scores")
refused("another corpus", compare("x.h5", [SHORT_WORK.merge(elsewhere, "other-ranking.h5")], ["a"]), "token file 1")
os.remove(f"{THIRD_WORK.path('scores')}/shard-00001-of-00002.h5")
refused("a shard that is gone", compare("x.h5", RANKINGS, NAMES), "is gone", "third")
check(not os.path.exists(path("x.h5")), "nothing is left of a refusal")
finish(300)
