#!/usr/bin/env python3
"""Input-token attribution (math.md M14): what a score loses without a token's embedding, against sequences that say so
with the words of another vocabulary, scored by the ordinary stage; the same on any grid and after an interruption.

The reference's vocabulary has one more token, NOTHING, whose embedding is 0. Put in a token's place it is the input of
its position and the label of the one before. So that the label stays what it was, NOTHING has the token's row of the
head, and the token itself a row whose logit is -60: that is why no token is the label of two positions of a sequence."""

from engine_checks import check, close, engine, fault_library, finish, plain_gpt2, same_file
from engine_checks import model as golden_model

import json
import os
import shutil
import subprocess

import h5py
import numpy as np

from check_goldens import explained, read_safetensors, shard_scores, write_safetensors, write_tokens

NOTHING, D = 9, 16
RANDOM = np.random.default_rng(5)
SEQUENCES = [RANDOM.permutation(NOTHING)[:n] for n in (8, 2, 6, 8, 3)]
SEQUENCES[0][0] = SEQUENCES[0][5]  # an input twice, a label once
QUERIES = [RANDOM.integers(0, NOTHING, n) for n in (9, 6, 8)]
EMBEDDING = "wte.weight"


def untie(weights):
    weights["lm_head.weight"] = RANDOM.normal(0, 0.5, (NOTHING, D)).astype("f4")


MODEL = plain_gpt2("untied", D, 2, 16, NOTHING, untie)
with open(f"{MODEL}/config.json", encoding="utf-8") as config:
    CONFIG = {**json.load(config), "tie_word_embeddings": False}
with open(f"{MODEL}/config.json", "w", encoding="utf-8") as config:
    json.dump(CONFIG, config)


def larger_model(folder, label):
    """With NOTHING, which as a label is the token `label`; None: as a label it is never right."""
    weights = dict(read_safetensors(f"{MODEL}/model.safetensors")[0])
    gain, bias = weights["ln_f.weight"].astype(float), weights["ln_f.bias"].astype(float)
    silent = -60 / (bias / gain).sum() / gain  # times gain x + bias, x of mean 0
    head = np.vstack([weights["lm_head.weight"], silent])
    if label is not None:
        head[[label, NOTHING]] = head[[NOTHING, label]]
    weights["lm_head.weight"] = head.astype("f4")
    weights[EMBEDDING] = np.vstack([weights[EMBEDDING], np.zeros(D, "f4")])
    os.makedirs(folder)
    write_safetensors(f"{folder}/model.safetensors", weights)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump({**CONFIG, "vocab_size": NOTHING + 1}, file)
    return folder


def lend_queries(compressed, to):
    """The queries' gradients of the model go into a file of the larger one's: nothing is known of NOTHING."""
    with h5py.File(compressed, "r") as file, h5py.File(to, "r+") as other:
        names = []
        file.visit(lambda name: names.append(name) if name.endswith(("/left", "/right")) else None)
        check(len(names) >= 4, "queries are lent")
        for name in names:
            values = file[name][()]
            other[name][...] = 0
            other[name][:, : values.shape[1], : values.shape[2]] = values
    os.remove(os.path.join(os.path.dirname(to), "MANIFEST"))
    return to


def reference_scores(name, label, compressed, queries, made, modules):
    """[sequence, query] of sequences that may have NOTHING in them."""
    work = engine(larger_model(f"{MODEL}-{name}", label), name)
    os.makedirs(work.path("queries"))
    tokens = write_tokens(work.path("tokens.h5"), made)
    lent = work.compress(work.fit(tokens, "factors", *modules), queries, "queries/compressed.h5", "--rank", "full")
    return shard_scores(work.score(lend_queries(compressed, lent), tokens, "scores")).astype(float)


def reference(name, compressed, queries, modules):
    """{(query, sequence): what the score loses without each token that is read}, and the scores."""
    lost = [np.zeros((len(s) - 1, len(QUERIES))) for s in SEQUENCES]
    first = [np.concatenate([[NOTHING], s[1:]]) for s in SEQUENCES]
    scores = reference_scores(f"{name}-first", None, compressed, queries, [*SEQUENCES, *first], modules)
    whole = scores[: len(SEQUENCES)]
    for z, s in enumerate(SEQUENCES):
        lost[z][0] = whole[z] - scores[len(SEQUENCES) + z]
    for token in range(NOTHING):
        places = [(z, t) for z, s in enumerate(SEQUENCES) for t in range(1, len(s) - 1) if s[t] == token]
        made = [np.concatenate([s[:t], [NOTHING], s[t + 1 :]]) for s, t in ((SEQUENCES[z], t) for z, t in places)]
        if made:
            scores = reference_scores(f"{name}-{token}", token, compressed, queries, made, modules)
            for (z, t), score in zip(places, scores):
                lost[z][t] = whole[z] - score
    return {(q, z): lost[z][:, q] for z in range(len(SEQUENCES)) for q in range(len(QUERIES))}, whole


