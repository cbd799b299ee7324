"""What a trace will cost on a machine, as bregman-plan says, and the grid of ranks that is fastest there."""

import collections
import os
import subprocess
import sys
import tempfile

from bregman import ROOT
from bregman.errors import UserError
from bregman.planner import PlanError, planned
from bregman.tokenizer import read_json

DTYPES = ("bfloat16", "float16", "float32")
PIECE = {"fit_factors": "fit", "compress_queries": "compress", "prefilter": "prefilter", "score_shards": "score"}
TOKEN_BYTES = 5  # of a token file

# seconds: by stage; memory: bytes of all ranks, weights once; disk: bytes at the highest, kept: at the end;
# warning: seconds before a time limit
Cost = collections.namedtuple("Cost", "ranks threads memory_limit seconds memory disk kept warning")


def weights_of(model):
    config = read_json(os.path.join(model, "config.json"))
    named = str(config.get("torch_dtype") or config.get("dtype") or "float32").replace("torch.", "")
    return named if named in DTYPES else "float32"


def on_grid(programs, model, work, machine, threads, cluster):
    """What ranks of so many threads cost, on all of the machine's cores."""
    ranks = max(1, machine.cores // threads)
    weights = sum(
        os.path.getsize(os.path.join(model, name)) for name in os.listdir(model) if name.endswith(".safetensors")
    )
    limit = max(1, (machine.memory - weights) // ranks >> 20)
    options = {
        "config": model,
        "weights": weights_of(model),
        "nodes": 1,
        "ranks-per-node": ranks,
        "cores-per-node": machine.cores,
        "pipeline": 1,
        "memory-limit": f"{limit}M",
        "cluster": cluster,
        **work,
    }
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    stages = planned(os.path.join(programs, "plan"), (*words, "--no-diagonal"))["stages"]
    kept = TOKEN_BYTES * work["sequences"] * work["sequence-tokens"]
    disk = kept
    for stage in stages.values():
        disk = max(disk, kept + stage["work_bytes"] + stage["part_bytes"])
        kept += stage["final_bytes"]
    return Cost(
        ranks,
        threads,
        f"{limit}M",
        {PIECE[name]: stage["seconds"] for name, stage in stages.items() if name in PIECE},
        max(ranks * stage["rank_bytes"] for stage in stages.values()) + weights,
        max(disk, kept),
        kept,
        max(stage["warning_s"] for stage in stages.values()),
    )


def cost(programs, model, work, machine, cluster=None):
    """On the fastest grid; ranks of more threads are fewer, and need less memory.  cluster: what bregman-calibrate has measured."""
    found, refused, threads = [], None, 1
    while threads <= machine.cores:
        try:
            found.append(on_grid(programs, model, work, machine, threads, cluster))
        except PlanError as error:
            refused = error
        threads *= 2
    if not found:
        raise UserError(f"bregman-plan: {refused}")
    return min(found, key=lambda each: sum(each.seconds.values()))


def measured(programs, folder, of):
    """The path of a cluster file of this machine in a folder, measured now: half a minute."""
    path = os.path.join(folder, "machine.json")
    command = [os.path.join(ROOT, "scripts", "mpi"), str(of.ranks), os.path.join(programs, "calibrate")]
    done = subprocess.run(
        [*command, "--threads", str(of.threads), "--output", path, "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        print(
            f"{os.path.basename(sys.argv[0])}: this machine could not be measured: {done.stderr.strip()}",
            file=sys.stderr,
        )
        return None
    return path


def cost_here(programs, model, work, machine, output):
    """As cost(), with this machine measured if it will be busy for long.  output: a folder where it will write."""
    assumed = cost(programs, model, work, machine)
    if sum(assumed.seconds.values()) < 120:
        return assumed, False
    with tempfile.TemporaryDirectory(prefix=".bregman-measured-", dir=output) as folder:
        cluster = measured(programs, folder, assumed)
        return (cost(programs, model, work, machine, cluster), True) if cluster else (assumed, False)
