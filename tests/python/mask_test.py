#!/usr/bin/env python3
"""Masks of the loss (math.md M1), in fitting, compressing, scoring and explaining: against unmasked files by causality (a
sequence whose last tokens are masked is the sequence without them) and by linearity (a loss is the sum over its tokens)."""

from engine_checks import BUILD, check, close, contents, corpus, engine, finish, query_corpus, same_file

import os
import subprocess

import h5py
import numpy as np

from check_goldens import explained, shard_scores, write_tokens

BASE = engine("qwen2", "masks")
MODULES = ("--modules", "all")
RANDOM = np.random.default_rng(8)
MADE = [np.concatenate([ids, RANDOM.integers(0, 64, 4)]) for ids in corpus(23, longest=29)]  # 6 to 33 tokens
QUERY, START = query_corpus(4)


def masked(name, sequences, masks, starts=None):
    """A token file with a mask."""
    path = write_tokens(BASE.path(name), sequences, starts)
    with h5py.File(path, "r+") as file:
        file["loss"] = np.concatenate(masks).astype("u1")
    return path


def prefix(ids, n):
    """The mask that leaves the first n tokens in the loss."""
    return np.arange(len(ids)) < n


def covariances(folder, side):
    """{module: (stored mean, positions)}"""
    with h5py.File(f"{folder}/index.h5", "r") as file:
        names = [n.rsplit("/", 1)[0] for n in contents(f"{folder}/index.h5") if n.endswith(f"/{side}_covariance")]
        found = {n: file[f"{n}/{side}_covariance"] for n in names}
        return {n: (x[()].astype(np.float64), int(x.attrs["n_tokens"])) for n, x in found.items()}


TOKENS = write_tokens(BASE.path("plain.h5"), MADE)
QUERIES = write_tokens(BASE.path("queries.h5"), QUERY, START)
FACTORS = BASE.fit(TOKENS, "factors", *MODULES)
FULL = BASE.compress(FACTORS, QUERIES, "full.h5", "--rank", "full", *MODULES)
SCORES = BASE.score(FULL, TOKENS, "scores")


def test_ones():
    """A mask of ones is no mask, bit for bit."""
    ones = masked("ones.h5", MADE, [np.ones(len(ids)) for ids in MADE])
    queries = masked("ones-queries.h5", QUERY, [np.ones(len(ids)) for ids in QUERY], START)
    factors = BASE.fit(ones, "ones-factors", *MODULES)
    same_file("factors", f"{factors}/index.h5", f"{FACTORS}/index.h5")
    full = BASE.compress(FACTORS, queries, "ones-full.h5", "--rank", "full", *MODULES)
    same_file("queries", full, FULL, ignore=("@queries_hash",))
    check((shard_scores(BASE.score(FULL, ones, "ones-scores")) == shard_scores(SCORES)).all(), "scores, bit for bit")


def test_prefix():
    """Nothing behind the last token in the loss has a part in anything: as though the sequences ended there."""
    keep = [int(RANDOM.integers(2, len(ids))) for ids in MADE]
    masks = [prefix(ids, n) for ids, n in zip(MADE, keep)]
    short = write_tokens(BASE.path("short.h5"), [ids[:n] for ids, n in zip(MADE, keep)])
    long = masked("prefix.h5", MADE, masks)
    for kind in ("ekfac", "shampoo"):
        made = {}
        for name, tokens in (("short", short), ("prefix", long)):
            made[name] = BASE.fit(tokens, f"{name}-{kind}", "--preconditioner", kind, *MODULES)
        names = [n for n in contents(f"{made['short']}/index.h5") if n.endswith(("covariance", "lambda", "diagonal"))]
        with h5py.File(f"{made['short']}/index.h5") as a, h5py.File(f"{made['prefix']}/index.h5") as b:
            for name in (n for n in names if kind == "ekfac" or "lambda" not in n):
                close(f"{kind}: {name}", b[name][()], a[name][()], 2e-5)
                if "n_tokens" in a[name].attrs:
                    check(a[name].attrs["n_tokens"] == b[name].attrs["n_tokens"], f"{name}: positions")
        check(len(names) > 20, "datasets of factors", names)
    close("scores", shard_scores(BASE.score(FULL, long, "p")), shard_scores(BASE.score(FULL, short, "s")), 1e-5)
    explain(short, long)


def explain(short, long):
    parts = {}
    for name, tokens in (("s", short), ("p", long)):
        ranking = BASE.merge(BASE.path(name), f"{name}.ranking.h5", "--top", 5)
        BASE.score(FULL, tokens, name, "--explain", ranking)
        parts[name] = explained(ranking, "top")
    check(parts["s"].keys() == parts["p"].keys() and len(parts["s"]) == 20, "the same sequences are explained")
    for at, (token, _) in parts["p"].items():
        n = len(parts["s"][at][0])
        close(f"{at}: token scores", token[:n], parts["s"][at][0], 1e-4)
        check(len(token) > n and (token[n:] == 0).all(), f"{at}: nothing behind")


