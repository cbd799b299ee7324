#!/usr/bin/env python3
"""[validate] in a sweep: its job and settings file, a run here to its end with the steps that were planned, a stop, what is out of
date, and mistakes, which are found before anything is submitted."""

import functools
import glob
import json
import os
import shutil
import sys
import tomllib

import h5py

from engine_checks import ROOT, check, finish
from sweep_checks import ENVIRONMENT, WORDS, path, run, write, write_squeue, write_tokenizer
import sweep_checks
import text_checks
from bregman.validate.stages import log_name

sweep = functools.partial(sweep_checks.sweep, timeout=300)
FAMILY = """
output = "out"
[cluster]
threads = 2
ranks_per_node = 3
pipeline = 3
memory_limit = "1G"
[tokenize]
max_length = 16
[train]
tokenizer = "tokenizer"
heldout = "heldout.h5"
batch_tokens = 64
epochs = 2
seed = 4
eval_steps = 2
slices = 3
[train.base]
model_type = "gpt2"
n_head = 2
n_positions = 32
layer_norm_epsilon = 1e-5
n_layer = 1
[train.sizes.small]
n_embd = 16
[compress]
rank = 4
[explain]
enabled = false
[report]
enabled = false
[validate]
parts = ["lds", "qld", "pbo"]
time = "12:00:00"
[validate.methods]
names = ["random", "cg"]
modules = ["mlp"]
dampings = [0.1]
[validate.compress]
seed = 7
[validate.lds]
subsets = 3
seeds = 2
[validate.qld]
seeds = 1
share = 0.2
random = 2
[validate.pbo]
steps = 2
[[corpus]]
name = "words"
text = "corpus.jsonl"
[[queries]]
name = "q"
file = "queries.jsonl"
"""


def changed(*changes):
    text = FAMILY
    for old, new in changes:
        check(old in text, f"the sweep file has {old}")
        text = text.replace(old, new)
    write("changed.toml", text)
    return sweep("changed.toml", "--dry-run")


def row(name):
    return next(
        " ".join(line.split()) for line in sweep(name, "--status").stdout.splitlines() if line.startswith("validate ")
    )


def prepare():
    write_squeue("exit 0\n")
    write_tokenizer()
    write("corpus.jsonl", WORDS)
    write(
        "queries.jsonl",
        '{"id": "q", "prompt": "the ", "completion": "band"}\n{"id": "r", "prompt": "a ", "completion": "hand"}\n',
    )
    write("held.jsonl", '{"text": "and then the end"}\n' * 2)
    done = run([sys.executable, os.path.join(ROOT, "scripts", "tokenize_corpus")], path("held.jsonl"), "--model",
               path("tokenizer"), "--output", path("held"))  # fmt: skip
    check(done.returncode == 0, "held-out tokens", done.stderr)
    shutil.copy(path("held/held.h5"), path("heldout.h5"))
    os.unlink(path("tokenizer/config.json"))
    write("family.toml", FAMILY)


# ---------------------------------------------------------------- the job


def test_job():
    done = sweep("family.toml", "--dry-run")
    lines = {x.split("--job-name=")[1].split()[0]: x for x in done.stdout.splitlines() if "sbatch" in x}
    check(done.returncode == 0 and not os.path.exists(path("out")), "dry run: nothing is written", done.stderr)
    line = lines["validate--small"]
    for part in (
        f"/jobs/validate.sbatch {path('out/small/validate.toml')} --output {path('out/small/validation')}",
        "--nodes=1 --ntasks-per-node=1 --cpus-per-task=6 --time=12:00:00 --signal=B:USR1@300",
        f"BREGMAN_BIN={ENVIRONMENT['BREGMAN_BIN']}",
    ):
        check(part in line, f"the job has {part}", line)
    waits = {name: lines[name].split("=")[0] for name in lines if name.startswith(("train--", "tokenize"))}
    waits = {name: variable for name, variable in waits.items() if "heldout" not in name}
    check(
        len(waits) == 3 and all(f"${{{v}}}" in line for v in waits.values()),
        "it waits for model, tokens, queries",
        line,
    )
    check(list(lines)[-1] == "validate--small", "at the end", list(lines))
    check("bregman-validate" in done.stdout and "--plan" in done.stdout, "no tokens yet: how to ask for costs later")


