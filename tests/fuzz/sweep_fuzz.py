#!/usr/bin/env python3
"""Sweep files that are nearly right: SECONDS of changes to a good one, read and planned.

sweep_fuzz.py SECONDS FINDINGS: a file is a plan, or an error of which every line names the file; anything else ends with
exit code 1, and the file stays in the folder FINDINGS.  The same changes in every run."""

import os
import random
import shutil
import sys
import tempfile
import time
import traceback

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import h5py  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import BPE  # noqa: E402
from bregman.sweep.file import Sweep, SweepError  # noqa: E402
from bregman.sweep.keys import CLUSTER, ENTRIES, FAMILY, STAGES, TOP  # noqa: E402
from bregman.sweep.plan import Plan  # noqa: E402
from bregman.sweep.validation import KEYS as VALIDATE  # noqa: E402
from bregman.validate.settings import TABLES  # noqa: E402

GOOD = """output = "out"
[cluster]
partition = "cpu"
ranks_per_node = 2
time = "1:00:00"
setup = ["module load x"]
[tokenize]
max_length = 64
[fit]
corpus = "words"
covariance_sequences = "0:10"
[compress]
rank = "auto"
tolerance = 0.5
[score]
shards = 3
corpora = ["words"]
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
[model.score]
shards = 2
[train]
tokenizer = "tokenizer"
corpus = "words"
heldout = ["more"]
steps = 5
[train.base]
model_type = "llama"
[train.sizes.s]
hidden_size = 8
[train.sizes.m]
rope_parameters = { rope_theta = 1e4 }
[train.sizes.m.train]
seed = 1
[validate]
models = ["s"]
parts = ["lds", "facts"]
[validate.lds]
drop = 0.5
[validate.facts]
train = { epochs = 3 }
[train.sizes.s.validate.fit]
blocks = 2
[[corpus]]
name = "words"
tokens = ["tokens/*.h5"]
[[corpus]]
name = "more"
tokens = "tokens/a.h5"
[[queries]]
name = "q"
file = "queries.h5"
""".split("\n")
KEYS = sorted(
    {
        *CLUSTER,
        *TOP,
        *FAMILY,
        *VALIDATE,
        *(key for table in (*STAGES.values(), *ENTRIES.values(), *TABLES.values()) for key in table),
        "x",
        "'a.b'",
        '"q\\n"',
        "ü",
    }
)
VALUES = [
    "0",
    "1",
    "-1",
    "2",
    "3.5",
    "1e400",
    "-0.0",
    "nan",
    "inf",
    "true",
    "9" * 20,
    "9" * 5000,
    '""',
    '"x"',
    '"words"',
    '"a\\nb"',
    '"\\u0000"',
    '"../.."',
    '"~"',
    '"~nobody/x"',
    '"/dev/zero"',
    '"*"',
    '"["',
    '"**"',
    '"2G"',
    '"1:00"',
    '"9999999999-00:00:00"',
    '":"',
    '"5:3"',
    '"0:' + "9" * 30 + '"',
    "[]",
    "[[]]",
    "{}",
    "[1, 'a']",
    '["words", "words"]',
    "[{}]",
    "1979-05-27",
    "07:32:00",
    '"full"',
    '"auto"',
    "'''\n'''",
    '"' + "x" * 5000 + '"',
    '"model"',
    '"tokens/a.h5"',
    '"queries.h5"',
    '"tokenizer"',
    '"text.jsonl"',
    '"\\uD7FF"',
]
HEADERS = [
    "[%s]",
    "[[%s]]",
    "[model.%s]",
    "[[model.%s]]",
    "[%s.%s]",
    "[train.sizes.%s]",
    "[train.sizes.s.%s]",
    "[validate.%s]",
    "[ %s . x ]",
    "['%s']",
]


def change(lines, rng):
    """One change of the file's lines."""
    at, how = rng.randrange(len(lines)), rng.randrange(9)
    if how < 3 and "=" in lines[at]:
        lines[at] = lines[at].split("=", 1)[0] + "= " + rng.choice(VALUES)
    elif how == 3 and "=" in lines[at]:
        lines[at] = rng.choice(KEYS) + " =" + lines[at].split("=", 1)[1]
    elif how == 4:
        lines.insert(at, rng.choice(KEYS) + " = " + rng.choice(VALUES))
    elif how == 5:
        header = rng.choice(HEADERS)
        lines.insert(at, header % tuple(rng.choice(KEYS) for _ in range(header.count("%s"))))
    elif how == 6 and len(lines) > 1:
        del lines[at]
    elif how == 7:
        lines.insert(at, rng.choice(lines))
    elif lines[at]:
        i = rng.randrange(len(lines[at]))
        lines[at] = lines[at][:i] + rng.choice("\"'[]{}=.,#\\\t\0\r\u2028é0") + lines[at][i + rng.randrange(2) :]


def fault(path):
    """What is wrong with how the file is taken, or None."""
    try:
        plan = Plan(Sweep(path))
        for job in plan.jobs:
            wrong = [argument for argument in job.command() if not isinstance(argument, str)]
            if wrong or not job.elements:
                return f"{job.name}: arguments {wrong}, {len(job.elements)} elements"
        plan.check()
    except SweepError as error:
        lines = str(error).split("\n")
        unnamed = [line for line in lines if path not in line and "out/" not in line]
        return f"a line without the file: {unnamed[0]!r}" if unnamed or not str(error) else None
    except Exception:  # whatever else it is, it is a fault  # pylint: disable=broad-except
        return traceback.format_exc()
    return None


def prepare(folder):
    os.makedirs(os.path.join(folder, "model"))
    for name in ("tokens", "tokenizer"):
        os.makedirs(os.path.join(folder, name))
    for name in ("model/config.json", "model/x.safetensors", "text.jsonl"):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write("{}\n")
    with open(os.path.join(folder, "tokenizer", "tokenizer.json"), "w", encoding="utf-8") as file:
        file.write(Tokenizer(BPE({"a": 0, "b": 1}, [])).to_str())
    for name in ("tokens/a.h5", "tokens/b.h5", "queries.h5"):
        with h5py.File(os.path.join(folder, name), "w") as file:
            file["token"] = [1, 2, 3]


def main():
    seconds, findings = float(sys.argv[1]), sys.argv[2]
    folder = tempfile.mkdtemp(prefix="bregman-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    rng, end, n = random.Random(1), time.monotonic() + seconds, 0
    path = os.path.join(folder, "sweep.toml")
    try:
        prepare(folder)
        while time.monotonic() < end:
            lines = list(GOOD)
            for _ in range(n and rng.choice((1, 1, 1, 2, 3, 8))):
                change(lines, rng)
            with open(path, "wb") as file:
                file.write("\n".join(lines).encode("utf-8", "surrogatepass"))
            wrong = fault(path)
            if wrong:
                kept = shutil.copy(path, os.path.join(findings, f"sweep-{n}.toml"))
                print(f"{wrong}\nTest unit written to {kept}")
                sys.exit(1)
            n += 1
        print(f"stat::number_of_executed_units: {n}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
