"""Slurm: what is in the queue, and how the missing parts of a plan get into it.

A job is known by the comment it was submitted with, "bregman:KEY:COMMAND": KEY stands for what it makes, COMMAND for
how; ":FIRST" follows where an array begins at another shard than 0.  Job ids are only ever used for jobs that squeue
lists now: Slurm may use an id again.
"""

import collections
import os
import re
import shlex
import subprocess

from bregman import ROOT
from bregman.errors import UserError
from bregman.sweep.plan import PROGRAM, SCRIPTS, STOP, Plan

NEVER = "DependencyNeverSatisfied"
LONGEST_S = 60
ARRAY_SIZE = 1001  # Slurm's own MaxArraySize
# Variables of Slurm's programs and of launchers.  Those of a user's shell change what squeue lists; those of a job that
# the sweep is started in bind the new jobs' ranks to its CPUs, or contradict their options.
SLURM_VARIABLE = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SINFO|SCONTROL|SCANCEL|PMI|PMIX(?!_MCA))_")
# What finds Slurm, and choices of the user's that no job sets and the sweep file's keys override.
KEPT = (
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "SLURM_SACK_KEY",
    "SLURM_SACK_SOCKET",
    "SBATCH_ACCOUNT",
    "SBATCH_PARTITION",
    "SBATCH_QOS",
    "SBATCH_CONSTRAINT",
    "SBATCH_RESERVATION",
)

Entry = collections.namedtuple("Entry", "id state reason command")


class SlurmError(UserError):
    """Slurm refused; what was submitted before stays."""


def taken_out():
    """Names in this environment that speak to Slurm's programs."""
    return [name for name in os.environ if SLURM_VARIABLE.match(name) and name not in KEPT]


def clean_environment(**changes):
    taken = taken_out()
    return {**{name: value for name, value in os.environ.items() if name not in taken}, **changes}


def ask_slurm(*command, environment=None):
    """Output of one of Slurm's programs."""
    environment = environment or clean_environment(LC_ALL="C")
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
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
    for line in ask_slurm(
        "squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i|%T|%r|%k"
    ).splitlines():
        number, state, reason, comment = (line.strip().split("|", 3) + [""] * 3)[:4]
        parts = comment.split(":")
        if len(parts) in (3, 4) and parts[0] == "bregman":
            element = (int(number.split("_")[1]) if "_" in number else 0) + (int(parts[3]) if len(parts) == 4 else 0)
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


def array_digits():
    """Digits of an array's indices, so that all numbers with so many are below Slurm's limits."""
    try:
        config = ask_slurm("scontrol", "show", "config")
    except SlurmError:
        config = ""  # a plan can be looked at anywhere, and Slurm has the last word
    limits = [int(n) for n in re.findall(r"(?:^MaxArraySize *= *|max_array_tasks=)(\d+)", config, re.MULTILINE)]
    return len(str(max(1, min(limits, default=ARRAY_SIZE)))) - 1


def arrays(elements, digits):
    """{first: elements - first}: cut where more than the last `digits` digits change."""
    found = collections.defaultdict(list)
    for n in elements:
        found[n - n % 10**digits].append(n % 10**digits)
    return found


