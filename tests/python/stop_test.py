#!/usr/bin/env python3
"""A stop asked of what started the ranks: of scripts/mpi by SIGTERM and Ctrl-C, of a bare mpirun by SIGUSR1.  Exit code 75,
finished work is kept, and the same command goes on to the bytes of a run that nothing disturbed."""

import os
import signal
import subprocess
import time

from engine_checks import check, engine, finish, same_file, shared_files
from restart_checks import members

CASE, STOPPED = "llama", 75
TOKENS, QUERIES = shared_files(n=400, n_queries=60)
REFERENCE = engine(CASE, "reference")
FACTORS = REFERENCE.fit(TOKENS, "factors", "--unit-sequences", 8)
COMPRESSED = REFERENCE.compress(FACTORS, QUERIES, "compressed.h5", "--unit-queries", 2)
SCORES = REFERENCE.score(COMPRESSED, TOKENS, "scores", "--unit-sequences", 4)
SAME = {
    "fit_factors": f"{FACTORS}/index.h5",
    "compress_queries": COMPRESSED,
    "score_shards": f"{SCORES}/shard-00000-of-00001.h5",
}


def stage_of(work, stage):
    """(command, folder of its work files, final file)"""
    start = [stage, "--model", work.model, "--output"]
    if stage == "fit_factors":
        return (
            work.command(*start, work.path("factors"), "--tokens", TOKENS, "--unit-sequences", 8),
            work.path("factors/work"),
            work.path("factors/index.h5"),
        )
    if stage == "score_shards":
        return (
            work.command(
                *start, work.path("scores"), "--queries", COMPRESSED, "--tokens", TOKENS, "--unit-sequences", 4
            ),
            work.path("scores/shard-00000-of-00001.work"),
            work.path("scores/shard-00000-of-00001.h5"),
        )
    return (
        work.command(
            *start, work.path("compressed.h5"), "--factors", FACTORS, "--queries", QUERIES, "--unit-queries", 2
        ),
        work.path("compressed.h5.work"),
        work.path("compressed.h5"),
    )


def work_files(folder):
    return [f for f in os.listdir(folder) if f.endswith(".h5")] if os.path.isdir(folder) else []


def ask(name, command, folder, number):
    """Start, signal the process started as soon as a work file is there; (exit code, what was said, work files)"""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        limit = time.monotonic() + 120
        while not work_files(folder) and job.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        job.send_signal(number)
        said = job.communicate(timeout=120)[1]
    limit = time.monotonic() + 60
    while members(job.pid) and time.monotonic() < limit:
        time.sleep(0.02)
    check(not members(job.pid), f"{name}: no process is left")
    return job.returncode, said, work_files(folder)


def test_stop(stage, ranks, launcher, number):
    name = f"{stage}, {ranks} ranks, {signal.Signals(number).name} to {launcher}"
    work = engine(CASE, f"{stage}-{ranks}-{os.path.basename(launcher)}-{number}", ranks=ranks)
    command, folder, final = stage_of(work, stage)
    started = (
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *command[2:]]
        if launcher == "mpirun"
        else command
    )
    code, said, kept = ask(name, started, folder, number)
    check(code == STOPPED, f"{name}: exit {STOPPED}", (code, said[-300:]))
    check("run the same command to go on" in said, f"{name}: says so", said[-300:])
    check(kept and not os.path.exists(final), f"{name}: work is kept", kept)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    check(done.returncode == 0 and "going on" in done.stderr, f"{name}: goes on", done.stderr[-300:])
    same_file(name, final, SAME[stage], ignore=("@factors_fingerprint",))


# what a shell starts with & ignores SIGINT, and so would all that this test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
for STAGE in SAME:
    for RANKS in (1, 2, 4):
        for NUMBER in (signal.SIGTERM, signal.SIGINT):
            test_stop(STAGE, RANKS, "scripts/mpi", NUMBER)
if not os.environ.get("MPIRUN"):
    test_stop("score_shards", 2, "mpirun", signal.SIGUSR1)
finish(100)
