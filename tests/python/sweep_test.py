#!/usr/bin/env python3
"""Sweeps without Slurm: the plan that is printed, a run here, the table, going on after failures, and every mistake in a
sweep file, found before anything is done."""

import contextlib
import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time

import h5py

from engine_checks import ROOT, check, corpus, finish, model, query_corpus, same_file, write_tokens
from sweep_checks import ENVIRONMENT, SWEEP, path, sweep, write, write_squeue
import text_checks
from text_checks import tiny_model, write as write_text

from bregman.sweep import local

GOOD = """
output = "out"
[cluster]
partition = "cpu"
ranks_per_node = 2
time = "1:00:00"
[fit]
unit_sequences = 8
[score]
shards = 3
[merge]
top = 5
[report]
enabled = false
[[model]]
name = "small"
path = "model"
[[model]]
name = "large"
path = "model"
fit = { nodes = 4, pipeline = 4, seed = 3 }
score = { shards = 2, layer_scores = true }
[[corpus]]
name = "words"
tokens = ["tokens/*.h5"]
[[queries]]
name = "q"
file = "queries.h5"
"""


def prepare():
    os.makedirs(path("tokens"))
    write_squeue("echo 'squeue: error: no cluster here' >&2\nexit 1\n")
    os.makedirs(path("stub/jobs"))
    with open(path("stub/jobs/stage.sh"), "w", encoding="utf-8"):
        pass
    os.symlink(model("llama"), path("model"))
    os.symlink(path("tokens/a.h5"), path("link.h5"))
    write_tokens(path("tokens/a.h5"), corpus(12))
    write_tokens(path("tokens/b.h5"), corpus(25, seed=4))
    made, start = query_corpus(4)
    write_tokens(path("queries.h5"), made, start)


def rows(done):
    """{(stage, model): the rest of its line} of --status."""
    found = {}
    for line in done.stdout.splitlines()[1:]:
        cells = line.split()
        found.setdefault(tuple(cells[:2]), " ".join(cells[4:]))
    return found


# ---------------------------------------------------------------- the plan