def input_scores(ranking, side="top"):
    """{(query, sequence): values}"""
    with h5py.File(ranking, "r") as file:
        sequence, count = file[f"{side}/sequence"][()], file[f"{side}/count"][()]
        values = np.split(file[f"{side}/input_token_score"][()], np.cumsum(count)[:-1])
    k = sequence.shape[1]
    return {(i // k, z): values[i] for i, z in enumerate(sequence.ravel().tolist()) if z >= 0}


def inputs(name, path, tokens, queries, start, *modules):
    """What there is to explain: (Engine, compressed queries, token file, ranking, scores)."""
    work = engine(path, name)
    made = write_tokens(work.path("tokens.h5"), tokens)
    asked = write_tokens(work.path("queries.h5"), queries, start)
    compressed = work.compress(work.fit(made, "factors", *modules), asked, "compressed.h5", "--rank", "full")
    scores = work.score(compressed, made, "scores")
    return work, compressed, made, work.merge(scores, "ranking.h5", "--top", len(tokens)), shard_scores(scores)


def explain(work, compressed, tokens, ranking, *options):
    """A copy of the ranking, explained."""
    name = f"explained-{len(os.listdir(work.folder))}.h5"
    shutil.copy(ranking, work.path(name))
    work.score(compressed, tokens, "scores", "--explain", work.path(name), "--attribution", *options)
    return work.path(name)


# ---- by its definition; the embedding is tracked, of which an erased token has no part

MODULES = ("--modules", "all,embedding")
WORK, COMPRESSED, TOKENS, RANKING, SCORES = inputs("model", MODEL, SEQUENCES, QUERIES, 3, *MODULES)
MADE = explain(WORK, COMPRESSED, TOKENS, RANKING, "input")
WANTED, WHOLE = reference("reference", COMPRESSED, WORK.path("queries.h5"), MODULES)
close("the larger vocabulary changes nothing", WHOLE, SCORES, 1e-6)
for side in ("top", "bottom"):
    found, parts = input_scores(MADE, side), explained(MADE, side)
    check(found.keys() == WANTED.keys(), f"{side}: every pair is explained")
    for key, wanted in WANTED.items():
        scale = np.abs(parts[key][1].astype(float)).sum()  # rounding is of the score's terms, whatever they add up to
        fits = found[key].shape == wanted.shape and (np.abs(found[key] - wanted) <= 1e-6 * scale).all()
        check(fits, f"{side} {key}", f"{found[key]} {wanted} of {scale}")
check(max(np.abs(x).max() for x in WANTED.values()) > 0.01 * np.abs(WHOLE).max(), "erasing matters")

# ---- the same bytes on any grid and after an interruption; in units of 64 sequences with a token erased or none

RANDOM = np.random.default_rng(8)
LONGER = [RANDOM.integers(0, 64, n) for n in RANDOM.integers(2, 33, 37)]
WORK, COMPRESSED, TOKENS, RANKING, _ = inputs(
    "grids", golden_model("llama"), LONGER, [x[:9] for x in LONGER if len(x) > 20][:3], 4
)
ROWS = ("--batch-tokens", 40)
REFERENCE = explain(WORK, COMPRESSED, TOKENS, RANKING, "input", *ROWS)
IGNORED = ("@explained", "@explain_options")
for ranks, pipeline, minutes in ((2, 1, 10), (3, 1, 10), (2, 2, 10), (4, 2, 1e-6)):
    WORK.ranks = ranks
    grid = ("--pipeline", pipeline, "--checkpoint-minutes", minutes)
    same_file(
        f"{grid} of {ranks}", explain(WORK, COMPRESSED, TOKENS, RANKING, "input", *ROWS, *grid), REFERENCE, IGNORED
    )
WORK.ranks = 0
both = explain(WORK, COMPRESSED, TOKENS, RANKING, "all", *ROWS)
with h5py.File(both, "r") as file, h5py.File(REFERENCE, "r") as plain:
    for side in ("top", "bottom"):
        check("output_token_score" in file[side] and "output_token_score" not in plain[side], f"{side}: all are more")
        for name in ("input_token_score", "token_score"):
            check(
                np.array_equal(file[side][name], plain[side][name]), f"{side}: {name} beside output tokens' is the same"
            )

shutil.copy(RANKING, WORK.path("stopped.h5"))
command = WORK.command(
    "score_shards",
    "--model",
    WORK.model,
    "--queries",
    COMPRESSED,
    "--tokens",
    TOKENS,
    "--output",
    WORK.path("scores"),
    "--explain",
    WORK.path("stopped.h5"),
    "--attribution",
    "input",
    *ROWS,
)
fault = {
    "FAULT_CALL": "rename",
    "FAULT_PATH": "*/erased_scores-00001*",
    "FAULT_ACTION": "SIGTERM",
    "LD_PRELOAD": fault_library(),
}
done = subprocess.run(command, env={**os.environ, **fault}, capture_output=True, text=True, timeout=300, check=False)
check(done.returncode == 75, "stopped in the second sweep", done.stderr)
with h5py.File(WORK.path("stopped.h5"), "r") as file:
    check("token_score" not in file["top"], "a stopped explanation is not published")
done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
units = -(-sum(map(len, LONGER)) // 64)
check(done.returncode == 0 and f"2 of {units} units" in done.stderr, "it goes on where it was", done.stderr)
same_file("stopped and gone on with", WORK.path("stopped.h5"), REFERENCE, IGNORED)

finish(50)