def test_linear():
    """A score is the sum of those of the tokens in the loss, each alone."""
    ids = MADE[int(np.argmax([len(ids) for ids in MADE]))]
    n = len(ids)
    chosen = RANDOM.permutation(np.arange(1, n))[: n // 2]
    some = np.isin(np.arange(n), chosen)
    alone = list(np.eye(n, dtype=int)[1:])
    tokens = masked("alone.h5", [ids] * (n + 1), [np.ones(n), some, *alone])
    scores = shard_scores(BASE.score(FULL, tokens, "alone")).astype(np.float64)
    close("all tokens", scores[0], scores[2:].sum(0), 2e-6)
    close("some tokens", scores[1], scores[2:][chosen - 1].sum(0), 2e-6)
    close("unmasked", scores[0], shard_scores(SCORES)[[len(x) for x in MADE].index(n)], 1e-6)


def test_positions():
    """Means are over positions in the loss: the sums of a mask and of the rest add up to the whole's."""
    cut = [int(RANDOM.integers(2, len(ids))) for ids in MADE]
    parts = [
        masked(f"{name}.h5", MADE, [prefix(ids, n) == first for ids, n in zip(MADE, cut)])
        for name, first in (("head", True), ("tail", False))
    ]
    factors = [BASE.fit(path, f"{path}.factors", *MODULES) for path in parts]
    first, second, whole = (covariances(f, "activation") for f in (*factors, FACTORS))
    for name, (mean, n) in whole.items():
        check(n == first[name][1] + second[name][1], f"{name}: positions", n)
        sums = sum(part[name][0] * part[name][1] for part in (first, second)) / n
        close(f"{name}: activations", sums, mean, 2e-6)
    check(next(iter(second.values()))[1] == sum(len(x) - n for x, n in zip(MADE, cut)), "positions in the loss alone")


def test_queries():
    """Of a query a mask leaves out tokens of the completion too."""
    masks = [np.arange(len(ids)) >= start for ids, start in zip(QUERY, START)]
    by_mask = masked("by-mask.h5", QUERY, masks, np.ones(len(QUERY)))
    scores = shard_scores(SCORES)
    full = BASE.compress(FACTORS, by_mask, "by-mask-full.h5", "--rank", "full", *MODULES)
    close("a mask for the prompt", shard_scores(BASE.score(full, TOKENS, "by-mask")), scores, 1e-6)
    both = [mask & RANDOM.integers(0, 2, len(mask)) for mask in masks]
    for mask, other in zip(both, masks):
        mask[-1] = 1
    rest = [mask & ~part.astype(bool) for mask, part in zip(masks, both)]
    kept = [q for q in range(len(QUERY)) if rest[q].any()]
    halves = []
    for name, chosen in (("one", both), ("other", rest)):
        path = masked(f"{name}.h5", [QUERY[q] for q in kept], [chosen[q] for q in kept], START[kept])
        made = BASE.compress(FACTORS, path, f"{name}-full.h5", "--rank", "full", *MODULES)
        halves.append(shard_scores(BASE.score(made, TOKENS, name)).astype(np.float64))
    check(len(kept) > 1, "queries of two tokens or more")
    close("a completion's two parts", halves[0] + halves[1], scores[:, kept], 1e-5)


def test_refined():
    """The refined solve's own sequences have their mask."""
    options = ("--refine", "cg", "--refine-steps", 4, "--refine-sequences", "0:23", "--refine-tokens")
    keep = [prefix(ids, len(ids) - 2) for ids in MADE]
    short = write_tokens(BASE.path("refine-short.h5"), [ids[:-2] for ids in MADE])
    made = []
    for name, tokens in (("short", short), ("masked", masked("refine-long.h5", MADE, keep))):
        path = BASE.compress(FACTORS, QUERIES, f"refined-{name}.h5", "--rank", "full", *MODULES, *options, tokens)
        made.append(shard_scores(BASE.score(path, TOKENS, f"refined-{name}")))
    close("refined scores", made[1], made[0], 1e-4)
    whole = BASE.compress(FACTORS, QUERIES, "refined.h5", "--rank", "full", *MODULES, *options, TOKENS)
    check(np.abs(shard_scores(BASE.score(whole, TOKENS, "refined")) - made[0]).max() > 1e-3, "the mask matters")


def refused(name, stage, wanted, output, *arguments):
    done = subprocess.run(
        [os.path.join(BUILD, "bin", stage), "--model", BASE.model, *arguments, "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    check(done.returncode == 1 and len(lines) == 1 and wanted in lines[0], f"{name} is refused", done.stderr)
    check(not os.path.exists(os.path.join(output, "index.h5")) and not os.path.isfile(output), f"{name}: no output")


def test_refused():
    """A sequence of which nothing is left."""
    masks = [np.ones(len(ids)) for ids in MADE]
    masks[7][1:] = 0  # its first token is never predicted
    tokens, none = masked("nothing.h5", MADE, masks), "leaves no predicted token in the loss"
    refused(
        "fitting", "fit_factors", f'sequence 7 of "{tokens}": its mask', BASE.path("no-factors"), "--tokens", tokens
    )
    refused("scoring", "score_shards", none, BASE.path("no-scores"), "--tokens", tokens, "--queries", FULL)
    masks = [np.arange(len(ids)) < start for ids, start in zip(QUERY, START)]
    queries = masked("no-queries.h5", QUERY, masks, START)
    arguments = "--factors", FACTORS, "--queries", queries
    refused("compressing", "compress_queries", f'query 0 of "{queries}": its mask', BASE.path("no.h5"), *arguments)


for test in (
    test_ones,
    test_prefix,
    test_linear,
    test_positions,
    test_queries,
    test_refined,
    test_refused,
):
    test()
finish(100)
