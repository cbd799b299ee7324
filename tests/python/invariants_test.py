#!/usr/bin/env python3
"""Whole stages: what must hold between their results whatever the model."""

from engine_checks import (
    FOLDER,
    check,
    close,
    contents,
    corpus,
    engine,
    finish,
    golden,
    query_corpus,
    same_file,
    shared_files,
)  # noqa: I001

import os

import h5py
import numpy as np

from check_goldens import explained, shard_scores, sequences, write_tokens

# ragged, grouped heads, shared inputs, biases on some modules only
CASE = "qwen2"
GOLDEN = golden(CASE)
TOKENS, QUERIES = shared_files()
BASE = engine(CASE, "base")
FACTORS = BASE.fit(TOKENS, "factors", "--unit-sequences", "4", "--modules", "all")
FULL = BASE.compress(FACTORS, QUERIES, "full.h5", "--rank", "full", "--modules", "all")
SCORES = BASE.score(FULL, TOKENS, "scores", "--unit-sequences", "4", "--layer-scores")


def pairs(modules):
    """{module: (G of the golden's first, of its second sequence)} from the stored a and delta."""
    rows = GOLDEN["train_count"][:2] - 1
    shared = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
    made = {}
    for key, delta in GOLDEN.items():
        if not key.startswith("delta/") or not any(m in key for m in modules):
            continue
        name = key[len("delta/") :]
        head, last = name.rsplit(".", 1)
        a = GOLDEN[f"a/{head}.{shared.get(last, last)}"].astype(np.float64)
        d = delta.astype(np.float64)
        made[name] = (d[: rows[0]].T @ a[: rows[0]], d[rows[0] :].T @ a[rows[0] :])
    return made


def two_sequences(folder):
    """The golden's first two sequences as corpus, and as queries whose completion is all but the first token."""
    work = engine(CASE, folder)
    two = sequences(GOLDEN, "train")[:2]
    return work, write_tokens(work.path("tokens.h5"), two), write_tokens(work.path("queries.h5"), two, 1)


def test_identity():
    work, tokens, queries = two_sequences("identity")
    factors = work.fit(tokens, "factors", "--modules", "all")
    wanted = np.zeros((2, 2))
    for g in pairs([""]).values():
        wanted += [[np.sum(g[i] * g[q]) for q in range(2)] for i in range(2)]
    compressed = work.compress(
        factors, queries, "identity.h5", "--preconditioner", "identity", "--rank", "full", "--modules", "all"
    )
    close("identity is the gradients' dot product", shard_scores(work.score(compressed, tokens, "s")), wanted, 1e-5)


def test_definitions(blocks):
    """M8 to M10 by the book from the file's own bases: corrected eigenvalues, and scores of both sequences on both."""
    work, tokens, queries = two_sequences(f"definitions{blocks}")
    factors = work.fit(tokens, "factors", "--modules", "mlp", "--empirical-fisher", "--blocks", blocks)
    compressed = work.compress(factors, queries, "c.h5", "--rank", "full", "--modules", "mlp")
    scores = shard_scores(work.score(compressed, tokens, "s"))
    wanted, worst = np.zeros((2, 2)), 0.0
    with h5py.File(f"{factors}/index.h5", "r") as file:
        for name, g in pairs(["mlp"]).items():
            q_a = dense(file[name]["activation_eigenvectors"][()].astype(np.float64), blocks)
            q_s = dense(file[name]["gradient_eigenvectors"][()].astype(np.float64), blocks)
            rotated = [q_s.T @ x @ q_a for x in g]
            eigenvalues = np.mean([x**2 for x in rotated], axis=0)
            worst = max(worst, np.abs(file[name]["lambda"][()] - eigenvalues).max() / eigenvalues.max())
            damped = eigenvalues + 0.1 * eigenvalues.mean()
            wanted += [[np.sum(rotated[i] * rotated[q] / damped) for q in range(2)] for i in range(2)]
    check(worst <= 1e-5, f"eigenvalues by definition, {blocks} blocks", worst)
    close(f"scores by definition, {blocks} blocks", scores, wanted, 3e-5)


