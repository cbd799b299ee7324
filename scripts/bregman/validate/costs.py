"""What a validation costs before it is begun: its steps are counted by going through it, and each is bregman-plan's to predict."""

import collections
import concurrent.futures
import copy
import functools
import os
import tempfile

import numpy as np

from bregman.files import open_dataset, open_file
from bregman.planner import planned
from bregman.sweep.keys import RANGE, STAGES, most_columns
from bregman.validate.foreseen import Foreseen, Rehearsal
from bregman.validate.methods import PEERS
from bregman.validate.output import markdown
from bregman.validate.parts import validate
from bregman.validate.stages import words as option_words

# what: of the table's row; times: how often, models of a bank counted each; seconds, bytes: of all; None: not predicted
Cost = collections.namedtuple("Cost", "what times seconds bytes")
TRAINING = ("optimizer", "epochs", "steps", "batch_tokens", "save_dtype")
AT_ONCE = 4  # questions: each is mostly the start of MPI
OTHER_TOOLS = {peer.adapter: f"scores of {peer.package}" for peer in PEERS.values()}
NOT_PREDICTED = {"merge_scores": "merges", "score_shards": "explanations by output tokens", **OTHER_TOOLS}
FIT = ("blocks", "subgrid_side", "unit_sequences")


# ---------------------------------------------------------------- all of it


def plan(settings, programs, ranks, parts, cluster=None):
    """{"ranks", "rows": [{"what", "steps", "times", "seconds", "bytes"}], "seconds", "bytes", "steps": titles}"""
    costs, steps = rehearsed(settings, programs, ranks, parts, cluster)
    rows = {}
    for cost in costs:
        row = rows.setdefault(cost.what, {"what": cost.what, "steps": 0, "times": 0, "seconds": 0, "bytes": 0})
        row["steps"] += 1
        row["times"] += cost.times
        for key, value in (("seconds", cost.seconds), ("bytes", cost.bytes)):
            row[key] = None if value is None else row[key] + value
    total = {key: sum(row[key] or 0 for row in rows.values()) for key in ("seconds", "bytes")}
    return {"ranks": ranks, "rows": list(rows.values()), **total, "steps": [step.title for step in steps]}


def duration(seconds):
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(n_bytes):
    if n_bytes is None:
        return ""
    units = ["kB", "MB", "GB", "TB"]
    n_bytes /= 1000
    while n_bytes >= 1000 and len(units) > 1:
        n_bytes /= 1000
        del units[0]
    return f"{n_bytes:.3g} {units[0]}"


def text(found):
    """A table, and what is not in it."""
    rows = [
        [row["what"], str(row["times"]), duration(row["seconds"] and row["seconds"] / row["times"]), duration(row["seconds"]),
         size(row["bytes"])]
        for row in found["rows"]
    ]  # fmt: skip
    rows.append(["all", "", "", duration(found["seconds"]), size(found["bytes"])])
    head = f"Predicted, not measured, on {found['ranks']} ranks of one thread:\n"
    return "\n".join([head, markdown(["", "number", "each", "all", "disk"], rows)])


def summary(found):
    """The same in a line."""
    counts = ", ".join(f"{row['times']} {row['what']}" for row in found["rows"])
    return f"{counts}: {duration(found['seconds'])}, {size(found['bytes'])} predicted on {found['ranks']} ranks"


# ---------------------------------------------------------------- steps


@functools.lru_cache(maxsize=None)
def lengths(path, kind):
    """(sequences, tokens of all, tokens of all completions or None) of a file of tokens or queries."""
    with open_file(path, kind) as file:
        known = {}
        count = open_dataset(file, path, "count", known)[:].astype(int)
        start = open_dataset(file, path, "completion_start", known)[:] if kind == "bregman/queries" else None
    return len(count), int(count.sum()), None if start is None else int((count - start).sum())


