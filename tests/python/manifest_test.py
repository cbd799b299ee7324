#!/usr/bin/env python3
"""Manifests as the scripts write and read them: no line is lost or missed.  manifest_test.py"""

import project  # noqa: F401  (first: it may start another interpreter)

import os
import sys
import tempfile

from bregman import files

DIGEST = "0123456789abcdef0123456789abcdef"
LONG_AGO = 10**18
failures = 0


def check(right, what):
    global failures
    if not right:
        failures += 1
        print("not ok:", what)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text, ns=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    if ns is not None:
        os.utime(path, ns=(ns, ns))


def a_fold_keeps_what_there_was(folder):
    manifest = os.path.join(folder, "MANIFEST")
    write(manifest, "# of another program\n0123  data.csv", LONG_AGO)
    write(manifest + ".d/later", f"{DIGEST} 2 b.h5\n", LONG_AGO + 1)
    write(manifest + ".d/sooner", f"{DIGEST} 1 b.h5\n", LONG_AGO)
    files.list_published(os.path.join(folder, "a.h5"), DIGEST, 7)
    check(
        read(manifest) == f"# of another program\n0123  data.csv/\n{DIGEST} 1 b.h5\n{DIGEST} 2 b.h5\n{DIGEST} 7 a.h5\n",
        "a fold's text",
    )
    check(not os.path.exists(manifest + ".d"), "the writers' files go")
    found = files.read_manifest(folder)
    check(found["a.h5"][:2] == (DIGEST, 7) and found["b.h5"][1] == 2, "what is listed")


def others_at_work_are_left_alone(folder):
    writers = os.path.join(folder, "MANIFEST.d")
    write(os.path.join(writers, "other.open"), f"{DIGEST} 1 a.h5\n{DIGEST} 2 b")
    files.list_published(os.path.join(folder, "mine.h5"), DIGEST, 7)
    check(os.listdir(writers) == ["other.open"], "what is closed is folded though others write")
    check(sorted(files.read_manifest(folder)) == ["a.h5", "mine.h5"], "whole lines of all writers")


def one_folds_at_a_time(folder):
    writers = os.path.join(folder, "MANIFEST.d")
    write(os.path.join(writers, "other.fold"), "")
    files.list_published(os.path.join(folder, "mine.h5"), DIGEST, 7)
    check(
        not os.path.exists(os.path.join(folder, "MANIFEST")) and len(os.listdir(writers)) == 2,
        "no fold while another folds",
    )
    check(sorted(files.read_manifest(folder)) == ["mine.h5"], "what is not folded is listed")
    os.unlink(os.path.join(writers, "other.fold"))
    files.list_published(os.path.join(folder, "more.h5"), DIGEST, 7)
    check(os.listdir(folder) == ["MANIFEST"], "the next one folds all")
    check(sorted(files.read_manifest(folder)) == ["mine.h5", "more.h5"], "all that is folded is listed")


def no_line_is_missed(folder):
    """A file is closed behind the reader's back: after it was listed, or so that no list has either name."""
    writers, list_names = os.path.join(folder, "MANIFEST.d"), os.listdir
    for hides in (False, True):
        write(os.path.join(writers, "w.open"), f"{DIGEST} 1 late.h5\n")

        def listdir(where):
            os.listdir = list_names
            names = list_names(where)
            os.rename(os.path.join(writers, "w.open"), os.path.join(writers, "w"))
            return [] if hides else names

        os.listdir = listdir
        try:
            found = files.read_manifest(folder)
        finally:
            os.listdir = list_names
        check("late.h5" in found, f"a file closed meanwhile, {hides}")
        os.unlink(os.path.join(writers, "w"))


for test in (
    a_fold_keeps_what_there_was,
    others_at_work_are_left_alone,
    one_folds_at_a_time,
    no_line_is_missed,
):
    with tempfile.TemporaryDirectory(prefix="bregman-manifest-") as where:
        test(where)
sys.exit(failures > 0)
