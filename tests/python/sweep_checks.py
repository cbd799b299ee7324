"""What the tests of sweeps share: files in the test's folder, a squeue of theirs, and the program."""

from engine_checks import BUILD, FOLDER, ROOT, check

import json
import os
import shutil
import subprocess
import sys

import text_checks

SWEEP = os.path.join(ROOT, "jobs", "sweep")
ENVIRONMENT = {
    **os.environ,
    "BREGMAN_BIN": os.path.join(os.path.abspath(BUILD), "bin"),
    "PYTHON": sys.executable,
    "PATH": os.path.join(FOLDER, "bin") + ":" + os.environ["PATH"],
}
WORDS = '{"text": "the band and the hand"}\n{"text": "another hand in the band"}\n' * 8


def path(name):
    return os.path.join(FOLDER, name)


def write(name, text):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "w", encoding="utf-8") as file:
        file.write(text)
    return path(name)


def write_squeue(lines):
    """The squeue that sweeps find."""
    os.chmod(write("bin/squeue", "#!/bin/sh\n" + lines), 0o755)


def write_tokenizer():
    """A folder that text can be tokenized with."""
    text_checks.tiny_model("tokenizer")
    shutil.copytree(text_checks.path("tokenizer"), path("tokenizer"))


def write_family_tokenizer():
    """The same for models that are trained: without a config, but with the ids of begin and end of text."""
    write_tokenizer()
    os.unlink(path("tokenizer/config.json"))
    write("tokenizer/tokenizer_config.json", json.dumps({"eos_token": "<eos>", "bos_token": "<eos>"}))


def run(command, *arguments, timeout=300, **changes):
    """changes: of the environment."""
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**ENVIRONMENT, **changes},
        cwd="/",
    )


def sweep(name, *arguments, timeout=120, **changes):
    return run(["/bin/sh", SWEEP, path(name)], *arguments, timeout=timeout, **changes)


def wrong(text, name, change, *parts, lines=1):
    """A dry run of a sweep file with a mistake, change = (what it has, what instead), is refused in so many lines."""
    old, new = change
    check(old in text, f"{name}: the sweep file has {old}")
    write("wrong.toml", text.replace('"out"', '"wrong"').replace(old, new))
    done = sweep("wrong.toml", "--dry-run")
    said = done.stderr.strip().split("\n")
    good = done.returncode == 2 and len(said) == lines and all(part in done.stderr for part in parts)
    check(good, name, f"exit {done.returncode}: {done.stderr.strip()}")
