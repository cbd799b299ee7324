"""The sweep file of a trace: written once from its arguments, and compared with them when it is run again."""

import json
import os
import re

from bregman.errors import UserError
from bregman.sweep.validation import value_text

NAME = "trace.toml"
ARGUMENTS = "# arguments: "
FIT = 10000  # sequences for the covariances, and as many for the eigenvalues, of a corpus of SEVERAL times as many
SEVERAL = 4
FILTERED = 100000  # sequences: of a corpus of more the best TOP of each query are scored
TOP = 10000
HOURS_A_SHARD, MOST_SHARDS = 4, 64
RESERVED = ("tokens", "queries", "log", "compare")  # folders of a sweep's output


def name_of(path, instead):
    """A sweep's name for a file or folder: its own, as far as such names go."""
    stem = os.path.basename(path).split(".jsonl")[0]
    found = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._+-]+", "-", stem)).strip("-._+")
    return instead if not found or (instead == "model" and found in RESERVED) else found


def work_of(size, queries, everything):
    """What bregman-plan is asked for.  queries: (number, tokens of each, tokens of their completions)"""
    sampled = size.sequences >= SEVERAL * FIT
    n = FIT if sampled else max(1, size.sequences)
    filtered = size.sequences > FILTERED and not everything
    number, tokens, completion = queries
    return {
        "sequences": max(1, size.sequences),
        "sequence-tokens": max(2, -(-size.tokens // max(1, size.sequences))),
        "fit-sequences": n,
        "lambda-sequences": n,
        "queries": number,
        "query-tokens": tokens,
        "completion-tokens": completion,
        "prefilter": TOP if filtered else None,
    }


def with_units(work, cores):
    """Fewer units than the fit's 64 where few ranks share them: each keeps a sum of all factors on disk until the last is there."""
    return {**work, "unit-sequences": -(-work["fit-sequences"] // min(64, max(8, 2 * cores)))}


def settings(arguments, queries, work, cost, machine):
    """The sweep file as tables.  queries: the path of their text."""
    n = work["fit-sequences"]
    shards = 1
    if machine.partition:
        shards = max(1, min(MOST_SHARDS, round(cost.seconds["score"] / 3600 / HOURS_A_SHARD)))
    fit = {"covariance_sequences": f"0:{n}", "lambda_sequences": f"{n}:{2 * n}"} if n < work["sequences"] else {}
    cluster = {"ranks_per_node": cost.ranks, "threads": cost.threads, "memory_limit": cost.memory_limit}
    if machine.partition:
        cluster |= {
            "partition": machine.partition,
            "time": machine.time,
            "warning_seconds": max(300, int(cost.warning)),
        }
    tokenize = {"processes": machine.cores, "threads": machine.cores} | (
        {"text_field": arguments.text_field} if arguments.text_field != "text" else {}
    )
    return {
        "output": ".",
        "cluster": cluster,
        "model": [{"name": name_of(arguments.model, "model"), "path": os.path.abspath(arguments.model)}],
        "corpus": [
            {"name": name_of(arguments.corpus[0], "corpus"), "text": [os.path.abspath(p) for p in arguments.corpus]}
        ],
        "queries": [{"name": name_of(queries, "queries"), "file": os.path.abspath(queries)}],
        "tokenize": tokenize,
        "fit": {**fit, "no_diagonal": True, "unit_sequences": work["unit-sequences"]},
        **({"prefilter": {"top": TOP}} if work["prefilter"] else {}),
        **({"score": {"shards": shards}} if shards > 1 else {}),
    }


def text(recorded, data, said):
    """said: lines on what it is about."""
    lines = [
        "# Written by bregman-trace. bregman-sweep runs it, too, and shows how far it is: bregman-sweep trace.toml --status",
        *(f"# {line}" for line in said),
        ARGUMENTS + json.dumps(recorded, ensure_ascii=False),
        "",
    ]
    tables = [(key, value) for key, value in data.items() if isinstance(value, dict)]
    lists = [(key, entry) for key, value in data.items() if isinstance(value, list) for entry in value]
    lines += [f"{key} = {value_text(value)}" for key, value in data.items() if not isinstance(value, (dict, list))]
    for header, table in [*((f"[{key}]", value) for key, value in tables), *((f"[[{key}]]", e) for key, e in lists)]:
        lines += ["", header, *(f"{key} = {value_text(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def recorded_of(arguments):
    """The arguments that say what is made."""
    found = {
        "model": os.path.abspath(arguments.model),
        "corpus": [os.path.abspath(path) for path in arguments.corpus],
        "queries": arguments.queries and os.path.abspath(arguments.queries),
        "prompt": arguments.prompt,
        "completion": arguments.completion,
        "text_field": arguments.text_field,
        "all": arguments.all,
    }
    return {key: value for key, value in found.items() if value not in (None, False)}


def check_same(path, recorded):
    """Refuse other arguments than a trace was begun with."""
    try:
        with open(path, encoding="utf-8") as file:
            line = next((line for line in file if line.startswith(ARGUMENTS)), None)
        before = json.loads(line[len(ARGUMENTS) :])
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f'"{path}" is there and does not say which arguments it was made from: choose another --output'
        ) from error
    for key in dict.fromkeys([*before, *recorded]):
        if before.get(key) != recorded.get(key):
            was, now = (
                json.dumps(each.get(key), ensure_ascii=False) if key in each else "none" for each in (before, recorded)
            )
            raise UserError(
                f'"{path}" was made with --{key.replace("_", "-")} {was}, not {now}: choose another --output, or give the '
                "same arguments to go on"
            )
