"""What bregman-plan says of a sweep before it is submitted: does the engine take the configs of the models that are to be trained,
and are the jobs warned early enough before their time limits?  It predicts how long a stop takes on their grids."""

import contextlib
import os
import subprocess
import sys

import h5py

from bregman.errors import UserError
from bregman.planner import ask, planned
from bregman.sweep.keys import most_columns
from bregman.sweep.plan import PROGRAM

STAGES = ("train", "fit", "compress", "score", "explain")
TRAINING = ("optimizer", "batch_tokens", "epochs", "steps", "slices", "eval_steps", "save_steps", "save_dtype")


def n_sequences(path):
    with h5py.File(path, "r") as file:
        return len(file["count"])


def n_queries(path):
    """Of a query file, or of its text."""
    if path.endswith(".h5"):
        return n_sequences(path)
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip())


def training_options(sweep, model):
    own = sweep.settings("train", model)
    corpus = sweep.corpora[own.get("corpus", next(iter(sweep.corpora)))]
    heldout = [path for measured in sweep.heldout(model) for path in measured.tokens]
    return {
        "train-sequences": sum(map(n_sequences, corpus.tokens)) or None,
        "heldout-sequences": sum(map(n_sequences, heldout)) or None,
        "train-modules": own.get("modules"),
        **{key.replace("_", "-"): own.get(key) for key in TRAINING},
    }


def options(sweep, job, model, folder):
    """Of the plan of one stage: its grid, and what its time depends on."""
    own, fit, compress = job.settings, sweep.settings("fit", model), sweep.settings("compress", model)
    found = {
        "config": folder,
        "nodes": own["nodes"],
        "ranks-per-node": own["ranks_per_node"],
        "pipeline": own.get("pipeline"),
        "stages": PROGRAM[job.stage],
        "cores-per-node": own["ranks_per_node"] * own["threads"],
        "memory-limit": own.get("memory_limit"),
        "cluster": sweep.absolute(own["profile"]) if "profile" in own else None,
        "blocks": fit.get("blocks", 1),
        "preconditioner": fit.get("preconditioner"),
        "modules": (job.stage != "fit" and compress.get("modules")) or fit.get("modules"),
        "rank": most_columns(compress),
        "unit-sequences": fit.get("unit_sequences"),
        "checkpoint-minutes": own.get("checkpoint_minutes"),
    }
    if job.stage == "compress":
        found.update(refine=compress.get("refine"), **{"refine-steps": compress.get("refine_steps")})
    if job.stage == "train":
        found.update(training_options(sweep, model))
    elif job.stage != "fit":
        found["queries"] = max(1, n_queries(sweep.queries[job.about[1]].path))
    tokens = sweep.corpora[job.about[2]].tokens if job.stage in ("score", "explain") else []
    if tokens:
        shards = sweep.settings("score", model).get("shards", 1)
        found["sequences"] = max(1, sum(n_sequences(path) for path in tokens) // shards)
    words = [word for key, value in found.items() if value is not None for word in (f"--{key}", str(value))]
    flags = [f"--{key.replace('_', '-')}" for key in ("head_blocks", "no_diagonal") if fit.get(key)]
    return tuple(words + flags)


def refusal(program, folder):
    """Why the engine does not take the config.json in a folder; "" if it does, or if bregman-plan cannot be asked."""
    path = os.path.join(folder, "config.json")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = ask(program, "--config", path)
        # it may also refuse the cluster that it assumes: then its message does not name the file
        for line in done.stderr.splitlines() if done.returncode else []:
            if path in line:
                return line.partition("error: ")[2].replace(f' in "{path}"', "").replace(f"{path}: ", "")
    return ""


def check_configs(sweep, plan, programs, drafts):
    """Refuse models to be trained whose config.json the engine does not take."""
    for job in plan.needed():
        if job.stage == "train":
            model = job.model
            why = refusal(os.path.join(programs, "plan"), drafts.folder(model))
            if why:
                sweep.problem(model.place, why)
    sweep.raise_problems()


def check_warnings(sweep, plan, programs, drafts):
    """Say on standard error which jobs would be warned too late; it is a prediction, so nothing is refused."""
    said = {}
    for job in plan.needed():
        if job.stage not in STAGES:
            continue
        model = job.model
        warned = job.settings["warning_seconds"]
        try:
            words = options(sweep, job, model, drafts.folder(model))
            needs = planned(os.path.join(programs, "plan"), words)["stages"][PROGRAM[job.stage]]["warning_s"]
        except (UserError, OSError, KeyError) as error:
            said.setdefault(f"it cannot be checked whether the jobs of {job.about[0]} are warned early enough: {error}")
            continue
        if needs > warned:
            said.setdefault(
                sweep.described(
                    sweep.where(job.stage, model, "warning_seconds"),
                    f"{job.stage} of {job.about[0]} is predicted to "
                    f"need {needs:.0f}, not {warned}, to keep what it has done",
                )
            )
    for line in said:
        print(f"sweep: warning: {line}", file=sys.stderr)