def dense(stored, blocks):
    """The block-diagonal matrix that is stored as rows of its own block's width."""
    n = len(stored)
    full = np.zeros((n, n))
    for j in range(blocks):
        first, end = j * n // blocks, (j + 1) * n // blocks
        full[first:end, first:end] = stored[first:end, : end - first]
    return full


def test_blocks():
    """Block-diagonal covariances are the diagonal blocks of the whole ones, and their bases diagonalise them."""
    cut = BASE.fit(TOKENS, "blocks", "--unit-sequences", "4", "--modules", "all", "--blocks", 2)
    with h5py.File(f"{FACTORS}/index.h5", "r") as whole, h5py.File(f"{cut}/index.h5", "r") as halves:
        modules = [n.rsplit("/", 1)[0] for n in contents(f"{FACTORS}/index.h5") if n.endswith("/lambda")]
        for name, side in [(m, s) for m in modules for s in ("activation", "gradient")]:
            full = whole[name][f"{side}_covariance"][()].astype(np.float64)
            mask = dense(np.ones_like(halves[name][f"{side}_covariance"][()]), 2)
            found = dense(halves[name][f"{side}_covariance"][()].astype(np.float64), 2)
            q = dense(halves[name][f"{side}_eigenvectors"][()].astype(np.float64), 2)
            close(f"{name}: {side} blocks", found, full * mask, 1e-6)
            close(
                f"{name}: {side} block bases", q @ np.diag(halves[name][f"{side}_eigenvalues"][()]) @ q.T, found, 2e-6
            )
        check(len(modules) == 14, "modules of blocks", len(modules))


def test_rank():
    scores = shard_scores(SCORES)
    large = BASE.compress(FACTORS, QUERIES, "large.h5", "--rank", 1000, "--modules", "all")
    close("rank beyond min(P, M)", shard_scores(BASE.score(large, TOKENS, "large")), scores, 1e-5)
    automatic = BASE.compress(
        FACTORS, QUERIES, "auto.h5", "--rank", "auto", "--tolerance", "1e-12", "--modules", "all", "--max-rank", 1000
    )
    close("rank by a tiny tolerance", shard_scores(BASE.score(automatic, TOKENS, "auto")), scores, 2e-5)
    errors = []
    for rank in (1, 4, 16):
        low = BASE.compress(FACTORS, QUERIES, f"low{rank}.h5", "--rank", rank, "--modules", "all")
        errors.append(np.abs(shard_scores(BASE.score(low, TOKENS, f"low{rank}")) - scores).max())
    check(errors[0] > errors[1] > errors[2] > 0, "more rank, less error", errors)


def test_sums():
    score, layers = shard_scores(SCORES).astype(np.float64), shard_scores(SCORES, "layer_score").astype(np.float64)
    close("layers add up to the score", layers.sum(2), score, 1e-6)
    ranking = BASE.merge(SCORES, "ranking.h5", "--top", 5)
    BASE.score(FULL, TOKENS, "scores", "--explain", ranking)
    for side in ("top", "bottom"):
        parts = explained(ranking, side)
        check(len(parts) == 5 * score.shape[1], f"{side}: all explained")
        found = np.array([np.sum(token, dtype=np.float64) for token, _ in parts.values()])
        by_layer = np.array([np.sum(both, axis=0, dtype=np.float64) for _, both in parts.values()])
        close(f"{side}: tokens add up to the score", found, [score[z, q] for q, z in parts], 2e-6)
        close(f"{side}: tokens add up to the layers' scores", by_layer, [layers[z, q] for q, z in parts], 2e-6)


