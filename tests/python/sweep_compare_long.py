#!/usr/bin/env python3
"""[compare] of sweeps: its jobs and what they wait for, a run from text to the page, what is out of date, and mistakes."""

from engine_checks import check, finish
from sweep_checks import WORDS, path, sweep, write, write_family_tokenizer, write_squeue
import sweep_checks
import text_checks

import json
import os

import h5py
import numpy as np

STUDY = """
output = "out"
[cluster]
threads = 1
ranks_per_node = 2
[tokenize]
max_length = 16
[train]
tokenizer = "tokenizer"
batch_tokens = 64
epochs = 4
save_steps = 2
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
[score]
layer_scores = true
[report]
show = 2
[compare]
top = 3
nodes = 2
[compare.methods.dot]
preconditioner = "identity"
[compare.checkpoints]
small = [2]
[[corpus]]
name = "words"
text = "corpus.jsonl"
[[queries]]
name = "q"
file = "queries.jsonl"
"""
NAMES = ["small", "small@2", "large", "small:dot", "large:dot"]


def prepare():
    write_squeue("exit 0\n")
    write_family_tokenizer()
    lines = [{**json.loads(line), "id": f"d{i}"} for i, line in enumerate(WORDS.splitlines())]
    write("corpus.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    asked = [
        {"id": "q", "prompt": "the ", "completion": "band", "kind": "words", "related": {"same": ["d0", "d2"]}},
        {"id": "r", "prompt": "another ", "completion": "hand", "kind": "words"},
    ]
    write("queries.jsonl", "".join(json.dumps(line) + "\n" for line in asked))


def submitted(done):
    lines = [line for line in done.stdout.splitlines() if "sbatch" in line]
    return {line.split("--job-name=")[1].split()[0]: (line, line.split("=")[0]) for line in lines}


def test_plan():
    write("study.toml", STUDY)
    done = sweep("study.toml", "--dry-run")
    jobs = submitted(done)
    check(done.returncode == 0, "dry run", done.stderr)
    line, _ = jobs["compare--all--q--words"]
    for name in NAMES:
        of = f"explain--{name}--q--words" if name in ("small", "large") else f"merge--{name}--q--words"
        check(f"${{{jobs[of][1]}}}" in line, f"the comparison waits for {of}", line)
        check(path(f"out/{name}/q/words/ranking.h5") in line, f"the comparison has {name}", line)
    for name in ("small", "small@2", "large"):
        check(f"${{{jobs[f'losses--{name}--q'][1]}}}" in line, f"and for the losses of {name}")
    check(f"--names {' '.join(NAMES)}" in line and "--top 3" in line and "--nodes=2" in line, "its options", line)
    check("losses--small:dot--q" not in jobs, "a method has no losses of its own")
    check(f"--model {path('out/small/model/step-00000002')} " in jobs["fit--small@2"][0], "a checkpoint's own factors")
    check(f"${{{jobs['train--small'][1]}}}" in jobs["fit--small@2"][0], "which wait for the training")
    check(sum(name.startswith("train--") for name in jobs) == 2, "a model is trained once", list(jobs))
    check(path("out/small/factors") in jobs["compress--small:dot--q"][0], "a method has the model's factors")
    check("--preconditioner identity" in jobs["compress--small:dot--q"][0], "and its own options")
    check("--preconditioner" not in jobs["compress--small--q"][0], "the model's are as before")
    check(f"${{{jobs['compare--all--q--words'][1]}}}" in jobs["compare-report--all--q--words"][0], "the page waits")
    check("report--small:dot--q--words" not in jobs, "a method has no page of its own")


def test_run():
    done = sweep("study.toml", "--local", "--ranks", "2", timeout=600)
    check(done.returncode == 0 and "all done" in done.stdout, "local run", done.stdout + done.stderr)
    with h5py.File(path("out/compare/q/words/compare.h5")) as file:
        check(file["model"].asstr()[()].tolist() == [*NAMES, "bm25"], "models", file["model"][()])
        loss, parameters = file["loss"][()], file["parameters"][()]
        check(np.isfinite(loss[:-1]).all() and np.isnan(loss[-1]).all(), "losses", loss)
        check(
            (loss[0] == loss[3]).all() and not (loss[0] == loss[1]).any(), "a method has the model's, a checkpoint not"
        )
        check(parameters[0] == parameters[1] < parameters[2], "parameters", parameters)
        check(file["pair/relation"].asstr()[()].tolist() == ["same"] and file["pair/sequences"][0] == 2, "related")
        check(file["kind"].asstr()[()].tolist() == ["words", "words"], "kinds")
    check(os.path.getsize(path("out/compare/q/words/compare.html")) > 2000, "a page")
    found = [line.split() for line in sweep("study.toml", "--status").stdout.splitlines()[1:]]
    check(all(cells[4] == "done" for cells in found), "status", found)
    check(
        ["compare", "all", "q", "words", "done"] == next(c for c in found if c[0] == "compare")[:5], "its line", found
    )
    check(sweep("study.toml", "--local").stdout.startswith("all done"), "again: nothing to do")


