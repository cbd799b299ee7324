#!/usr/bin/env python3
"""One rank of a job fails or is asked to stop: on the first, a middle and the last rank of pipelines of 1 to 8 ranks, while they
fill, in their steady state and in their flush, in every phase of fit_factors, compress_queries, score_shards and --explain;
with messages and gathers below and above what an MPI sends without waiting for the receiver (4 KB between ranks of a node
with Open MPI 4), and units of one and of many micro-batches. Each job ends in seconds, with one message and exit code 1, or
if it was asked to stop with code 75, and the same command then goes on to the same bytes.

DRILLS=all runs the whole matrix and prints it as a table (make drills), DRILLS=sweeps or stages the half of it without or
with files; otherwise those cases are run that are unlike each other.
A job that has not ended after DRILL_LIMIT_S seconds (60) is a hang, and so is a case of tests/fault/pipeline_drill.c after
DRILL_CASE_S (20)."""

import collections
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys

from engine_checks import BUILD, FOLDER, MPI, check, engine, fault_library, finish, plain_gpt2, same_file
from restart_checks import kill
import numpy as np

from check_goldens import write_tokens
import h5py

WANTED = os.environ.get("DRILLS", "some")
ALL = WANTED != "some"
LIMIT_S = int(os.environ.get("DRILL_LIMIT_S", "60"))
CASE_S = int(os.environ.get("DRILL_CASE_S", "20"))
JOBS = int(os.environ.get("DRILL_JOBS", "2"))  # at a time; what a job's ranks do is mostly waiting
D, VOCABULARY, POSITIONS, BLOCKS = 64, 64, 128, 10
UNITS, LONG, SHORT = 16, 100, 12  # sequences; tokens of each: messages of 25 KB and of 2.8 KB
WIDE, WIDE_UNIT = 10, 64  # units, and sequences of each: a gather of 64 x 24 scores
QUERIES = 24
IGNORED = ("@factors_fingerprint", "@explained", "@explain_options")
os.environ["OMP_NUM_THREADS"] = "1"


# ---- inputs


def spoil(weights):
    """Positions from LONG - 1 on are NaN: only a sequence of more than LONG tokens meets them."""
    weights["wpe.weight"][LONG - 1 :] = np.nan


def make_tokens(name, lengths, queries=False):
    """Random ids, stored so that each sequence is read from the file on its own."""
    random, path = np.random.default_rng(1), f"{FOLDER}/{name}.h5"
    made = [random.integers(0, VOCABULARY, n) for n in lengths]
    write_tokens(path, made, [n - 2 for n in lengths] if queries else None)
    with h5py.File(path, "r+") as file:
        ids = file["token"][:]
        del file["token"]
        file.create_dataset("token", data=ids, chunks=(min(lengths[0], len(ids)),))
    return path


def nan_at(n, at, **options):
    return make_tokens(
        f"nan-{'queries' if options else 'tokens'}-{n}-{at}", [LONG + (i == at) for i in range(n)], **options
    )


MODEL = plain_gpt2("model", D, BLOCKS, POSITIONS, VOCABULARY, spoil)
LONG_TOKENS, SHORT_TOKENS = make_tokens("long", [LONG] * UNITS), make_tokens("short", [SHORT] * UNITS)
WIDE_TOKENS = make_tokens("wide", [SHORT] * (WIDE * WIDE_UNIT))
QUERY_TOKENS = make_tokens("queries", [LONG] * QUERIES, queries=True)


LIBRARY = fault_library()


# ---- what a drill is, and how it ends

Drill = collections.namedtuple(
    "Drill", "phase ranks pipeline rank moment fault environment command final expected", defaults=({}, (), "", 1)
)


def run_job(command, limit_s=LIMIT_S):
    """(exit code or None for a hang, what it said): in a session of its own, which a hang does not outlive."""
    job = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said = job.communicate(timeout=limit_s)[0]
        return job.returncode, said
    except subprocess.TimeoutExpired:
        kill(job.pid)
        return None, job.communicate()[0]


def job_of(drill):
    """Its command; the fault is for the ranks alone, not for mpirun."""
    library = [f"LD_PRELOAD={LIBRARY}"] if drill.environment else []
    variables = [f"{name}={value}" for name, value in drill.environment.items()]
    return [MPI, drill.ranks, "env", *library, *variables, *drill.command, "--pipeline", drill.pipeline]


