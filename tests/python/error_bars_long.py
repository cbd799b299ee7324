#!/usr/bin/env python3
"""The error bars of a ranking: Λ of half the sequences, the variances of a score's errors by their definitions in float64, what
truncation and another sample really change, and what of it an explained ranking says."""

from engine_checks import FOLDER, check, close, corpus, engine, finish, plain_gpt2, same_file

import os
import shutil

import h5py
import numpy as np

from check_goldens import shard_scores, write_tokens

MODEL = plain_gpt2("plain", 32, 2, 64, 64)
TOKENS = write_tokens(f"{FOLDER}/tokens.h5", corpus(96, longest=48))
RANDOM = np.random.default_rng(4)
QUERIES = write_tokens(f"{FOLDER}/queries.h5", [RANDOM.integers(0, 64, 12) for _ in range(5)], [3, 1, 6, 2, 11])
DAMPING, RANK, TOP = 0.1, 6, 16
WORK = engine(MODEL, "work")
FACTORS = WORK.fit(TOKENS, "factors", "--unit-sequences", 16)


def modules(path):
    with h5py.File(path, "r") as file:
        found = []
        file.visit(lambda name: found.append(name[: -len("/left")]) if name.endswith("/left") else None)
        return found


def rms(x):
    return np.sqrt((np.asarray(x, float) ** 2).mean(0))


def scores(compressed, name, *options):
    return shard_scores(WORK.score(compressed, TOKENS, name, *options)).astype(float)


# ---------------------------------------------------------------- Λ of half the sequences

half = WORK.fit(TOKENS, "half", "--unit-sequences", 16, "--lambda-sequences", "0:48")
one_unit = WORK.fit(TOKENS, "one-unit", "--unit-sequences", 96)
whole = WORK.compress(FACTORS, QUERIES, "whole.h5", "--rank", "full")
with h5py.File(f"{FACTORS}/index.h5") as a, h5py.File(f"{half}/index.h5") as b, h5py.File(f"{one_unit}/index.h5") as c:
    for module in modules(whole):
        mine, own = a[module], b[module]["lambda"]
        close(f"{module}: the first half of the units", mine["lambda_half"][()], own[()], 2e-6)
        check(mine["lambda_half"].attrs["n_sequences"] == 48, f"{module}: it says of how many sequences")
        mean = mine["lambda"][()].astype(float).mean()
        close(f"{module}: the mean", mine["lambda"].attrs["mean"], mean, 1e-6)
        check("lambda_half" not in c[module], f"{module}: a single unit has no half")

# ---------------------------------------------------------------- variances by their definitions


def expected_variances(compressed, fitted=FACTORS):
    """{module: (sampling, variance) [query]} of vectors that are kept whole."""
    found = {}
    with h5py.File(f"{fitted}/index.h5") as factors, h5py.File(compressed) as file:
        for m in modules(compressed):
            left, right = (file[m][side][()].astype(float) for side in ("left", "right"))
            q_s, q_a = (factors[m][f"{side}_eigenvectors"][()].astype(float) for side in ("gradient", "activation"))
            c, h = (factors[m][name][()].astype(float) for name in ("lambda", "lambda_half"))
            p = np.einsum("po,qpr,qmr,mi->qoi", q_s, left, right, q_a)
            of_half = p * (c + DAMPING * c.mean()) / (h + DAMPING * h.mean())
            n, first = (factors[m][name].attrs["n_sequences"] for name in ("lambda", "lambda_half"))
            apart = (c * (of_half - p) ** 2).sum((1, 2)) * first / (n - first)
            found[m] = apart, (c * p**2).sum((1, 2))
    return found


wanted, sampling = expected_variances(whole), 0
with h5py.File(whole) as file:
    for m, (error, variance) in wanted.items():
        close(f"{m}: sampling", file[m]["sampling"][()], error, 2e-4)
        close(f"{m}: variance", file[m]["variance"][()], variance, 2e-4)
        sampling = sampling + error
    with h5py.File(f"{FACTORS}/index.h5") as factors:
        trace = sum(factors[m]["lambda"][()].astype(float).sum() for m in wanted)
    close("the norm that a gradient is expected to have", file.attrs["expected_squared_norm"], trace, 1e-5)

# what is called half may be most: two units, of 80 and of 16
uneven = WORK.fit(TOKENS, "uneven", "--unit-sequences", 80)
compressed = WORK.compress(uneven, QUERIES, "uneven.h5", "--rank", "full")
total = {}
for name, path, fitted in (("even", whole, FACTORS), ("uneven", compressed, uneven)):
    with h5py.File(path) as file:
        for m, (error, _) in expected_variances(path, fitted).items():
            close(f"{name}, {m}: sampling", file[m]["sampling"][()], error, 2e-4)
            total[name] = total.get(name, 0) + error
