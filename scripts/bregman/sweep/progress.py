"""How far the jobs of a sweep are: from the work files that stages keep, and from the ends of logs."""

import collections
import datetime
import os
import re

WORK_FILE = re.compile(r"(\w+)-(\d{5,})(?:-block-(\d{3,}))?\.(\d{6,})-(\d{6,})\.h5")


def units_done(work):
    """(fraction done, [(time, share of the whole)] of what was finished) of a folder of work files; (None, []) without one."""
    kinds, total, segments, reached, shares = {}, 0, [], {}, {}
    try:
        with open(os.path.join(work or "", "UNITS"), encoding="utf-8") as file:
            for line in file:
                kind, *kinds[kind] = (word if i == 0 else int(word) for i, word in enumerate(line.split()))
        names = os.listdir(work)
        for numbers in kinds.values():  # sequences, sequences a unit, groups; or a number of files
            total += numbers[0] if len(numbers) == 1 else -(-numbers[0] // numbers[1]) * numbers[2]
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return None, []
    for name in names:
        segment, numbers = WORK_FILE.fullmatch(name), kinds.get(name.split("-")[0], [])
        if segment and len(numbers) == 3:
            segments.append((segment[1], int(segment[2]), segment[3], int(segment[4]), -int(segment[5]), name))
        elif name.endswith(".h5") and len(numbers) == 1:
            shares[name] = 1 / total
    for kind, unit, block, first, end, name in sorted(segments, key=lambda s: (*s[:2], s[2] or "", *s[3:])):
        at = reached.get((kind, unit, block), 0)
        if first <= at < -end:
            reached[kind, unit, block] = -end
            shares[name] = (-end - at) / max(1, min(kinds[kind][1], kinds[kind][0] - unit * kinds[kind][1])) / total
    times = []
    for name, share in shares.items():
        try:
            times.append((os.path.getmtime(os.path.join(work, name)), share))
        except OSError:  # merged into another file by now
            pass
    return min(1.0, sum(shares.values())), times


def duration(seconds):
    if seconds is None:
        return "-"
    minutes = int(seconds / 60 + 0.5)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min" if minutes else "< 1 min"


# ---------------------------------------------------------------- logs

Run = collections.namedtuple("Run", "started exit_code reason")
STATUS = re.compile(r"== (\S+Z) (job \S+ run \d+) (started|exit (\d+))")
TELLS = re.compile(
    r"(?:^\w[\w-]*: error: .*)|(?:^(?:tokenize_corpus|tokenize_queries|report|validate|\w+Error): .*)|(?:DUE TO .*)|"
    r"(?:^(?:srun|slurmstepd): error: .*(?:Killed|oom|Out Of Memory|Segmentation|Exited|Node failure).*)|"
    r"(?:^mpirun .*(?:exited on signal|killed).*)|(?:^== .* exit \d+: .*)"
)
TAIL_BYTES = 1 << 18


def last_run(log):
    """Of a log's last run: when it started (None: never), its exit code (None: no word of it), and why it failed."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return Run(None, None, "")
    started, run, code, first = None, None, None, 0
    for number, line in enumerate(lines):
        status = STATUS.match(line)
        if status and status[3] == "started":
            started, run, code, first = status[1], status[2], None, number
        elif status and status[2] == run:  # not of an earlier run that Slurm had lost sight of
            code = int(status[4])
    told = [line.strip() for line in lines[first:] if TELLS.search(line)]
    own = [line for line in told if re.match(r"\w+: ", line) and not line.startswith(("srun", "slurmstepd"))]
    errors = [line for line in own if ": error: " in line] or own[-1:]  # scripts tell what went wrong last
    reason = (errors or told or [""])[0]
    return Run(
        started and datetime.datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp(),
        code,
        re.sub(r"^== \S+ job \S+ run \d+ ", "", reason),
    )
