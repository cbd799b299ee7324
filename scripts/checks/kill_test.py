#!/usr/bin/env python3
"""kill -9 at 50 random moments of whole runs (fit, compress, score, merge, explain), each time on another grid: all ranks, one
rank alone, or the whole job step with its launcher.  What is run again ends with the bytes of a run that nothing disturbed."""
import os
import random
import signal
import subprocess
import time

from engine_checks import FOLDER, check, deep_model, engine, finish, same_file, shared_files
from restart_checks import kill, members, send

KILLS = int(os.environ.get("BREGMAN_KILLS", "50"))
SEED = int(os.environ.get("BREGMAN_SEED", str(time.time_ns() % 100000)))
RANDOM = random.Random(SEED)
GRIDS = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1), (4, 1), (1, 4)]
MODEL = deep_model("llama", 3)
TOKENS, QUERIES = shared_files(n=40)
IGNORED = ("@factors_fingerprint", "@explained", "@explain_options")


def stages(work):
    """(stage, arguments) of a whole run in work's folder."""
    model, rows = ["--model", MODEL], ["--batch-tokens", 40]
    return [("fit_factors", [*model, "--tokens", TOKENS, "--output", work.path("factors"), "--unit-sequences", 8, *rows]),
            ("compress_queries", [*model, "--factors", work.path("factors"), "--queries", QUERIES, "--output",
                                  work.path("compressed.h5"), "--unit-queries", 1, "--rank", 8]),
            ("score_shards", [*model, "--queries", work.path("compressed.h5"), "--tokens", TOKENS, "--output",
                              work.path("scores"), "--unit-sequences", 2, "--layer-scores", *rows]),
            ("merge_scores", ["--scores", work.path("scores"), "--output", work.path("ranking.h5"), "--top", 6]),
            ("score_shards", [*model, "--queries", work.path("compressed.h5"), "--tokens", TOKENS, "--output",
                              work.path("scores"), "--explain", work.path("ranking.h5"), *rows])]


def start(work, stage, arguments):
    """On a random grid, with a checkpoint after nearly every micro-batch."""
    d, p = RANDOM.choice(GRIDS)
    work.ranks = d * p
    work.common = ["--pipeline", str(p), "--checkpoint-minutes", RANDOM.choice(["1e-6", "0.001", "10"])]
    return subprocess.Popen(work.command(stage, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def has_started(pid):
    """Is a rank of several through MPI_Init, and has its shared memory mapped?  Open MPI's mpirun can wait for ever if one
    dies before."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return "vader" in file.read()
    except OSError:
        return False


def strike(session, stage, wanted):
    """Kill what the job consists of, or one rank, or all `wanted` ranks but not their launcher."""
    how = RANDOM.choice(["job", "rank", "ranks"])
    ranks = [pid for pid, name in members(session) if name == stage[:15]]
    if how == "job" or wanted == 1 or len(ranks) < wanted or not all(map(has_started, ranks)):
        kill(session)
    elif how == "ranks":
        send(session, signal.SIGKILL, only=stage[:15])
    else:
        try:
            os.kill(RANDOM.choice(ranks), signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait(job, name):
    """The job ends, whatever happened to it; returns its exit code."""
    try:
        said = job.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        kill(job.pid)
        said = job.communicate()[1]
        check(False, f"{name}: hung", said[-300:])
    limit = time.monotonic() + 10
    while members(job.pid) and time.monotonic() < limit:
        time.sleep(0.01)
    check(not members(job.pid), f"{name}: no process is left")
    return job.returncode, said


def run(folder, kills):
    """A whole run, killed on the way; returns (its files, kills that hit)."""
    work, hits = engine(MODEL, folder), 0
    for number, (stage, arguments) in enumerate(stages(work)):
        longest = 0.6                                        # start-up counts: most moments are to lie after it
        while True:
            job = start(work, stage, arguments)
            name = f"{folder}, {stage} {number} on {work.ranks} ranks {work.common}"
            if hits < kills and (stage != "merge_scores" or RANDOM.random() < 0.5):
                time.sleep(RANDOM.uniform(0.05, longest))
                if job.poll() is None:
                    strike(job.pid, stage, work.ranks)
                code, said = wait(job, name)
                hits += code != 0
                longest += 0.1                               # progress even where every start-up was hit
            else:
                code, said = wait(job, name)
                check(code == 0, name, said[-500:])
            if code == 0:
                break
    return {"factors": work.path("factors/index.h5"), "compressed queries": work.path("compressed.h5"),
            "scores": work.path("scores/shard-00000-of-00001.h5"), "ranking": work.path("ranking.h5")}, hits


def test():
    reference, _ = run("reference", 0)
    hits, rounds = 0, 0
    while hits < KILLS and rounds < 20:
        made, hit = run(f"killed{rounds}", min(17, KILLS - hits))
        hits, rounds = hits + hit, rounds + 1
        for kind, path in made.items():
            same_file(f"round {rounds}, {kind}", path, reference[kind], ignore=IGNORED)
        left = [f for f in os.listdir(os.path.join(FOLDER, f"killed{rounds - 1}")) if f.endswith(".work")]
        check(not left and not os.path.exists(os.path.join(FOLDER, f"killed{rounds - 1}", "factors/work")), "no work files left", left)
    check(hits >= KILLS, "kills that hit", hits)
    print(f"seed {SEED}: {hits} kills in {rounds} whole runs")


test()
finish(20)