def test_batches():
    """Micro-batches and units decide the order of sums only."""
    scores = shard_scores(SCORES)
    for options in (("--batch-tokens", 31), ("--batch-tokens", 100), ("--unit-sequences", 1), ("--unit-sequences", 64)):
        found = shard_scores(BASE.score(FULL, TOKENS, "batches" + "".join(map(str, options)), *options))
        close(f"scores with {options}", found, scores, 1e-6)
    for options in (("--batch-tokens", 31), ("--unit-sequences", 37)):
        factors = BASE.fit(TOKENS, "factors" + "".join(map(str, options)), "--modules", "all", *options)
        with h5py.File(f"{FACTORS}/index.h5", "r") as a, h5py.File(f"{factors}/index.h5", "r") as b:
            for name in ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"):
                for side in ("activation_covariance", "gradient_covariance"):
                    close(f"{side} of sampled labels with {options}", b[name][side][()], a[name][side][()], 1e-6)
    eigenvalues = []
    for rows in (31, 1000):  # one module: nothing between two batches tells that its input has changed
        factors = BASE.fit(
            TOKENS, f"one-module{rows}", "--modules", "1[.]mlp[.]down_proj", "--no-diagonal", "--batch-tokens", rows
        )
        with h5py.File(f"{factors}/index.h5", "r") as file:
            eigenvalues.append(file["model.layers.1.mlp.down_proj/lambda"][()])
    check(eigenvalues[0].max() > 0, "eigenvalues of one module are not all 0")
    close("eigenvalues of one module in small batches", *eigenvalues, 3e-5)


def test_order():
    """A shuffled corpus gives the same scores, in its own order; two files are as good as one."""
    made = corpus(37)
    order = np.random.default_rng(3).permutation(37)
    shuffled = write_tokens(BASE.path("shuffled.h5"), [made[i] for i in order])
    close(
        "scores of a shuffled corpus",
        shard_scores(BASE.score(FULL, shuffled, "shuffled")),
        shard_scores(SCORES)[order],
        1e-6,
    )
    data = {}
    for name, tokens in (("ordered", TOKENS), ("shuffled", shuffled)):
        factors = BASE.fit(tokens, f"factors-{name}", "--empirical-fisher", "--modules", "all")
        with h5py.File(f"{factors}/index.h5", "r") as file:
            group = file["model.layers.0.mlp.up_proj"]
            data[name] = {
                side: group[side][()] for side in ("activation_covariance", "gradient_covariance", "diagonal")
            }
    for side in data["ordered"]:
        close(f"{side} of a shuffled corpus", data["shuffled"][side], data["ordered"][side], 1e-6)
    first, second = write_tokens(BASE.path("a.h5"), made[:10]), write_tokens(BASE.path("b.h5"), made[10:])
    BASE.run(
        "score_shards",
        "--model",
        BASE.model,
        "--queries",
        FULL,
        "--tokens",
        first,
        second,
        "--output",
        BASE.path("two"),
        "--unit-sequences",
        4,
    )
    check((shard_scores(BASE.path("two")) == shard_scores(SCORES)).all(), "two token files are one corpus")


def test_seeds():
    """Labels are those of the seed; the seed decides."""
    again = BASE.fit(TOKENS, "again", "--unit-sequences", "4", "--modules", "all")
    other = BASE.fit(TOKENS, "other", "--unit-sequences", "4", "--modules", "all", "--seed", 1)
    same_file("same seed", f"{again}/index.h5", f"{FACTORS}/index.h5")
    with h5py.File(f"{other}/index.h5", "r") as a, h5py.File(f"{FACTORS}/index.h5", "r") as b:
        name = "model.layers.0.mlp.up_proj/"
        check(
            (a[name + "activation_covariance"][()] == b[name + "activation_covariance"][()]).all(),
            "activations do not depend on the seed",
        )
        check((a[name + "gradient_covariance"][()] != b[name + "gradient_covariance"][()]).any(), "gradients do")


def test_shards():
    """Shards that hold the same units: the same bytes, whatever their number and order; so the same ranking."""
    tokens, _ = shared_files("many", n=36)
    whole = BASE.score(FULL, tokens, "one-shard", "--unit-sequences", 4, "--layer-scores")
    for i in (2, 0, 1):
        BASE.score(FULL, tokens, "three-shards", "--unit-sequences", 4, "--layer-scores", "--shard", f"{i}/3")
    for data in ("score", "layer_score", "sequence"):
        parts = [shard_scores(BASE.path("three-shards"), data, f"{i:05d}-of-00003") for i in range(3)]
        check((np.concatenate(parts) == shard_scores(whole, data)).all(), f"{data} of three shards and of one")
    rankings = [BASE.merge(whole, "one.h5", "--top", 7), BASE.merge(BASE.path("three-shards"), "three.h5", "--top", 7)]
    for ranking, scores in zip(rankings, ("one-shard", "three-shards")):
        BASE.score(FULL, tokens, scores, "--explain", ranking)
    same_file("ranking of three shards and of one", *reversed(rankings), ignore=("@explained", "@explain_options"))


