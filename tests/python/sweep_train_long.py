#!/usr/bin/env python3
"""Sweeps that train their models: the plan, a run of text to rankings here, what is out of date, and every mistake in [train]."""

import json
import os
import re
import shutil
import subprocess

from engine_checks import ROOT, check, finish
from sweep_checks import SWEEP, WORDS, path, sweep, write, write_family_tokenizer, write_squeue
import sweep_checks
import text_checks

FAMILY = """
output = "out"
[cluster]
threads = 1
ranks_per_node = 2
pipeline = 2
[tokenize]
max_length = 16
[train]
corpus = "words"
heldout = "unseen"
tokenizer = "tokenizer"
batch_tokens = 64
epochs = 2
[train.base]
model_type = "gpt2"
n_head = 2
n_positions = 32
layer_norm_epsilon = 1e-5
n_layer = 1
[train.sizes.small]
n_embd = 16
[train.sizes.large]
n_embd = 24
n_layer = 2
[train.sizes.large.train]
seed = 3
nodes = 2
[train.sizes.large.score]
shards = 2
[score]
corpora = "words"
[report]
show = 2
[[corpus]]
name = "words"
text = "corpus.jsonl"
[[corpus]]
name = "unseen"
text = "heldout.jsonl"
[[queries]]
name = "q"
file = "queries.jsonl"
"""


def read(name):
    with open(path(name), encoding="utf-8") as file:
        return file.read()


def prepare():
    write_squeue("exit 0\n")
    write_family_tokenizer()
    write("corpus.jsonl", WORDS)
    write("heldout.jsonl", '{"text": "and then the end"}\n' * 2)
    write("queries.jsonl", '{"id": "q", "prompt": "the ", "completion": "band"}\n')


def submitted(done):
    """{name of the job: (its line, its variable)} of a dry run."""
    lines = [line for line in done.stdout.splitlines() if "sbatch" in line]
    return {line.split("--job-name=")[1].split()[0]: (line, line.split("=")[0]) for line in lines}


def states(name):
    found = {}
    for line in sweep(name, "--status").stdout.splitlines()[1:]:
        cells = line.split()
        found[tuple(cells[:2])] = " ".join(cells[4:])
    return found


# ---------------------------------------------------------------- the plan


def test_plan():
    write("family.toml", FAMILY)
    done = sweep("family.toml", "--dry-run")
    jobs = submitted(done)
    check(done.returncode == 0 and not os.path.exists(path("out")), "dry run: nothing is written", done.stderr)
    check(sum(name.startswith("tokenize--") for name in jobs) == 2, "corpora of one tokenizer once", list(jobs))
    train, variable = jobs["train--small"]
    for part in (
        "/jobs/train_models.sbatch",
        f"--config {path('out/small/config')} --tokens {path('out/tokens/words-')}",
        f"--heldout {path('out/tokens/unseen-')}",
        f"--output {path('out/small/model')}",
        "--batch-tokens 64 --epochs 2 --threads 1",
        "--signal=B:USR1@300",
    ):
        check(part in train, f"train has {part}", train)
    check("--pipeline" not in train and "--pipeline 2" in jobs["fit--small"][0], "no pipeline where it has none", train)
    check("--seed 3" in jobs["train--large"][0] and "--nodes=2" in jobs["train--large"][0], "of one size")
    wanted = {jobs[name][1] for name in jobs if name.startswith("tokenize--")}
    check(all(f"${{{v}}}" in train for v in wanted), "train waits for its tokens", train)
    tokenize = next(line for name, (line, _) in jobs.items() if name.startswith("tokenize--words"))
    check(
        f"--model {path('out/small/config')}" in tokenize and "dependency" not in tokenize,
        "tokens wait for nothing",
        tokenize,
    )
    for name in ("fit--small", "compress--small--q", "score--small--q--words", "report--small--q--words"):
        check(f"${{{variable}}}" in jobs[name][0], f"{name} waits for the model", jobs[name][0])
        check(f"--model {path('out/small/model')}" in jobs[name][0], f"{name} has the model", jobs[name][0])
    check("SHARDS=2" in jobs["score--large--q--words"][0], "another stage's settings of one size")
    check("score--small--q--unseen" not in jobs, "what is held out is not scored")