def test_dry_run():
    write("good.toml", GOOD)
    done = sweep("good.toml", "--dry-run")
    lines = [line for line in done.stdout.splitlines() if "sbatch" in line]
    check(done.returncode == 0 and len(lines) == 10, "dry run: a line a job", done.stderr + done.stdout)
    check("# 10 steps, 13 tasks: 10 submissions\n" in done.stdout, "dry run: how much it is", done.stdout[-200:])
    fit = next(line for line in lines if "fit--large" in line)
    for part in (
        "--nodes=4",
        "--ntasks-per-node=2",
        "--pipeline 4",
        "--seed 3",
        "--partition=cpu",
        "--time=1:00:00",
        "--signal=B:USR1@300",
        "--requeue",
        "--kill-on-invalid-dep=yes",
        f"{path('tokens/a.h5')} {path('tokens/b.h5')}",
    ):
        check(part in fit, f"dry run: fit has {part}", fit)
    check("dependency" not in fit, "dry run: fit waits for nothing", fit)
    score = next(line for line in lines if "score--small" in line)
    compress = next(line for line in lines if "compress--small" in line).split("=")[0]
    check("--array=0-2" in score and "SHARDS=3" in score, "dry run: an array of shards", score)
    check(f'"--dependency=afterok:${{{compress}}}"' in score, "dry run: scores wait for queries", score)
    check("--layer-scores" in next(line for line in lines if "score--large" in line), "dry run: options of one model")
    merge = next(line for line in lines if "merge--large" in line)
    check("--ntasks-per-node=1" in merge and "--top 5" in merge, "dry run: merge on one rank", merge)
    check(not os.path.exists(path("out")), "dry run: nothing is written")
    shell = subprocess.run(["/bin/sh", "-n"], input=done.stdout, text=True, capture_output=True, check=False)
    check(shell.returncode == 0, "dry run: a shell script", shell.stderr)
    refined = GOOD.replace("[merge]", '[compress]\nrefine = "cg"\nrefine_steps = 3\n[merge]')
    write("refined.toml", refined)
    lines = sweep("refined.toml", "--dry-run").stdout.splitlines()
    compress = next(line for line in lines if "sbatch" in line and "compress--small" in line)
    wanted = f"--refine-tokens {path('tokens/a.h5')} {path('tokens/b.h5')}"
    check(
        wanted in compress and "--refine cg" in compress and "--refine-steps 3" in compress, "dry run: refine", compress
    )
    check("explain" in "".join(lines) and "--attribution" not in "".join(lines), "dry run: positions unless asked")
    example = os.path.join(ROOT, "jobs", "example.toml")
    done = subprocess.run(
        [SWEEP, example, "--dry-run"], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    check(
        done.returncode == 2 and "unknown key" not in done.stderr and "it takes" not in done.stderr,
        "example: its keys are right, its models are not here",
        done.stderr,
    )


# ---------------------------------------------------------------- a run here


def test_local():
    status = sweep("good.toml", "--status")
    check(
        status.returncode == 0 and rows(status)[("fit", "small")] == "to do 0 % -",
        "status: nothing done",
        status.stdout,
    )
    done = sweep("good.toml", "--local", "--ranks", "2")
    check(done.returncode == 0 and "all done" in done.stdout, "local run", done.stdout + done.stderr)
    states = rows(sweep("good.toml", "--status"))
    check(
        len(states) == 10 and all(v == "done 100 % -" for v in states.values()),
        "status: all done",
        states,
    )
    before = os.stat(path("out/small/q/words/ranking.h5"))
    done = sweep("good.toml", "--local")
    after = os.stat(path("out/small/q/words/ranking.h5"))
    check(
        done.stdout.startswith("all done") and before.st_mtime_ns == after.st_mtime_ns,
        "local run again: nothing to do",
        done.stdout,
    )
    check("sbatch" not in sweep("good.toml", "--dry-run").stdout, "dry run: nothing to do")


def test_lines_meanwhile():
    """A step that runs here says how far it is, and the line it leaves is no part of what is printed."""

    class Plan:
        def how_far(self, _job, i):
            return f"{i} %, 3 min left, "

    said, before = io.StringIO(), (local.LOOK_S, local.SAY_S)
    asked = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    local.LOOK_S, local.SAY_S = 0.02, 0.1
    runner = local.Runner(None, Plan())
    with contextlib.redirect_stderr(said), subprocess.Popen(["sh", "-c", "sleep 1; exit 3"]) as runner.child:
        code = runner.wait(None, 45, "step 1 of 2, fit--small")
    local.LOOK_S, local.SAY_S = before
    for number, handler in asked.items():
        signal.signal(number, handler)
    lines = said.getvalue().splitlines()
    check(code == 3 and 1 <= len(lines) <= 10, "a line now and then", lines)
    check(lines[0] == "step 1 of 2, fit--small: 45 %, 3 min left, < 1 min so far", "how far it is", lines)


def test_status_of_others():
    """What was made from other inputs or options than the sweep file has now is not done: --status says what a run would say."""

    def said(name, text, stage, about):
        write(name, text)
        refusal, status = sweep(name, "--local"), sweep(name, "--status")
        found = rows(status)
        line = refusal.stderr.splitlines()[0].removeprefix("sweep: ")
        check(refusal.returncode == status.returncode == 1, f"{name}: both exit 1", refusal.stderr + status.stdout)
        check(
            found[(stage, about)].startswith(f"other - - {line}"), f"{name}: the reason", found[(stage, about)] + line
        )
        return found

    found = said("rank.toml", GOOD.replace("[score]", "[compress]\nrank = 5\n[score]", 1), "compress", "small")
    check(found[("fit", "small")] == "done 100 % -", "status: what is as before", found)
    compared = GOOD.replace("[report]", '[compare]\nmodels = "small"\nno_layers = true\nlosses = false\n[report]')
    write("compared.toml", compared)
    done = sweep("compared.toml", "--local")
    check(done.returncode == 0 and "compare--all--q--words: done" in done.stdout, "compared", done.stdout + done.stderr)
    check(rows(sweep("compared.toml", "--status"))[("compare", "all")] == "done 100 % -", "status: compared")
    more = compared.replace("losses = false", 'losses = false\n[compare.methods.dot]\npreconditioner = "identity"')
    found = said("more.toml", more, "compare", "all")
    for stage, about in (("compress", "small:dot"), ("score", "small:dot"), ("merge", "small:dot")):
        check(found[(stage, about)].startswith("to do"), f"status: the comparison needs {stage} of {about}", found)
    check(found[("compare-report", "all")].startswith("to do"), "status: and its page is to be made again", found)
    os.unlink(path("out/compare/q/words/compare.h5"))
    plan = sweep("more.toml", "--dry-run").stdout
    check("compress--small:dot--q" in plan and "compare-report--all" in plan, "what it said is what a run does", plan)
    shutil.rmtree(path("out/compare"))


def test_prefilter():
    """The candidates of each model, query set and corpus, and scores of no others."""
    text = GOOD.replace('"out"', '"filtered"').replace("[score]", "[prefilter]\ntop = 3\n[score]")
    text = text.replace("fit = {", "prefilter = { enabled = false }\nfit = {")
    write("filtered.toml", text)
    lines = [line for line in sweep("filtered.toml", "--dry-run").stdout.splitlines() if "sbatch" in line]
    chosen = next((line for line in lines if "prefilter.sbatch" in line), "none")
    score = next(line for line in lines if "score--small" in line)
    check(len(lines) == 11, "prefilter: one of two models", lines)
    check("--top 3" in chosen and "--ntasks-per-node=1" in chosen and "--pipeline" not in chosen, "its job", chosen)
    check("dependency" not in chosen, "it waits for nothing", chosen)
    candidates = path("filtered/small/q/words/candidates.h5")
    check(
        f"--candidates {candidates}" in score and f"${{{chosen.split('=')[0]}}}" in score, "scores wait for it", score
    )
    check("--candidates" not in next(line for line in lines if "explain--small" in line), "an explanation does not")
    done = sweep("filtered.toml", "--local")
    check(done.returncode == 0 and "all done" in done.stdout, "prefilter: a run here", done.stdout + done.stderr)
    check(rows(sweep("filtered.toml", "--status"))[("prefilter", "small")] == "done 100 % -", "prefilter: its status")
    with h5py.File(path("filtered/small/q/words/ranking.h5")) as ranking, h5py.File(candidates) as file:
        check(ranking["moments/count"][0] == len(file["sequence"]) < 37, "prefilter: only they are scored")
        check("top/prefilter_rank" in ranking, "prefilter: the ranking has its ranks")
    check(sweep("filtered.toml", "--local").stdout.startswith("all done"), "prefilter: nothing is left to do")
    refused("another number of candidates", text.replace("top = 3", "top = 4"), candidates, "top = 3", "says 4")
    shard = path("filtered/small/q/words/scores/shard-00000-of-00003.h5")
    write("whole.toml", text.replace("top = 3\n", "enabled = false\n"))
    done = sweep("whole.toml", "--dry-run")
    told = f'"{shard}" was made from 5 inputs, and this sweep has 4'
    check(done.returncode == 1 and told in done.stderr, "no prefilter any more: its scores are not mixed", done.stderr)
    given = text.replace("[score]", '[score]\ncandidates = "queries.h5"')
    refused("two lists of candidates", given, "[score] candidates: it and [prefilter] exclude each other", code=2)


def test_sources():
    """The user's own files may change after the sweep has used them."""
    shutil.copy(path("queries.h5"), path("queries-before.h5"))
    with h5py.File(path("queries.h5"), "r+") as file:
        file.attrs["note"] = "another file"
    done = sweep("good.toml", "--local")
    check(
        done.returncode == 1 and "was made from another" in done.stderr and path("queries.h5") in done.stderr,
        "changed queries",
        done.stderr,
    )
    shutil.copy(path("queries-before.h5"), path("queries.h5"))  # later than what was made from it, and the same
    check(sweep("good.toml", "--local").stdout.startswith("all done"), "the queries as they were")


def test_missing_parts():
    """Only what is missing is made again; what is finished does not need what it was made from."""
    ranking = path("out/small/q/words/ranking.h5")
    shutil.copy(ranking, path("ranking-before.h5"))
    os.unlink(path("out/small/q/words/scores/shard-00001-of-00003.h5"))
    check("sbatch" not in sweep("good.toml", "--dry-run").stdout, "a shard that nothing needs any more")
    check(rows(sweep("good.toml", "--status"))[("score", "small")].startswith("removed"), "status: removed")
    os.unlink(ranking)
    plan = [line for line in sweep("good.toml", "--dry-run").stdout.splitlines() if "sbatch" in line]
    check(
        len(plan) == 3 and "--array=1 " in plan[0] and "SHARDS=3" in plan[0], "the missing shard alone", "\n".join(plan)
    )
    done = sweep("good.toml", "--local")
    check(done.returncode == 0, "the missing shard is made", done.stdout + done.stderr)
    same_file("made again", ranking, path("ranking-before.h5"), ignore=("@explained", "@explain_options"))


def refused(name, text, *parts, code=1, arguments=("--dry-run",), n_lines=1):
    write("wrong.toml", text)
    done = sweep("wrong.toml", *arguments)
    lines = done.stderr.strip().split("\n")
    check(
        done.returncode == code
        and len(lines) == n_lines
        and all(part in done.stderr for part in parts)
        and "Traceback" not in done.stderr
        and "sbatch" not in done.stdout,
        name,
        f"exit {done.returncode}: {done.stderr[-400:]}",
    )


def test_out_of_date():
    refused("another seed", GOOD.replace("seed = 3", "seed = 4"), "out/large/factors/index.h5", "seed = 3", "says 4")
    shampoo = GOOD.replace("[fit]", '[fit]\npreconditioner = "shampoo"')
    refused(
        "factors of another kind",
        shampoo,
        "small/factors/index.h5",
        "preconditioner = ekfac",
        "says shampoo",
        n_lines=4,
    )
    kfac = GOOD.replace("[merge]", '[compress]\npreconditioner = "kfac"\n[merge]')
    refused("queries of another kind", kfac, "small/q/compressed.h5", "preconditioner = ekfac", "says kfac", n_lines=2)
    refused("an option left out", GOOD.replace(", seed = 3", ""), "out/large/factors/index.h5", "seed = 3", "says 0")
    refused(
        "other shards",
        GOOD.replace("shards = 2", "shards = 4").replace("top = 5", "top = 5\n"),
        "in 2 shards",
        "says 4",
    )
    kept = path("tokens/b.h5")
    shutil.copytree(path("out"), path("copy"), symlinks=True)
    os.unlink(path("copy/large/q/compressed.h5"))
    os.unlink(path("copy/large/q/words/ranking.h5"))
    os.unlink(path("copy/large/q/words/scores/shard-00000-of-00002.h5"))
    refused(
        "half the shards of lost queries",
        GOOD.replace('"out"', '"copy"'),
        "copy/large/q/words/scores",
        "remove the folder",
    )
    check(os.path.exists(kept), "inputs stay")


def test_failure():
    """A stage that fails keeps its dependents from running, and only those; the table says why."""
    os.makedirs(path("spoiled"))
    shutil.copy(os.path.join(model("llama"), "config.json"), path("spoiled"))
    with open(path("spoiled/model.safetensors"), "wb") as file:
        file.write(b"\0" * 8)
    text = GOOD.replace('"out"', '"failing"').replace(
        'name = "small"\npath = "model"', 'name = "small"\npath = "spoiled"'
    )
    write("failing.toml", text)
    done = sweep("failing.toml", "--local", "--ranks", "1")
    check(
        done.returncode == 1
        and "fit--small: failed, exit code 1: fit_factors: error: " in done.stdout
        and "merge--small--q--words: not run, because of fit--small" in done.stdout,
        "a failing stage",
        done.stdout + done.stderr,
    )
    check(os.path.exists(path("failing/large/q/words/ranking.h5")), "what does not need it runs")
    check(not os.path.exists(path("failing/small/q/compressed.h5")), "what needs it does not run")
    status = sweep("failing.toml", "--status")
    found = rows(status)
    check(
        status.returncode == 1 and "failed 0 % - exit 1: fit_factors: error: " in found[("fit", "small")],
        "status: failed",
        status.stdout,
    )
    check(found[("explain", "small")] == "blocked 0 % - by fit--small", "status: blocked", status.stdout)
    check("fit--small.log" in status.stdout, "status: names the log", status.stdout)
    for name in os.listdir(model("llama")):
        shutil.copy(os.path.join(model("llama"), name), path("spoiled"))
    done = sweep("failing.toml", "--local", "--ranks", "1")
    check(
        done.returncode == 0 and "large" not in done.stdout,
        "put right: only what is missing",
        done.stdout + done.stderr,
    )
    same_file(
        "put right",
        path("failing/small/q/words/ranking.h5"),
        path("out/small/q/words/ranking.h5"),
        ignore=("@explained", "@explain_options"),
    )


def test_progress():
    """Fraction and time left come from the work files that are there, parts of units too."""
    work = path("busy/small/factors/work")
    os.makedirs(work)
    os.makedirs(path("busy/log"))
    write("busy.toml", GOOD.replace('"out"', '"busy"'))
    now = time.time()
    with open(os.path.join(work, "UNITS"), "w", encoding="utf-8") as file:
        file.write("covariance 240 16 2\nlambda 160 16 1\n")
    for name, age in (
        ("covariance-00000-block-000.000000-000016.h5", 500),
        ("covariance-00001-block-000.000000-000016.h5", 300),
        ("covariance-00001-block-001.000000-000004.h5", 300),
        ("covariance-00001-block-001.000000-000002.h5", 310),
        ("covariance-00002-block-000.000000-000016.h5", 20),
        ("other", 1),
        ("covariance-00003-block-000.000000-000016.h5.tmp-n1-12-0a1b2c3d", 1),
    ):
        with open(os.path.join(work, name), "w", encoding="utf-8") as unit:
            unit.write("unit")
        os.utime(os.path.join(work, name), (now - age, now - age))
    started = time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 420)
    )  # one unit before it, two and a quarter since, in 400 s
    with open(path("busy/log/fit--small.log"), "w", encoding="utf-8") as file:
        file.write(f"== {started} job 7 run 1 started on n1: fit_factors\n")
    state = rows(sweep("busy.toml", "--status"))[("fit", "small")]
    check(state.startswith("failed 8 % - ended without a word"), "status: a job that is gone", state)
    with open(path("busy/.sweep.lock"), "w", encoding="utf-8") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        state = rows(sweep("busy.toml", "--status"))[("fit", "small")]
        check(state.startswith("running 8 % 1:4"), "status: 36.75 units of 178 s are left", state)
        done = sweep("busy.toml", "--local")
        check(done.returncode == 1 and "another sweep" in done.stderr, "two at once", done.stderr)
    for code, state in ((75, "stopped"), (0, "failed")):
        with open(path("busy/log/fit--small.log"), "a", encoding="utf-8") as file:
            file.write(f"== {started} job 7 run 1 exit {code}\n")
        check(rows(sweep("busy.toml", "--status"))[("fit", "small")].startswith(state), f"status: exit {code}")


