#!/usr/bin/env python3
"""kill -9 in the middle of whole runs (fit, compress, score, merge, explain), each attempt on another grid: the whole job, one
rank, all ranks or their launcher; at a random moment, or at the n-th fsync, rename, link or write of a rank, so inside of
checkpoints and publication too; or while a second attempt runs in the same folder, which must end well. What is run again
ends with the bytes of a run that nothing disturbed, verify finds no fault, and neither process nor file is left over.

KILLS (20) must hit; make check-kill KILLS=1000 for many. SEED gives the choices of an earlier run again, but not its timing."""

import collections
import concurrent.futures
import glob
import os
import random
import shutil
import signal
import subprocess
import time

from engine_checks import BUILD, FOLDER, check, deep_model, engine, fault_library, finish, same_file, shared_files
from restart_checks import kill, members, send

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", str(time.time_ns() % 100000)))
RUNS_AT_ONCE, KILLS_A_RUN = 2, 12
GRIDS = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1), (4, 1), (1, 4)]
MODEL = deep_model("llama", 3)
TOKENS, QUERIES = shared_files(n=40)
LIBRARY = fault_library()
IGNORED = ("@factors_fingerprint", "@explained", "@explain_options")
Job = collections.namedtuple("Job", "process stage ranks name")


def stages(work):
    """(stage, arguments, final file) of a whole run in work's folder."""
    model, rows = ["--model", MODEL], ["--batch-tokens", 40]
    return [
        (
            "fit_factors",
            [*model, "--tokens", TOKENS, "--output", work.path("factors"), "--unit-sequences", 8, *rows],
            "index.h5",
        ),
        (
            "compress_queries",
            [
                *model,
                "--factors",
                work.path("factors"),
                "--queries",
                QUERIES,
                "--output",
                work.path("compressed.h5"),
                "--unit-queries",
                1,
                "--rank",
                8,
            ],
            "compressed.h5",
        ),
        (
            "score_shards",
            [
                *model,
                "--queries",
                work.path("compressed.h5"),
                "--tokens",
                TOKENS,
                "--output",
                work.path("scores"),
                "--unit-sequences",
                2,
                "--layer-scores",
                *rows,
            ],
            "shard-00000-of-00001.h5",
        ),
        (
            "merge_scores",
            ["--scores", work.path("scores"), "--output", work.path("ranking.h5"), "--top", 6],
            "ranking.h5",
        ),
        (
            "score_shards",
            [
                *model,
                "--queries",
                work.path("compressed.h5"),
                "--tokens",
                TOKENS,
                "--output",
                work.path("scores"),
                "--explain",
                work.path("ranking.h5"),
                *rows,
            ],
            "ranking.h5",
        ),
    ]


def start(work, stage, arguments, choice, fault=None):
    """An attempt on a random grid, with a checkpoint after nearly every micro-batch or none.  With a fault, one of its ranks
    stops itself at a call."""
    d, p = choice.choice(GRIDS)
    options = (
        []
        if stage == "merge_scores"
        else ["--pipeline", p, "--checkpoint-minutes", choice.choice(["1e-6", "0.001", "10"])]
    )
    variables = {**fault, "FAULT_RANK": choice.choice([0, 0, choice.randrange(d * p)])} if fault else {}
    command = [
        os.path.join(work.launcher),
        d * p,
        "env",
        *(f"{name}={value}" for name, value in variables.items()),
        f"{BUILD}/bin/{stage}",
        *arguments,
        "--threads",
        1,
        *options,
    ]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    return Job(process, stage, d * p, f"{work.folder}, {stage} on {d * p} ranks {options}, {fault or 'no fault'}")


def choose_fault(work, final, choice):
    """(call, variables of the fault): a rank's n-th call to any file of the run, its final file or a manifest."""
    call = choice.choice(["fsync", "rename", "link", "write"])
    files, n = choice.choice([("*", 8), ("*", 3), (f"*{final}*", 1), ("*MANIFEST*", 2)])
    return call, {
        "LD_PRELOAD": LIBRARY,
        "FAULT_CALL": call,
        "FAULT_PATH": f"{work.folder}/{files}",
        "FAULT_ACTION": "SIGSTOP",
        "FAULT_NTH": choice.randint(1, n),
    }


def wait_for_fault(job):
    """Until a rank has stopped itself, or the job has ended.  A rank that has only said in its log that it will could
    be continued too early, and stop for good."""
    limit = time.monotonic() + 60
    while not members(job.process.pid, "T") and job.process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)


