#!/usr/bin/env python3
"""Sequences of several documents, each of which reads only itself, against the documents as sequences of their own; and queries
of several texts, contrasts and groups, against the texts as queries of their own (math.md M1): all stages, exact scores."""

from engine_checks import check, close, corpus, engine, finish, model, query_corpus

import os

import h5py
import numpy as np

from check_goldens import read_safetensors, shard_scores, write_safetensors, write_tokens

BASE = engine("qwen2", "documents")
MODULES = ("--modules", "all")
FULL = ("--rank", "full", *MODULES)
DOCUMENTS = corpus(24, longest=11)
PACKS = [DOCUMENTS[i : i + 3] for i in range(0, 24, 3)]
QUERY, START = query_corpus(6)


def packed(name, packs, positions="restart", starts=None, signs=None, loss=None, at=BASE):
    """Sequences, or queries, of several texts."""
    path = write_tokens(at.path(name), [np.concatenate(pack) for pack in packs], starts)
    with h5py.File(path, "r+") as file:
        file["piece/count"] = np.array([len(pack) for pack in packs], "u4")
        file["piece/length"] = np.array([len(ids) for pack in packs for ids in pack], "u4")
        file.attrs["attention"], file.attrs["positions"] = "document", positions
        if signs is not None:
            file["piece/sign"] = np.concatenate(signs).astype("i8")
        if loss is not None:
            file["loss"] = np.concatenate(loss).astype("u1")
    return path


def explained_parts(scores, tokens, ranking):
    """{sequence: (token scores, output token scores)} of query 0"""
    BASE.score(COMPRESSED, tokens, scores, "--explain", ranking, "--attribution", "output")
    found, at = {}, 0
    with h5py.File(ranking, "r") as file:
        top = {name: file[f"top/{name}"][()] for name in ("sequence", "count", "token_score", "output_token_score")}
    for (q, i), n in np.ndenumerate(top["count"]):
        if q == 0 and n:
            here = slice(at, at + int(n))
            found[int(top["sequence"][q, i])] = (top["token_score"][here], top["output_token_score"][here])
        at += int(n)
    return found


APART = write_tokens(BASE.path("apart.h5"), DOCUMENTS)
TOGETHER = packed("together.h5", PACKS)
QUERIES = write_tokens(BASE.path("queries.h5"), QUERY, START)
FACTORS = BASE.fit(APART, "factors", "--empirical-fisher", *MODULES)
COMPRESSED = BASE.compress(FACTORS, QUERIES, "full.h5", *FULL)
SCORES = shard_scores(BASE.score(COMPRESSED, APART, "apart")).astype(np.float64)


def test_factors():
    """Covariances are means over the same positions; the seed's labels differ, as sequences do, so the data's own are taken."""
    factors = BASE.fit(TOGETHER, "together", "--empirical-fisher", *MODULES)
    with h5py.File(f"{FACTORS}/index.h5") as a, h5py.File(f"{factors}/index.h5") as b:
        for module in ("model.layers.0.mlp.down_proj", "model.layers.1.self_attn.k_proj"):
            for side in ("activation", "gradient"):
                x, y = (file[f"{module}/{side}_covariance"] for file in (a, b))
                close(f"{module}: {side} covariance", y[()], x[()], 2e-6)
                check(x.attrs["n_tokens"] == y.attrs["n_tokens"], f"{module}: positions", y.attrs["n_tokens"])


def test_scores():
    for engine_, name in ((BASE, "together"), (engine("qwen2", "pipeline", ranks=2, common=("--pipeline", 2)), "line")):
        found = shard_scores(engine_.score(COMPRESSED, TOGETHER, f"{name}-scores"))
        close(f"scores, {name}", found, SCORES.reshape(8, 3, -1).sum(1), 2e-6)
    plain = write_tokens(BASE.path("plain.h5"), [np.concatenate(pack) for pack in PACKS])
    difference = np.abs(shard_scores(BASE.score(COMPRESSED, plain, "plain")) - SCORES.reshape(8, 3, -1).sum(1)).max()
    check(difference > 1e-2 * np.abs(SCORES).max(), "reading each other is another thing", difference)