ratio = np.sqrt(total["uneven"] / total["even"])
check((ratio > 0.4).all() and (ratio < 2.5).all(), "an uneven half says about the same of the sample", ratio.round(2))

# ---------------------------------------------------------------- what really changes

# Λ stands for the mean of the training gradients' squares, as their own labels' do not: factors of these
own_labels = WORK.fit(TOKENS, "own", "--unit-sequences", 16, "--empirical-fisher")
own_half = WORK.fit(TOKENS, "own-half", "--unit-sequences", 16, "--empirical-fisher", "--lambda-sequences", "0:48")
vectors = {
    name: WORK.compress(factors, QUERIES, f"{name}.h5", "--rank", rank)
    for name, factors, rank in (
        ("own-whole", own_labels, "full"),
        ("own-other", own_half, "full"),
        ("own-short", own_labels, RANK),
    )
}
found = {name: scores(path, f"scores-{name}") for name, path in vectors.items()}


def said(path, name):
    with h5py.File(path) as file:
        return np.sqrt(sum(file[m][name][()] for m in modules(path)))


for what, other, predicted in (
    ("another sample", "own-other", said(vectors["own-whole"], "sampling")),
    ("truncation", "own-short", said(vectors["own-short"], "error")),
):
    ratio = rms(found[other] - found["own-whole"]) / predicted
    check((ratio > 0.5).all() and (ratio < 2).all(), f"{what} changes scores as much as is said", ratio.round(2))

# ---------------------------------------------------------------- an explained ranking

compressed = WORK.compress(FACTORS, QUERIES, "compressed.h5", "--rank", RANK)
scored = WORK.score(compressed, TOKENS, "scores", "--gradient-norms")
with h5py.File(os.path.join(scored, "shard-00000-of-00001.h5")) as file:
    norm = file["gradient_norm"][()].astype(float)


def rank(name, queries):
    return WORK.merge(WORK.score(queries, TOKENS, f"{name}-scores"), f"{name}.h5", "--top", TOP)


def explain(name, work, ranking, queries):
    work.run(
        "score_shards", "--model", MODEL, "--queries", queries, "--tokens", TOKENS, "--explain", ranking,
        "--output", os.path.join(FOLDER, f"{name}-explained")
    )  # fmt: skip
    return ranking


def agreement(score, error, places, draws=20000):
    moved = score + error * np.random.default_rng(0).normal(size=(draws, len(score)))
    best = np.argsort(-moved, 1)[:, :places]
    return (best < places).mean()


ranking = rank("ranking", compressed)
others = [(name, shutil.copy(ranking, f"{FOLDER}/{name}.h5")) for name in ("three", "pipeline")]
explain("ranking", WORK, ranking, compressed)
with h5py.File(ranking) as file:
    sd = np.hypot(said(compressed, "error"), said(compressed, "sampling")) / np.sqrt(trace)
    close("truncation", file["error/truncation"][()], said(compressed, "error"), 1e-6)
    close("sampling", file["error/sampling"][()], said(compressed, "sampling"), 1e-6)
    for side in ("top", "bottom"):
        error = sd[:, None] * norm[file[side]["sequence"][()]]
        close(f"{side}: errors", file[side]["score_error"][()], error, 1e-4)
    places = file["error/agreement"].attrs["places"]
    check(places == TOP // 2, "places", places)
    for q, share in enumerate(file["error/agreement"][()]):
        wanted_share = agreement(file["top/score"][q].astype(float), file["top/score_error"][q].astype(float), places)
        check(abs(share - wanted_share) < 0.04, f"agreement of query {q}", f"{share:.3f}, {wanted_share:.3f}")
        check(0.1 < share < 1, f"query {q}: something is at stake", share)

for (name, other), options in zip(others, ({"ranks": 3}, {"ranks": 2, "common": ("--pipeline", 2)})):
    explain(name, engine(MODEL, f"work-{name}", **options), other, compressed)
    same_file(f"{name}: explained", other, ranking, ignore=("@explain_options",))

# ---------------------------------------------------------------- not known


def is_unknown(name, path, *fields):
    with h5py.File(path) as file:
        for field in fields:
            check(np.isnan(file[field][()]).all(), f"{name}: {field} is not known")


for name, factors, options in (
    ("no halves", one_unit, ()),
    ("K-FAC", FACTORS, ("--preconditioner", "kfac")),
    ("identity", FACTORS, ("--preconditioner", "identity")),
):
    file_name = name.replace(" ", "-")
    queries = WORK.compress(factors, QUERIES, f"{file_name}-queries.h5", "--rank", RANK, *options)
    path = rank(file_name, queries)
    explain(file_name, WORK, path, queries)
    is_unknown(name, path, "error/sampling", "error/agreement", "top/score_error", "bottom/score_error")
    if name == "identity":
        is_unknown(name, path, "error/truncation")
finish(57)
