"""Reads the file that says what to validate (TOML), and checks all of it before anything is done."""

import glob
import os
import tomllib

from bregman.errors import UserError
from bregman.hashes import require_regular
from bregman.sweep.keys import COUNT, NATURAL, STAGES, TABLE, Key, flag, one_of, text, texts
from bregman.validate.methods import DEFAULT, METHODS
from bregman.validate.modules import MODULES

PARTS = ("lds", "qld", "pbo", "local", "facts", "filter")
KINDS = ("halves", "drops")


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
        k: v
        for k, v in STAGES["train"].items()
        if k not in ("corpus", "heldout", "subset", "mask", "seed", "slices", "eval_steps", "save_steps")
    },
    "fit": {k: v for k, v in STAGES["fit"].items() if k not in ("corpus", "modules", "no_diagonal", "preconditioner")},
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
        "refined_modules": Key(_several(_modules, 'a list of texts as "mlp"')),
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
        "queries": Key(COUNT),
        "share": Key(_open_share, 0.05),
        "random": Key(COUNT, 4),
        "seeds": Key(COUNT, 2),
        "first_seed": Key(NATURAL, 101),
        "modules": Key(_modules),
        "damping": Key(_positive, 0.1),
        "tokens": Key(flag, False),
        "token_share": Key(_open_share, 0.01),
    },
    "pbo": {
        "queries": Key(text),
        "modules": Key(_modules, "mlp"),
        "damping": Key(_positive, 1),
        "steps": Key(COUNT, 40),
        "rank": Key(COUNT, 32),
    },
    "local": {
        "pairs": Key(COUNT, 20),
        "seeds": Key(COUNT, 4),
        "first_seed": Key(NATURAL, 101),
        "modules": Key(_modules, "mlp"),
        "damping": Key(_positive, 1),
        "steps": Key(COUNT, 40),
    },
    "facts": {**PLANTED, "count": Key(COUNT, 32)},
    "filter": {**PLANTED, "count": Key(COUNT, 32)},
    **OF_STAGES,
}  # fmt: skip
PATHS = ("config", "start", "trained", "halves_bank", "drops_bank")


def read_toml(path):
    require_regular(path)
    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read().decode())
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None


def wrong_keys(data):
    """(place, what is wrong) of each key of `data`, as a file has it; place: ("lds", "seeds"), ("seed",) at the top, ("what", None)
    of a table."""
    top, tables = apart(data)
    yield from wrong_in((), top, TABLES[""])
    for name, table in tables.items():
        if name in TABLES:
            yield from wrong_in((name,), table, TABLES[name])
        else:
            yield (name, None), f"is unknown; there are {', '.join(filter(None, TABLES))}"


def apart(data):
    """(what is at the top of a file, its tables)"""
    tables = {name: value for name, value in data.items() if isinstance(value, dict)}
    return {name: value for name, value in data.items() if name not in tables}, tables


def wrong_in(place, given, keys):
    for key, value in given.items():
        if key not in keys:
            yield place + (key,), f"is unknown; there are {', '.join(keys)}"
        elif keys[key].takes == TABLE:
            if isinstance(value, dict):
                yield from wrong_in(place + (key,), value, OF_STAGES[key])
            else:
                yield place + (key,), "takes a table"
        elif what := keys[key].takes(value):
            yield place + (key,), f"takes {what}"


class SettingError(UserError):
    """place: of a key, or of a table and None."""

    def __init__(self, path, place, what):
        self.place, self.what = tuple(word for word in place if word), what
        table, key = ".".join(place[:-1]), place[-1]
        name = " ".join(filter(None, (f"[{table}]" if table else "", key and key + ":")))
        super().__init__(f"{path}: {name} {what}")


class Settings(dict):
    """table -> key -> value, with the defaults; [""] is the top of the file.  path: the file; data: what is in it, if it is not
    there yet, and made: whether the files that it names are there.  output: the folder of all that is made.  parts: those to be
    measured, in their order, if not those that the file says."""

    def __init__(self, path, data=None, made=True, parts=None):
        super().__init__()
        self.path, self.made = path, made
        data = read_toml(path) if data is None else data
        for place, what in wrong_keys(data):
            raise SettingError(path, place, what)
        top, tables = apart(data)
        tables[""] = top
        for name, keys in TABLES.items():
            defaults = (
                {} if name in OF_STAGES else {k: key.default for k, key in keys.items() if key.default is not None}
            )
            self[name] = {**defaults, **tables.get(name, {})}
        self.parts = sorted(parts or self[""]["parts"], key=PARTS.index)
        self._check_together()

    def recorded(self):
        """As results keep them."""
        return {name or "validate": table for name, table in self.items()}

    def _wrong(self, table, key, what):
        return SettingError(self.path, (table, key), what)

    def _check_together(self):
        model = self["model"]
        for key in ("tokens", "queries"):
            if key not in model:
                raise self._wrong("model", key, "is missing")
        methods = self["methods"]
        for modules in methods.get("refined_modules", ()):
            if modules not in methods["modules"]:
                raise self._wrong("methods", "refined_modules", f'"{modules}" is none of modules')
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
            self["pbo"]["queries"] = self._files("queries", [self["pbo"]["queries"]], folder, "pbo")[0]
        if len(model["queries"]) != 1:
            raise self._wrong("model", "queries", f"is one file, not {len(model['queries'])}")
        drawn = "lds" in self.parts and any(f"{kind}_bank" not in self["lds"] for kind in self["lds"]["kinds"])
        if drawn and self["lds"]["subsets"] < 2:
            raise self._wrong("lds", "subsets", "a correlation is over two subsets or more")
        for table in [part for part in self.parts if part in ("qld", "local")] + ["lds"] * drawn:
            own = self[table]
            if own["first_seed"] <= model["seed"] < own["first_seed"] + own["seeds"]:
                raise self._wrong(
                    table, "first_seed", f"the scored model has seed {model['seed']}: no other model may have it"
                )
        if "local" in self.parts:
            self._check_local()
        if self.made:
            self._check_there("model", "trained", "log.h5")
        self._check_there("lds", "halves_bank", "bank.h5")  # no sweep makes them
        self._check_there("lds", "drops_bank", "bank.h5")

    def _check_local(self):
        train = self["train"]
        if self["local"]["pairs"] < 3:
            raise self._wrong("local", "pairs", "a correlation is over three pairs or more")
        if train.get("steps") or train.get("epochs", 1) < 2:
            raise self._wrong(
                "train",
                "epochs",
                "part local goes on from halfway by whole epochs; give two or more, and no steps",
            )

    def _check_there(self, table, key, name):
        folder = self[table].get(key)
        if folder is not None and not os.path.exists(os.path.join(folder, name)):
            raise self._wrong(table, key, f'there is no "{os.path.join(folder, name)}": train_models leaves it')

    def _files(self, key, patterns, folder, table="model"):
        found = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            path = os.path.join(folder, pattern)
            paths = [path] if os.path.exists(path) or not self.made else sorted(glob.glob(path))
            if not paths:
                raise self._wrong(table, key, f'no file is "{pattern}"')
            found += paths
        return found
