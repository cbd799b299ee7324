#!/usr/bin/env python3
"""validate's rows of other tools, without these tools: a program that writes scores stands for the Python that would have them."""

from text_checks import FOLDER, SCRIPTS, check, finish, load, path, run as run_script, write

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np

from bregman.validate import peers, statistics
from bregman.validate.methods import DEFAULT, METHODS, PEERS, rows

ROOT = os.path.join(SCRIPTS, "..")
BIN = os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "bin")
os.environ.update(BREGMAN_BIN=BIN, TMPDIR=FOLDER, OMP_NUM_THREADS="1")
os.environ.pop("BREGMAN_PEER_PYTHON", None)
sys.path.insert(0, os.path.join(SCRIPTS, "peers"))
adapter = __import__("adapter")
SEQUENCES, QUERIES = 64, 6

CONFIG = """output = "out"
parts = ["lds"]
[model]
config = "in/new"
tokens = "in/tokens/corpus.h5"
queries = "in/queries.h5"
[train]
epochs = 1
batch_tokens = 512
[methods]
names = {names}
modules = {modules}
dampings = [0.1, 1]
{more}
[lds]
subsets = 9
seeds = 1
"""
# What stands for a Python: "PROGRAM adapter --options".  It does as $FAKE says.
FAKE = """#!{python}
import os, sys, time
import h5py, numpy as np
mode, name = os.environ["FAKE"], os.path.basename(sys.argv[1])
if sys.argv[2] == "--version":
    print(name + ": a tool 3.1")
    sys.exit(mode == "one" and name == "bergson_scores" and "bergson_scores: error: no module")
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print("called", name, options["--modules"], options["--damping-factor"], options["--threads"], flush=True)
if mode == "slow":
    time.sleep(600)
if mode == "fails":
    print("Traceback: many lines")
    sys.exit(name + ": error: ValueError: it has no heart")
shape = (3, 2) if mode == "shape" else ({sequences}, {queries})
seed = [len(name), len(options["--modules"]), int(1000 * float(options["--damping-factor"]))]
scores = np.random.default_rng(seed).normal(size=shape)
if mode == "nan":
    scores[5, 1] = np.nan
if mode != "missing":
    with h5py.File(options["--output"], "w") as file:
        file["scores" if mode == "dataset" else "score"] = scores
"""


def fake_scores(name, word, damping):
    seed = [len(f"{name}_scores"), len(word), int(1000 * damping)]
    return np.random.default_rng(seed).normal(size=(SEQUENCES, QUERIES))


def make_inputs():
    script = load("demo/validation.py")
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "validate_text.txt"), encoding="utf-8") as file:
        chapters = [(f"text/{i}", script.plain(part)) for i, part in enumerate(file.read().split("\n\n\n"))]
    script.write_inputs(path("in"), chapters, sequences=SEQUENCES, queries=QUERIES, other=0)
    for name, text, *to in (
        ("tokenize_corpus", "in/corpus.jsonl", "--output", path("in/tokens")),
        ("tokenize_queries", "in/queries.jsonl", "--output", path("in/queries.h5")),
    ):
        done = run_script(name, path(text), "--model", path("in/new"), *to)
        check(done.returncode == 0, name, done.stderr)
    python = FAKE.format(python=sys.executable, sequences=SEQUENCES, queries=QUERIES)
    os.chmod(write("bin/python", python), 0o755)


def config(names='["random", "kronfluence", "bergson"]', modules='["mlp", "attention,mlp"]', python="bin/python"):
    more = f'peer_python = "{python}"' if python else ""
    write("peers.toml", CONFIG.format(names=names, modules=modules, more=more))


def validate(**environment):
    return subprocess.run(
        [sys.executable, f"{SCRIPTS}/validate", path("peers.toml"), "--ranks", "1"], cwd=FOLDER, capture_output=True,
        text=True, timeout=900, check=False, env={**os.environ, "FAKE": "works", **environment},
    )  # fmt: skip


def last(done):
    return done.stderr.strip().split("\n")[-1]


def test_before_training():
    """What cannot work is refused at once, with what to do about it."""
    wanted = '[methods] names: "kronfluence"'
    for name, python, environment, *parts in (
        ("no Python", None, {}, "peer_python", "BREGMAN_PEER_PYTHON", "pip install h5py transformers kronfluence=="),
        ("a file", "peers.toml", {}, 'peers.toml" is no program'),
        ("absent", None, {"BREGMAN_PEER_PYTHON": path("absent/python")}, 'absent/python" is no program'),
        ("without the tool", sys.executable, {}, "No module named", "-m pip install h5py", "or leave it out"),
    ):
        config(python=python)
        done = validate(**environment)
        check(
            done.returncode == 1 and all(part in last(done) for part in ("peers.toml", wanted, *parts)),
            name,
            done.stderr[-600:],
        )
    check(not os.path.exists(path("out/model")), "refused before anything is trained")
    check(not {"kronfluence", "bergson"} & set(DEFAULT) and len(DEFAULT) == len(METHODS) - 2, "not asked for: no row")