def test_warnings():
    """A training, too, that would be warned too late is named, and submitted all the same."""
    write("late.toml", FAMILY.replace("[train]\n", "[train]\nwarning_seconds = 30\n"))
    done = sweep("late.toml", "--dry-run")
    wanted = [
        rf"\[train\] warning_seconds: train of {name} is predicted to need 6[1-5], not 30"
        for name in ("small", "large")
    ]
    check(all(re.search(line, done.stderr) for line in wanted), "30 s are not enough", done.stderr)
    check(len(done.stderr.splitlines()) == 2 and "train--small" in submitted(done), "for trainings", done.stderr)


# ---------------------------------------------------------------- a run here


def test_run():
    done = sweep("family.toml", "--local", "--ranks", "1")
    check(done.returncode == 0 and "all done" in done.stdout, "local run", done.stdout + done.stderr)
    for name in ("small", "large"):
        check(os.path.exists(path(f"out/{name}/q/words/report.html")), f"{name}: a report")
    config = json.loads(read("out/small/config/config.json"))
    check(config["vocab_size"] == 261 and config["eos_token_id"] == config["bos_token_id"] == 260, "ids", config)
    check(config["n_embd"] == 16 and config["n_head"] == 2, "base and size", config)
    check(read("out/small/model/tokenizer.json") == read("tokenizer/tokenizer.json"), "the tokenizer goes along")
    found = states("family.toml")
    check(
        ("train", "small") in found and all(said.startswith("done 100 % -") for said in found.values()), "status", found
    )
    check(sweep("family.toml", "--local").stdout.startswith("all done"), "again: nothing to do")


