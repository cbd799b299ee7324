"""A plan run on this machine, without Slurm: one stage after another."""

import datetime
import os
import signal
import subprocess
import sys
import time

from bregman import ROOT
from bregman.sweep.plan import PAGES, PROGRAM, SCRIPTS
from bregman.sweep.progress import duration, last_run

STOPPED = 75
LOOK_S, SAY_S = 2, 60  # how often a terminal, and what is no terminal, hears how far a step is


class Runner:
    """Runs commands with their output in a log; a signal asks the running one to stop."""

    def __init__(self, held, plan):
        self.held, self.plan, self.child, self.asked = held, plan, None, 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self.ask)

    def ask(self, _number, _frame):
        """Of scripts/mpi the first signal makes a stage keep what it has done (exit 75), the next one ends it."""
        self.asked += 1
        if self.child:
            try:
                os.killpg(self.child.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def wait(self, job, i, shown):
        """For the child, saying meanwhile on stderr how far it is."""
        begun = said = time.monotonic()
        is_terminal = sys.stderr.isatty()
        while True:
            try:
                code = self.child.wait(LOOK_S)
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if is_terminal or now - said >= SAY_S:
                said, line = now, f"{shown}: {self.plan.how_far(job, i)}{duration(now - begun)} so far"
                print(
                    f"\r{line}\033[K" if is_terminal else line,
                    end="" if is_terminal else "\n",
                    file=sys.stderr,
                    flush=True,
                )
        if is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        return code

    def run(self, command, job, i, shown, environment):
        """Returns the exit code.  The child keeps the sweep's lock: it may outlive a killed sweep."""
        log, name = job.elements[i].log, PROGRAM[job.stage]
        with open(log, "a", encoding="utf-8") as out:
            print(f"== {now()} job local run 0 started: {name}", file=out, flush=True)
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
                pass_fds=(self.held,),
            ) as self.child:
                code = self.wait(job, i, shown)
            self.child = None
            print(
                f"== {now()} job local run 0 exit {code if code >= 0 else 128 - code}"
                + (f": {name} failed" if code not in (0, STOPPED) else ""),
                file=out,
            )
        return code


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def command_of(job, i, programs, ranks):
    """The command that makes element i of a job here."""
    if job.stage in SCRIPTS:
        of_validate = ["--ranks", str(ranks)] if job.stage == "validate" else []
        return [os.path.join(ROOT, "scripts", PROGRAM[job.stage]), *job.command(), *of_validate]
    if job.stage in ("merge", "losses"):
        ranks = 1
    if job.stage == "train":
        ranks = min(ranks, job.options["slices"])
    command = [
        os.path.join(ROOT, "scripts", "mpi"),
        str(ranks),
        os.path.join(programs, PROGRAM[job.stage]),
        *job.command(ranks),
    ]
    return command + (["--shard", f"{i}/{len(job.elements)}"] if job.is_array else [])


def run_local(plan, programs, ranks, held):
    """Run all that is missing; returns the exit code.  A stage that fails keeps only its dependents from running."""
    runner, failed = Runner(held, plan), {}  # failed: id(job) -> name of the job that failed first
    cores = len(os.sched_getaffinity(0))
    needed = plan.needed()
    for number, (job, missing) in enumerate(needed.items(), 1):
        broken = next((need for need in job.needs if id(need) in failed), None)
        if broken:
            failed[id(job)] = failed[id(broken)]
            print(f"{job.name}: not run, because of {failed[id(job)]}", flush=True)
            continue
        share = ranks or (cores if job.stage == "validate" else max(1, cores // job.settings["threads"]))
        for i in missing:
            shown = job.name + (f" {i + 1}/{len(job.elements)}" if job.is_array else "")
            begun = time.monotonic()
            code = runner.run(
                command_of(job, i, programs, share),
                job,
                i,
                f"step {number} of {len(needed)}, {shown}",
                {**os.environ, "BREGMAN_BIN": programs},
            )
            if code == STOPPED or runner.asked:
                print(f"{shown}: stopped; finished work is kept, the same command goes on", flush=True)
                return STOPPED
            if code:
                failed[id(job)] = job.name
                print(
                    f"{shown}: failed, exit code {code}: {last_run(job.elements[i].log).reason} (log {job.elements[i].log})",
                    flush=True,
                )
                break
            print(f"{shown}: done in {duration(time.monotonic() - begun)}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(needed)} steps failed or did not run")
        return 1
    print(f"all done: {plan.sweep.output}")
    for job in plan.jobs:
        if job.stage in PAGES:
            print(f"{job.name}: {job.elements[0].output}")
    return 0
