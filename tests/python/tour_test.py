#!/usr/bin/env python3
"""The commands of README.md's tour, line by line as a new user would type them, on a tiny model and corpus."""

import json
import os
import re
import subprocess

from text_checks import ROOT, check, finish, make_model, path, write

import h5py
import zstandard

TEXTS = [
    "The capital of France is Paris.",
    "The capital of Norway is Oslo, and the land is long.",
    "Rain in the mountains.",
]
# make runs in the clone, and what the suite has built and set up serves
PRELUDE = """make() { [ "$1" = setup ] || env -u MAKEFLAGS -u MAKELEVEL make -s -C "$SRC" -o all B="$BUILD" BREGMAN_VENV="$VENV" "$@"; }
"""


def tour():
    """Lines of the tour's indented blocks."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = re.search(r"\n## [^\n]*tour\n(.*?)\n## ", file.read(), re.S).group(1)
    return re.findall(r"^    (.*)$", section, re.M)


def make_inputs(queries):
    make_model("pythia-160m")
    lines = [json.dumps({"id": f"d{i}", "text": TEXTS[i % 3] * (1 + i // 3)}) for i in range(12)]
    write("pile.jsonl.zst", zstandard.compress("\n".join(lines).encode()))
    write("queries.jsonl", "\n".join(queries) + "\n")


def test_tour():
    lines = tour()
    queries = [line for line in lines if line.startswith("{")]
    commands = "\n".join(line for line in lines if line not in queries)
    make_inputs(queries)
    environment = {k: v for k, v in os.environ.items() if k != "BREGMAN_VENV"}
    build = os.environ.get("BUILD", os.path.join(ROOT, "build"))
    environment.update(
        HOME=path("home"), SRC=ROOT, BUILD=build, VENV=os.environ.get("BREGMAN_VENV", os.path.join(build, "venv"))
    )
    done = subprocess.run(
        ["sh", "-e", "-u", "-x", "-c", PRELUDE + commands],
        cwd=os.path.dirname(path("x")),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    check(done.returncode == 0, "the tour", f"exit {done.returncode}: {done.stderr[-2000:]}")
    if done.returncode != 0:
        return
    for program in ("fit-factors", "mpi 4", "tokenize-corpus"):
        check(f"bregman-{program} " in commands, f"the tour calls bregman-{program}")
    with open(path("report.html"), encoding="utf-8") as file:
        check(json.loads(queries[0])["prompt"] in file.read(), "the page shows the query")
    with open(path("home/.local/libexec/bregman/VERSION"), encoding="utf-8") as file:
        revision = file.read().split()[1:]
    with h5py.File(path("ranking.h5")) as ranking, h5py.File(path("tokens/pile.h5")) as tokens:
        check(ranking["top/token_score"].shape[0] > 0, "the ranking is explained")
        check(tokens["run"].attrs["git_revision"] == "".join(revision), "installed scripts tell the revision")


test_tour()
finish()
