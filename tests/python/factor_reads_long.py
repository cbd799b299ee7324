#!/usr/bin/env python3
"""How often compress_queries reads factors: once in all where they stay in memory, and where a limit has no room for them
once for each unit of queries, by micro-batches as large as that.  Bytes read are counted by the system."""

import glob
import os
import re
import signal
import subprocess
import time

import h5py
import numpy as np

from check_goldens import write_tokens
from engine_checks import FOLDER, check, close, corpus, engine, finish, plain_gpt2, same_file
from restart_checks import kill

D, N_BLOCKS, POSITIONS = 192, 4, 161  # more datasets than stay open, so none of them is served from a cache of HDF5's
MODEL = plain_gpt2("wide", D, N_BLOCKS, POSITIONS, 64)
TOKENS = write_tokens(f"{FOLDER}/tokens.h5", corpus(20))
FACTORS = engine(MODEL, "factors").fit(TOKENS, "factors", "--no-diagonal")
FACTOR_BYTES = N_BLOCKS * 4 * sum(p * p + m * m + 2 * p * m for p, m in ((4 * D, D + 1), (D, 4 * D + 1)))
N_UNITS = 2
LITTLE = {"SLURM_MEM_PER_NODE": "1"}  # no room for factors without --memory-limit
PLAN = re.compile(r"memory a rank: (\d+) MB at most, with micro-batches of (\d+) rows")
HELD = re.compile(r"factors of (\d+) of 8 modules stay in memory, (\d+) MB a rank at most(.*)")


def query_file(n):
    """n queries of as many rows as the model takes."""
    random = np.random.default_rng(1)
    return write_tokens(
        f"{FOLDER}/queries-{n}.h5", [random.integers(0, 64, POSITIONS) for _ in range(n)], POSITIONS - 9
    )


def command(work, queries, unit, *options):
    return work.command(
        "compress_queries",
        *("--model", MODEL, "--factors", FACTORS, "--queries", queries, "--rank", 4),
        *("--unit-queries", unit, "--output", work.path("compressed.h5"), *options),
    )


def compress(name, queries, unit, *options, env=LITTLE, **engine_options):
    """(its work, what it said, bytes read by all its processes)"""
    work = engine(MODEL, name, **engine_options)
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" && sed -n "s/rchar: //p" /proc/$$/io', "sh", *command(work, queries, unit, *options)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **env},
    )
    check(done.returncode == 0, f"{name}: ends well", done.stderr[-300:])
    return work, done.stderr, int(done.stdout.split()[-1])


def gradients(work):
    """{module: [query, P, M]}: what left and right stand for, as they are not unique."""
    with h5py.File(work.path("compressed.h5")) as file:
        modules = []
        file.visit(lambda name: modules.append(name[:-5]) if name.endswith("/left") else None)
        return {m: np.einsum("qpr,qmr->qpm", file[f"{m}/left"][()], file[f"{m}/right"][()]) for m in modules}


# a unit a query longer than the usual micro-batch
said = compress("usual", query_file(1), 1)[1]
usual = int(PLAN.search(said)[2])
unit = usual // (POSITIONS - 1) + 1
unit_rows = unit * (POSITIONS - 1)
queries = query_file(N_UNITS * unit)

plain, said, most = compress("plain", queries, unit)
needs = int(PLAN.search(said)[1]) * 1000000
check(HELD.search(said).groups() == ("0", "0", "; the others' are read for each micro-batch"), "no room", said)

# without a limit, in half of what the machine has
free, said, read = compress("free", queries, unit, env={})
check(HELD.search(said).group(1, 3) == ("8", ""), "all stay", said)
check(PLAN.search(said)[2] == str(usual), "micro-batches as usual", said)
check(
    0.97 < (most - read) / (FACTOR_BYTES * (2 * N_UNITS - 1)) < 1.2,
    "factors are read once",
    (most - read) / FACTOR_BYTES,
)
same_file("factors in memory", free.path("compressed.h5"), plain.path("compressed.h5"))

# in a large limit
large, said, read = compress("large", queries, unit, "--memory-limit", "4G")
check(0.97 < (most - read) / (FACTOR_BYTES * (2 * N_UNITS - 1)) < 1.2, "in a limit", (most - read) / FACTOR_BYTES)
same_file("a large limit", large.path("compressed.h5"), plain.path("compressed.h5"))

# in a limit that has room for some, and units that are no longer than a micro-batch
few = query_file(5)
none, said, most_of_few = compress("few", few, 1)
some, said, read = compress("some", few, 1, "--memory-limit", int(PLAN.search(said)[1]) * 1000000 + FACTOR_BYTES // 2)
check(0 < int(HELD.search(said)[1]) < 8, "some stay", said)
check(0.3 < (most_of_few - read) / (FACTOR_BYTES * 4) < 0.75, "some are read once", (most_of_few - read) / FACTOR_BYTES)
same_file("some factors in memory", some.path("compressed.h5"), none.path("compressed.h5"))

# in one that a unit's micro-batch nearly fills: it is read once a unit, and rounds differently
for limit in range(needs, needs + FACTOR_BYTES, 1000000):
    tight, said, read = compress(f"tight-{limit}", queries, unit, "--memory-limit", limit)
    if int(PLAN.search(said)[2]) > usual:
        break
check(PLAN.search(said)[2] == str(unit_rows), "micro-batches of a unit", said)
check(HELD.search(said)[3] == "; the others' are read once a unit", "what is said of them", said)
check(0.97 < (most - read) / (FACTOR_BYTES * N_UNITS) < 1.5, "once a unit", (most - read) / FACTOR_BYTES)
wanted = gradients(plain)
for module, found in gradients(tight).items():
    close(f"{module}, once a unit", found, wanted[module], 1e-4)
two = compress("two", queries, unit, "--memory-limit", limit, ranks=2)[0]
same_file("two columns", two.path("compressed.h5"), tight.path("compressed.h5"))
deep, said, _ = compress("deep", queries, unit, "--memory-limit", limit, ranks=2, common=["--pipeline", 2])
check(int(HELD.search(said)[1]) > 0, "a pipeline", said)
wanted = gradients(plain)
for module, found in gradients(deep).items():
    close(f"{module}, in a pipeline", found, wanted[module], 1e-4)

# begun in that limit, ended in the midst, and gone on with: in less room not at all, in more with the same micro-batches
work = engine(MODEL, "again")
with subprocess.Popen(command(work, queries, unit, "--memory-limit", limit), start_new_session=True) as job:
    while job.poll() is None and not glob.glob(work.path("compressed.h5.work/queries-*-block-*.h5")):
        time.sleep(0.005)
    kill(job.pid)
check(job.returncode == -signal.SIGKILL, "ended in the midst", job.returncode)
done = subprocess.run(
    command(work, queries, unit, "--memory-limit", needs - 2000000),
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
)
check(f"begun with micro-batches of {unit_rows} rows" in done.stderr, "less room", done.stderr[-300:])
_, said, _ = compress("again", queries, unit)
check(PLAN.search(said)[2] == str(unit_rows), "the same micro-batches", said)
same_file("gone on with", work.path("compressed.h5"), tight.path("compressed.h5"))
finish(48)