def test_example():
    done = subprocess.run(
        [SWEEP, os.path.join(ROOT, "jobs", "family.toml"), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    wrong = [line for line in done.stderr.splitlines() if "unknown key" in line or "it takes" in line]
    check(done.returncode == 2 and not wrong, "example: its keys are right, its files are not here", done.stderr)


def test_out_of_date():
    def refused(name, old, new, *parts):
        check(old in FAMILY, f"{name}: the sweep file has {old}")
        write("other.toml", FAMILY.replace(old, new))
        done = sweep("other.toml", "--dry-run")
        check(done.returncode == 1 and all(p in done.stderr for p in parts), name, f"{done.returncode} {done.stderr}")

    refused("another size", "n_embd = 16", "n_embd = 32", "out/small/model", "[train.sizes.small]", 'remove "')
    refused(
        "another batch", "batch_tokens = 64", "batch_tokens = 32", "log.h5", "batch_tokens = 64, this sweep says 32"
    )
    refused("another seed", "seed = 3", "seed = 4", "large/model/log.h5", "seed = 3")
    write("other.toml", FAMILY.replace("[train.sizes.large]", "[train.sizes.tiny]\nn_embd = 4\n[train.sizes.large]"))
    jobs = submitted(sweep("other.toml", "--dry-run"))
    check(
        sorted(name.split("--")[0] for name in jobs)
        == ["compress", "explain", "fit", "merge", "report", "score", "train"],
        "one size more: its jobs alone",
        list(jobs),
    )
    # what is finished does not need its model
    shutil.move(path("out/small/model"), path("kept"))
    check("sbatch" not in sweep("family.toml", "--dry-run").stdout, "a model that nothing needs")
    os.unlink(path("out/small/q/words/report.html"))
    check(
        list(submitted(sweep("family.toml", "--dry-run"))) == ["train--small", "report--small--q--words"],
        "needed again",
    )
    shutil.move(path("kept"), path("out/small/model"))


def test_failure():
    small = "[train.sizes.large.train]"
    failing = FAMILY.replace('"out"', '"failing"').replace(
        small, '[train.sizes.small.train]\nmemory_limit = "1K"\n' + small
    )
    write("failing.toml", failing)
    done = sweep("failing.toml", "--local", "--ranks", "1")
    check(
        done.returncode == 1 and "train--small: failed" in done.stdout and "memory-limit" in done.stdout,
        "a training that fails",
        done.stdout,
    )
    check(
        "fit--small: not run, because of train--small" in done.stdout and "fit--large: done" in done.stdout,
        "its own jobs alone",
        done.stdout,
    )
    found = states("failing.toml")
    check(
        found[("train", "small")].startswith("failed") and found[("fit", "small")].startswith("blocked"),
        "status",
        found,
    )
    write("failing.toml", failing.replace('"1K"', '"1G"'))
    done = sweep("failing.toml", "--local", "--ranks", "1")
    check(
        done.returncode == 0 and "train--large" not in done.stdout, "again: what is missing", done.stdout + done.stderr
    )


# ---------------------------------------------------------------- mistakes


def test_mistakes():
    def wrong(name, old, new, *parts, lines=1):
        sweep_checks.wrong(FAMILY, name, (old, new), *parts, lines=lines)

    wrong("unknown option", "batch_tokens", "batch_token", "[train] batch_token: unknown key", '"batch_tokens"')
    wrong("no pipeline", "epochs", "pipeline = 2\nepochs", "[train] pipeline: unknown key")
    wrong("optimizer", "epochs", 'optimizer = "adam"\nepochs', "one of adamw, sgd")
    wrong("slices", "nodes = 2", "nodes = 5", "[train] slices: 10 ranks share the 8 slices")
    wrong("epochs and steps", "epochs", "steps = 3\nepochs", "exclude each other")
    wrong(
        "a key of a size's stage", "shards = 2", "shard = 2", "[train.sizes.large.score] shard: unknown key", '"shards"'
    )
    wrong(
        "a size that is no table", "[train.sizes.small]\nn_embd = 16", "[train.sizes]\nsmall = 16", "small: not a table"
    )
    wrong("a name", "sizes.small", 'sizes."a/b"', "a name of letters")
    wrong("a folder's name", "sizes.small", "sizes.log", "another folder")
    wrong(
        "two sizes that are one",
        "n_embd = 24\nn_layer = 2\n[train.sizes.large.train]\nseed = 3\nnodes = 2\n[train.sizes.large.score]\nshards = 2",
        "n_embd = 16",
        '"large" is the same as "small"',
    )
    wrong("held out and trained on", '"unseen"\ntokenizer', '"words"\ntokenizer', "is what is trained on")
    wrong("no held-out file", '"unseen"\ntokenizer', '"unseem"\ntokenizer', "no file", "unseem")
    wrong("no list", "epochs", 'subset = "list.txt"\nepochs', "[train] subset: no file", "list.txt")
    wrong(
        "no corpus",
        'corpus = "words"\nheldout',
        'corpus = "word"\nheldout',
        'no [[corpus]] is named "word"',
        '"words"',
        lines=2,
    )
    wrong("no tokenizer", '"tokenizer"', '"tokens"', "[train] tokenizer: no ", "tokens/tokenizer.json")
    wrong("text without tokenizer", 'tokenizer = "tokenizer"', "", "it has no tokenizer")
    wrong(
        "a small vocabulary",
        "n_layer = 1",
        "n_layer = 1\nvocab_size = 100",
        "vocab_size is 100, less than the 261 tokens",
        lines=2,
    )
    wrong("a date", "n_layer = 1", "n_layer = 1\nday = 2026-01-01", "a date", lines=2)
    wrong("a family of others", '"gpt2"', '"bert"', 'model_type "bert" is not supported; supported: gpt2', lines=2)
    wrong("heads", "n_embd = 24", "n_embd = 25", "[train.sizes] large", "25")
    wrong("no sizes", FAMILY[FAMILY.index("[train.sizes.small]") : FAMILY.index("[score]")], "", "[train.sizes.NAME]")


prepare()
test_plan()
test_warnings()
test_run()
test_example()
test_out_of_date()
test_failure()
test_mistakes()
shutil.rmtree(text_checks.FOLDER)
finish(70)
