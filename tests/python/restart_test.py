#!/usr/bin/env python3
"""Interrupted runs: kill -9 of a whole job, or a signal that asks it to stop, at several moments of every phase; the
same command then goes on and ends with the bytes of a run that nothing disturbed."""

import glob
import os
import signal
import subprocess
import time

from engine_checks import check, engine, finish, same_file, shared_files
from restart_checks import kill, members, send

CASE, STOPPED = "llama", 75
TOKENS, QUERIES = shared_files(n=60)
REFERENCE = engine(CASE, "reference")
FACTORS = REFERENCE.fit(TOKENS, "factors", "--unit-sequences", 1)
COMPRESSED = REFERENCE.compress(FACTORS, QUERIES, "compressed.h5", "--unit-queries", 1)
SCORES = REFERENCE.score(COMPRESSED, TOKENS, "scores", "--unit-sequences", 1)


def start(command):
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def interrupt(command, pattern, files, action):
    """Start, wait until `files` files match, act; returns (exit code, what was said), or None if it ended before."""
    job, limit = start(command), time.monotonic() + 60
    while len(glob.glob(pattern)) < files and job.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    ended = job.poll() is not None
    action(job.pid)
    said = job.communicate(timeout=60)[1]
    for _ in range(500):  # a killed mpirun's ranks end on their own
        if not members(job.pid):
            break
        time.sleep(0.01)
    check(not members(job.pid), "no process is left")
    return None if ended else (job.returncode, said)


def again(name, command, final):
    """The same command ends what is left; once more finds it done and leaves it alone."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    check(done.returncode == 0 and os.path.exists(final), f"{name}: rerun", done.stderr[-300:])
    went_on = "were finished before; going on" in done.stderr
    before = os.stat(final)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    after = os.stat(final)
    check(done.returncode == 0 and "already done" in done.stderr, f"{name}: already done", done.stderr[-300:])
    check((before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino), f"{name}: left alone")
    return went_on


def leftovers(folder):
    return glob.glob(f"{folder}/**/work", recursive=True) + glob.glob(f"{folder}/**/*.work", recursive=True)


def stage_of(work, stage):
    """(command, folder of the units, final file) of a stage."""
    common = ["--model", work.model, "--unit-sequences", 1]
    if stage == "fit_factors":
        return (
            work.command(stage, *common, "--tokens", TOKENS, "--output", work.path("factors")),
            work.path("factors/work"),
            work.path("factors/index.h5"),
        )
    if stage == "score_shards":
        return (
            work.command(stage, *common, "--queries", COMPRESSED, "--tokens", TOKENS, "--output", work.path("scores")),
            work.path("scores/shard-00000-of-00001.work"),
            work.path("scores/shard-00000-of-00001.h5"),
        )
    return (
        work.command(
            stage,
            "--model",
            work.model,
            "--factors",
            FACTORS,
            "--queries",
            QUERIES,
            "--output",
            work.path("compressed.h5"),
            "--unit-queries",
            1,
        ),
        work.path("compressed.h5.work"),
        work.path("compressed.h5"),
    )


# stage, units that show how far it is, how many of them to wait for
MOMENTS = [
    ("fit_factors", "covariance-*.h5", 20),
    ("fit_factors", "activation-*.h5", 2),
    ("fit_factors", "lambda-*.h5", 9),
    ("compress_queries", "queries-*.h5", 2),
    ("score_shards", "scores-*.h5", 1),
    ("score_shards", "scores-*.h5", 25),
]
FINAL = {
    "fit_factors": f"{FACTORS}/index.h5",
    "compress_queries": COMPRESSED,
    "score_shards": f"{SCORES}/shard-00000-of-00001.h5",
}
IGNORED = ("@factors_fingerprint",)


def test_kills():
    """One folder a stage: its run is killed at each moment in turn, each time further on, and then ended."""
    went_on = 0
    for stage in FINAL:
        work = engine(CASE, f"killed-{stage}", ranks=2)
        command, folder, final = stage_of(work, stage)
        for _, units, files in (m for m in MOMENTS if m[0] == stage):
            result = interrupt(command, f"{folder}/{units}", files, kill)
            if result is not None:
                check(not os.path.exists(final), f"{stage} killed at {units}: no final file")
                check(len(glob.glob(f"{folder}/{units}")) >= files, f"{stage} killed at {units}: finished units stay")
        went_on += again(f"{stage} killed", command, final)
        same_file(f"{stage} killed", final, FINAL[stage], ignore=IGNORED)
        check(not leftovers(work.folder) and not glob.glob(f"{work.folder}/*.tmp-*"), f"{stage}: no work files left")
    check(went_on >= 2, "killed runs were gone on with", went_on)


def test_signals():
    """SIGTERM to one rank, or SIGUSR1 to all, as Slurm's warning comes: exit 75, then the same bytes."""
    stopped = 0
    for stage, units, files in MOMENTS[0], MOMENTS[2], MOMENTS[4]:
        for ranks, number in ((1, signal.SIGTERM), (2, signal.SIGUSR1), (2, signal.SIGTERM)):
            work = engine(CASE, f"{stage}-{files}-{ranks}-{number}", ranks=ranks if ranks > 1 else 0)
            command, folder, final = stage_of(work, stage)

            def ask(session, stage=stage, number=number):
                if number == signal.SIGTERM:  # mpirun would end the job at once: only a rank is asked
                    os.kill(next(pid for pid, name in members(session) if name == stage[:15]), number)
                else:
                    send(session, number, only=stage[:15])

            result = interrupt(command, f"{folder}/{units}", files, ask)
            name = f"{stage}, {units}, {ranks} ranks, {signal.Signals(number).name}"
            if result is not None:
                stopped += result[0] == STOPPED
                check(result[0] == STOPPED, f"{name}: exit {STOPPED}", result)
                check(
                    "error" not in result[1] and "run the same command" in result[1],
                    f"{name}: says so",
                    result[1][-300:],
                )
                check(not os.path.exists(final), f"{name}: no final file")
            again(name, command, final)
            same_file(name, final, FINAL[stage], ignore=IGNORED)
    check(stopped == 9, "runs that were stopped in time", stopped)


test_kills()
test_signals()
finish(60)
