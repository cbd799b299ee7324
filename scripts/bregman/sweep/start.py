"""Starts a sweep: its programs are found, its output folder is held, and what is missing is run here or submitted."""

import fcntl
import os
import sys

from bregman import ROOT
from bregman.errors import UserError
from bregman.sweep import comparison_costs, validation_costs
from bregman.sweep.family import Drafts, write_folder
from bregman.sweep.local import run_local
from bregman.sweep.plan import PROGRAM, SCRIPTS
from bregman.sweep.slurm import Submitter
from bregman.sweep.validation import write_settings
from bregman.sweep.warning import check_configs, check_warnings
from bregman.validate.stages import PROGRAMS

LOCK = ".sweep.lock"


def find_programs(sweep, plan):
    """The folder of the stages' programs; all that the plan runs must be there."""
    folder = (
        sweep.absolute(sweep.data["bin"])
        if "bin" in sweep.data
        else os.environ.get("BREGMAN_BIN", os.path.join(ROOT, "build", "bin"))
    )
    names = [PROGRAM[job.stage] for job in plan.jobs if job.stage not in SCRIPTS]
    names += PROGRAMS if any(job.stage == "validate" for job in plan.jobs) else []
    for name in dict.fromkeys(names):
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
    for model in plan.sweep.models.values():
        if model.planned:
            write_folder(model.planned)
    for job in plan.jobs:
        os.makedirs(os.path.dirname(job.elements[0].output), exist_ok=True)
        if job.stage == "validate":
            write_settings(job)


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


def ask_planner(sweep, plan, programs, local):
    with Drafts(sweep.models.values()) as drafts:
        check_configs(sweep, plan, programs, drafts)
        if not local:
            check_warnings(sweep, plan, programs, drafts)
        return [
            line
            for costs in (validation_costs, comparison_costs)
            for line in costs.foretell(sweep, plan, programs, drafts)
        ]


def run_here(sweep, plan, programs, ranks=None):
    """Returns the exit code."""
    held = lock(sweep)
    make_folders(plan)
    return run_local(plan, programs, ranks, held)
