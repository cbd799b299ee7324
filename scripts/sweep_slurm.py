"""Slurm: what is in the queue, and how the missing parts of a plan get into it.

A job is known by the comment it was submitted with, "bregman:KEY:COMMAND": KEY stands for what it makes, COMMAND for
how.  Job ids are only ever used for jobs that squeue lists now: Slurm may use an id again.
"""
import collections
import getpass
import os
import re
import shlex
import subprocess

from bregman_files import UserError
from sweep_plan import PROGRAM, SCRIPTS, Plan

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
NEVER = "DependencyNeverSatisfied"
LONGEST_S = 60

Entry = collections.namedtuple("Entry", "id state reason command")


class SlurmError(UserError):
    """Slurm refused; what was submitted before stays."""


def ask_slurm(*command, environment=None):
    """Output of one of Slurm's programs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False, env=environment,
                              stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SlurmError(f"no {command[0]} on PATH: is this a machine with Slurm? --local does without") from None
    except OSError as error:
        raise SlurmError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer for {LONGEST_S} s; try again") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SlurmError(f"{command[0]}: " + lines[-1].removeprefix(command[0] + ": ").removeprefix("error: "))
    return done.stdout


def read_queue():
    """{key: {element: Entry}} of all this user's sweep jobs that Slurm has now."""
    found = {}
    for line in ask_slurm("squeue", "--noheader", "--array", "--user", getpass.getuser(),
                          "--format", "%i|%T|%r|%k").splitlines():
        number, state, reason, comment = (line.strip().split("|", 3) + [""] * 3)[:4]
        parts = comment.split(":")
        if len(parts) == 3 and parts[0] == "bregman":
            element = int(number.split("_")[1]) if "_" in number else 0
            found.setdefault(parts[1], {})[element] = Entry(number, state, reason, parts[2])
    return found


def element_list(numbers):
    """[0, 1, 2, 5] as sbatch --array takes it: 0-2,5."""
    runs = []
    for n in sorted(numbers):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def sbatch_file(job):
    name = "explain" if job.stage == "explain" else PROGRAM[job.stage]
    return os.path.join(ROOT, "jobs", name + ".sbatch")


def sbatch_words(job, elements, dependency):
    """The command that submits some elements of a job."""
    settings = job.settings
    log = (job.elements[0].log if not job.is_array else os.path.join(os.path.dirname(job.elements[0].log), "\0.log"))
    log = log.replace("%", "%%").replace("\0", job.name + "-%a")
    words = ["sbatch", "--parsable", "--export=ALL", f"--job-name={job.name}", f"--comment=bregman:{job.key}:{job.command_key}",
             f"--output={log}", "--open-mode=append", "--requeue", "--kill-on-invalid-dep=yes", f"--nodes={settings['nodes']}",
             f"--ntasks-per-node={settings['ranks_per_node']}", f"--cpus-per-task={settings['threads']}"]
    words += [f"--{key}={settings[key]}" for key in ("partition", "account", "qos", "constraint", "time") if key in settings]
    if job.stage not in SCRIPTS:
        words.append(f"--signal=B:USR1@{settings['warning_seconds']}")
    if job.is_array:
        limit = f"%{settings['array_limit']}" if "array_limit" in settings else ""
        words.append(f"--array={element_list(elements)}{limit}")
    if dependency:
        words.append("--dependency=" + dependency)
    extra = settings["sbatch"]
    return words + (extra if isinstance(extra, list) else [extra]) + [sbatch_file(job)] + job.command()


def job_environment(job, programs):
    """What jobs/stage.sh reads."""
    setup = job.settings["setup"]
    found = {"BREGMAN": ROOT, "BREGMAN_BIN": programs, "BREGMAN_LAUNCH": job.settings["launch"],
             "BREGMAN_SETUP": "\n".join(setup if isinstance(setup, list) else [setup])}
    if job.is_array:
        found["SHARDS"] = str(len(job.elements))
    return {key: value for key, value in found.items() if value}


