"""What the comparisons of a sweep take, said before anything is submitted: they keep nothing on the way."""

import math
import os

import h5py

from bregman.errors import UserError
from bregman.planner import planned
from bregman.sweep import comparison
from bregman.sweep.keys import minutes
from bregman.sweep.plan import PROGRAM
from bregman.sweep.warning import n_queries, n_sequences


def foretell(sweep, plan, programs, drafts):
    """A line for each comparison that is yet to be made."""
    return [f"{job.name}: {of_job(sweep, job, programs, drafts)}" for job in plan.needed() if job.stage == "compare"]


def candidates(sweep, model, queries):
    """Of each query at most, as many as there are in all; None: all sequences are scored."""
    if sweep.is_prefiltered(model):
        return sweep.settings("prefilter", model).get("top", 10000)
    path = sweep.settings("score", model).get("candidates")
    if not path:
        return None
    with h5py.File(sweep.absolute(path), "r") as file:
        return -(-len(file["sequence"]) // queries)


def options(sweep, job, model, folder):
    own, (queries, corpus) = job.settings, job.about[1:]
    asked = max(1, n_queries(sweep.queries[queries].path))
    found = {
        "config": folder,
        "stages": PROGRAM["compare"],
        "compare": job.arguments.index("--names") - job.arguments.index("--rankings") - 1,
        "sequences": max(1, sum(map(n_sequences, sweep.corpora[corpus].tokens))),
        "prefilter": candidates(sweep, model, asked),
        "queries": asked,
        "nodes": 1,
        "cores-per-node": own["ranks_per_node"],
        "ranks-per-node": own["ranks_per_node"],
        "cluster": sweep.absolute(own["profile"]) if "profile" in own else None,
    }
    return tuple(word for key, value in found.items() if value is not None for word in (f"--{key}", str(value)))


def of_job(sweep, job, programs, drafts):
    model, own = comparison.models(sweep)[0], job.settings
    corpus = sweep.corpora[job.about[2]]
    missing = next((path for path in corpus.tokens if not os.path.exists(path)), None)
    if missing or not corpus.tokens:
        return f'what it takes is known when "{missing or corpus.name}" has been tokenized'
    try:
        words = options(sweep, job, model, drafts.folder(model))
        found = planned(os.path.join(programs, "plan"), words)["stages"][PROGRAM["compare"]]
    except (UserError, OSError, KeyError) as error:
        return f"what it takes cannot be said: {error}"
    ranks, took = found["grid"]["ranks_per_node"], found["seconds"] / 60
    says = f"{ranks} ranks of a node are predicted to take {found['peak_rss_bytes'] / 1e9:.2g} GB each, and {math.ceil(took)} min"
    if ranks < own["ranks_per_node"]:
        says += f"; there is no room for {own['ranks_per_node']}: set [compare] ranks_per_node"
    if "time" in own and took > minutes(own["time"]):
        says += f"; its time limit is {own['time']}: set [compare] time"
    return says
