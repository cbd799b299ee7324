"""The keys of a sweep file, what each takes, and its default: that of the stage's own option of that name (what was made with
another value is out of date; None: the value changes no result, or has no default)."""

import collections
import re

from bregman.tokenizer import CHOICES

MOST_SHARDS = 99999
PLAIN = re.compile(r"[A-Za-z0-9](-?[A-Za-z0-9._+])*")  # never "--", which joins names
RANGE = re.compile(r"(\d*):(\d*)")
BYTES = re.compile(r"\d+(\.\d+)?[KMGT]?")
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Key = collections.namedtuple("Key", "takes default", defaults=(None,))


# ---------------------------------------------------------------- what a value may be: returns what is wrong, or None


def _whole(least):
    def check(value):
        if isinstance(value, bool) or not isinstance(value, int):
            return "a whole number"
        return None if value >= least else f"{least} or more"

    return check


def _real(value):
    return (
        None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        else "a number, 0 or more"
    )


def _share(value):
    return "a number from 0 to 1" if _real(value) or value > 1 else None


def text(value):
    one_line = isinstance(value, str) and value and not CONTROL.search(value)
    return None if one_line else "a text of one line"


def texts(value):
    several = value if isinstance(value, list) else [value]
    return None if several and not any(text(v) for v in several) else "a text or a list of texts"


def flag(value):
    return None if isinstance(value, bool) else "true or false"


def _match(pattern, what):
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else what


def _range(value):
    found = RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return 'a range "A:B", B excluded'
    return "a range with A below B" if all(found.groups()) and int(found[1]) >= int(found[2]) else None


def one_of(*words):
    return lambda value: None if value in words else "one of " + ", ".join(map(str, words))


def _rank(value):
    return None if value in ("full", "auto") else _whole(1)(value) and 'a whole number, "full" or "auto"'


COUNT, NATURAL = _whole(1), _whole(0)
TABLE, TABLES = "a table", "an array of tables"

CLUSTER = {
    name: Key(takes)
    for name, takes in {
        "partition": text,
        "account": text,
        "qos": text,
        "constraint": text,
        "nodes": COUNT,
        "ranks_per_node": COUNT,
        "threads": COUNT,
        "pipeline": COUNT,
        "memory_limit": _match(BYTES, 'bytes, as "500M" or "2G"'),
        "scratch": text,
        "checkpoint_minutes": _real,
        "time": _match(TIME, 'a time limit, as "30", "12:00:00" or "2-00:00:00"'),
        "warning_seconds": COUNT,
        "profile": text,
        "array_limit": COUNT,
        "launch": text,
        "setup": texts,
        "sbatch": texts,
    }.items()
}
CLUSTER_DEFAULTS = {
    "nodes": 1,
    "ranks_per_node": 1,
    "threads": 1,
    "pipeline": 1,
    "warning_seconds": 300,
    "launch": "srun -K1",
    "setup": [],
    "sbatch": [],
}
ONE_PROCESS = ("tokenize", "prefilter", "merge", "report")  # these take from [cluster] only what is not for many ranks:
OF_MANY = ("nodes", "ranks_per_node", "pipeline", "memory_limit", "scratch", "checkpoint_minutes", "array_limit")

NOT_FOR = {
    **{stage: OF_MANY for stage in ONE_PROCESS},
    "train": ("pipeline",),
    "compare": tuple(key for key in OF_MANY if key not in ("nodes", "ranks_per_node")),
    "validate": tuple(key for key in OF_MANY if key != "ranks_per_node"),
}