def outcome(drill, code, said):
    """One word or some: how the job ended, "ok" as it should."""
    stage = os.path.basename(drill.command[0])
    errors = len(re.findall(rf"^{stage}: error: ", said, re.MULTILINE))
    if code is None:
        return "HANG"
    if drill.environment and not os.path.exists(drill.environment["FAULT_LOG"]):
        return "not reached" if code == 0 else f"not reached, code {code}"
    if code != drill.expected:
        return "ok, too late" if drill.expected == 75 and code == 0 else f"code {code}"
    if drill.expected == 1 and errors != 1:
        return f"{errors} messages"
    return "MESSAGE" if drill.expected == 75 and errors else "ok"


def run_drill(drill):
    """(outcome, what the job said)"""
    code, said = run_job(job_of(drill))
    ended = outcome(drill, code, said)
    if ended.startswith("ok") and drill.final:
        again, more = run_job([MPI, drill.ranks, *drill.command, "--pipeline", drill.pipeline])
        if again != 0:
            return f"rerun: {'HANG' if again is None else f'code {again}'}", said + more
    return ended, said


# ---- stages

REFERENCE = engine(MODEL, "reference", common=("--batch-tokens", LONG))
FIT = ["--unit-sequences", 1, "--no-diagonal", "--batch-tokens", LONG]
COMPRESS = ["--unit-queries", 1, "--rank", 16]
SCORE = ["--unit-sequences", 1, "--batch-tokens", LONG]
SCORE_WIDE = ["--unit-sequences", WIDE_UNIT, "--batch-tokens", WIDE_UNIT * SHORT]


def make_reference():
    """Undisturbed results of all stages: what drills need as inputs, and what their reruns are to be equal to."""
    r = engine(MODEL, "reference", ranks=2)
    made = {"covariance": r.fit(LONG_TOKENS, "factors", *FIT)}
    made["factors"] = f"{made['covariance']}/index.h5"
    made["compress"] = r.compress(made["covariance"], QUERY_TOKENS, "compressed.h5", *COMPRESS)
    made["score"] = f"{r.score(made['compress'], LONG_TOKENS, 'scores', *SCORE)}/shard-00000-of-00001.h5"
    made["score, wide"] = f"{r.score(made['compress'], WIDE_TOKENS, 'wide', *SCORE_WIDE)}/shard-00000-of-00001.h5"
    made["ranking"] = r.merge(r.path("scores"), "ranking.h5", "--top", UNITS)
    os.makedirs(r.path("explained"))
    copy_ranking(r.path("explained"), r.path("ranking.h5"))
    r.run("score_shards", *explain_command(made, r.path("explained"))[1:])
    made["explain"] = r.path("explained/ranking.h5")
    return made


def copy_ranking(folder, ranking):
    shutil.copy(ranking, folder)
    with open(os.path.join(os.path.dirname(ranking), "MANIFEST"), encoding="utf-8") as manifest:
        line = [x for x in manifest if x.endswith(" ranking.h5\n")][-1]
    with open(f"{folder}/MANIFEST", "a", encoding="utf-8") as manifest:
        manifest.write(line)


def explain_command(made, folder):
    return [
        "score_shards",
        "--model",
        MODEL,
        "--queries",
        made["compress"],
        "--tokens",
        LONG_TOKENS,
        "--output",
        f"{folder}/scores",
        "--batch-tokens",
        LONG,
        "--explain",
        f"{folder}/ranking.h5",
        "--quiet",
    ]


MADE = make_reference()


def stage_command(phase, folder, tokens=None):
    """(command, its final file, that of the undisturbed run) of the stage that a phase is part of."""
    model = ["--model", MODEL]
    if phase in ("covariance", "lambda", *BY_FILE):
        command = ["fit_factors", *model, "--tokens", tokens or LONG_TOKENS, "--output", f"{folder}/factors", *FIT]
        if phase == "eigendecomposition, shared":  # by sub-grids of ranks, whose number is seen in the last bits
            return [*command, "--subgrid-side", 128], "", ""
        return command, f"{folder}/factors/index.h5", MADE["factors"]
    if phase == "compress":
        return (
            [
                "compress_queries",
                *model,
                "--factors",
                MADE["covariance"],
                "--queries",
                tokens or QUERY_TOKENS,
                "--output",
                f"{folder}/compressed.h5",
                *COMPRESS,
            ],
            f"{folder}/compressed.h5",
            MADE["compress"],
        )
    if phase == "explain":
        return explain_command(MADE, folder)[:-1], f"{folder}/ranking.h5", MADE["explain"]
    wide = phase == "score, wide"
    return (
        [
            "score_shards",
            *model,
            "--queries",
            MADE["compress"],
            "--tokens",
            tokens or (WIDE_TOKENS if wide else LONG_TOKENS),
            "--output",
            f"{folder}/scores",
            *(SCORE_WIDE if wide else SCORE),
        ],
        f"{folder}/scores/shard-00000-of-00001.h5",
        MADE[phase],
    )