def has_started(pid):
    """Is a rank of several through MPI_Init, and has its shared memory mapped?  Open MPI's mpirun can wait for ever if one
    dies before."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return "vader" in file.read()
    except OSError:
        return False


def strike(job, choice):
    """Kill what the job consists of, its launcher, one rank, or all ranks but not the launcher; returns which."""
    session, name = job.process.pid, job.stage[:15]
    how = choice.choice(["job", "launcher", "rank", "ranks"])
    ranks = [pid for pid, process in members(session) if process == name]
    launcher = [pid for pid, process in members(session) if process != name]  # scripts/mpi and mpirun
    if job.ranks == 1 or len(ranks) < job.ranks or not all(map(has_started, ranks)):
        how = "job"
    if how == "job":
        kill(session)
        return how
    victims = {"ranks": ranks, "rank": [choice.choice(ranks)], "launcher": launcher}[how]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    send(session, signal.SIGCONT)  # the rank that stopped itself; it can see that it is alone now
    return how


def wait(job):
    """The job ends, whatever happened to it; returns its exit code and what it said."""
    hung = False
    try:
        said = job.process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        hung = True
        kill(job.process.pid)
        said = job.process.communicate()[1]
    check(not hung, f"{job.name}: hung", said[-300:])
    limit = time.monotonic() + 10
    while members(job.process.pid) and time.monotonic() < limit:
        time.sleep(0.01)
    left = members(job.process.pid)
    check(not left, f"{job.name}: no process is left", left)
    if left:
        kill(job.process.pid)
    own = [line for line in said.splitlines() if line.startswith(f"{job.stage}: ")]
    return job.process.returncode, "\n".join(own[-3:]) or said[-500:]


class Run:
    """A whole run, killed on the way."""

    def __init__(self, folder, kills, seconds):
        """seconds: how long each stage takes undisturbed."""
        self.work, self.kills, self.seconds = engine(MODEL, folder), kills, seconds
        self.hits = collections.Counter()  # by (stage, place, what was killed)

    def disturb(self, number, stage, arguments, final, choice):
        """One attempt, or two at once, one of which may be killed; returns whether the stage has ended well."""
        place, fault, two = "random moment", None, choice.random() < 0.2
        if choice.random() < 0.7:
            place, fault = choose_fault(self.work, final, choice)
        job = start(self.work, stage, arguments, choice, fault)
        if fault:
            wait_for_fault(job)
        else:
            time.sleep(choice.uniform(0.05, self.seconds[number]))
        second = start(self.work, stage, arguments, choice) if two else None
        if two:
            time.sleep(choice.uniform(0.05, self.seconds[number]))
        spared = two and choice.random() < 0.3  # the first goes on after the second has run for a while
        how = None if spared or job.process.poll() is not None else strike(job, choice)
        send(job.process.pid, signal.SIGCONT)
        code, said = wait(job)
        if code != 0 and how is not None:
            self.hits[stage, f"at a {place}" if fault else place, how + (" of two" if two else "")] += 1
        else:
            check(code == 0, job.name, said)
        if second is not None:
            other, said = wait(second)
            check(other == 0, f"{second.name}, beside {job.name}", said)
            return other == 0
        return code == 0

    def stage(self, number, stage, arguments, final):
        for attempt in range(100):
            choice = random.Random(f"{SEED} {self.work.folder[len(FOLDER) :]} {number} {attempt}")
            if sum(self.hits.values()) >= self.kills or (stage == "merge_scores" and choice.random() < 0.5):
                break
            if self.disturb(number, stage, arguments, final, choice):
                break
        self.end(stage, arguments)

    def end(self, stage, arguments):
        """Undisturbed: whatever is left to do is done."""
        begun = time.monotonic()
        job = start(self.work, stage, arguments, random.Random(SEED))
        code, said = wait(job)
        check(code == 0, f"{job.name}: the last attempt", said)
        return time.monotonic() - begun

    def run(self):
        for number, stage in enumerate(stages(self.work)):
            self.stage(number, *stage)
        return self

    def check_left(self):
        """Nothing is left of dead attempts, and what was published is whole."""
        left = [
            f
            for f in glob.glob(f"{self.work.folder}/**", recursive=True)
            if f.endswith((".work", "/work")) or ".tmp-" in f
        ]
        check(not left, f"{self.work.folder}: nothing is left over", left)
        paths = [self.work.path(name) for name in ("factors", "compressed.h5", "scores", "ranking.h5")]
        done = subprocess.run([f"{BUILD}/bin/verify", *paths], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"{self.work.folder}: verify", done.stdout + done.stderr)

    def files(self):
        return {
            "factors": self.work.path("factors/index.h5"),
            "compressed queries": self.work.path("compressed.h5"),
            "scores": self.work.path("scores/shard-00000-of-00001.h5"),
            "ranking": self.work.path("ranking.h5"),
        }


def test():
    print(f"SEED={SEED}", flush=True)
    reference = Run("reference", 0, None)
    seconds = [reference.end(stage, arguments) for stage, arguments, _ in stages(reference.work)]
    hits, started = collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        while sum(hits.values()) < KILLS and started < KILLS + 10:
            missing = KILLS - sum(hits.values())
            kills = min(KILLS_A_RUN, (missing + 1) // RUNS_AT_ONCE + 1)
            runs = [Run(f"killed{started + i}", kills, seconds) for i in range(RUNS_AT_ONCE)]
            started += RUNS_AT_ONCE
            for run in pool.map(Run.run, runs):
                hits += run.hits
                run.check_left()
                for kind, path in run.files().items():
                    same_file(f"{run.work.folder}, {kind}", path, reference.files()[kind], ignore=IGNORED)
                shutil.rmtree(run.work.folder)
            print(f"{sum(hits.values())} kills in {started} whole runs", flush=True)
    check(sum(hits.values()) >= KILLS, "kills that hit", sum(hits.values()))
    for what, n in sorted(hits.items()):
        print(f"{n:5} {what[0]}, {what[1]}: {what[2]}")


test()
finish(20)
