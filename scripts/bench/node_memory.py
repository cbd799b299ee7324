#!/usr/bin/env python3
"""Run a stage on several ranks of this machine; print how much memory all of them take together, and for how long.

    node_memory.py build/bin/score_shards scripts/mpi 4 build/bin/score_shards --model ...

The first argument is the program whose processes are counted, the others are the command. Memory is the largest sum, of
samples twice a second, of the ranks' proportional set sizes: a page that n of them share counts a n-th for each. What the
stage says goes to standard error.
"""

import glob
import json
import os
import re
import subprocess
import sys
import time

MIB = 1 << 20


def pss(pid):
    """Bytes by kind; none of a process that has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            kinds = re.findall(r"^(Pss\w*): +(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        return {}
    return {kind: int(kilobytes) * 1024 for kind, kilobytes in kinds}


def ranks(program, command_pid):
    """Processes of this program that the command has started."""
    for folder in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(folder))
        try:
            if os.path.samefile(f"{folder}/exe", program) and command_pid in ancestors(pid):
                yield pid
        except OSError:
            continue


def ancestors(pid):
    while pid > 1:
        yield pid
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    program, command = sys.argv[1], sys.argv[2:]
    start = time.monotonic()
    stage = subprocess.Popen(command, stdout=sys.stderr)
    most = {}
    while stage.poll() is None:
        time.sleep(0.5)
        found = [pss(pid) for pid in ranks(program, stage.pid)]
        total = {kind: sum(one.get(kind, 0) for one in found) for kind in {k for one in found for k in one}}
        most = max(most, total, key=lambda t: t.get("Pss", 0))
    mib = {kind: round(n / MIB) for kind, n in sorted(most.items())}
    print(json.dumps({"seconds": round(time.monotonic() - start, 1), "peak_pss_mib": mib}))
    sys.exit(stage.returncode)


if __name__ == "__main__":
    main()