def test_explained():
    """Forward mode too: how each token's loss moves along the query."""
    both = {}
    for name, tokens in (("apart", APART), ("together-scores", TOGETHER)):
        ranking = BASE.merge(BASE.path(name), f"{name}.ranking.h5", "--top", 24)
        both[name] = explained_parts(name, tokens, ranking)
    check(len(both["apart"]) == 24 and len(both["together-scores"]) == 8, "all are explained")
    for z, pack in enumerate(PACKS):
        at, wanted = 0, [both["apart"][3 * z + i] for i in range(3)]
        for ids, parts in zip(pack, wanted):
            for kind, found, want in zip(("token", "output"), both["together-scores"][z], parts):
                close(f"sequence {z} at {at}: {kind} scores", found[at : at + len(ids) - 1], want, 1e-5)
            at += len(ids)


def test_positions():
    """Positions that go on, where the model has learned them: the last document is as with the embeddings from its place on."""
    here = engine("gpt2", "positions")
    random = np.random.default_rng(4)
    packs = [[random.integers(0, 50, 9), random.integers(0, 50, n)] for n in range(3, 9)]
    masks = [np.arange(9 + len(pack[1])) >= 9 for pack in packs]
    wanted = here.fit(shifted(here, 9, [pack[1] for pack in packs]), "shifted", "--empirical-fisher")
    for positions, limit in (("continue", 2e-6), ("restart", None)):
        tokens = packed(f"{positions}.h5", packs, positions, loss=masks, at=here)
        here.model = model("gpt2")
        factors = here.fit(tokens, positions, "--empirical-fisher")
        with h5py.File(f"{wanted}/index.h5") as a, h5py.File(f"{factors}/index.h5") as b:
            for name in ("h.0.mlp.c_fc/activation_covariance", "h.1.mlp.c_proj/gradient_covariance"):
                name = name if name.split("/")[0] in a else "transformer." + name
                if limit:
                    close(f"{positions}: {name}", b[name][()], a[name][()], limit)
                else:
                    check(
                        np.abs(b[name][()] - a[name][()]).max() > 1e-3 * np.abs(a[name][()]).max(),
                        f"{positions} differs",
                    )


def shifted(here, first, documents):
    """The engine gets a model whose position embeddings begin at `first`; the token file of the documents alone."""
    folder = here.path("model")
    os.makedirs(folder)
    weights = dict(read_safetensors(f"{here.model}/model.safetensors")[0])
    name = next(key for key in weights if key.endswith("wpe.weight"))
    weights[name] = np.roll(weights[name], -first, axis=0)
    write_safetensors(f"{folder}/model.safetensors", weights)
    with (
        open(f"{here.model}/config.json", encoding="utf-8") as file,
        open(f"{folder}/config.json", "w", encoding="utf-8") as to,
    ):
        to.write(file.read())
    here.model = folder
    return write_tokens(here.path("shifted.h5"), documents)


def test_queries():
    """A contrast's score is the difference of its texts', a group's the sum: exact at full rank."""
    packs, signs = [[0, 1], [2, 3, 4], [5]], [[1, -1], [1, 1, -1], [1]]
    loss = [np.concatenate([np.arange(len(QUERY[q])) >= START[q] for q in pack]) for pack in packs]
    path = packed(
        "groups.h5", [[QUERY[q] for q in pack] for pack in packs], "restart", [START[p[0]] for p in packs], signs, loss
    )
    for options in ((), ("--unit-queries", 1)):
        made = BASE.compress(FACTORS, path, f"groups{len(options)}.h5", *FULL, *options)
        found = shard_scores(BASE.score(made, APART, f"groups{len(options)}"))
        wanted = np.stack([SCORES[:, pack] @ np.array(sign) for pack, sign in zip(packs, signs)], axis=1)
        close(f"scores of contrasts and groups {options}", found, wanted, 1e-5)


def test_refused():
    for name, change, wanted in (
        ("lengths", lambda file: file["piece/length"].__setitem__(0, 1), "the pieces of sequence 0 are not its"),
        ("word", lambda file: file.attrs.__setitem__("attention", "both"), 'attention is "both"'),
        ("count", lambda file: file["piece/count"].__setitem__(0, 2), "adds up to 23, but there are 24"),
    ):
        path = packed(f"bad-{name}.h5", PACKS)
        with h5py.File(path, "r+") as file:
            change(file)
        try:
            BASE.score(COMPRESSED, path, f"bad-{name}")
            check(False, f"{name} is refused")
        except RuntimeError as error:
            last = str(error).splitlines()[-1]
            check("exit 1" in str(error) and wanted in last and path in last, f"{name} is refused", last)


for test in (test_factors, test_scores, test_explained, test_positions, test_queries, test_refused):
    test()
finish(60)
