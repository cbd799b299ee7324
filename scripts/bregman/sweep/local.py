"""A plan run on this machine, without Slurm: one stage after another."""

import datetime
import os
import signal
import subprocess

from bregman import ROOT
from bregman.sweep.plan import PROGRAM, SCRIPTS
from bregman.sweep.progress import last_run

STOPPED = 75


class Runner:
    """Runs commands with their output in a log; a signal asks the running one to stop."""

    def __init__(self, held):
        self.held, self.child, self.asked = held, None, 0
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

    def run(self, command, log, name, environment):
        """Returns the exit code.  The child keeps the sweep's lock: it may outlive a killed sweep."""
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
                code = self.child.wait()
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
    runner, failed = Runner(held), {}  # failed: id(job) -> name of the job that failed first
    cores = len(os.sched_getaffinity(0))
    needed = plan.needed()
    for job, missing in needed.items():
        broken = next((need for need in job.needs if id(need) in failed), None)
        if broken:
            failed[id(job)] = failed[id(broken)]
            print(f"{job.name}: not run, because of {failed[id(job)]}", flush=True)
            continue
        share = ranks or (cores if job.stage == "validate" else max(1, cores // job.settings["threads"]))
        for i in missing:
            shown = job.name + (f" {i + 1}/{len(job.elements)}" if job.is_array else "")
            log = job.elements[i].log
            code = runner.run(
                command_of(job, i, programs, share), log, PROGRAM[job.stage], {**os.environ, "BREGMAN_BIN": programs}
            )
            if code == STOPPED or runner.asked:
                print(f"{shown}: stopped; finished work is kept, the same command goes on", flush=True)
                return STOPPED
            if code:
                failed[id(job)] = job.name
                print(f"{shown}: failed, exit code {code}: {last_run(log).reason} (log {log})", flush=True)
                break
            print(f"{shown}: done", flush=True)
    print(
        f"all done: {plan.sweep.output}"
        if not failed
        else f"{len(failed)} of {len(needed)} steps failed or did not run"
    )
    return 1 if failed else 0
