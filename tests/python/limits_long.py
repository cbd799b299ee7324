#!/usr/bin/env python3
"""--memory-limit, --scratch and the stop file: a run that is held down or stopped makes the bytes of one that is not, or says
in numbers why it cannot."""

import os
import re
import subprocess

from engine_checks import check, deep_model, engine, finish, same_file, shared_files

MODEL = deep_model("llama", 5)
TOKENS, QUERIES = shared_files(n=20)
ROWS = ["--batch-tokens", 30]  # the longest sequence: there are no smaller micro-batches to choose
UNITS = ["--unit-sequences", 8]


def run(work, stage, *arguments):
    done = subprocess.run(
        work.command(stage, "--model", MODEL, *arguments), capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr


def fit(work, *options):
    return run(
        work, "fit_factors", "--tokens", TOKENS, "--output", work.path("factors"), "--modules", "all", *UNITS, *options
    )


def test_limits():
    """Limits from too much down to too little: every plan is met on the way, and gives the same factors."""
    reference = engine(MODEL, "reference")
    reference.fit(TOKENS, "factors", "--modules", "all", *UNITS, *ROWS)
    most = int(re.search(r"memory a rank: (\d+) MB at most", fit(engine(MODEL, "unlimited"), *ROWS)[1])[1])
    scratch = reference.path("scratch")
    os.makedirs(scratch)
    for name, ranks, pipeline, options in (
        ("plain", 0, 1, []),
        ("pipeline", 2, 2, []),
        ("scratch", 0, 1, ["--scratch", scratch]),
    ):
        seen = set()
        limit = (most + 1) * 1000000
        while "refused" not in seen and limit > 1000:
            work = engine(MODEL, f"{name}-{limit}", ranks=ranks, common=["--pipeline", pipeline])
            code, said = fit(work, *ROWS, *options, "--memory-limit", limit)
            if code == 0:
                if "sums on scratch" in said:
                    spilled = limit
                seen |= {plan for plan in ("several passes", "sums on scratch") if plan in said} or {"at once"}
                same_file(f"{name}, limit {limit}", work.path("factors/index.h5"), reference.path("factors/index.h5"))
            else:
                seen.add("refused")
                check(
                    code == 1 and re.search(r"a rank needs \d+ MB .*--memory-limit is \d+ MB", said) is not None,
                    f"{name}, limit {limit}: refused with numbers",
                    said[-300:],
                )
                check(said.count("error:") == 1, f"{name}: one error", said)
            limit = limit * 6 // 7
        wanted = {"at once", "sums on scratch" if options else "several passes", "refused"}
        check(wanted <= seen, f"{name}: plans", seen)
        check(os.listdir(scratch) == [], "nothing is left on scratch")
    work = engine(MODEL, "no-scratch")
    code, said = fit(work, *ROWS, "--scratch", work.path("absent"), "--memory-limit", spilled)
    check(code == 1 and "absent" in said, "a scratch folder that is not there", said[-300:])


def test_queries():
    """Compressed queries that do not fit, and scores of a unit, lie on --scratch, queries once for the ranks that share them;
    the scores are the same."""
    reference = engine(MODEL, "scored")
    factors = reference.fit(TOKENS, "factors", "--no-diagonal", *UNITS, *ROWS)
    compressed = reference.compress(factors, QUERIES, "compressed.h5")
    wanted = f"{reference.score(compressed, TOKENS, 'scores', *UNITS, *ROWS)}/shard-00000-of-00001.h5"
    scratch = reference.path("scratch")
    os.makedirs(scratch)
    for name, ranks in (("one rank", 0), ("two ranks that share", 2)):
        seen, low, high = set(), 0, 0
        while not seen >= {"at once", "queries and scores on scratch"}:  # towards the least that holds them in memory
            limit = (low + high) // 2
            work = engine(MODEL, f"scored-{ranks}-{limit}", ranks=ranks)
            arguments = [
                "--queries",
                compressed,
                "--tokens",
                TOKENS,
                *UNITS,
                *ROWS,
                "--memory-limit",
                limit,
                "--output",
            ]
            code, said = run(work, "score_shards", *arguments, work.path("scores"), "--scratch", scratch)
            check(code == 0 or "a rank needs" in said, f"{name}, limit {limit}: scored or refused", said[-300:])
            if code == 0:
                same_file(f"{name}, limit {limit}", work.path("scores/shard-00000-of-00001.h5"), wanted)
            if limit == 0:  # none
                need = int(re.search(r"memory a rank: (\d+) MB", said)[1]) * 1000000
                low, high = max(need - 2000000, 1000), need + 500000
            elif code == 0 and "queries and scores on scratch" not in said:
                seen.add("at once")
                high = limit
            else:
                seen.add("refused" if code else "queries and scores on scratch")
                low = limit
                code, said = run(work, "score_shards", *arguments, work.path("refused"))
                check(code == 1 and "or --scratch" in said, f"{name}, limit {limit}: --scratch is named", said[-300:])
            if high > 0 and high - low < 10000:
                break
        check(seen >= {"at once", "queries and scores on scratch"}, f"{name}: plans", seen)
        check(os.listdir(scratch) == [], "nothing is left on scratch")


def test_rows():
    """A limit that only smaller micro-batches meet: another rounding, and so another fingerprint."""
    work = engine(MODEL, "rows")
    code, said = fit(work, "--batch-tokens", 512)
    check(code == 0 and "micro-batches of 512 rows" in said, "without a limit", said[-300:])
    code, said = fit(work, "--batch-tokens", 512, "--memory-limit", "3M")
    check(code == 1 and "other inputs or options" in said, "the same folder with other micro-batches", said[-300:])
    other = engine(MODEL, "rows-limited")
    code, said = fit(other, "--batch-tokens", 512, "--memory-limit", "3M")
    check(code == 0 and re.search(r"micro-batches of (256|128|64) rows", said), "smaller micro-batches", said[-300:])


def test_grids():
    """Grids that cannot be: one line, exit code 2, on all ranks at once."""
    for ranks, pipeline, reason in (
        (4, 3, "4 ranks cannot be laid out in columns of 3"),
        (8, 8, "has 5 blocks and a head, so at most 6 ranks can share it"),
        (2, 0, "from 1"),
    ):
        work = engine(MODEL, f"grid{ranks}-{pipeline}", ranks=ranks, common=["--pipeline", pipeline])
        code, said = fit(work, "--quiet")
        check(
            code == 2 and reason in said and said.count("error:") == 1, f"--pipeline {pipeline} on {ranks}", said[-300:]
        )


def test_stop_file():
    """A file named stop: before the run, and in the middle of it."""
    for stage, output, arguments in (("fit_factors", "factors", ["--tokens", TOKENS, *UNITS, *ROWS]),):
        work = engine(MODEL, "stop")
        os.makedirs(work.path(output))
        with open(work.path(f"{output}/stop"), "w", encoding="utf-8"):
            pass
        code, said = run(work, stage, "--output", work.path(output), *arguments)
        check(code == 75 and "stop" in said and "remove it" in said, f"{stage}: not begun", said[-300:])
        os.remove(work.path(f"{output}/stop"))
        code, said = run(work, stage, "--output", work.path(output), *arguments)
        check(code == 0, f"{stage}: goes on without it", said[-300:])


test_limits()
test_queries()
test_rows()
test_grids()
test_stop_file()
finish(26)