def test_stop():
    """A signal lets the stage in hand finish its unit; the same command goes on to the same bytes."""
    write("stopped.toml", GOOD.replace('"out"', '"stopped"').replace("unit_sequences = 8", "unit_sequences = 1"))
    write("whole.toml", GOOD.replace('"out"', '"whole"').replace("unit_sequences = 8", "unit_sequences = 1"))
    job = subprocess.Popen(
        [SWEEP, path("stopped.toml"), "--local", "--ranks", "1"],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = time.monotonic() + 30
    while not glob.glob(path("stopped/small/factors/work/*.h5")) and time.monotonic() < limit:
        time.sleep(0.002)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=60)
    check(job.returncode == 75 and "finished work is kept" in said[0], "stopped by SIGTERM", f"{job.returncode} {said}")
    for name in ("stopped.toml", "whole.toml"):
        done = sweep(name, "--local", "--ranks", "2")
        check(done.returncode == 0, f"{name}: goes on", done.stdout + done.stderr)
    same_file(
        "stopped",
        path("stopped/large/q/words/ranking.h5"),
        path("whole/large/q/words/ranking.h5"),
        ignore=("@explained", "@explain_options"),
    )


def test_text():
    """Text is tokenized once for models of one tokenizer; a report at the end."""
    folder = os.path.dirname(tiny_model("text-model")[0])
    with open(os.path.join(model("llama"), "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    for name in ("one", "two", "other"):
        tiny_model(name, bos=name == "other", config=config)
    corpus_file = write_text("corpus.jsonl", '{"text": "the band and the hand"}\n' * 20)
    query_file = write_text("queries.jsonl", '{"id": "q", "prompt": "the ", "completion": "band"}\n')
    entries = "".join(f'[[model]]\nname = "{name}"\npath = "{folder}/{name}"\n' for name in ("one", "two", "other"))
    for name in ("one", "two", "other"):
        write_text(f"{name}/model.safetensors", "none")
    write(
        "text.toml",
        f'output = "text"\n[report]\nshow = 3\n{entries}[tokenize]\nmax_length = 16\n[[corpus]]\nname = "c"\n'
        f'text = "{corpus_file}"\n[[queries]]\nname = "q"\nfile = "{query_file}"\n',
    )
    done = sweep("text.toml", "--dry-run")
    lines = [line for line in done.stdout.splitlines() if "sbatch" in line]
    count = {
        name: sum(f"/{name}.sbatch" in line for line in lines)
        for name in ("tokenize_corpus", "tokenize_queries", "report")
    }
    check(
        count == {"tokenize_corpus": 2, "tokenize_queries": 2, "report": 3},
        "text: once for one tokenizer",
        f"{count} {done.stderr}",
    )
    check(
        any("--max-length 16" in line for line in lines) and any("--show 3" in line for line in lines), "text: options"
    )
    # a tokenizer_config.json that changes ids makes another tokenizer; an option on it is for corpus and queries
    write_text("two/tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true}')
    with open(path("text.toml"), encoding="utf-8") as file:
        more = 'max_length = 16\nadd_bos = "no"\njoin = "character"\nid_field = "meta.url"'
        write("text.toml", file.read().replace("max_length = 16", more))
    lines = [line for line in sweep("text.toml", "--dry-run").stdout.splitlines() if "sbatch" in line]
    count = [
        sum(f"/tokenize_{name}.sbatch" in line and "--add-bos no" in line for line in lines)
        for name in ("corpus", "queries")
    ]
    check(count == [3, 3], "text: tokenizer_config.json counts", count)
    own = {"corpus": "--id-field meta.url", "queries": "--join character"}
    count = {
        (name, option): sum(f"/tokenize_{name}.sbatch" in line and option in line for line in lines)
        for name in own
        for option in own.values()
    }
    check(list(count.values()) == [3, 0, 0, 3], "text: options of corpora alone, of queries alone", count)


# ---------------------------------------------------------------- a stand-in for Slurm

SQUEUE = """#!/bin/sh
# as squeue: its own variables limit what is listed, and colour or headings come with others
while IFS='|' read -r number state reason comment; do
    [ "${SQUEUE_STATES:-$state}" = "$state" ] && [ -z "$SQUEUE_PARTITION$SQUEUE_FORMAT$SLURM_CLUSTERS" ] &&
        echo "$number|$state|$reason|$comment"
done < "$QUEUE"
exit 0
"""
SBATCH = """#!/bin/sh
# takes every job: its elements go into $QUEUE, its words and environment beside it; the site greets first
for word; do
    case $word in --comment=*) comment=${word#*=} ;; --array=*) array=${word#*=} ;; esac
done
n=$(($(cat "$QUEUE.jobs" 2> /dev/null || echo 6) + 1))
echo $n > "$QUEUE.jobs"
echo "$@" >> "$QUEUE.words"
env > "$QUEUE.environment"
if [ -n "$array" ]; then
    range=${array%%%*}
    for i in $(seq "${range%-*}" "${range#*-}"); do echo "${n}_$i|PENDING|Priority|$comment"; done
else
    echo "$n|PENDING|Priority|$comment"
fi >> "$QUEUE"
echo "Welcome to cluster 3"
echo "$n;cluster"
"""
SCONTROL = """#!/bin/sh
[ "$1" = show ] && printf 'MaxArraySize            = %s\\nSchedulerParameters     = a=1,max_array_tasks=%s,b\\n' "${LIMIT:-1001}" "${TASKS:-1001}"
exit 0
"""


def submit(name, **changes):
    """Sweep into the stand-in: (what sweep did, entries of the queue, words of all sbatch commands)."""
    done = sweep(name, PATH=path("slurm") + ":" + ENVIRONMENT["PATH"], QUEUE=path("queue"), **changes)
    read = []
    for ending in ("", ".words"):
        with open(path("queue" + ending), encoding="utf-8") as file:
            read.append(file.read().splitlines())
    return done, *read


def empty_queue():
    for ending in ("", ".words", ".jobs"):
        with open(path("queue" + ending), "w", encoding="utf-8") as file:
            file.write("6\n" if ending == ".jobs" else "")


def test_environment():
    """What a user's shell or a job around says to Slurm changes neither what is listed nor what is submitted."""
    os.makedirs(path("slurm"), exist_ok=True)
    for name, text in (("squeue", SQUEUE), ("sbatch", SBATCH), ("scontrol", SCONTROL)):
        write(f"slurm/{name}", text)
        os.chmod(path(f"slurm/{name}"), 0o755)
    write("shell.toml", GOOD.replace('"out"', '"shell"'))
    for shell in (
        {},
        {"SQUEUE_STATES": "RUNNING"},
        {"SQUEUE_PARTITION": "gpu"},
        {"SQUEUE_FORMAT": "%i"},
        {"SLURM_CLUSTERS": "other"},
        {"USER": "nobody", "LOGNAME": "nobody"},
    ):
        empty_queue()
        done, first, _ = submit("shell.toml")
        check(done.returncode == 0 and len(first) == 13, f"{shell}: submitted", done.stderr + done.stdout)
        done, second, _ = submit("shell.toml", **shell)
        check(
            done.returncode == 0 and second == first,
            f"{shell}: submitted twice is submitted once",
            done.stdout + done.stderr,
        )
    job = {
        "SLURM_JOB_ID": "5",
        "SLURM_CPU_BIND": "mask_cpu:0x3",
        "SLURM_TRES_PER_TASK": "cpu=2",
        "SLURM_MEM_PER_CPU": "2000",
        "SBATCH_NO_REQUEUE": "1",
        "SRUN_CPUS_PER_TASK": "2",
        "PMIX_RANK": "0",
        "PMI_FD": "6",
    }
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "mine", "PMIX_MCA_gds": "hash", "LC_ALL": "C.UTF-8"}
    empty_queue()
    submit("shell.toml", **job, **kept)
    with open(path("queue.environment"), encoding="utf-8") as file:
        found = dict(line.split("=", 1) for line in file.read().splitlines() if "=" in line)
    check(not set(job) & set(found), "a job around the sweep is not handed on", {key: found.get(key) for key in job})
    check(
        all(found.get(key) == value for key, value in kept.items()),
        "what finds Slurm is",
        {key: found.get(key) for key in kept},
    )
    done = sweep("shell.toml", "--dry-run", **job)
    check(
        done.stdout.startswith("#!/bin/sh\n") and "\nunset SLURM_CPU_BIND\n" in done.stdout,
        "dry run: the same",
        done.stdout[:400],
    )


def test_array_limit():
    """More shards than Slurm lets an array have become several arrays; each shard keeps its number, its log and its place in the queue."""
    write("arrays.toml", GOOD.replace('"out"', '"arrays"').replace("shards = 3", "shards = 25\narray_limit = 12"))
    for limits in ({"LIMIT": "11"}, {"TASKS": "10"}):
        empty_queue()
        done, first, words = submit("arrays.toml", **limits)
        arrays = [line for line in words if "--job-name=score--small" in line]
        check(done.returncode == 0 and len(first) == 10 + 25, f"{limits}: submitted", done.stdout + done.stderr)
        check(
            len(arrays) == 3
            and all(part in line for line, part in zip(arrays, ("--array=0-9%4 ", "--array=0-9%4 ", "--array=0-4%2 "))),
            f"{limits}: three arrays",
            arrays,
        )
        logs = (
            "log/score--small--q--words-%a.log",
            "log/score--small--q--words-1%1a.log",
            "log/score--small--q--words-2%1a.log",
        )
        check(all(log in line for line, log in zip(arrays, logs)), f"{limits}: a log is named by its shard", arrays)
        merge = next(line for line in words if "--job-name=merge--small" in line)
        numbers = [str(7 + words.index(line)) for line in arrays]
        check(f"--dependency=afterok:{':'.join(numbers)} " in merge, f"{limits}: what follows waits for all", merge)
        done, second, _ = submit("arrays.toml", **limits)
        check(second == first, f"{limits}: submitted twice is submitted once", done.stdout + done.stderr)
    with open(path("queue"), encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith(f"{numbers[1]}_3|")]
    with open(path("queue"), "w", encoding="utf-8") as file:
        file.writelines(lines)
    done, _, words = submit("arrays.toml", TASKS="10")
    check(
        "--array=3%12 " in words[-1] and "-1%1a.log" in words[-1], "the missing shard 13 alone", words[-1] + done.stdout
    )
    with open(path("queue.environment"), encoding="utf-8") as file:
        found = file.read().splitlines()
    check("FIRST_SHARD=10" in found and "SHARDS=25" in found, "its job adds the first", done.stdout)
    script = subprocess.run(
        ["/bin/sh", "-c", 'run_stage() { echo "$@"; }; . "$0"', os.path.join(ROOT, "jobs", "score_shards.sbatch")],
        env={**os.environ, "BREGMAN": path("stub"), "FIRST_SHARD": "10", "SHARDS": "25", "SLURM_ARRAY_TASK_ID": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    check(script.stdout.endswith("--shard 13/25\n"), "and scores it", script.stdout + script.stderr)


def test_warnings():
    """Jobs that would be warned too late are named, with what plan predicts, and submitted all the same."""

    def warned(name, changed):
        possible = GOOD.replace('"out"', '"warned"').replace("pipeline = 4", "pipeline = 2")
        write(name, possible.replace('time = "1:00:00"', 'time = "1:00:00"\n' + changed))
        done = sweep(name, "--dry-run")
        check(
            done.returncode == 0 and done.stdout.count("sbatch") >= 10,
            f"{changed}: submitted all the same",
            done.stderr,
        )
        return done.stderr

    check(warned("early.toml", "") == "", "300 s are enough for a small model")
    said = warned("late.toml", "warning_seconds = 30")
    wanted = [
        rf"late.toml:7: \[cluster\] warning_seconds: {stage} of {name} is predicted to need 6[1-5], not 30"
        for stage in ("fit", "compress", "score", "explain")
        for name in ("small", "large")
    ]
    check(all(re.search(line, said) for line in wanted) and said.count("\n") == len(wanted), "30 s are not", said)
    rates = (
        "flop_s",
        "operand_s",
        "result_s",
        "call_s",
        "attention_flop_s",
        "attention_pair_s",
        "element_s",
        "activation_s",
        "logit_s",
        "sampled_s",
        "widened_s",
        "squared_s",
        "dot_s",
        "serial_s",
        "ranked_s",
        "eigen_cube_s",
        "eigen_square_s",
        "row_write_s",
        "write_byte_s",
        "read_byte_s",
        "hash_byte_s",
        "message_s",
        "message_byte_s",
    )
    with open(path("cluster.json"), "w", encoding="utf-8") as file:
        json.dump(
            {
                "nodes": 4,
                "cores_per_node": 2,
                "memory_gb_per_node": 0,
                "network_gb_s": 0,
                "disk_gb_s": 0,
                "profile": {
                    **dict.fromkeys(rates, 1e-9),
                    "threads": 1,
                    "subgrid_efficiency": 0.4,
                    "process_bytes": 1e8,
                    "publish_s": 1000,
                },
            },
            file,
        )
    said = warned("profile.toml", 'profile = "cluster.json"')
    check(
        "fit of large is predicted to need" in said and "not 300" in said, "files that take long on this cluster", said
    )
    said = warned("profile.toml", 'profile = "nowhere.json"')
    check("cannot be checked" in said and "nowhere.json" in said, "a profile that is not there", said)


# ---------------------------------------------------------------- mistakes


def test_mistakes():
    def wrong(name, old, new, *parts):
        check(old in GOOD, f"{name}: the sweep file has {old}")
        refused(name, GOOD.replace(old, new), "wrong.toml", *parts, code=2)

    wrong("not TOML", "[fit]", "[fit", "not TOML", "line 7")
    wrong("a number that Python does not take", "unit_sequences = 8", "unit_sequences = " + "9" * 5000, "not TOML")
    wrong("too deep", "unit_sequences = 8", "unit_sequences = " + "[" * 5000, "not TOML")
    wrong("a key of two lines", "[merge]", '"a\\nb" = 1\n[merge]', ":9: [score] a b: unknown key")
    wrong(
        "a path that ends early", '"queries.h5"', '"queries.h5\\u0000"', "[queries] file: it takes a text of one line"
    )
    wrong("unknown key", "unit_sequences", "unit_sequence", ":8: [fit] unit_sequence: unknown key", '"unit_sequences"')
    wrong("unknown table", "[merge]", "[merg]", "merg: unknown key", '"merge"')
    wrong("unknown key of a model", "fit = { nodes", "fit = { node", "[model.fit] node: unknown key", '"nodes"', ":21:")
    wrong("wrong type", "shards = 3", 'shards = "3"', ":10: [score] shards: it takes a whole number, not '3'")
    wrong("no shards", "shards = 3", "shards = 0", "[score] shards: it takes 1 or more, not 0")
    wrong("long n-grams", "[score]", "[prefilter]\nngrams = 4\n[score]", "[prefilter] ngrams: it takes one of 1, 2, 3")
    wrong("more than all", "[score]", "[prefilter]\nmax_share = 2\n[score]", "max_share: it takes a number from 0 to 1")
    wrong("too many shards", "shards = 3", "shards = 100000", "[score] shards: at most 99999")
    wrong("the same name twice", '"large"', '"small"', '"small" is there twice', ":19:")
    wrong("a name that is no name", '"small"', '"a/b"', "[model] name", "a name of")
    wrong("name of a folder", '"small"', '"log"', "another folder")
    wrong(
        "pipeline", "pipeline = 4", "pipeline = 3", "[model.fit] pipeline: 3 does not divide the 8 ranks (4 nodes of 2)"
    )
    wrong("no model", 'path = "model"\n[[model]]', 'path = "models"\n[[model]]', "no folder", "models", ":17:")
    at_step = 'path = "model@7"\n[[model]]'
    wrong("no checkpoint", 'path = "model"\n[[model]]', at_step, "no checkpoint of step 7", "no checkpoint", ":17:")
    wrong("no token file", "tokens/*.h5", "tokens/c.h5", "no file", "tokens/c.h5", ":25:")
    wrong("a pattern without match", "tokens/*.h5", "tokens/*.hdf5", "matches no file", "tokens/*.hdf5")
    wrong("a file twice", '["tokens/*.h5"]', '["tokens/*.h5", "tokens/a.h5"]', "tokens/a.h5", "is there twice")
    wrong(
        "a file twice, under two names",
        '["tokens/*.h5"]',
        '["tokens/*.h5", "link.h5"]',
        "link.h5",
        "is there twice, also as",
        "tokens/a.h5",
    )
    more = '[[corpus]]\nname = "again"\ntokens = ["nowhere.h5"]\n[[corpus]]\n'
    gone = GOOD.replace("[[corpus]]\n", more).replace("tokens/*.h5", "gone.h5")
    refused("two corpora without files are not called the same", gone, "gone.h5", "nowhere.h5", code=2, n_lines=3)
    more = '[[queries]]\nname = "again"\nfile = "./queries.h5"\n[[queries]]\n'
    wrong("a query set twice", "[[queries]]\n", more, ":30: [queries] name:", '"q" is the same as "again"')
    more = '[[corpus]]\nname = "again"\ntokens = ["tokens/a.h5", "tokens/b.h5"]\n[[corpus]]\n'
    refused(
        "a corpus twice",
        GOOD.replace("[[corpus]]\n", more).replace("[fit]", '[fit]\ncorpus = "words"'),
        '"words" is the same as "again"',
        code=2,
    )
    more = '[[model]]\nname = "again"\npath = "./model/"\n[[model]]\n'
    refused(
        "a model twice",
        GOOD.replace("[[model]]\n", more, 1),
        '"small" is the same as "again", with the same settings',
        code=2,
    )
    wrong("no HDF5 file", "tokens/*.h5", "good.toml", "is not an HDF5 file")
    wrong("no query file", 'file = "queries.h5"', 'file = "query.h5"', "[queries] file: no file", "query.h5")
    wrong("queries without a file", 'file = "queries.h5"', "", "an entry without file")
    wrong("neither tokens nor text", 'tokens = ["tokens/*.h5"]', "", "needs either tokens")
    wrong("no output", 'output = "out"', "", "no output")
    wrong("a range", "unit_sequences = 8", 'covariance_sequences = "9:3"', "a range with A below B")
    wrong("a time limit", '"1:00:00"', '"1 hour"', "[cluster] time: it takes a time limit")
    wrong("a warning before the start", '"1:00:00"', '"5"', "no longer than warning_seconds = 300")
    wrong(
        "a corpus that is not there",
        "shards = 3",
        'shards = 3\ncorpora = ["word"]',
        'no [[corpus]] is named "word"',
        '"words"',
    )
    wrong("two dampings", "[merge]", "[compress]\ndamping = 1\ndamping_factor = 0.2\n[merge]", "exclude each other")
    wrong("tolerance", "[merge]", "[compress]\ntolerance = 0.1\n[merge]", 'it needs rank = "auto"')
    for fitted, asked in (("shampoo", "kfac"), ("shampoo", "ekfac"), ("ekfac", "shampoo")):
        wrong(
            f"{asked} of {fitted}",
            "unit_sequences = 8",
            f'preconditioner = "{fitted}"\n[compress]\npreconditioner = "{asked}"',
            ":10: [compress] preconditioner:",
            f'cannot be had of factors that are fitted with preconditioner = "{fitted}"',
        )
    wrong("preconditioner", "unit_sequences = 8", 'preconditioner = "kfac"', "it takes one of ekfac, shampoo")
    wrong("memory", "ranks_per_node = 2", 'memory_limit = "much"', "bytes")
    wrong("candidates", "shards = 3", 'candidates = "list.txt"', "no file", "list.txt")
    wrong("an entry that is no table", "[merge]\ntop = 5", "merge = 5", "merge")
    write(
        "wrong.toml",
        GOOD.replace("shards = 3", "shards = 0")
        .replace('"tokens/*.h5"', '"none/*.h5"')
        .replace("[fit]", "[fit]\nx = 1"),
    )
    done = sweep("wrong.toml", "--local")
    check(
        done.returncode == 2 and len(done.stderr.strip().split("\n")) == 2,
        "all mistakes of a kind at once",
        done.stderr,
    )
    for arguments, part in ((("--ranks", "2"), "--local"), (("--local", "--status"), "not allowed"), (("--loc",), "")):
        done = sweep("good.toml", *arguments)
        check(done.returncode == 2 or arguments == ("--loc",), f"command line {arguments}", done.stderr)
        check(part in done.stderr, f"command line {arguments} says why", done.stderr)
    done = sweep("nowhere.toml")
    check(done.returncode == 2 and "nowhere.toml" in done.stderr, "no sweep file", done.stderr)
    fresh = write("fresh.toml", GOOD.replace('"out"', '"fresh"'))
    done = sweep("fresh.toml")
    said = [line for line in done.stderr.strip().split("\n") if "warning:" not in line]
    check(done.returncode == 1 and said == ["sweep: squeue: no cluster here"], "no Slurm", done.stderr)
    done = sweep("fresh.toml", "--local", BREGMAN_BIN="/nowhere")
    check(done.returncode == 1 and "/nowhere/fit_factors" in done.stderr, "no programs", done.stderr)
    check(os.path.exists(fresh) and not os.path.exists(path("fresh/small/factors/MANIFEST")), "nothing begun")


prepare()
test_dry_run()
test_local()
test_lines_meanwhile()
test_status_of_others()
test_prefilter()
test_sources()
test_missing_parts()
test_out_of_date()
test_failure()
test_progress()
test_stop()
test_text()
test_environment()
test_array_limit()
test_warnings()
test_mistakes()
shutil.rmtree(text_checks.FOLDER)
finish(120)