def test_settings_file():
    with open(path("out/small/validate.toml"), "rb") as file:
        found = tomllib.load(file)
    tokens = glob.glob(path("out/tokens/words-*/corpus.h5"))
    wanted = {"config": path("out/small/config"), "trained": path("out/small/model"), "tokens": tokens, "seed": 4,
              "queries": glob.glob(path("out/queries/q-*.h5"))[0]}  # fmt: skip
    check(found["model"] == wanted, "the model is the sweep's", found["model"])
    check(found["train"] == {"batch_tokens": 64, "epochs": 2}, "training as the sweep has it", found["train"])
    check(found["compress"] == {"rank": 4, "seed": 7}, "of the sweep, and of [validate]", found["compress"])
    check(found["ranks"] == 6 and found["lds"] == {"subsets": 3, "seeds": 2}, "all cores of a node", found)


# ---------------------------------------------------------------- a run, and what it was to cost


def test_stop():
    """A file named stop keeps it from training; without it the same command goes on."""
    write("out/small/validation/stop", "")
    done = sweep("family.toml", "--local", "--ranks", "1")
    check(done.returncode == 75 and "validate--small: stopped" in done.stdout, "stopped", done.stdout + done.stderr)
    check(row("family.toml").startswith("validate small - - stopped"), "status", row("family.toml"))
    check(not os.path.exists(path("out/small/validation/halves")), "nothing was trained")
    os.unlink(path("out/small/validation/stop"))


def planned(name):
    done = run([sys.executable, os.path.join(ROOT, "scripts", "validate")], name, "--plan", "--json")
    check(done.returncode == 0, "plan", done.stderr)
    return json.loads(done.stdout)


def test_run():
    before = sorted(os.listdir(path("out/small/validation")))
    plan = planned(path("out/small/validate.toml"))
    os.mkdir(path("out/aside"))
    check(sorted(os.listdir(path("out/small/validation"))) == before, "a plan writes nothing")
    for name in ("small", "aside"):  # the model is there, or yet to be trained
        os.rename(path("out/small/model"), path(f"out/{name}/model"))
        done = sweep("family.toml", "--dry-run")
        check("# validate--small: " in done.stdout and "6 trainings, lds, halves" in done.stdout and
              "predicted on 6 ranks" in done.stdout, "with tokens: what it costs", done.stdout + done.stderr)  # fmt: skip
    os.rename(path("out/aside/model"), path("out/small/model"))
    done = sweep("family.toml", "--local", "--ranks", "1")
    check(done.returncode == 0 and "validate--small: done" in done.stdout, "to its end", done.stdout + done.stderr)
    check_steps(plan)
    shown = row("family.toml")
    check(shown.startswith("validate small - - done 100 %"), "status: done", shown)
    check(all(path(f"out/small/validation/{part}.json") in shown for part in ("lds", "qld", "pbo")), "and where", shown)
    check(sweep("family.toml", "--local").stdout.startswith("all done"), "again: nothing to do")
    with open(path("out/small/validation/lds.json"), encoding="utf-8") as file:
        found = json.load(file)
    check(found["inputs"]["model"]["path"] == path("out/small/model"), "of the sweep's model", found["inputs"])
    check(not glob.glob(path("out/small/validation/model/*")), "which is not trained again")


def check_steps(plan):
    """Each planned step has left its log, and no other; each bank has as many models as were counted."""
    made = set(os.listdir(path("out/small/validation/logs")))
    wanted = [log_name(title) for title in plan["steps"]]
    check(len(set(wanted)) == len(wanted) and set(wanted) == made, "steps", sorted(set(wanted) ^ made))
    rows = {r["what"]: r for r in plan["rows"]}
    models = 0
    for name in ("halves", "qld/*"):
        for bank in glob.glob(path(f"out/small/validation/{name}/bank/bank.h5")):
            with h5py.File(bank) as file:
                models += file["query_loss"].shape[0] * file["query_loss"].shape[1]
    counted = sum(r["times"] for what, r in rows.items() if what.startswith("trainings, "))
    check(models == counted == 3 * 2 + 2 + 2 * 2, "trainings", (models, counted))
    starts = {"compressions": "compress", "scorings": "score", "fits": "fit"}
    for what, word in starts.items():
        times = sum(r["times"] for name, r in rows.items() if name.split(",")[0] == what)
        logs = sum(word in name.split("-")[:2] for name in made)
        check(times == logs > 0, f"as many {what} as there are logs", (times, logs))
    check(rows["compressions, cg"]["seconds"] > 0 and plan["seconds"] > 0, "hours", rows)