def log_pattern(job, first, digits):
    """As sbatch --output takes it: the index, filled up to `digits` digits, behind the leading ones of the shard's number."""
    if not job.is_array:
        return job.elements[0].log.replace("%", "%%")
    index = "%a" if first == 0 else str(first // 10**digits) + (f"%{digits}a" if digits else "")
    return os.path.join(os.path.dirname(job.elements[0].log).replace("%", "%%"), f"{job.name}-{index}.log")


def sbatch_words(job, elements, dependency, first=0, digits=0, share=1):
    """The command that submits some elements of a job, counted from `first`; share: what they are of all that run at a time."""
    settings = job.settings
    log = log_pattern(job, first, digits)
    comment = f"bregman:{job.key}:{job.command_key}" + (f":{first}" if first else "")
    words = [
        "sbatch",
        "--parsable",
        "--export=ALL",
        f"--job-name={job.name}",
        f"--comment={comment}",
        f"--output={log}",
        "--open-mode=append",
        "--requeue",
        "--kill-on-invalid-dep=yes",
        f"--nodes={settings['nodes']}",
        f"--ntasks-per-node={settings['ranks_per_node']}",
        f"--cpus-per-task={settings['threads']}",
    ]
    words += [
        f"--{key}={settings[key]}" for key in ("partition", "account", "qos", "constraint", "time") if key in settings
    ]
    if job.stage not in SCRIPTS or job.stage in STOP:
        words.append(f"--signal=B:USR1@{settings['warning_seconds']}")
    if job.is_array:
        limit = f"%{max(1, int(settings['array_limit'] * share))}" if "array_limit" in settings else ""
        words.append(f"--array={element_list(elements)}{limit}")
    if dependency:
        words.append("--dependency=" + dependency)
    extra = settings["sbatch"]
    return words + (extra if isinstance(extra, list) else [extra]) + [sbatch_file(job)] + job.command()


def job_environment(job, programs, first=0):
    """What jobs/*.sbatch and stage.sh read."""
    setup = job.settings["setup"]
    found = {
        "BREGMAN": ROOT,
        "BREGMAN_BIN": programs,
        "BREGMAN_LAUNCH": job.settings["launch"],
        "BREGMAN_SETUP": "\n".join(setup if isinstance(setup, list) else [setup]),
    }
    if job.is_array:
        found["SHARDS"] = str(len(job.elements))
        found["FIRST_SHARD"] = str(first)
    return {key: value for key, value in found.items() if value}


class Submitter:
    """Puts into the queue what a plan needs and the queue lacks."""

    def __init__(self, plan: Plan, programs, say):
        self.plan, self.programs, self.say = plan, programs, say
        self.queue, self.digits = {}, None
        self.numbers = {}  # id(job) -> ids that stand for it in a dependency
        self.new = set()  # jobs of which something was submitted
        self.submitted = self.kept = 0

    # what changes the queue: the dry run overrides these

    def read_queue(self):
        return read_queue()

    def sbatch(self, job, words, environment):
        said = ask_slurm(*words, environment=clean_environment(**environment))
        found = re.findall(r"^(\d+)(?:;.*)?$", said, re.MULTILINE)  # a site's sbatch may greet first
        if not found:
            raise SlurmError(f'sbatch does not say the job\'s number, but "{said.strip()[-100:]}"')
        return found[-1]

    def scontrol(self, *words):
        ask_slurm("scontrol", *words)

    def scancel(self, number):
        ask_slurm("scancel", number)

    # ----

    def run(self):
        self.queue = self.read_queue()
        self.plan.manifests.look_again()  # what ends after this look at the queue is taken to be in it
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
                    raise SlurmError(
                        f'job {entry.id} in the queue makes "{job.elements[0].output}" with other options than '
                        f"this sweep file says: scancel {entry.id.split('_')[0]} first"
                    )

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
            numbers += self.submit_arrays(job, new, dependency)
            self.new.add(id(job))
        self.numbers[id(job)] = numbers

    def submit_arrays(self, job, new, dependency):
        """One job, or as many arrays as Slurm's limits ask for; their ids."""
        if self.digits is None and max(new) > 0:
            self.digits = array_digits()
        numbers = []
        for first, indices in arrays(new, self.digits or 0).items():
            words = sbatch_words(job, indices, dependency, first, self.digits or 0, len(indices) / len(new))
            number = self.sbatch(job, words, job_environment(job, self.programs, first))
            shards = element_list(first + i for i in indices)
            self.say(job, f"submitted as {number}" + (f", shards {shards}" if len(indices) < len(job.elements) else ""))
            self.submitted += len(indices)
            numbers.append(number)
        return numbers

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
            return {}  # a plan can be looked at anywhere

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