def test_out_of_date():
    write("other.toml", STUDY.replace("top = 3", "top = 4"))
    done = sweep("other.toml", "--dry-run")
    check(done.returncode == 1 and "compare.h5" in done.stderr and "top = 3" in done.stderr, "another top", done.stderr)
    write("other.toml", STUDY.replace('preconditioner = "identity"', 'preconditioner = "kfac"'))
    done = sweep("other.toml", "--dry-run")
    check(done.returncode == 1 and "small:dot/q/compressed.h5" in done.stderr, "another method", done.stderr)
    write("other.toml", STUDY.replace("[compare]\n", '[compare]\nmodels = "small"\n'))
    done = sweep("other.toml", "--dry-run")
    check(
        done.returncode == 1 and "made from 17 inputs, and this sweep has 11" in done.stderr,
        "fewer models",
        done.stderr,
    )
    os.unlink(path("out/compare/q/words/compare.html"))
    check(list(submitted(sweep("study.toml", "--dry-run"))) == ["compare-report--all--q--words"], "the page alone")


def test_methods():
    """Of the models that they are for."""
    write("one.toml", STUDY.replace('"identity"', '"identity"\nmodels = "large"').replace('"out"', '"one"'))
    done = sweep("one.toml", "--dry-run")
    check("--large:dot--" in done.stdout and "small:dot" not in done.stdout, "one model", done.stdout + done.stderr)


def test_mistakes():
    def wrong(name, old, new, *parts, lines=1):
        sweep_checks.wrong(STUDY, name, (old, new), *parts, lines=lines)

    wrong("unknown key", "top = 3", "topp = 3", "[compare] topp: unknown key", '"top"')
    wrong("unknown model", "top = 3", 'models = ["smal"]', '"smal"')
    wrong("unknown option of a method", "preconditioner =", "precond =", "dot] precond: unknown key")
    wrong("a method's name", "methods.dot", 'methods."a:b"', "a name of letters")
    wrong(
        "a method of another model",
        '"identity"',
        '"identity"\nmodels = "tiny"',
        "methods.dot] models: no model",
        '"tiny"',
    )
    wrong("a step that is not kept", "small = [2]", "small = [3]", "step 3 is not kept: [train] save_steps is 2")
    wrong("a checkpoint of another model", "small = [2]", "tiny = [2]", 'trains no model "tiny"')
    wrong("a model that is there twice", "top = 3", 'models = ["small", "small"]', '"small" is there twice')
    wrong("a model with BM25's name", "sizes.large]", "sizes.bm25]", '"bm25" is lexical overlap')
    other = '\n[[corpus]]\nname = "more"\ntext = "more.jsonl"\n[[queries]]'
    split = STUDY.replace("[score]", '[fit]\ncorpus = "words"\n[score]').replace("[train]", '[train]\ncorpus = "words"')
    split = split.replace("[train.sizes.small]", '[train.sizes.small.score]\ncorpora = "more"\n[train.sizes.small]')
    split = split.replace("[train.sizes.large]", '[train.sizes.large.score]\ncorpora = "words"\n[train.sizes.large]')
    write("more.jsonl", WORDS.replace("band", "land"))
    write("split.toml", split.replace("\n[[queries]]", other).replace('"out"', '"split"'))
    done = sweep("split.toml", "--dry-run")
    check(done.returncode == 2 and "nothing to compare" in done.stderr, "no corpus of all", done.stdout + done.stderr)
    wrong("no layer scores", "layer_scores = true", "layer_scores = false", "no layer scores", "no_layers", lines=2)
    wrong("factors of another kind", '"identity"', '"shampoo"', "cannot be had of factors")
    wrong("a model's name", "sizes.small]", "sizes.compare]", '"compare" is the name of another folder', lines=2)


prepare()
test_plan()
test_methods()
test_mistakes()
test_run()
test_out_of_date()
text_checks.shutil.rmtree(text_checks.FOLDER, ignore_errors=True)
finish(40)
