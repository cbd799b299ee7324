#!/usr/bin/env python3
"""A file system without flock: every Python program works, as the stages do; a sweep says that it holds no lock."""

import json
import os
import shutil
import subprocess
import sys

from engine_checks import BUILD, FOLDER, ROOT, check, corpus, finish, model, query_corpus, write_tokens
import text_checks

NO_LOCKS = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int how) { (void)fd; (void)how; errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
SWEEP = """
output = "swept-{errno}"
[report]
enabled = false
[[model]]
name = "m"
path = "model"
[[corpus]]
name = "c"
tokens = ["tokens.h5"]
[[queries]]
name = "q"
file = "queries.h5"
"""


def path(name):
    return os.path.join(FOLDER, name)


def write(name, text):
    with open(path(name), "w", encoding="utf-8") as file:
        file.write(text)
    return path(name)


def prepare():
    """The tiny tokenizer's folder."""
    subprocess.run(
        [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", path("no_locks.so"), write("no_locks.c", NO_LOCKS)],
        check=True,
    )
    os.symlink(model("llama"), path("model"))
    write_tokens(path("tokens.h5"), corpus(12))
    made, start = query_corpus(2)
    write_tokens(path("queries.h5"), made, start)
    write("c.jsonl", json.dumps({"text": "the and the"}) + "\n")
    write("q.jsonl", json.dumps({"id": "q", "prompt": "the", "completion": " and"}) + "\n")
    return text_checks.tiny_model("tiny")[0]


def works(name, environment, *command):
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False
    )
    check(done.returncode == 0, f"{name} without locks", done.stderr[-400:])
    return done


def test_programs(errno, tiny):
    """37: ENOLCK, of NFS without its lock daemon; 524: ENOTSUPP, which some cluster file systems let through."""
    without = {"LD_PRELOAD": path("no_locks.so"), "FLOCK_ERRNO": str(errno)}
    script = os.path.join(ROOT, "scripts")
    works(
        "tokenize_corpus",
        without,
        f"{script}/tokenize_corpus",
        "c.jsonl",
        "--model",
        tiny,
        "--output",
        f"t{errno}",
        "--processes",
        "2",
    )
    asked = subprocess.run(
        [f"{script}/tokenize_corpus", "c.jsonl", "--model", tiny, "--output", f"locked{errno}", "--processes", "2"],
        env={**os.environ, **without, "HDF5_USE_FILE_LOCKING": "TRUE"},
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    check(
        asked.returncode == 1
        and asked.stderr.startswith("tokenize_corpus: cannot create")
        and asked.stderr.count("\n") == 1,
        "locks that the user asks for fail, and the workers end",
        asked.stderr,
    )
    queries = (f"{script}/tokenize_queries", "q.jsonl", "--model", tiny, "--output", f"q{errno}.h5")
    works("tokenize_queries", without, *queries)
    check("already done" in works("tokenize_queries again", without, *queries).stdout, "already done without locks")
    works("h5py", without, sys.executable, f"{ROOT}/tests/python/make_sample.py", f"sample{errno}")
    works(
        "report",
        without,
        f"{script}/report",
        "--ranking",
        f"sample{errno}/ranking.h5",
        "--queries",
        f"sample{errno}/queries.h5",
        "--tokens",
        f"sample{errno}/a.h5",
        f"sample{errno}/b.h5",
        "--output",
        f"r{errno}.html",
    )
    sweep = ("/bin/sh", os.path.join(ROOT, "jobs", "sweep"), write(f"sweep{errno}.toml", SWEEP.format(errno=errno)))
    place = {**without, "BREGMAN_BIN": os.path.join(os.path.abspath(BUILD), "bin"), "PYTHON": sys.executable}
    done = works("sweep", place, *sweep, "--local", "--ranks", "1")
    check(
        "cannot be locked" in done.stderr and "another sweep" not in done.stderr,
        "sweep says that it holds no lock",
        done.stderr,
    )
    works("sweep --status", place, *sweep, "--status")


TINY = prepare()
for number in (37, 524):
    test_programs(number, TINY)
shutil.rmtree(text_checks.FOLDER)
finish(20)
