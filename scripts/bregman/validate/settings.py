"""Reads the file that says what to validate (TOML), and checks all of it before anything is done."""

import glob
import os
import tomllib

from bregman.errors import UserError
from bregman.hashes import require_regular
from bregman.sweep.keys import COUNT, NATURAL, STAGES, TABLE, Key, one_of, text, texts
from bregman.validate.methods import DEFAULT, METHODS

PARTS = ("lds", "qld", "pbo", "facts", "filter")
KINDS = ("halves", "drops")
MODULES = ("mlp", "attention", "all", "embedding", "head")


# ---------------------------------------------------------------- what a value may be: returns what is wrong, or None


def _positive(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 < value < float("inf") else "a number above 0"


def _several(check, what):
    return lambda values: None if isinstance(values, list) and values and not any(map(check, values)) else what


def _open_share(value):
    return "a number between 0 and 1" if _positive(value) or value >= 1 else None


def _modules(value):
    return None if isinstance(value, str) and set(value.split(",")) <= set(MODULES) else "no modules"


# what the stages are given as it is; what this program sets itself is left out
OF_STAGES = {
    "train": {
        k: v for k, v in STAGES["train"].items() if k not in ("corpus", "heldout", "subset", "mask", "seed", "slices")
    },
    "fit": {k: v for k, v in STAGES["fit"].items() if k not in ("corpus", "modules", "no_diagonal")},
    "compress": {
        k: v for k, v in STAGES["compress"].items() if k in ("rank", "tolerance", "max_rank", "seed", "unit_queries")
    },
    "score": {k: STAGES["score"][k] for k in ("unit_sequences", "batch_tokens")},
    "bm25": {k: STAGES["prefilter"][k] for k in ("form", "k1", "b", "terms", "ngrams", "max_share")},
}
PLANTED = {"seed": Key(NATURAL, 0), "count": Key(COUNT), "train": Key(TABLE), "modules": Key(_modules)}
TABLES = {
    "": {
        "output": Key(text),
        "parts": Key(_several(one_of(*PARTS), "a list of " + ", ".join(PARTS)), ["lds", "qld"]),
        "ranks": Key(COUNT),
        "seed": Key(NATURAL, 0),
    },
    "model": {
        "config": Key(text),
        "start": Key(text),
        "trained": Key(text),
        "tokens": Key(texts),
        "queries": Key(texts),
        "seed": Key(NATURAL, 0),
    },
    "methods": {
        "names": Key(_several(one_of(*METHODS), "a list of " + ", ".join(METHODS)), DEFAULT),
        "modules": Key(
            _several(_modules, "a list of texts as \"mlp\" or \"attention,mlp,head\""), ["mlp", "attention,mlp"]
        ),
        "dampings": Key(_several(_positive, "a list of numbers above 0"),
                        [0.01, 0.1, 1, 10]),
        "peer_python": Key(text),
    },
    "lds": {
        "kinds": Key(_several(one_of(*KINDS), "a list of " + ", ".join(KINDS)), ["halves"]),
        "subsets": Key(COUNT, 48),
        "seeds": Key(COUNT, 2),
        "first_seed": Key(NATURAL, 101),
        "drop": Key(_open_share, 0.05),
        "halves_bank": Key(text),
        "drops_bank": Key(text),
    },
    "qld": {
        "share": Key(_open_share, 0.05),
        "random": Key(COUNT, 4),
        "seeds": Key(COUNT, 2),
        "first_seed": Key(NATURAL, 101),
        "modules": Key(_modules),
        "damping": Key(_positive, 0.1),
    },
    "pbo": {
        "queries": Key(text),
        "modules": Key(_modules, "mlp"),
        "damping": Key(_positive, 1),
        "steps": Key(COUNT, 40),
        "rank": Key(COUNT, 32),
    },
    "facts": {**PLANTED, "count": Key(COUNT, 32)},
    "filter": {**PLANTED, "count": Key(COUNT, 32)},
    **OF_STAGES,
}  # fmt: skip
PATHS = ("config", "start", "trained", "halves_bank", "drops_bank")


class Settings(dict):
    """table -> key -> value, with the defaults; [""] is the top of the file.  path: the file."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        require_regular(path)
        try:
            with open(path, "rb") as file:
                data = tomllib.loads(file.read().decode())
        except OSError as error:
            raise UserError(f'cannot read "{path}": {error.strerror}') from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not TOML: {error}") from None
        tables = {"": {}}
        for name, value in data.items():
            tables.update({name: value}) if isinstance(value, dict) else tables[""].update({name: value})
        for name, table in tables.items():
            if name not in TABLES:
                raise UserError(f"{path}: [{name}] is unknown; there are {', '.join(filter(None, TABLES))}")
            self._check(name, table, TABLES[name])
        for name, keys in TABLES.items():
            defaults = (
                {} if name in OF_STAGES else {k: key.default for k, key in keys.items() if key.default is not None}
            )
            self[name] = {**defaults, **tables.get(name, {})}
        self._check_together()

    def _wrong(self, table, key, what):
        place = f"[{table}] {key}" if table else key
        return UserError(f"{self.path}: {place}: {what}")

    def _check(self, table, given, keys):
        for key, value in given.items():
            if key not in keys:
                raise self._wrong(table, key, f"is unknown; there are {', '.join(keys)}")
            if keys[key].takes == TABLE:
                if not isinstance(value, dict):
                    raise self._wrong(table, key, "takes a table")
                self._check(f"{table}.{key}", value, OF_STAGES[key])
                continue
            what = keys[key].takes(value)
            if what:
                raise self._wrong(table, key, f"takes {what}")

    def _check_together(self):
        model = self["model"]
        for key in ("tokens", "queries"):
            if key not in model:
                raise self._wrong("model", key, "is missing")
        if ("config" in model) == ("start" in model):
            raise self._wrong(
                "model", "config or start", "give one: a folder with config.json, or a checkpoint to go on with"
            )
        folder = os.path.dirname(os.path.abspath(self.path))
        for table in self.values():
            table.update({key: os.path.join(folder, table[key]) for key in PATHS if key in table})
        if os.sep in self["methods"].get("peer_python", ""):
            self["methods"]["peer_python"] = os.path.join(folder, self["methods"]["peer_python"])
        self.output = os.path.join(folder, self[""].get("output", os.path.splitext(os.path.basename(self.path))[0]))
        for key in ("tokens", "queries"):
            model[key] = self._files(key, model[key], folder)
        if "queries" in self["pbo"]:
            self["pbo"]["queries"] = self._files("queries", [self["pbo"]["queries"]], folder)[0]
        if len(model["queries"]) != 1:
            raise self._wrong("model", "queries", f"is one file, not {len(model['queries'])}")
        for table in [part for part in self[""]["parts"] if part in ("lds", "qld")]:
            own = self[table]
            if own["first_seed"] <= model["seed"] < own["first_seed"] + own["seeds"]:
                raise self._wrong(
                    table, "first_seed", f"the scored model has seed {model['seed']}: no other model may have it"
                )

    def _files(self, key, patterns, folder):
        found = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            paths = sorted(glob.glob(os.path.join(folder, pattern)))
            if not paths:
                raise self._wrong("model", key, f'no file is "{pattern}"')
            found += paths
        return found
