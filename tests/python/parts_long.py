#!/usr/bin/env python3
"""Stops inside a unit, in every sweep: what was done is kept, the next run goes on from there on another grid and computes no
sequence again, and the result has the bytes of a run that nothing disturbed."""

import collections
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np

from engine_checks import check, deep_model, engine, finish, same_file, shared_files
from restart_checks import send

MODEL = deep_model("llama", 3)
TOKENS, QUERIES = shared_files(n=96, n_queries=800)
FEW = shared_files("few", n=2, n_queries=3)[1]
ROWS = ["--batch-tokens", 32]  # a sequence or two
GRIDS = [(2, 2), (1, 1), (2, 1), (4, 2)]  # ranks, and how many of them share a model: one after the other
SHARD = "shard-00000-of-00001"
FIT, COMPRESS, SCORE = ["--unit-sequences", 40, *ROWS], ["--unit-queries", 500, "--rank", 2], ["--layer-scores", *ROWS]
REFERENCE = engine(MODEL, "reference")
FACTORS = REFERENCE.fit(TOKENS, "factors", *FIT)
COMPRESSED = REFERENCE.compress(FACTORS, QUERIES, "compressed.h5", *COMPRESS)
COMPRESSED_FEW = REFERENCE.compress(FACTORS, FEW, "few.h5", "--rank", 4)
SCORES = REFERENCE.score(COMPRESSED_FEW, TOKENS, "scores", "--unit-sequences", 40, *SCORE)
RANKING = REFERENCE.merge(SCORES, "ranking.h5", "--top", 12)
shutil.copy(RANKING, REFERENCE.path("explained.h5"))
REFERENCE.score(COMPRESSED_FEW, TOKENS, "scores", "--explain", REFERENCE.path("explained.h5"), *ROWS)
NAME = re.compile(r"(\w+)-(\d{5})(?:-block-(\d{3}))?\.(\d{6})-(\d{6})\.h5")


def counts(path):
    with h5py.File(path) as file:
        return file["count"][()].astype(int)


def ranked():
    """Tokens of the sequences of the ranking, in their order."""
    with h5py.File(RANKING) as file:
        found = np.unique(np.concatenate([file[side]["sequence"][()].ravel() for side in ("top", "bottom")]))
    return counts(TOKENS)[found[found >= 0]]


# its stage and arguments, its name, folder and kind of its work files, the final file; tokens of its sequences, sequences a unit
Sweep = collections.namedtuple("Sweep", "stage arguments phase work kind final reference tokens unit")


def sweeps(work):
    fit = ("fit_factors", ["--tokens", TOKENS, "--output", work.path("factors"), *FIT])
    score = ["--queries", COMPRESSED_FEW, "--tokens", TOKENS, "--output", work.path("scores")]
    return (
        Sweep(
            *fit,
            "covariance",
            "factors/work",
            "covariance",
            "factors/index.h5",
            f"{FACTORS}/index.h5",
            counts(TOKENS),
            40,
        ),
        Sweep(
            *fit, "eigenvalues", "factors/work", "lambda", "factors/index.h5", f"{FACTORS}/index.h5", counts(TOKENS), 40
        ),
        Sweep(
            "compress_queries",
            ["--factors", FACTORS, "--queries", QUERIES, "--output", work.path("c.h5"), *COMPRESS],
            "queries",
            "c.h5.work",
            "queries",
            "c.h5",
            COMPRESSED,
            counts(QUERIES),
            500,
        ),
        Sweep(
            "score_shards",
            [*score, "--unit-sequences", 40, *SCORE],
            "scores",
            f"scores/{SHARD}.work",
            "scores",
            f"scores/{SHARD}.h5",
            f"{SCORES}/{SHARD}.h5",
            counts(TOKENS),
            40,
        ),
        Sweep(
            "score_shards",
            [*score, "--explain", work.path("r.h5"), *ROWS],
            "token scores",
            "scores/explain-r.work",
            "token_scores",
            "r.h5",
            REFERENCE.path("explained.h5"),
            ranked(),
            8,
        ),
    )


def segments(work, sweep):
    """{(unit, block): [(first, end), ...]} of the work files."""
    found = collections.defaultdict(list)
    for path in glob.glob(work.path(f"{sweep.work}/{sweep.kind}-*.h5")):
        name = NAME.fullmatch(os.path.basename(path))
        if name:
            found[int(name[2]), name[3]].append((int(name[4]), int(name[5])))
    return {key: sorted(files) for key, files in found.items()}


