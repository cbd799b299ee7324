#!/usr/bin/env python3
"""Runs a sweep: models x corpora x query sets, from one TOML file (jobs/example.toml shows one).

    jobs/sweep SWEEP.toml             submit to Slurm what is missing
    jobs/sweep SWEEP.toml --dry-run   print the sbatch commands instead
    jobs/sweep SWEEP.toml --local     run it here, one stage after another, without Slurm
    jobs/sweep SWEEP.toml --status    what is done, running, waiting and failed, and why

What is done is read from the files that were made, never from job ids: the same command starts a sweep, goes on with
it after any failure, and does nothing when all is done.  What is finished does not need what it was made from: a
factors folder may be removed once all query sets are compressed.

Slurm's programs are asked, and jobs submitted, without the SLURM_*, SBATCH_*, SQUEUE_*, ... of this shell or of a job
around it, but for SLURM_CONF, SLURM_JWT and the like, SBATCH_ACCOUNT, _PARTITION, _QOS, _CONSTRAINT and _RESERVATION.
Other options of sbatch belong into the sweep file: sbatch = ["..."].  More shards than an array may have (MaxArraySize)
become several arrays; array_limit is shared among them.

Exit codes: 0 done (or submitted); 1 failed (--status: something has failed); 2 the command line or the sweep file is
wrong; 75 (--local) stopped by a signal or a stop file, finished work is kept.
"""

import bregman_env  # noqa: F401  (first: it may start another interpreter)

import argparse
import fcntl
import os
import sys

from bregman_files import UserError, run_main
from sweep_file import Sweep, SweepError
from sweep_local import run_local
from sweep_plan import PROGRAM, SCRIPTS, Plan
from sweep_slurm import ROOT, DryRun, Submitter, taken_out
from sweep_status import print_status
from sweep_warning import check_warnings

LOCK = ".sweep.lock"


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="SWEEP.toml")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="print the sbatch commands; submit nothing")
    how.add_argument("--local", action="store_true", help="run it here, through mpirun")
    how.add_argument("--status", action="store_true", help="a table of all stages")
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="with --local: ranks of a stage (cores / threads); no effect on the result",
    )
    arguments = parser.parse_args()
    if arguments.ranks is not None and (arguments.ranks < 1 or not arguments.local):
        parser.error("--ranks takes a number above 0, and --local with it")
    return arguments


def find_programs(sweep, plan):
    """The folder of the stages' programs; all that the plan runs must be there."""
    folder = (
        sweep.absolute(sweep.data["bin"])
        if "bin" in sweep.data
        else os.environ.get("BREGMAN_BIN", os.path.join(ROOT, "build", "bin"))
    )
    for name in dict.fromkeys(PROGRAM[job.stage] for job in plan.jobs if job.stage not in SCRIPTS):
        path = os.path.join(folder, name)
        if not os.access(path, os.X_OK):
            raise UserError(f'no program "{path}"; run make, or set bin in the sweep file, or BREGMAN_BIN')
    return os.path.abspath(folder)


def lock(sweep, blocked="another sweep is being submitted or run into it"):
    """Hold the output folder; returns the lock's descriptor, which ends with this process."""
    try:
        os.makedirs(sweep.output, exist_ok=True)
        descriptor = os.open(os.path.join(sweep.output, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f'cannot write into "{sweep.output}": {error.strerror}') from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f'"{sweep.output}": {blocked}') from None
    except OSError as error:  # no locks on this file system: every job still writes under a name of its own
        print(
            f'sweep: "{sweep.output}" cannot be locked ({error.strerror}): run one sweep at a time here',
            file=sys.stderr,
        )
    return descriptor


def make_folders(plan):
    os.makedirs(plan.log, exist_ok=True)
    for job in plan.jobs:
        os.makedirs(os.path.dirname(job.elements[0].output), exist_ok=True)


def is_running_here(sweep):
    """Does a --local run hold the output folder?"""
    try:
        descriptor = os.open(os.path.join(sweep.output, LOCK), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    finally:
        os.close(descriptor)


def submit(sweep, plan, programs):
    lock(sweep)
    make_folders(plan)
    made = Submitter(plan, programs, lambda job, what: print(f"{job.name}: {what}"))
    try:
        made.run()
    except UserError as error:
        kept = f" ({made.submitted} submitted before that stay; sweep again goes on)" if made.submitted else ""
        raise UserError(f"{error}{kept}") from None
    if made.submitted or made.kept:
        print(f"{made.submitted} submitted, {made.kept} in the queue before; logs in {plan.log}")
    else:
        print(f"all done: {sweep.output}")


def main():
    arguments = parse_arguments()
    try:
        sweep = Sweep(arguments.file)
        plan = Plan(sweep)
        if arguments.status:
            sys.exit(print_status(plan, is_running_here(sweep)))
        plan.check()
        programs = find_programs(sweep, plan)
    except SweepError as error:
        for line in str(error).split("\n"):
            print(f"sweep: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    if not arguments.local:
        check_warnings(sweep, plan, programs)
    if arguments.dry_run:
        print("\n".join(["#!/bin/sh", *(f"unset {name}" for name in taken_out())]))
        DryRun(plan, programs, lambda job, what: print(f"# {job.name}: {what}")).run()
        print("# nothing else is missing" if plan.needed() else f"# all done: {sweep.output}")
    elif arguments.local:
        held = lock(sweep)
        make_folders(plan)
        sys.exit(run_local(plan, programs, arguments.ranks, held))
    else:
        submit(sweep, plan, programs)


if __name__ == "__main__":
    sys.argv[0] = "sweep"  # the name that messages begin with
    run_main(main)