def check_rows(found, losses, members):
    """Each row is of the sum of its words' scores, at the damping that is best for the other half of the queries."""
    for row in found:
        if row["method"] == "random":
            continue
        each = []
        for damping in (0.1, 1):
            scores = sum(fake_scores(row["method"], word, damping) for word in row["modules"].split(","))
            each.append(statistics.lds(scores, members, losses))
        wanted = statistics.cross_chosen(np.array(each), 0)[0]
        check(np.allclose(row["per_query"], wanted), f"{row['label']}, {row['modules']}", row["per_query"])


def test_rows():
    config(modules='["mlp", "attention,mlp", "head,mlp"]')
    done = validate()
    check(done.returncode == 0, "rows of other tools", done.stderr[-600:])
    with open(path("out/lds.json"), encoding="utf-8") as file:
        report = json.load(file)
    found = report["result"]["halves"]["rows"]
    check(len(found) == 6 and "| Bergson's EK-FAC | attention,mlp |" in done.stdout, "rows", done.stdout)
    check(
        "no row of Bergson's EK-FAC with head,mlp: it tracks mlp, attention" in done.stderr,
        "said so",
        done.stderr[:300],
    )
    check(report["peers"] == {"kronfluence": "a tool 3.1", "bergson": "a tool 3.1"}, "versions", report["peers"])
    with h5py.File(path("out/halves/bank/bank.h5")) as file:
        losses, at = file["query_loss"][:], np.cumsum([0, *file["member/count"][:]])
        lists = [set(file["member/sequence"][a:b].tolist()) for a, b in zip(at, at[1:])]
    check_rows(found, losses, np.array([[z in some for z in range(SEQUENCES)] for some in lists]))
    with open(path("out/logs/kronfluence-head-damping-0.1.log"), encoding="utf-8") as file:
        check(file.read() == "called kronfluence_scores head 0.1 1\n", "options, and a log of its own")
    wanted = {"names": ["random", "bergson"], "dampings": [1]}
    first = sorted(row.name for row in rows(wanted, ["head", "all", "embedding,mlp"]))
    check(first == ["bergson-all", "random"], "what a tool does not track is no row of it", first)


def test_bad_scores():
    """Believed only if they are what was asked for."""
    config(names='["kronfluence"]', modules='["mlp"]', python=None)
    for mode, *parts in (
        ("fails", "kronfluence_scores failed: error: ValueError: it has no heart", "kronfluence-mlp-damping-0.1.log"),
        ("missing", "mlp-damping-0.1.h5", "has no scores"),
        ("dataset", "mlp-damping-0.1.h5", "has no scores"),
        ("shape", "of shape (3, 2), not of (64, 6)", "remove it"),
        ("nan", "has 1 scores that are no numbers", "larger damping"),
    ):
        shutil.rmtree(path("out/peers"), ignore_errors=True)
        done = validate(FAKE=mode, BREGMAN_PEER_PYTHON=path("bin/python"))
        check(
            done.returncode == 1 and all(part in last(done) for part in parts),
            f"scores: {mode}",
            done.stderr[-500:],
        )


def test_stop():
    """Asked to stop while another tool is at work: exit 75, and it is at work no more."""
    shutil.rmtree(path("out/peers"), ignore_errors=True)
    log = path("out/logs/kronfluence-mlp-damping-0.1.log")
    if os.path.exists(log):
        os.remove(log)
    environment = {**os.environ, "FAKE": "slow", "BREGMAN_PEER_PYTHON": path("bin/python")}
    command = [sys.executable, f"{SCRIPTS}/validate", path("peers.toml")]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=FOLDER, env=environment
    ) as job:
        while job.poll() is None and not (os.path.exists(log) and os.path.getsize(log)):
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=300)[1]
    check(
        job.returncode == 75 and "run the same command to go on" in said, "stopped", f"{job.returncode}: {said[-300:]}"
    )
    check(validate(BREGMAN_PEER_PYTHON=path("bin/python")).returncode == 0, "the same command goes on")