def test_candidates():
    """Chosen sequences get the scores they have in the whole corpus."""
    chosen = [36, 0, 5, 17, 18, 35]
    with open(BASE.path("chosen.txt"), "w", encoding="ascii") as file:
        file.writelines(f"{i}\n" for i in chosen)
    with h5py.File(BASE.path("chosen.h5"), "w") as file:
        file["sequence"] = np.array(chosen, "i8")
    for kind in ("txt", "h5"):
        folder = BASE.score(
            FULL, TOKENS, f"chosen-{kind}", "--candidates", BASE.path(f"chosen.{kind}"), "--unit-sequences", 4
        )
        numbers = shard_scores(folder, "sequence")
        check(sorted(numbers) == sorted(chosen), f"candidates of {kind}", numbers)
        close(f"scores of candidates of {kind}", shard_scores(folder), shard_scores(SCORES)[numbers], 1e-6)


def dataset(path, name):
    with h5py.File(path, "r") as file:
        return file[name][()]


def test_losses():
    """The queries' losses are those of PyTorch, over the completions, and go from file to file as they are."""
    some = sequences(GOLDEN, "train")[:5]
    start = [max(1, len(tokens) // 2) for tokens in some]
    rows = np.split(GOLDEN["loss"].astype(float), np.cumsum(GOLDEN["train_count"].astype(int) - 1)[:-1])
    queries = write_tokens(BASE.path("asked.h5"), some, start)
    options = ("--rank", 2, "--modules", "all", "--unit-queries", 2)
    compressed = BASE.compress(FACTORS, queries, "asked-compressed.h5", *options)
    found = dataset(compressed, "query_loss")
    close("losses of completions", found, np.array([own[s - 1 :].sum() for own, s in zip(rows, start)]), 1e-5)
    scores = BASE.score(compressed, TOKENS, "asked-scores")
    ranking = BASE.merge(scores, "asked-ranking.h5", "--top", 3)
    BASE.score(compressed, TOKENS, "asked-scores", "--explain", ranking)
    for path in (f"{scores}/shard-00000-of-00001.h5", ranking):
        check((dataset(path, "query_loss") == found).all(), f"the same losses in {path}")


def test_without_losses():
    """Compressed queries of earlier versions do not say what the completions' losses are; nor does what is made from them."""
    older = BASE.compress(FACTORS, QUERIES, "older/c.h5", "--rank", "full", "--modules", "all")
    with h5py.File(older, "r+") as file:
        del file["query_loss"]
    os.remove(os.path.join(os.path.dirname(older), "MANIFEST"))
    scores = BASE.score(older, TOKENS, "without-losses")
    ranking = BASE.merge(scores, "without-losses.h5", "--top", 3)
    BASE.score(older, TOKENS, "without-losses", "--explain", ranking)
    for path in (f"{scores}/shard-00000-of-00001.h5", ranking):
        check(not any("query_loss" in name for name in contents(path)), f"no losses in {path}")
    close("scores without losses", shard_scores(scores), shard_scores(SCORES), 1e-6)


def test_query_units():
    """Queries compressed in other units, or without the others, score the same."""
    scores = shard_scores(SCORES)
    units = BASE.compress(FACTORS, QUERIES, "units.h5", "--rank", "full", "--modules", "all", "--unit-queries", 1)
    close("a query a unit", shard_scores(BASE.score(units, TOKENS, "units")), scores, 1e-5)
    made, start = query_corpus(5)
    one = write_tokens(BASE.path("one-query.h5"), made[3:4], start[3:4])
    alone = BASE.compress(FACTORS, one, "alone.h5", "--rank", "full", "--modules", "all")
    close("a query alone", shard_scores(BASE.score(alone, TOKENS, "alone")), scores[:, 3:4], 1e-5)


assert os.path.isdir(FOLDER)
test_definitions(1)
test_definitions(2)
for test in (
    test_identity,
    test_blocks,
    test_rank,
    test_sums,
    test_batches,
    test_order,
    test_seeds,
    test_shards,
    test_candidates,
    test_query_units,
    test_losses,
    test_without_losses,
):
    test()
finish(80)
