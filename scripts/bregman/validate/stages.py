"""Runs the stages' programs, a step after another, each with its log; a stage that has finished before says so and ends."""

import collections
import os
import signal
import subprocess
import sys
import time

from bregman import ROOT
from bregman.errors import UserError
from bregman.sweep.keys import argument

STOPPED = 75
PROGRAMS = ("train_models", "fit_factors", "compress_queries", "score_shards", "merge_scores", "prefilter")
TELL_S = 20  # seconds between lines on a step that takes long


# program: a stage's or a script's name; options: of a stage, without threads; ranks: of one thread each
Step = collections.namedtuple("Step", "title program options ranks")


class Stopped(Exception):
    """Asked to stop: what is done is kept."""


def words(options):
    """Command line words of {"learning_rate": 0.001, "no_diagonal": True, "tokens": [...]}; None and False are left out."""
    found = []
    for name, value in options.items():
        if value is None or value is False or value == []:
            continue
        several = value if isinstance(value, list) else [] if value is True else [value]
        found += ["--" + name.replace("_", "-"), *map(argument, several)]
    return found


def tell(line):
    print(f"validate: {line}", file=sys.stderr, flush=True)


class Stages:
    """programs: folder of the stages' programs; ranks: as many of one thread each; logs: folder of their output; stop: a file
    that asks to stop, once it is there.  steps: what was run."""

    def __init__(self, programs, ranks, logs, stop):
        self.programs, self.ranks, self.logs, self.stop = programs, ranks, logs, stop
        self.child, self.asked, self.steps = None, False, []
        for name in PROGRAMS:
            if not os.access(os.path.join(programs, name), os.X_OK):
                raise UserError(f'no program "{os.path.join(programs, name)}"; run make, or set BREGMAN_BIN')
        try:
            os.makedirs(logs, exist_ok=True)
        except OSError as error:
            raise UserError(f'cannot make folder "{logs}": {error.strerror}') from None

    def listen(self):
        """To signals that ask to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    @staticmethod
    def tell(line):
        tell(line)

    def _ask(self, _number, _frame):
        """The first signal asks the stage to keep what it has done (exit 75), the next one ends it (scripts/mpi)."""
        self.ask()

    def ask(self):
        self.asked = True
        if self.child:
            self.child.send_signal(signal.SIGTERM)

    def run(self, title, program, options, ranks=None):
        """Options None and False are left out; ranks: None for all."""
        step = Step(title, program, options, ranks or self.ranks)
        self.steps.append(step)
        self.start(step)

    def script(self, title, script, arguments):
        self.steps.append(Step(title, script, {}, 1))
        self._run(title, script, [sys.executable, os.path.join(ROOT, "scripts", script), *arguments])

    def start(self, step):
        command = [os.path.join(ROOT, "scripts", "mpi"), str(step.ranks), os.path.join(self.programs, step.program)]
        self._run(step.title, step.program, [*command, *words({**step.options, "threads": 1})])

    def other(self, title, program, command, options):
        """A program that is not one of the stages; as many threads as there are ranks."""
        self.steps.append(Step(title, program, {}, self.ranks))
        self._run(title, program, [*command, *words({**options, "threads": self.ranks})])

    def _run(self, title, program, command):
        if self.asked or os.path.exists(self.stop):
            raise Stopped
        log = os.path.join(self.logs, log_name(title))
        began = time.monotonic()
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            while (code := self._wait(TELL_S)) is None:
                self.tell(f"{title}: {_last_line(log) or 'begun'}")
                if os.path.exists(self.stop) and not self.asked:
                    self.ask()
        self.child = None
        if code == STOPPED or self.asked:
            raise Stopped
        if code:
            raise UserError(f"{title}: {program} failed: {_error(log, program)} (log {log})")
        if "already done" not in _read(log):
            self.tell(f"{title}: {time.monotonic() - began:.1f} s")

    def _wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def log_name(title):
    return title.replace(" ", "-").replace("/", "-").replace(",", "+") + ".log"


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