STAGES = {
    "train": {
        "corpus": Key(text),
        "heldout": Key(texts),
        "subset": Key(text),
        "mask": Key(text),
        "modules": Key(text, "everything"),
        "optimizer": Key(one_of("adamw", "sgd"), "adamw"),
        "learning_rate": Key(_real, 0.001),
        "beta1": Key(_real, 0.9),
        "beta2": Key(_real, 0.95),
        "epsilon": Key(_real, 1e-8),
        "momentum": Key(_real, 0.9),
        "weight_decay": Key(_real, 0.1),
        "clip_norm": Key(_real, 1),
        "schedule": Key(one_of("constant", "cosine", "linear"), "cosine"),
        "warmup_steps": Key(NATURAL, 0),
        "final_rate": Key(_real, 0.1),
        "batch_tokens": Key(_whole(2), 16384),
        "epochs": Key(COUNT, 1),
        "steps": Key(NATURAL, 0),
        "seed": Key(NATURAL, 0),
        "slices": Key(COUNT, 8),
        "micro_batch_tokens": Key(NATURAL, 0),
        "eval_steps": Key(NATURAL, 0),
        "save_steps": Key(NATURAL, 0),
        "save_dtype": Key(one_of("float32", "bfloat16"), "float32"),
    },
    "tokenize": {
        "max_length": Key(_whole(2)),
        "packing": Key(one_of("none", "concat"), "none"),
        "eos_between": Key(one_of("yes", "no"), "yes"),
        "attention": Key(one_of("sequence", "document"), "sequence"),
        "positions": Key(one_of("restart", "continue"), "restart"),
        "eos_token_id": Key(NATURAL),
        "add_bos": Key(one_of(*CHOICES), "auto"),
        "add_eos": Key(one_of(*CHOICES), "auto"),
        "add_prefix_space": Key(one_of(*CHOICES), "auto"),
        "join": Key(one_of("token", "character"), "token"),
        "text_field": Key(text, "text"),
        "id_field": Key(text, "id"),
        "source_field": Key(text, "source"),
        "lang_field": Key(text, "lang"),
        "bad_lines": Key(one_of("stop", "skip"), "stop"),
        "processes": Key(COUNT),
    },
    "fit": {
        "corpus": Key(text),
        "covariance_sequences": Key(_range, ":"),
        "lambda_sequences": Key(_range, ":"),
        "modules": Key(text, "mlp"),
        "preconditioner": Key(one_of("ekfac", "shampoo"), "ekfac"),
        "empirical_fisher": Key(flag, False),
        "blocks": Key(COUNT, 1),
        "head_blocks": Key(flag, False),
        "subgrid_side": Key(COUNT, 8192),
        "seed": Key(NATURAL, 0),
        "no_diagonal": Key(flag, False),
        "unit_sequences": Key(NATURAL, 0),
        "batch_tokens": Key(NATURAL),
    },
    "compress": {
        "modules": Key(text),
        "rank": Key(_rank, 32),
        "tolerance": Key(_real, 0.01),
        "max_rank": Key(COUNT, 128),
        "preconditioner": Key(one_of("ekfac", "shampoo", "kfac", "diagonal", "identity")),
        "damping_factor": Key(_real, 0.1),
        "damping": Key(_real, -1),
        "refine": Key(one_of("none", "cg", "lissa"), "none"),
        "refine_sequences": Key(_range, "0:64"),
        "refine_steps": Key(COUNT, 5),
        "refine_damping_factor": Key(_real, 30),
        "seed": Key(NATURAL, 0),
        "unit_queries": Key(COUNT, 8),
    },
    "prefilter": {
        "enabled": Key(flag),
        "top": Key(COUNT, 10000),
        "form": Key(one_of("paper", "okapi"), "paper"),
        "k1": Key(_real, 1.5),
        "b": Key(_share, 0.75),
        "terms": Key(one_of("both", "prompt", "completion"), "both"),
        "ngrams": Key(one_of(1, 2, 3), 1),
        "max_share": Key(_share, 1),
        "unit_sequences": Key(COUNT, 65536),
    },
    "score": {
        "shards": Key(COUNT),
        "corpora": Key(texts),
        "candidates": Key(text),
        "layer_scores": Key(flag, False),
        "top": Key(COUNT, 100),
        "unit_sequences": Key(COUNT, 64),
        "batch_tokens": Key(NATURAL),
    },
    "merge": {"top": Key(COUNT, 100), "tail": Key(_real, 0.0001)},
    "explain": {
        "enabled": Key(flag),
        "attribution": Key(one_of("position", "output", "input", "all"), "position"),
        "batch_tokens": Key(NATURAL),
    },
    "report": {"enabled": Key(flag), "show": Key(COUNT), "title": Key(text), "corpus_sequences": Key(COUNT)},
}
FILES = ("candidates", "subset", "mask")  # keys whose value is a file
FAMILY = {"tokenizer": Key(text), "base": Key(TABLE), "sizes": Key(TABLE)}  # of [train] alone
OWN = {
    "train": ("corpus", "heldout"),
    "tokenize": ("join",),  # which is of queries
    "fit": ("corpus",),
    "prefilter": ("enabled",),
    "score": ("shards", "corpora"),
    "explain": ("enabled",),
    "report": ("enabled",),
}  # no options
TOP = {
    "name": Key(_match(PLAIN, "a name of letters, digits, . _ + and single -")),
    "output": Key(text),
    "bin": Key(text),
    "cluster": Key(TABLE),
    "model": Key(TABLES),
    "corpus": Key(TABLES),
    "queries": Key(TABLES),
    **{stage: Key(TABLE) for stage in STAGES},
    "validate": Key(TABLE),
    "compare": Key(TABLE),
}
# tables that a model may have of its own; one that is not trained here neither [train]
OVERRIDES = ("cluster", *STAGES, "validate")
NAME = {"name": TOP["name"]}
ENTRIES = {
    "model": {
        **NAME,
        "path": Key(text),
        "cluster": Key(TABLE),
        **{stage: Key(TABLE) for stage in STAGES if stage != "train"},
    },
    "corpus": {**NAME, "tokens": Key(texts), "text": Key(texts)},
    "queries": {**NAME, "file": Key(text)},
}


# of train_models: a training that changes nothing, whose bank has a model's own losses of the queries
NO_STEP = {"steps": 1, "learning_rate": 0, "weight_decay": 0, "batch_tokens": 2, "slices": 1}


def most_columns(compress):
    """That a query's gradient may keep, as bregman-plan takes it (of more than there are it takes all); None: as the stage has it."""
    rank = compress.get("rank")
    return {"full": 100000, "auto": compress.get("max_rank", STAGES["compress"]["max_rank"].default)}.get(rank, rank)


def argument(value):
    """A value as a word of a command line.  To mpirun ":" alone begins another program: "0:" is the same range."""
    return "0:" if value == ":" else str(value)


def minutes(limit):
    """A Slurm time limit in minutes."""
    days, *parts = TIME.fullmatch(limit).groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None or len(numbers) == 3:  # D-H[:M[:S]] or H:M:S
        hours, mins, seconds = numbers + [0] * (3 - len(numbers))
        return int(days or 0) * 1440 + hours * 60 + mins + seconds / 60
    return numbers[0] + (numbers[1] / 60 if len(numbers) == 2 else 0)
