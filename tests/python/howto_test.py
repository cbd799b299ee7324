#!/usr/bin/env python3
"""The commands of jobs/README.md, section by section as a user would copy them, on a tiny model and corpus."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

from text_checks import ROOT, check, finish, make_model, path, write

import h5py
import zstandard

from check_goldens import read_safetensors, write_safetensors

BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build")))
TEXTS = [
    "The capital of France is Paris.",
    "The capital of Norway is Oslo, and the land is long.",
    "Rain in the mountains.",
]


def sections():
    """{heading: its commands}"""
    with open(os.path.join(ROOT, "jobs", "README.md"), encoding="utf-8") as file:
        _, *parts = re.split(r"^## … ", file.read(), flags=re.M)
    return {p.split("\n")[0]: "\n".join(re.findall(r"^    (.*)$", p, re.M)) for p in parts}


def make_programs():
    """The names that the programs are installed by."""
    os.makedirs(path("bin"), exist_ok=True)
    for folder in (os.path.join(BUILD, "bin"), os.path.join(ROOT, "scripts")):
        for name in os.listdir(folder):
            program = os.path.join(folder, name)
            if os.path.isfile(program) and "." not in name and os.access(program, os.X_OK):
                os.symlink(program, path("bin/bregman-" + name.replace("_", "-")))


def make_inputs():
    make_model("pythia-160m")
    for name, scale in (("step1000", 0.9), ("step2000", 1.1)):
        shutil.copytree(path("pythia-160m"), path(name))
        weights = read_safetensors(path(f"{name}/model.safetensors"))[0]
        write_safetensors(path(f"{name}/model.safetensors"), {key: scale * value for key, value in weights.items()})
    lines = [
        json.dumps({"id": f"d{i}", "source": "wiki" if i % 3 == 0 else "books", "text": TEXTS[i % 3] * (1 + i // 3)})
        for i in range(12)
    ]
    write("pile.jsonl.zst", zstandard.compress("\n".join(lines).encode()))
    write("sft.jsonl", "\n".join(lines[:8]) + "\n")
    for name, id in (("queries", "paris"), ("more", "again")):
        query = {"id": id, "prompt": "The capital of France is", "completion": " Paris."}
        write(f"{name}.jsonl", json.dumps(query) + "\n")


def run_sections():
    folder = os.path.dirname(path("x"))
    environment = {
        **os.environ,
        "PATH": ":".join([path("bin"), os.path.dirname(sys.executable), os.environ["PATH"]]),
        "BREGMAN_BIN": os.path.join(BUILD, "bin"),
    }
    for heading, commands in sections().items():
        done = subprocess.run(
            ["bash", "-e", "-u", "-c", commands],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        check(
            commands and done.returncode == 0,
            heading,
            f"exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}",
        )


def check_results():
    for page in (
        "paris/pythia-160m/queries/pile/report.html",
        "traced/pythia-160m/more/pile/report.html",
        "sft/tuned/queries/sft/report.html",
        "steps/compare/queries/pile/compare.html",
        "submitted.sh",
        "small/index.h5",
    ):
        check(os.path.getsize(path(page)) if os.path.exists(path(page)) else 0, f"{page} is there")
    with open(path("ranking.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    check(
        {row["query"] for row in rows} == {"paris"} and {row["source"] for row in rows} == {"wiki", "books"},
        "the table",
    )
    with h5py.File(path("wiki.h5")) as file:
        check(sorted(file["top/sequence"][0].tolist()) == [0, 3, 6, 9], "only the source's", file["top/sequence"][0])
    with h5py.File(path("sft/tuned/queries/compressed.h5")) as file:
        options = json.loads(file["run"].attrs["options"])
    check(options["modules"] == "all" and options["refine"] == "cg", "SFT: the refined solve", options)


check(len(sections()) == 10, "ten answers", list(sections()))
make_programs()
make_inputs()
run_sections()
check_results()
finish()