# phase: its work file of a unit, number of units, micro-batches of each, and does rank 0 alone write?  What the
# eigendecomposition and the publication make is not numbered: a rank's n-th file stands for a unit.
EIGEN = ("eigendecomposition", "eigendecomposition, shared")
BY_FILE = (*EIGEN, "publication")
PHASES = {
    "covariance": ("*/work/covariance-*{:05d}-*", UNITS, 1, False),
    "lambda": ("*/work/lambda-*{:05d}-*", UNITS, 1, False),
    **{phase: ("*/work/@(activation|gradient)-*", 3, 1, False) for phase in EIGEN},
    "publication": ("*/factors/block-*.h5.tmp-*", 1, 1, False),
    "compress": ("*work/queries-*{:05d}-*", QUERIES, 1, False),
    "score": ("*work/scores-{:05d}.*", UNITS, 1, True),
    "score, wide": ("*work/scores-{:05d}.*", WIDE, 1, True),
    "explain": ("*work/token_scores-{:05d}.*", UNITS // 8, 8, True),
}


def unit_at(moment, phase, ranks, rank):
    """The unit in whose end a rank of a pipeline is to fail; None: this moment is another's there."""
    _, units, batches, _ = PHASES[phase]
    if moment == "flush":
        first = (units * batches - ranks + 1 + rank + batches - 1) // batches
        return first if ranks - rank > 2 and 0 < first < units else None
    return {"first": 0, "steady": units // 2, "last": units - 1}[moment]


def write_fault(phase, ranks, rank, moment, action, folder):
    """The variables of a fault at the first write to a unit's file."""
    pattern, unit = PHASES[phase][0], unit_at(moment, phase, ranks, rank)
    return (
        None
        if unit is None
        else {
            "FAULT_CALL": "open" if phase in BY_FILE else "write",
            "FAULT_PATH": pattern.format(unit),
            "FAULT_RANK": rank,
            "FAULT_NTH": unit + 1 if phase in BY_FILE else 1,
            "FAULT_ACTION": action,
            "FAULT_LOG": f"{folder}/fault",
        }
    )


def stage_drill(phase, ranks, rank, moment, action, number):
    """None if that rank has no such moment."""
    folder = f"{FOLDER}/drill-{number}"
    expected = 75 if action in ("SIGTERM", "SIGUSR1") else 1
    if action == "NaN":
        count = QUERIES if phase == "compress" else UNITS
        tokens = nan_at(count, unit_at(moment, phase, 1, 0), **({"queries": True} if phase == "compress" else {}))
        command, _, _ = stage_command(phase, folder, tokens)
        if phase == "lambda":  # the covariances are of a sequence before it
            command += ["--covariance-sequences", "1:2" if moment == "first" else "0:1"]
        environment, final = {}, ""
    elif action == "EIO":
        command, final, _ = stage_command(phase, folder)
        environment = {
            "FAULT_CALL": "read",
            "FAULT_PATH": LONG_TOKENS if "wide" not in phase else WIDE_TOKENS,
            "FAULT_RANK": rank,
            "FAULT_NTH": {"first": 1, "steady": 22, "last": 30}.get(moment, 26),
            "FAULT_ACTION": action,
            "FAULT_LOG": f"{folder}/fault",
        }
        if phase == "compress":
            environment["FAULT_PATH"] = QUERY_TOKENS
    else:
        command, final, _ = stage_command(phase, folder)
        environment = write_fault(phase, ranks, rank, moment, action, folder)
    if environment is None:
        return None
    command = [f"{BUILD}/bin/{command[0]}", *command[1:], "--quiet"]
    if expected != 75 and not (ALL and moment == "steady"):  # whose rerun takes as long again
        final = ""
    return Drill(phase, ranks, ranks, rank, moment, action, environment, command, final, expected)


def run_stage_drill(drill):
    folder = os.path.dirname(drill.environment["FAULT_LOG"]) if drill.environment else ""
    if folder:
        os.makedirs(folder)
        if drill.phase == "explain":
            copy_ranking(folder, MADE["ranking"])
    ended, said = run_drill(drill)
    if ended.startswith("ok") and drill.final:
        _, final, wanted = stage_command(drill.phase, folder)
        same_file(f"{name_of(drill)}, after a rerun", final, wanted, ignore=IGNORED)
    if folder and ended != "HANG":
        shutil.rmtree(folder, ignore_errors=True)
    return ended, said


def name_of(drill):
    return f"{drill.phase}, {drill.ranks} ranks, rank {drill.rank} at its {drill.moment} unit, {drill.fault}"


# ---- sweeps without files: all places and moments in one job


def driver_rows():
    """(ranks, pipeline, tokens, bytes gathered, micro-batches of a unit)"""
    if ALL:
        rows = [
            (p, p, tokens, gather, unit)
            for p in range(1, 9)
            for tokens in ("short", "long")
            for gather in (4, 6144)
            for unit in (1, 4)
        ]
        return rows + [
            (ranks, p, tokens, 6144, unit)
            for ranks, p in ((4, 2), (6, 3), (8, 4))
            for tokens in ("short", "long")
            for unit in (1, 4)
        ]
    return [
        (2, 2, "short", 4, 4),
        (3, 3, "short", 6144, 1),
        (5, 5, "long", 4, 1),
        (6, 3, "long", 6144, 1),
        (8, 8, "long", 6144, 4),
    ]


def driver_command(row, *options):
    ranks, pipeline, tokens, gather, unit = row
    return [
        MPI,
        ranks,
        f"{BUILD}/tests/fault/pipeline_drill",
        "--quiet",
        "--pipeline",
        pipeline,
        "--model",
        MODEL,
        "--tokens",
        f"{FOLDER}/{tokens}.h5",
        "--gather",
        gather,
        "--unit-sequences",
        unit,
        "--limit",
        CASE_S,
        *options,
    ]


def run_driver(row):
    """All its cases, a new job after each hang; yields (case, outcome)."""
    start = 0
    while True:
        code, said = run_job(driver_command(row, "--from", start), 100 * CASE_S)  # a case that hangs ends it
        found = re.findall(r"^CASE (\d+) (.*): (ok|not reached|HANG|LEFT.*|WRONG.*)$", said, re.MULTILINE)
        yield from ((text, ended) for _, text, ended in found)
        if re.search(r"^END$", said, re.MULTILINE):
            return
        if not found or found[-1][2] != "HANG":
            yield "the job", f"HANG or code {code}: {said[-300:]}"
            return
        start = int(found[-1][0]) + 1


def run_driver_stops(row, numbers):
    for number in numbers:
        code, said = run_job(driver_command(row, "--stop", "--cases", 1, "--from", number))
        found = re.search(r"^CASE \d+ (.*): (ok|not reached|HANG|LEFT.*|WRONG.*)$", said, re.MULTILINE)
        if not found and code == 0:  # there are fewer cases on so few ranks
            continue
        yield f"stop, {found[1] if found else number}", found[2] if found else f"code {code}: {said[-300:]}"


# ---- which


def middle(ranks):
    return sorted({0, ranks // 2, ranks - 1})


def all_stage_drills():
    for phase in PHASES:
        for ranks in (1, 3, 5, 6, 8) if phase != "score, wide" else (2, 3, 4, 6, 8):
            for action in ("ENOSPC", "NaN", "EIO", "SIGTERM", "SIGUSR1"):
                for rank in middle(ranks):
                    for moment in ("first", "steady", "flush", "last"):
                        if moment == "flush" and phase in BY_FILE or moment != "steady" and phase == "publication":
                            continue
                        if action == "NaN" and (
                            rank > 0 or phase in (*BY_FILE, "score, wide", "explain") or moment == "flush"
                        ):
                            continue
                        if action in ("ENOSPC", "SIGTERM", "SIGUSR1") and rank > 0 and PHASES[phase][3]:
                            continue
                        if action == "EIO" and (moment == "flush" or phase in BY_FILE or ranks not in (3, 8)):
                            continue
                        if action == "SIGTERM" and moment != "steady":
                            continue
                        yield phase, ranks, rank, moment, action


SOME = [
    ("covariance", 6, 1, "flush", "ENOSPC"),
    ("covariance", 3, 1, "first", "SIGUSR1"),
    ("covariance", 6, 5, "steady", "NaN"),
    ("eigendecomposition, shared", 3, 1, "first", "ENOSPC"),
    ("eigendecomposition", 3, 2, "steady", "SIGTERM"),
    ("publication", 3, 1, "steady", "ENOSPC"),
    ("publication", 3, 2, "steady", "SIGUSR1"),
    ("lambda", 5, 0, "flush", "ENOSPC"),
    ("lambda", 4, 3, "steady", "SIGUSR1"),
    ("lambda", 3, 0, "steady", "NaN"),
    ("compress", 8, 2, "flush", "ENOSPC"),
    ("compress", 8, 4, "first", "SIGUSR1"),
    ("compress", 3, 0, "last", "NaN"),
    ("score", 5, 0, "flush", "ENOSPC"),
    ("score", 8, 0, "steady", "SIGTERM"),
    ("score, wide", 3, 0, "steady", "ENOSPC"),
    ("score, wide", 4, 1, "steady", "EIO"),
    ("explain", 8, 0, "first", "ENOSPC"),
    ("explain", 4, 0, "first", "SIGUSR1"),
]


def test_sweeps(pool, table):
    rows = driver_rows()
    stops = [(row, range(3, 50, 7 if ALL else 25)) for row in rows if row[3] == 6144]
    jobs = {pool.submit(lambda row=row: list(run_driver(row))): row for row in rows}
    jobs.update({pool.submit(lambda row=row, n=n: list(run_driver_stops(row, n))): row for row, n in stops})
    for job in concurrent.futures.as_completed(jobs):
        ranks, pipeline, tokens, gather, unit = jobs[job]
        name = f"sweep, {ranks} ranks in pipelines of {pipeline}, {tokens} messages, {gather} B gathered, {unit} batches a unit"
        for case, ended in job.result():
            check(ended in ("ok", "not reached"), f"{name}: {case}", ended)
            place = re.sub(r"rank \d+, ", "", case).split(",")[0]
            row = f"sweep, {tokens}, {gather} B, units of {unit}: {place}"
            table[row, ranks, pipeline][ended.split(":")[0]] += 1
            print(f"{name}: {case}: {ended}", file=LOG, flush=True)


def test_stages(pool, table):
    numbered = [(*wanted, i) for i, wanted in enumerate(all_stage_drills() if ALL else SOME)]
    drills = [drill for wanted in numbered if (drill := stage_drill(*wanted)) is not None]
    jobs = {pool.submit(run_stage_drill, drill): drill for drill in drills}
    for job in concurrent.futures.as_completed(jobs):
        drill, (ended, said) = jobs[job], job.result()
        check(ended.startswith("ok") or (ALL and ended == "not reached"), name_of(drill), f"{ended}: {said[-400:]}")
        table[f"{drill.phase}: {drill.fault}, {drill.moment}", drill.ranks, drill.pipeline][ended] += 1
        print(f"{name_of(drill)}: {ended}", file=LOG, flush=True)


def print_table(table):
    """Rows: what was done where; columns: ranks; in a cell how many jobs ended how."""
    columns = sorted({key[1:] for key in table})
    print("| | " + " | ".join(str(r) if r == p else f"{r // p} x {p}" for r, p in columns) + " |")
    for row in dict.fromkeys(key[0] for key in sorted(table)):
        cells = (
            ", ".join(f"{n} {ended}" for ended, n in sorted(table[row, *column].items()))
            if (row, *column) in table
            else "-"
            for column in columns
        )
        print(f"| {row} | " + " | ".join(cells) + " |")


def test():
    table = collections.defaultdict(collections.Counter)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        if WANTED != "stages":
            test_sweeps(pool, table)
        if WANTED != "sweeps":
            test_stages(pool, table)
    if ALL:
        print_table(table)
    totals = sum(table.values(), collections.Counter())
    check(6 * totals["not reached"] < sum(totals.values()), "most faults are met", totals)
    print(", ".join(f"{n} {ended}" for ended, n in totals.most_common()))


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with open(os.environ.get("DRILL_LOG", os.devnull), "a", encoding="utf-8") as LOG:
    test()
finish(100)
