#!/usr/bin/env python3
"""How long score_shards and compress_queries take from a request to stop to their end, in units of 10 minutes that no job
runs to its end: SIGUSR1 to mpirun, or a file named `stop`, on several grids.  Prints seconds and micro-batches; asserts nothing.

    BUILD=build tests/python/stop_time.py [SECONDS A JOB MAY TAKE TO STOP, 120] [STAGE]
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from engine_checks import BUILD, FOLDER, MPI, engine, plain_gpt2
import numpy as np

from check_goldens import write_tokens

LIMIT_S = float(sys.argv[1]) if len(sys.argv) > 1 else 120
UNIT_S, LEAD_S, PROBES = 600, 3, 48  # of a unit; between the first batches and the request; sequences of a probe
LENGTH, VOCABULARY, PER_BATCH = 128, 512, 4
GRIDS = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4)]  # columns, ranks of a pipeline
os.environ["OMP_NUM_THREADS"] = "1"


def sequences(name, n, queries=False):
    random = np.random.default_rng(5)
    made = list(random.integers(0, VOCABULARY, (n, LENGTH)))
    return write_tokens(f"{FOLDER}/{name}.h5", made, LENGTH // 2 if queries else None)


def command_of(stage, grid, given, output, per_unit):
    columns, pipeline = grid
    options = [
        "--model",
        MODEL,
        "--threads",
        1,
        "--pipeline",
        pipeline,
        "--checkpoint-minutes",
        10,
        "--timings",
        f"{FOLDER}/timings.json",
    ]
    if stage == "score_shards":
        options += [
            "--queries",
            COMPRESSED,
            "--tokens",
            given,
            "--output",
            output,
            "--unit-sequences",
            per_unit,
            "--batch-tokens",
            PER_BATCH * LENGTH,
        ]
    else:
        options += [
            "--factors",
            FACTORS,
            "--queries",
            given,
            "--output",
            f"{output}/c.h5",
            "--unit-queries",
            per_unit,
            "--rank",
            16,
        ]
    return list(map(str, [MPI, columns * pipeline, f"{BUILD}/bin/{stage}", *options]))


def seconds_a_sequence(stage, grid):
    """Of one column, from a short run of a unit a column."""
    n = PROBES * grid[0]
    output = f"{FOLDER}/probe"
    os.makedirs(output)
    subprocess.run(
        command_of(stage, grid, sequences("probe-input", n, stage == "compress_queries"), output, PROBES),
        check=True,
        capture_output=True,
    )
    with open(f"{FOLDER}/timings.json", encoding="utf-8") as file:
        phases = {phase["name"]: phase["seconds"] for phase in json.load(file)["phases"]}
    shutil.rmtree(output)
    return phases["scores" if stage == "score_shards" else "queries"] / PROBES


def stop(stage, grid, how):
    """One line: how long a stop takes."""
    each_s = seconds_a_sequence(stage, grid)
    per_unit = max(int(UNIT_S / each_s), PER_BATCH)
    output = f"{FOLDER}/stopped"
    os.makedirs(output)
    given = sequences("input", per_unit * grid[0], stage == "compress_queries")
    job = subprocess.Popen(
        command_of(stage, grid, given, output, per_unit),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in job.stderr:  # until it says that it computes
        if re.search(r"(scores|queries): .* of .*sequences", line):
            break
    time.sleep(LEAD_S)
    asked = time.monotonic()
    if how == "SIGUSR1":
        job.send_signal(signal.SIGUSR1)
    else:
        with open(f"{output}/stop", "w", encoding="utf-8"):
            pass
    try:
        job.communicate(timeout=LIMIT_S)
        took = time.monotonic() - asked
        print(
            f"| {stage} | {grid[0]} x {grid[1]} | {how} | {took:.2f} s | {took / each_s / BATCH[stage]:.1f} micro-batches "
            f"of {each_s * BATCH[stage]:.3f} s | code {job.returncode} |",
            flush=True,
        )
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGTERM)
        job.communicate()
        print(
            f"| {stage} | {grid[0]} x {grid[1]} | {how} | > {LIMIT_S:.0f} s | > {LIMIT_S / each_s / BATCH[stage]:.0f} "
            f"micro-batches of {each_s * BATCH[stage]:.3f} s | killed |",
            flush=True,
        )
    shutil.rmtree(output)


MODEL = plain_gpt2("stop-model", d=256, blocks=4, positions=LENGTH, vocabulary=VOCABULARY)
TINY = engine(MODEL, "reference", ranks=1)
FACTORS = TINY.fit(sequences("fit", 16), "factors")
COMPRESSED = TINY.compress(FACTORS, sequences("queries", 4, True), "compressed.h5", "--rank", 16)
BATCH = {"score_shards": PER_BATCH, "compress_queries": 1536 // (LENGTH - 1)}  # sequences of a micro-batch
print("| stage | columns x pipeline | asked by | answered in | that is | |\n|---|---|---|---|---|---|", flush=True)
for each_stage in sys.argv[2:] or ["score_shards", "compress_queries"]:
    for each_grid in GRIDS:
        for each_how in "SIGUSR1", "stop file":
            stop(each_stage, each_grid, each_how)
shutil.rmtree(FOLDER, ignore_errors=True)
