"""What there is to run on: this machine, or a node of the Slurm cluster that it submits to."""

import collections
import os
import re

from bregman.errors import UserError
from bregman.sweep.slurm import SlurmError, ask_slurm

SHARE = 0.8  # of the memory is taken
# memory: bytes; of a node of Slurm's: its partition, and its limit as sbatch takes it
Machine = collections.namedtuple("Machine", "cores memory partition time", defaults=("", ""))


def free_memory():
    """Bytes that this process may still take: of the machine, or of the control group that it is in."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with open("/proc/meminfo", encoding="ascii") as file:
        available = re.search(r"^MemAvailable: +(\d+) kB", file.read(), re.MULTILINE)
    found = 1024 * int(available[1]) if available else found
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            group = re.search(r"^0::(.*)$", file.read(), re.MULTILINE)[1]
        with open(f"/sys/fs/cgroup{group}/memory.max", encoding="ascii") as file:
            found = min(found, int(file.read()))
    except (OSError, TypeError, ValueError):  # no such group, or without a limit
        pass
    return found


def this_machine():
    return Machine(len(os.sched_getaffinity(0)), int(SHARE * free_memory()))


def node_of_slurm():
    """A node of the default partition, or of the first there is."""
    try:
        lines = ask_slurm("sinfo", "--noheader", "--format", "%P|%c|%m|%l").split("\n")
    except SlurmError as error:
        raise UserError(f"--slurm: {error}: without it everything is run here") from None
    rows = [line.strip().split("|") for line in lines if line.count("|") == 3]
    wanted = os.environ.get("SBATCH_PARTITION", "")
    rows = [row for row in rows if row[0].strip("*") == wanted or not wanted]
    if not rows:
        raise UserError("--slurm: sinfo shows no partition" + (f' "{wanted}"' if wanted else ""))
    name, cores, memory, limit = next((row for row in rows if row[0].endswith("*")), rows[0])
    numbers = [int(re.match(r"\d+", word)[0]) for word in (cores, memory)]  # "64+": the least of them
    day = "24:00:00"
    longer = "-" in limit or not re.fullmatch(r"[\d:]+", limit)  # days, "infinite"
    return Machine(numbers[0], int(SHARE * numbers[1] * 2**20), name.strip("*"), day if longer else limit)