def test_out_of_date():
    done = changed(("subsets = 3", "subsets = 4"))
    check(done.returncode == 1 and "lds.json" in done.stderr and "[validate.lds] subsets = 3, this sweep says 4" in done.stderr,
          "other settings", done.stderr)  # fmt: skip
    done = changed(('parts = ["lds", "qld", "pbo"]', 'parts = ["lds"]'))
    check(done.returncode == 0 and "validate--small" not in done.stdout, "fewer parts: nothing to do", done.stderr)
    os.unlink(path("out/small/validation/qld.json"))
    jobs = [line for line in sweep("family.toml", "--dry-run").stdout.splitlines() if "--job-name=" in line]
    check(
        len(jobs) == 1 and "--job-name=validate--small" in jobs[0] and "dependency" not in jobs[0], "a part anew", jobs
    )


# ---------------------------------------------------------------- mistakes


def test_mistakes():
    def wrong(name, *parts, changes, code=2):
        done = changed(*changes, ('output = "out"', 'output = "wrong"'))
        told = done.returncode == code and all(part in done.stderr for part in parts)
        check(told and not os.path.exists(path("wrong")), name, f"exit {done.returncode}: {done.stderr.strip()}")

    def one(name, old, new, *parts):
        wrong(name, *parts, changes=[(old, new)])

    one("key", "[validate.lds]\n", "[validate.lds]\nsedes = 3\n", "[validate.lds] sedes: is unknown", "changed.toml:")
    one("value", "subsets = 3", 'subsets = "few"', "[validate.lds] subsets: takes a whole number")
    one("unknown table", "[validate.pbo]", "[validate.pbx]", '[validate] pbx: unknown key; did you mean "pbo"?')
    one(
        "the sweep's own",
        "[validate.pbo]",
        "[validate.train]\nepochs = 3\n[validate.pbo]",
        "[validate] train: unknown key",
    )
    one("one node", "time =", "nodes = 2\ntime =", "[validate] nodes: unknown key")
    one("method", '"random", "cg"', '"magic"', "[validate.methods] names", "a list of random")
    one("part", '"pbo"]', '"pbx"]', "[validate] parts: it takes a list of lds")
    one("seeds", "seeds = 2\n", "seeds = 2\nfirst_seed = 4\n", "first_seed", "the scored model has seed 4")
    one("a model that there is not", "[validate]\n", '[validate]\nmodels = "tiny"\n', 'no model is named "tiny"')
    one("a query set", "[validate]\n", '[validate]\nqueries = "p"\n', 'no [[queries]] is named "p"')
    one(
        "which query set",
        "[[queries]]\n",
        '[[queries]]\nname = "p"\nfile = "other.jsonl"\n[[queries]]\n',
        "which queries?",
    )
    one("a subset", "seed = 4", 'seed = 4\nsubset = "list.txt"', "learns all of its corpus")
    one("time", "12:00:00", "0:05:00", "[validate] time", "no longer than warning_seconds")
    other = '[[model]]\nname = "elsewhere"\npath = "elsewhere"\n[[corpus]]'
    remedy = "not known how to train it again", "bregman-validate", "[model] start"
    named = ("[validate]\n", '[validate]\nmodels = ["elsewhere"]\n')
    wrong("a checkpoint from elsewhere", '"elsewhere" is trained', *remedy, changes=[("[[corpus]]", other), named])
    train = FAMILY[FAMILY.index("[train]") : FAMILY.index("[compress]")]
    wrong("no [train]", "no model is trained", *remedy, changes=[(train, ""), ("[[corpus]]", other)])


def test_sizes():
    """What is asked of files that are there is checked before anything is submitted, too."""
    done = changed(("subsets = 3", "subsets = 17"), ('output = "out"', f'output = "{path("out")}"'))
    check(done.returncode == 1, "other settings come first", done.stderr)
    shutil.rmtree(path("out/small/validation"))
    done = changed(("subsets = 3", "subsets = 17"))
    check(
        done.returncode == 1 and "17 subsets of a corpus of 16 sequences" in done.stderr,
        "too many subsets",
        done.stderr,
    )


prepare()
write("other.jsonl", '{"id": "q", "prompt": "the ", "completion": "hand"}\n')
os.makedirs(path("elsewhere"))
write("elsewhere/config.json", "{}")
write("elsewhere/model.safetensors", "")
write("list.txt", "0\n")
test_job()
test_mistakes()
test_stop()
test_settings_file()
test_run()
test_out_of_date()
test_sizes()
shutil.rmtree(text_checks.FOLDER)
finish(50)