class Submitter:
    """Puts into the queue what a plan needs and the queue lacks."""

    def __init__(self, plan: Plan, programs, say):
        self.plan, self.programs, self.say = plan, programs, say
        self.queue = {}
        self.numbers = {}                  # id(job) -> ids that stand for it in a dependency
        self.new = set()                   # jobs of which something was submitted
        self.submitted = self.kept = 0

    # what changes the queue: the dry run overrides these

    def read_queue(self):
        return read_queue()

    def sbatch(self, job, words, environment):
        return ask_slurm(*words, environment={**os.environ, **environment}).strip().split(";")[0]

    def scontrol(self, *words):
        ask_slurm("scontrol", *words)

    def scancel(self, number):
        ask_slurm("scancel", number)

    # ----

    def run(self):
        self.queue = self.read_queue()
        needed = self.plan.needed()
        self.check_commands(needed)
        for job, missing in needed.items():
            self.submit(job, missing)

    def live(self, job):
        return self.queue.get(job.key, {})

    def check_commands(self, needed):
        """A job in the queue that makes the same file in another way is not ours to replace."""
        for job in needed:
            for entry in self.live(job).values():
                if entry.command != job.command_key:
                    raise SlurmError(f'job {entry.id} in the queue makes "{job.elements[0].output}" with other options than '
                                     f"this sweep file says: scancel {entry.id.split('_')[0]} first")

    def dependency(self, job):
        numbers = [number for need in job.needs for number in self.numbers.get(id(need), [])]
        return "afterok:" + ":".join(numbers) if numbers else ""

    def submit(self, job, missing):
        live = self.drop_hopeless(job, {i: entry for i, entry in self.live(job).items() if i in missing})
        new = [i for i in missing if i not in live]
        dependency = self.dependency(job)
        numbers = [entry.id for entry in live.values()]
        if live:
            self.kept += len(live)
            self.say(job, f"in the queue as {', '.join(sorted({n.split('_')[0] for n in numbers}))}")
            self.release(job, live)
        if live and any(id(need) in self.new for need in job.needs) and not self.renew(live, dependency):
            new, numbers = missing, []
        if new:
            words = sbatch_words(job, new, dependency)
            number = self.sbatch(job, words, job_environment(job, self.programs))
            self.say(job, f"submitted as {number}" + (f", shards {element_list(new)}" if len(new) < len(job.elements) else ""))
            numbers.append(number)
            self.new.add(id(job))
            self.submitted += len(new)
        self.numbers[id(job)] = numbers

    def drop_hopeless(self, job, live):
        """Without the entries that wait for something that failed; those are taken out of the queue."""
        for i in [i for i, entry in live.items() if entry.reason == NEVER]:
            self.say(job, f"{live[i].id} waits for a job that failed: taken out of the queue")
            self.scancel(live.pop(i).id)
        return live

    def release(self, job, live):
        """What a stop file held goes on once the file is gone."""
        held = {entry.id for entry in live.values() if "held" in entry.reason.lower()}
        if held and not os.path.exists(stop_file(job)):
            for number in sorted(held):
                self.say(job, f"releasing {number}")
                self.scontrol("release", number)

    def renew(self, live, dependency):
        """Make waiting jobs wait for what was submitted anew; False if they are gone by now."""
        for number in sorted({entry.id.split("_")[0] for entry in live.values() if entry.state == "PENDING"}):
            try:
                self.scontrol("update", f"jobid={number}", f"dependency={dependency}")
            except SlurmError as error:
                if not re.search("invalid job id|already complet", str(error), re.IGNORECASE):
                    raise
                return False
        return True


class DryRun(Submitter):
    """Prints the commands instead, as a shell script that would submit the same."""
    variables = 0

    def read_queue(self):
        try:
            return read_queue()
        except SlurmError:
            return {}                      # a plan can be looked at anywhere

    def sbatch(self, job, words, environment):
        self.variables += 1
        variable = f"job{self.variables}"
        shown = [f"{key}={shlex.quote(value)}" for key, value in environment.items()]
        shown += [f'"{word}"' if word.startswith("--dependency=") else shlex.quote(word) for word in words]
        print(f"{variable}=$({' '.join(shown)})")
        return f"${{{variable}}}"

    def scontrol(self, *words):
        print("scontrol " + shlex.join(words))

    def scancel(self, number):
        print("scancel " + number)


def stop_file(job):
    """Where a file named "stop" makes the job stop: in the folder it writes into."""
    folder = os.path.dirname(job.elements[0].output)
    return os.path.join(folder, "scores" if job.stage == "explain" else "", "stop")
