#!/usr/bin/env python3
"""Bregman beside Kronfluence and Bergson: the same dot products of gradients, and EK-FAC scores that differ by the sampled labels
alone.  Skipped unless BREGMAN_PEER_PYTHON names a Python that has both."""

import os
import sys

if not os.environ.get("BREGMAN_PEER_PYTHON"):
    print("BREGMAN_PEER_PYTHON names no Python that has kronfluence and bergson")
    sys.exit(77)

from text_checks import FOLDER, SCRIPTS, check, finish, load, path

import json
import subprocess

import h5py
import numpy as np

from bregman.validate import statistics

BIN = os.path.join(os.environ.get("BUILD", os.path.join(SCRIPTS, "..", "build")), "bin")
PYTHON = os.environ["BREGMAN_PEER_PYTHON"]
SEQUENCES, QUERIES, LONGEST = 160, 6, 24
DRAW = np.random.default_rng(3)


def token_file(name, n, starts=None):
    """Sequences of 2 to LONGEST tokens that mostly follow one another, so that there is something to learn."""
    counts = DRAW.integers(2, LONGEST + 1, n)
    ids = [
        np.where(DRAW.random(c) < 0.3, DRAW.integers(0, 64, c), DRAW.integers(64) + np.arange(c)) % 64 for c in counts
    ]
    with h5py.File(path(name), "w") as file:
        file["token"], file["count"] = np.concatenate(ids).astype("u4"), counts.astype("u4")
        if starts:
            file["completion_start"] = np.array([1 + DRAW.integers(c - 1) for c in counts], "u4")
            file.create_dataset("id", data=[f"q{i}" for i in range(n)], dtype=h5py.string_dtype())
    return path(name)


def run(*command):
    done = subprocess.run(list(map(str, command)), cwd=FOLDER, capture_output=True, text=True, check=False)
    check(done.returncode == 0, os.path.basename(str(command[0])), done.stderr[-800:])


def stage(program, *options):
    run(f"{SCRIPTS}/mpi", 1, f"{BIN}/{program}", *options, "--threads", 1)


def own(name, modules, *options):
    stage("compress_queries", "--model", MODEL, "--factors", path("factors"), "--queries", ASKED, "--modules", modules,
          "--rank", "full", "--output", path(f"{name}.h5"), *options)  # fmt: skip
    stage("score_shards", "--model", MODEL, "--queries", path(f"{name}.h5"), "--tokens", TOKENS, "--output", path(name))
    with h5py.File(path(f"{name}/shard-00000-of-00001.h5")) as file:
        return file["score"][:].astype(float)


def others(tool, name, modules, *options):
    run(PYTHON, f"{SCRIPTS}/peers/{tool}_scores", "--model", MODEL, "--tokens", TOKENS, "--queries", ASKED, "--modules",
        modules, "--output", path(f"{name}.h5"), "--factors", path(f"{tool}-factors"), *options)  # fmt: skip
    with h5py.File(path(f"{name}.h5")) as file:
        return file["score"][:].astype(float)


def agreement(a, b):
    """(least rank correlation of a query, ratio of sizes)"""
    return min(statistics.spearman(x, y) for x, y in zip(a.T, b.T)), (a * b).sum() / (a * a).sum()


load("demo/validation.py").write_model(path("new"))
with open(path("new/config.json"), "r+", encoding="utf-8") as file:
    small = {**json.load(file), "n_embd": 32, "n_positions": LONGEST}
    file.seek(0)
    json.dump(small, file)
    file.truncate()
TOKENS, ASKED, MODEL = token_file("tokens.h5", SEQUENCES), token_file("queries.h5", QUERIES, True), path("model")
stage("train_models", "--config", path("new"), "--tokens", TOKENS, "--output", MODEL, "--epochs", 10,
      "--batch-tokens", 256, "--learning-rate", 3e-3)  # fmt: skip
stage("fit_factors", "--model", MODEL, "--tokens", TOKENS, "--output", path("factors"), "--modules", "all,head")

mine = own("plain", "mlp,attention,head", "--preconditioner", "identity")
theirs = others("kronfluence", "kronfluence-plain", "mlp,attention,head", "--preconditioner", "identity")
size = np.abs(mine).max()
check(np.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * size), "dot products", np.abs(mine - theirs).max() / size)
for tool, damping in (("kronfluence", 0.1), ("kronfluence", 10), ("bergson", 0.1), ("bergson", 10)):
    mine = own(f"ekfac-{tool}-{damping}", "mlp,attention", "--damping-factor", damping)
    theirs = others(tool, f"{tool}-{damping}", "mlp,attention", "--damping-factor", damping)
    order, size = agreement(mine, theirs)
    print(f"{tool}, damping {damping}: least rank correlation {order:.4f}, ratio {size:.3f}")
    check(order > 0.9 and 0.85 < size < 1.15, f"{tool}, damping {damping}", f"{order:.4f}, {size:.3f}")
finish()