def test_importable():
    """The built-in validation has rows of those that are there."""
    for python, mode, expected in (
        (None, "works", []),
        ("absent/python", "works", []),
        ("bin/python", "works", ["kronfluence", "bergson"]),
        ("bin/python", "one", ["kronfluence"]),
    ):
        os.environ.update({"FAKE": mode, **({"BREGMAN_PEER_PYTHON": path(python)} if python else {})})
        check(peers.importable(PEERS) == expected, f"importable: {python}, {mode}", str(peers.importable(PEERS)))
    del os.environ["BREGMAN_PEER_PYTHON"]


# ---------------------------------------------------------------- what the adapters share


def test_token_files():
    ids, starts = adapter.read_corpus([path("in/tokens/corpus.h5")] * 2)
    with h5py.File(path("in/tokens/corpus.h5")) as file:
        check(len(ids) == 2 * SEQUENCES and sum(ids, []) == 2 * file["token"][:].tolist(), "sequences, in their order")
    check(set(starts) == {1}, "all predicted tokens of a sequence count")
    check(adapter.labels([7, 8, 9, 6], 2) == [-100, -100, 9, 6], "a query's completion counts")
    with h5py.File(path("cut.h5"), "w") as file:
        file["token"], file["count"] = np.arange(5), np.array([2, 4])
    try:
        adapter.read_ids(path("cut.h5"))
        check(False, "counts that do not fit are refused")
    except ValueError as error:
        check("add up to 6 tokens, it has 5" in str(error), "counts that do not fit", error)


class Module:
    def __init__(self, kind):
        self.__class__ = type(kind, (), {})


class Model:
    """As transformers names what is in a GPT-2, a GPT-NeoX and a Llama."""

    def __init__(self):
        names = ("transformer.h.0.attn.c_attn Conv1D", "transformer.h.0.mlp.c_fc Conv1D", "transformer.wte Embedding",
                 "gpt_neox.layers.0.attention.dense Linear", "gpt_neox.layers.0.mlp.dense_h_to_4h Linear",
                 "model.layers.1.self_attn.q_proj Linear", "model.layers.1.mlp.act SiLU", "lm_head Linear")  # fmt: skip
        self.modules = {name: Module(kind) for name, kind in map(str.split, names)}

    def named_modules(self):
        return self.modules.items()

    def get_output_embeddings(self):
        return self.modules["lm_head"]


def test_modules():
    found = adapter.tracked(Model(), ["mlp"])
    check(found == ["transformer.h.0.mlp.c_fc", "gpt_neox.layers.0.mlp.dense_h_to_4h"], "mlp", found)
    check(len(adapter.tracked(Model(), ["attention"])) == 3, "attention")
    check(adapter.tracked(Model(), ["head"]) == ["lm_head"], "head")


def test_digest():
    """Of all that scores depend on: a file of others is never taken for one's own."""
    installed, importlib.metadata.version = importlib.metadata.version, lambda name: f"{name} 1"
    shutil.copytree(path("out/model"), path("copy"))
    base = {
        "model": path("copy"), "tokens": [path("in/tokens/corpus.h5")], "queries": path("in/queries.h5"),
        "modules": ["mlp"], "preconditioner": "ekfac", "seed": 0, "damping_factor": 0.1, "output": "x", "threads": 1,
    }  # fmt: skip
    digest = lambda damped=True, **more: adapter.digest(argparse.Namespace(**{**base, **more}), "tool", damped)  # noqa: E731
    first = digest()
    check(digest(output="y", threads=3) == first, "what changes nothing")
    others = [{"modules": ["head"]}, {"preconditioner": "identity"}, {"seed": 1}, {"damping_factor": 0.2},
              {"tokens": base["tokens"] * 2}, {"queries": path("in/tokens/corpus.h5")}]  # fmt: skip
    check(len({first, *(digest(**more) for more in others)}) == 1 + len(others), "options and inputs")
    check(digest(False) == digest(False, damping_factor=0.2) != digest(False, seed=1), "one fit serves all dampings")
    with open(path("copy/model.safetensors"), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    check(digest() != first, "weights")
    importlib.metadata.version = lambda name: f"{name} 2"
    check(digest() != digest(False) and digest() != first, "versions")
    importlib.metadata.version = installed
    adapter.write_scores(path("scores.h5"), np.ones((3, 2)), "abc")
    check(adapter.made_before(path("scores.h5"), "abc") and not adapter.made_before(path("scores.h5"), "abd"), "kept")
    check(not adapter.made_before(path("no.h5"), "abc") and not os.path.exists(path("scores.h5.part")), "none")


make_inputs()
test_before_training()
test_rows()
test_bad_scores()
test_stop()
test_importable()
test_token_files()
test_modules()
test_digest()
finish()