def mean(total, n):
    return max(2, -(-total // max(1, n)))


def within(text, n):
    """How many of n a range "A:B" has."""
    first, end = RANGE.fullmatch(text).groups()
    return min(int(end or n), n) - min(int(first or 0), n)


def rehearsed(settings, programs, ranks, parts, cluster):
    """([Cost] of each step, the steps)"""
    with tempfile.TemporaryDirectory(prefix="bregman-validate-") as folder:
        own = copy.copy(settings)
        own.output = folder
        stages = Rehearsal(programs, ranks, os.path.join(folder, "logs"), os.path.join(folder, "stop"))
        validate(own, stages, parts, Foreseen, say=lambda _text: None)
        planner = Planner(settings, stages, cluster)
        return planner.costs(), stages.steps


class Planner:
    """Turns steps into questions to bregman-plan.  The token files of what is planted must be there."""

    def __init__(self, settings, stages, cluster=None):
        self.settings, self.stages, self.cluster = settings, stages, cluster
        self.compressed = {}  # output: options of compress_queries
        model = settings["model"]
        self.config = model.get("config") or model["start"]

    def costs(self):
        """[Cost] of each step that was noted."""
        asked = [self.ask(step) for step in self.stages.steps]
        program = os.path.join(self.stages.programs, "plan")
        different = list(dict.fromkeys(words for *_, words in asked))
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(different, pool.map(lambda words: words and planned(program, words)["stages"], different)))
        costs = []
        for step, (what, times, words) in zip(self.stages.steps, asked):
            stage = found[words][step.program] if words else {"seconds": None, "final_bytes": None}
            costs.append(Cost(what, times, stage["seconds"], stage["final_bytes"]))
        return costs

    def ask(self, step):
        """(what it is, how often, the words that bregman-plan is asked with, none where it cannot be)"""
        of = {
            "train_models": self.training,
            "fit_factors": self.fit,
            "compress_queries": self.compression,
            "score_shards": self.scoring,
            "prefilter": self.overlap,
        }
        if step.program not in of or "explain" in step.options:
            return NOT_PREDICTED.get(step.program, "tokenizing what is planted"), 1, ()
        what, times, options = of[step.program](step)
        machine = self.machine(min(step.ranks, options.get("bank", step.ranks)))
        return what, times, tuple(option_words({**machine, **options, "stages": step.program}))

    def machine(self, ranks):
        return {
            "config": self.config,
            "weights": self.settings["train"].get("save_dtype", "float32"),
            "cluster": self.cluster,
            "nodes": 1,
            "ranks_per_node": ranks,
            "cores_per_node": ranks,
            "pipeline": 1,
        }

    # ---------------------------------------------------------------- what there is to do

    @staticmethod
    def corpus(paths):
        """(sequences, tokens of each)"""
        found = [lengths(path, "bregman/tokens") for path in paths]
        n = sum(each[0] for each in found)
        return n, mean(sum(each[1] for each in found), n)

    @staticmethod
    def queries(path):
        n, tokens, completions = lengths(path, "bregman/queries")
        each = mean(tokens, n)
        return {"queries": n, "query_tokens": each, "completion_tokens": max(1, min(each - 1, round(completions / n)))}

    def training(self, step):
        own = step.options
        n, tokens = self.corpus(step.options["tokens"])
        options = {key: own[key] for key in TRAINING if key in own}
        options.update(train_modules=own.get("modules"), slices=own.get("slices"), sequence_tokens=tokens)
        if "bank" not in own:
            return (
                "trainings of a scored model" if own["output"].endswith("model") else "trainings to halfway",
                1,
                {**options, "train_sequences": n},
            )
        subsets = own.get("subset") or []
        seeds = RANGE.fullmatch(own["seeds"]) if "seeds" in own else None
        bank = max(1, len(subsets or own.get("mask") or [])) * (int(seeds[2]) - int(seeds[1]) if seeds else 1)
        kept = round(np.mean([self.stages.subset_sizes[path] for path in subsets])) if subsets else n
        what = (
            "losses of the queries" if own["bank"].endswith("losses") else f"trainings, {self.bank_name(own['bank'])}"
        )
        return what, bank, {**options, "train_sequences": max(1, kept), "bank": bank, **self.queries(own["queries"])}

    @staticmethod
    def bank_name(folder):
        """OUTPUT/halves/bank: LDS's; OUTPUT/qld/ROW/bank: removals, of the best or at random; OUTPUT/local/start/bank."""
        part, name = folder.split(os.sep)[-3:-1]
        if part == "local":
            return f"local, {name.removesuffix('-all')}"
        if part not in ("qld", "qld-tokens"):
            return f"lds, {name}"
        removed = "random removals" if name.startswith("random-") else "removals of the best"
        return f"qld, {removed}" + (" terms" if part == "qld-tokens" else "")

    def fit(self, step):
        own = step.options
        n, tokens = self.corpus(step.options["tokens"])
        options = {key: own[key] for key in ("modules", "preconditioner", *FIT) if key in own}
        options.setdefault("blocks", STAGES["fit"]["blocks"].default)
        for key, asked in (("fit_sequences", "covariance_sequences"), ("lambda_sequences", "lambda_sequences")):
            options[key] = max(1, within(own.get(asked, ":"), n))
        flags = {key: True for key in ("head_blocks", "no_diagonal") if own.get(key)}
        return "fits", 1, {**options, **flags, "sequence_tokens": tokens}

    def compression(self, step):
        own = step.options
        self.compressed[own["output"]] = own
        options = {"modules": own["modules"], "rank": most_columns(own), **self.queries(own["queries"])}
        if own["preconditioner"] == "shampoo":
            options["preconditioner"] = "shampoo"
        kind = own.get("refine", "none")
        if kind == "none":
            return "compressions", 1, options
        n, tokens = self.corpus(own["refine_tokens"])
        default = STAGES["compress"]["refine_sequences"].default
        return (
            f"compressions, {kind}",
            1,
            {
                **options,
                "refine": kind,
                "refine_steps": own.get("refine_steps"),
                "refine_sequences": max(1, within(own.get("refine_sequences", default), n)),
                "sequence_tokens": tokens,
            },
        )

    def scoring(self, step):
        n, tokens = self.corpus(step.options["tokens"])
        of = self.compressed[step.options["queries"]]
        options = {"modules": of["modules"], "rank": most_columns(of), **self.queries(of["queries"])}
        return "scorings", 1, {**options, "sequences": n, "sequence_tokens": tokens}

    def overlap(self, step):
        n, tokens = self.corpus(step.options["tokens"])
        return (
            "BM25",
            1,
            {"sequences": n, "sequence_tokens": tokens, "prefilter": n, **self.queries(step.options["queries"])},
        )
