"""Runs the stages' programs, a step after another, each with its log; a stage that has finished before says so and ends."""

import os
import signal
import subprocess
import sys
import time

from bregman import ROOT
from bregman.errors import UserError

STOPPED = 75
TELL_S = 20  # seconds between lines on a step that takes long


class Stopped(Exception):
    """Asked to stop: what is done is kept."""


def words(options):
    """Command line words of {"learning_rate": 0.001, "no_diagonal": True, "tokens": [...]}; None and False are left out."""
    found = []
    for name, value in options.items():
        if value is None or value is False or value == []:
            continue
        several = value if isinstance(value, list) else [] if value is True else [value]
        found += ["--" + name.replace("_", "-"), *map(str, several)]
    return found


def tell(line):
    print(f"validate: {line}", file=sys.stderr, flush=True)


class Stages:
    """programs: folder of the stages' programs; ranks: as many of one thread each; logs: folder of their output."""

    def __init__(self, programs, ranks, logs):
        self.programs, self.ranks, self.logs = programs, ranks, logs
        self.child, self.asked, self.steps = None, False, 0
        for name in ("train_models", "fit_factors", "compress_queries", "score_shards", "prefilter"):
            if not os.access(os.path.join(programs, name), os.X_OK):
                raise UserError(f'no program "{os.path.join(programs, name)}"; run make, or set BREGMAN_BIN')
        try:
            os.makedirs(logs, exist_ok=True)
        except OSError as error:
            raise UserError(f'cannot make folder "{logs}": {error.strerror}') from None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _ask(self, _number, _frame):
        """The first signal asks the stage to keep what it has done (exit 75), the next one ends it (scripts/mpi)."""
        self.asked = True
        if self.child:
            self.child.send_signal(signal.SIGTERM)

    def run(self, title, program, options, ranks=None):
        command = [os.path.join(ROOT, "scripts", "mpi"), str(ranks or self.ranks)]
        self._run(title, program, [*command, os.path.join(self.programs, program), *words({**options, "threads": 1})])

    def script(self, title, script, arguments):
        self._run(title, script, [sys.executable, os.path.join(ROOT, "scripts", script), *arguments])

    def other(self, title, program, command, options):
        """A program that is not one of the stages; as many threads as there are ranks."""
        self._run(title, program, [*command, *words({**options, "threads": self.ranks})])

    def _run(self, title, program, command):
        if self.asked:
            raise Stopped
        self.steps += 1
        log = os.path.join(self.logs, title.replace(" ", "-").replace("/", "-").replace(",", "+") + ".log")
        began = time.monotonic()
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            while (code := self._wait(TELL_S)) is None:
                tell(f"{title}: {_last_line(log) or 'begun'}")
        self.child = None
        if code == STOPPED or self.asked:
            raise Stopped
        if code:
            raise UserError(f"{title}: {program} failed: {_error(log, program)} (log {log})")
        if "already done" not in _read(log):
            tell(f"{title}: {time.monotonic() - began:.1f} s")

    def _wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def _read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _last_line(log):
    return (_read(log).strip().split("\n") or [""])[-1]


def _error(log, program):
    """What the stage or script said went wrong: mpirun's words come behind it."""
    lines = [line for line in _read(log).split("\n") if line.startswith(f"{program}: ")]
    return ([line for line in lines if "error: " in line] or lines or ["it said nothing"])[-1].removeprefix(
        f"{program}: "
    )
