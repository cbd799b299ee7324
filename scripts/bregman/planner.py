"""Asks bregman-plan, which predicts what stages cost before they run."""

import functools
import json
import subprocess
import tempfile

from bregman.errors import UserError
from bregman.sweep.slurm import clean_environment

LONGEST_S = 120


class PlanError(UserError):
    """It cannot be asked, or refuses what it is asked about."""


def ask(program, *words):
    """bregman-plan, for JSON.  Several at once have folders of their own for MPI's session: one that ends would take away what
    another is just making."""
    with tempfile.TemporaryDirectory(prefix="bregman-plan-", ignore_cleanup_errors=True) as folder:
        return subprocess.run(
            [program, "--json", "--quiet", *words],
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
            env=clean_environment(OMPI_MCA_orte_tmpdir_base=folder),
            stdin=subprocess.DEVNULL,
        )


@functools.lru_cache(maxsize=None)
def planned(program, words):
    """What it says, as a dictionary; its "stages" by their names.  words: a tuple of its options."""
    try:
        done = ask(program, *words)
        if done.returncode == 0:
            found = json.loads(done.stdout)
            return {**found, "stages": {stage["name"]: stage for stage in found["stages"]}}
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        why = str(error)
    raise PlanError(why)
