"""The table of a sweep's stages: from the files they write, their logs, and Slurm's queue."""

import collections

from bregman.sweep import validation
from bregman.sweep.plan import PAGES
from bregman.sweep.progress import duration, last_run
from bregman.sweep.slurm import NEVER, SlurmError, read_queue

ORDER = ("failed", "running", "held", "queued", "waiting", "stopped", "to do", "done")  # which one a row shows
STOPPED = 75


def element_state(job, i, entry, is_done, waits, here):
    """(state, why) of one element.  waits: what it needs is not there yet."""
    if is_done:
        return "done", ""
    if entry and entry.state == "PENDING":
        if entry.reason == NEVER:
            return "failed", "waits for a job that failed: sweep again"
        if "held" in entry.reason.lower():
            return "held", f"job {entry.id} is held: remove the stop file, then sweep again"
        return ("waiting", "") if waits or entry.reason == "Dependency" else ("queued", entry.reason)
    if entry:
        return ("held", f"job {entry.id}: {entry.reason}") if "HOLD" in entry.state else ("running", "")
    run = last_run(job.elements[i].log)
    if run.started is None:
        return "to do", ""
    if run.exit_code is None:
        if here:
            return "running", ""
        return "failed", run.reason or "ended without a word: a lost node, scancel or a kill"
    if run.exit_code == STOPPED:
        return "stopped", "finished work is kept: sweep again"
    if run.exit_code == 0:
        return "failed", "its log says exit 0, but its output is not there"
    return "failed", f"exit {run.exit_code}: {run.reason}"


class Row:
    """A job's line in the table."""

    def __init__(self, plan, job, queue, needed, here):
        self.job, self.missing = job, needed.get(job, [])
        missing, waits = self.missing, any(need in needed for need in job.needs)
        entries = queue.get(job.key, {})
        states = [
            element_state(job, i, entries.get(i), i not in missing, waits, here) for i in range(len(job.elements))
        ]
        counts = collections.Counter(state for state, _ in states)
        self.state = next(state for state in ORDER if counts[state])
        self.note = self.why(states, counts) or self.results()
        running = [i for i, (state, _) in enumerate(states) if state == "running"]
        self.done = self.done_text(plan, counts)
        self.left = duration(plan.seconds_left(job, running)) if running else "-"

    def results(self):
        """The page that was made; of a validation the files of what it has measured."""
        if self.job.stage in PAGES:
            return self.job.elements[0].output if self.state == "done" else ""
        if self.job.stage != "validate":
            return ""
        return ", ".join(validation.result(self.job, part) for part in validation.parts_done(self.job))

    def why(self, states, counts):
        i = next((i for i, (state, why) in enumerate(states) if state == self.state and why), None)
        if i is None:
            return ""
        place = f"shard {i}" + (f" and {counts[self.state] - 1} more" if counts[self.state] > 1 else "") + ": "
        return (place if self.job.is_array else "") + states[i][1]

    def done_text(self, plan, counts):
        if self.state == "done":
            return "100 %"
        fraction = plan.fraction(self.job)
        percent = f"{int(100 * fraction)} %" if fraction is not None else "-" if self.state == "running" else "0 %"
        return f"{counts['done']}/{len(self.job.elements)}, {percent}" if self.job.is_array else percent


def status_rows(plan, here):
    """(rows, what is wrong with the queue or "")."""
    problem, queue = "", {}
    try:
        queue = read_queue()
    except SlurmError as error:
        problem = str(error)
    other = plan.problems()
    needed = plan.needed(other)
    rows, broken = [], {}
    for job in plan.jobs:
        row = Row(plan, job, queue, needed, here)
        if job in other:
            more = f" (and {len(other[job]) - 1} more)" if len(other[job]) > 1 else ""
            row.state, row.done, row.left, row.note = "other", "-", "-", other[job][0] + more
        elif row.state == "failed" and not plan.undone(job):  # the page of such a job: its last run was no failure
            row.state, row.done, row.note = "to do", "0 %", ""
        elif job not in needed and plan.undone(job):
            row.state, row.done, row.note = "removed", "-", "not needed any more"
        cause = next((broken[id(need)] for need in job.needs if id(need) in broken), None)
        if row.state == "failed":
            broken[id(job)] = job.name
        elif cause and row.state in ("to do", "waiting"):
            row.state, row.note, broken[id(job)] = "blocked", f"by {cause}", cause
        rows.append(row)
    return rows, problem


def print_status(plan, here):
    """Print the table; returns the exit code, 1 if something failed, or is there that a run would refuse."""
    rows, problem = status_rows(plan, here)
    table = [("stage", "model", "queries", "corpus", "state", "done", "left", "")]
    for row in rows:
        about = (
            (row.job.about + ("-", "-", "-"))[:3]
            if row.job.stage not in ("tokenize", "tokenize-queries")
            else ("-", *(("-", row.job.about[0]) if row.job.stage == "tokenize" else (row.job.about[0], "-")))
        )
        table.append((row.job.stage, *about, row.state, row.done, row.left, row.note))
    widths = [max(len(line[c]) for line in table) for c in range(7)]
    for line in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[7]]).rstrip())
    failed = [row for row in rows if row.state == "failed"]
    for row in failed:
        logs = {row.job.elements[i].log for i in row.missing}
        print(f"{row.job.name}: {row.note} (log {sorted(logs)[0] if len(logs) == 1 else plan.log})")
    if problem and any(row.missing for row in rows):
        print(f"the queue is not known: {problem}")
    return 1 if failed or any(row.state == "other" for row in rows) else 0