def kept(name, sweep, files):
    """{unit: sequences} that are kept, after a stop that all ranks have answered: of each block as many, none of them twice."""
    ends = collections.defaultdict(set)
    for (unit, block), runs in files.items():
        ends[unit].add(runs[-1][1])
        if sweep.stage == "fit_factors":
            check(
                len(runs) <= 2 and all(first == 0 for first, _ in runs),
                f"{name}: at most two parts",
                f"{unit}, {block}: {runs}",
            )
        else:
            check(
                [first for first, _ in runs] == [0, *(end for _, end in runs[:-1])],
                f"{name}: rows chain",
                f"{unit}, {block}: {runs}",
            )
    check(all(len(end) == 1 for end in ends.values()), f"{name}: all blocks are kept as far", files)
    return {unit: min(end) for unit, end in ends.items()}


def go(work, sweep, stop, timings):
    """Run the stage; if `stop`, ask it to stop as soon as the sweep has left a file more.  What it said."""
    command = work.command(
        sweep.stage, "--model", MODEL, *sweep.arguments, "--timings", timings, "--checkpoint-minutes", "1e-6"
    )
    before = segments(work, sweep)
    job = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    limit = time.monotonic() + 120
    while stop and job.poll() is None and segments(work, sweep) == before and time.monotonic() < limit:
        time.sleep(0.002)
    if stop:
        send(job.pid, signal.SIGUSR1, only=sweep.stage[:15])
    said = job.communicate(timeout=300)[1]
    return job.returncode, said


def check_end(name, work, sweep, parts, timings):
    """The last run computed just what was left, and the result is right."""
    rows = sum(
        int((sweep.tokens[unit * sweep.unit + end : (unit + 1) * sweep.unit] - 1).sum())
        for unit, end in ((u, parts.get(u, 0)) for u in range(-(-len(sweep.tokens) // sweep.unit)))
    )
    with open(timings, encoding="utf-8") as file:
        found = next(phase["rows"] for phase in json.load(file)["phases"] if phase["name"] == sweep.phase)
    check(
        found == rows * GRIDS[-1][1],
        f"{name}: computed what was left",
        f"{found} rows of {GRIDS[-1][1]} ranks, {rows} were left",
    )
    same_file(
        name, work.path(sweep.final), sweep.reference, ignore=("@factors_fingerprint", "@explained", "@explain_options")
    )


def test_sweep(number):
    """Stopped on each grid in turn, with its end on the last; returns how often it was stopped inside a unit."""
    work = engine(MODEL, f"stopped-{number}")
    sweep = sweeps(work)[number]
    if sweep.kind == "token_scores":
        shutil.copy(RANKING, work.path("r.h5"))
    parts, inside = {}, 0
    for i, (work.ranks, pipeline) in enumerate(GRIDS):
        work.common = ["--pipeline", str(pipeline)]
        last, timings, name = i == len(GRIDS) - 1, work.path(f"timings-{i}"), f"{sweep.stage}, {sweep.phase}, run {i}"
        code, said = go(work, sweep, not last, timings)
        check(code == (0 if last else 75), f"{name}: exit code", f"{code}: {said[-400:]}")
        told = re.search(
            rf"{sweep.phase}: (\d+) of \d+ units(?:, and (\d+) sequences of others,)? were finished before", said
        )
        sizes = {unit: min(sweep.unit, len(sweep.tokens) - unit * sweep.unit) for unit in parts}
        whole = sum(parts[unit] == size for unit, size in sizes.items())
        check(
            (int(told[1]), int(told[2] or 0))
            == (whole, sum(parts.values()) - sum(s for u, s in sizes.items() if parts[u] == s))
            if told
            else not parts,
            f"{name}: goes on from all that is kept",
            f"{parts}: {told and told[0]}",
        )
        if last:
            check_end(name, work, sweep, parts, timings)
        else:
            parts = kept(name, sweep, segments(work, sweep))
            inside += any(
                0 < end < min(sweep.unit, len(sweep.tokens) - unit * sweep.unit) for unit, end in parts.items()
            )
    return inside


for sweep_number in range(5):
    times = test_sweep(sweep_number)
    check(times >= 2, f"sweep {sweep_number}: stops inside a unit", times)
finish(60)
