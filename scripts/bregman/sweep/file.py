"""Reads a sweep file (TOML) and checks all of it, before anything is done: its keys are in the tables of keys.py."""

import collections
import difflib
import glob
import json
import os
import re
import tomllib

import h5py

from bregman import corpora
from bregman.errors import UsageError, UserError
from bregman.files import file_identity
from bregman.hashes import checkpoint_folder, hash_file, model_file, require_regular
from bregman.sweep import comparison, family, validation
from bregman.sweep.keys import (
    CLUSTER,
    CLUSTER_DEFAULTS,
    CONTROL,
    ENTRIES,
    FAMILY,
    FILES,
    MOST_SHARDS,
    NOT_FOR,
    OVERRIDES,
    STAGES,
    TABLE,
    TABLES,
    TOP,
    minutes,
)
from bregman.tokenizer import TextModel

# tokenizer: its hash, "" without one; place: in the file; planned: what family.py knows of one that this sweep trains, else None
Model = collections.namedtuple("Model", "name path tokenizer text overrides place planned")
Corpus = collections.namedtuple("Corpus", "name tokens text")  # paths of one of the two; text has names too
Queries = collections.namedtuple("Queries", "name path")


# ---------------------------------------------------------------- places in the file


def key_lines(text):
    """{place: line}: places are tuples such as ("fit", "seed") and ("model", 1, "fit", "blocks")."""
    lines, place, seen = {}, (), collections.Counter()
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]", line)
        if header:
            names = tuple(part.strip(" \"'") for part in header[2].split("."))
            if header[1] == "[[":
                place = names + (seen[names],)
                seen[names] += 1
            else:
                last = seen[names[:1]] - 1
                place = names[:1] + ((last,) if last >= 0 else ()) + names[1:]
            lines.setdefault(place, number)
        else:
            key = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line)
            if key:
                lines.setdefault(place + (key[1],), number)
    return lines


class SweepError(Exception):
    """All that is wrong: a line each."""

    def __init__(self, lines, exit_code=2):
        super().__init__(lines)
        self.exit_code = exit_code


class Sweep:
    """A checked sweep file.  models, corpora, queries: by name, in the file's order."""

    def __init__(self, path):
        self.path, self.problems = path, []
        require_regular(path)
        try:
            with open(path, "rb") as file:
                text = file.read().decode()
            self.data = tomllib.loads(text)
        except OSError as error:
            raise SweepError(f'cannot read "{path}": {error.strerror}') from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # TOML, UTF-8, a number of more digits than Python takes; too deep
            raise SweepError(f"{path}: not TOML: {error}") from None
        self.lines = key_lines(text)
        self.folder = os.path.dirname(os.path.abspath(path))
        self.check_keys()
        self.raise_problems()
        self.name = self.data.get("name", os.path.splitext(os.path.basename(path))[0])
        self.output = self.absolute(self.data["output"])
        self.models = {**self.named("model", self.read_model), **self.read_sizes()}
        self.corpora = self.named("corpus", self.read_corpus)
        self.queries = self.named("queries", self.read_queries)
        self.check_stages()
        self.raise_problems()

    # ---- problems

    def problem(self, place, what):
        """Remember what is wrong at a place."""
        self.problems.append(self.described(place, what))

    def described(self, place, what):
        """With the place's line, or that of the table it is in."""
        at = place
        while at and at not in self.lines:
            at = at[:-1]
        line = f":{self.lines[at]}" if at else ""
        named = [p for p in place if isinstance(p, str)]
        shown = f"[{'.'.join(named[:-1])}] {named[-1]}" if len(named) > 1 else "".join(named)
        return CONTROL.sub(" ", f"{self.path}{line}: {shown}: {what}")

    def raise_problems(self):
        if self.problems:
            raise SweepError("\n".join(self.problems))

    # ---- keys and types

    def check_keys(self):
        self.check_table((), self.data, TOP)
        for stage in OVERRIDES:
            self.check_settings((stage,), self.data.get(stage))
        for kind, keys in ENTRIES.items():
            entries = self.data.get(kind)
            if not isinstance(entries, list):
                continue
            for i, entry in enumerate(entries):
                self.check_table((kind, i), entry, keys)
                for stage in ("cluster", *STAGES):
                    if kind == "model" and isinstance(entry, dict):
                        self.check_settings((kind, i, stage), entry.get(stage))
                for key in ("name", {"model": "path", "queries": "file"}.get(kind, "name")):
                    if isinstance(entry, dict) and key not in entry:
                        self.problem((kind, i), f"an entry without {key}")
        if "compare" in self.data:
            comparison.check_keys(self, ("compare",), self.data["compare"])
        self.check_sizes()
        for kind in ("output", *ENTRIES):
            if kind not in self.data and (kind != "model" or "train" not in self.data):
                self.problem((), f"no {kind}" if kind == "output" else f"no [[{kind}]]")

    def check_settings(self, place, table):
        """The table of a stage takes its options and those of the cluster."""
        if isinstance(table, dict) and place[-1] == "validate":
            validation.check_keys(self, place, table)
        elif isinstance(table, dict):
            of_cluster = {key: row for key, row in CLUSTER.items() if (place[-1], key) != ("train", "pipeline")}
            own = FAMILY if place == ("train",) else {}
            self.check_table(place, table, {**of_cluster, **STAGES.get(place[-1], {}), **own})

    def check_sizes(self):
        """[train.sizes.NAME]: keys of a config.json, and tables of the stages."""
        sizes = self.data.get("train", {})
        sizes = sizes.get("sizes", {}) if isinstance(sizes, dict) else {}
        for name, entry in sizes.items() if isinstance(sizes, dict) else []:
            place = ("train", "sizes", name)
            if not isinstance(entry, dict):
                self.problem(place, "not a table")
                continue
            for stage in OVERRIDES:
                if not isinstance(entry.get(stage, {}), dict):
                    self.problem(place + (stage,), f"it takes {TABLE}")
                self.check_settings(place + (stage,), entry.get(stage))

    def check_table(self, place, table, keys):
        if not isinstance(table, dict):
            return self.problem(place, "not a table")
        for name, value in table.items():
            if name not in keys:
                near = difflib.get_close_matches(name, keys, 1)
                self.problem(place + (name,), "unknown key" + (f'; did you mean "{near[0]}"?' if near else ""))
                continue
            takes = keys[name].takes
            if takes is TABLE:
                wrong = None if isinstance(value, dict) else TABLE
            elif takes is TABLES:
                right = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
                wrong = None if right else f"{TABLES}, [[{name}]]"
            else:
                wrong = takes(value)
            if wrong:
                self.problem(
                    place + (name,), f"it takes {wrong}" + ("" if takes in (TABLE, TABLES) else f", not {value!r}")
                )
        return None

    # ---- models, corpora, query sets

    def absolute(self, path):
        return os.path.normpath(os.path.join(self.folder, os.path.expanduser(path)))

    def named(self, kind, read):
        found = {}
        for i, entry in enumerate(self.data.get(kind, [])):
            if self.check_name((kind, i, "name"), entry["name"], found, kind == "model"):
                found[entry["name"]] = read((kind, i), entry)
        return found

    def check_name(self, place, name, found, is_model):
        """Is it another than those that were found, and one that a folder of the output may have?"""
        if name in found:
            self.problem(place, f'"{name}" is there twice')
        elif is_model and name in ("tokens", "queries", "log", "compare"):
            self.problem(place, f'"{name}" is the name of another folder of the output')
        else:
            return True
        return False

    def read_model(self, place, entry):
        path, tokenizer, text = self.absolute(entry["path"]), "", None
        try:
            path = checkpoint_folder(path)
            if not os.path.isdir(path):
                raise UserError(f'no folder "{path}"')
            if not any(os.path.exists(os.path.join(path, name)) for name in ("config.json", "adapter_config.json")):
                raise UserError(f'"{path}" has no config.json')
            if not glob.glob(os.path.join(glob.escape(path), "*.safetensors")):
                raise UserError(f'"{path}" has no *.safetensors')
            text = TextModel(path) if self.has_text() else None
            file = model_file(path, "tokenizer.json")
            tokenizer = hash_file(file) if os.path.exists(file) else ""
        except UserError as error:
            self.problem(place + ("path",), str(error))
        overrides = {key: value for key, value in entry.items() if key not in ("name", "path")}
        return Model(entry["name"], path, tokenizer, text, overrides, place, None)

    # ---- models that are to be trained

    def read_sizes(self):
        if "train" not in self.data:
            return {}
        sizes, files = self.data["train"].get("sizes", {}), {}
        if not sizes:
            self.problem(("train",), "it has no [train.sizes.NAME]: which models?")
        if "tokenizer" in self.data["train"]:
            files = self.read_tokenizer(("train", "tokenizer"), self.absolute(self.data["train"]["tokenizer"]))
        elif self.has_text():
            self.problem(("train",), "it has no tokenizer, the folder of tokenizer.json, and there is text to tokenize")
        named, found = [entry["name"] for entry in self.data.get("model", [])], {}
        for name, entry in sizes.items():
            place = ("train", "sizes", name)
            wrong = TOP["name"].takes(name)
            if wrong:
                self.problem(place, f"the model's name is {wrong}")
            elif self.check_name(place, name, named, True):
                found[name] = self.read_size(place, name, entry, files)
        return found

    def read_tokenizer(self, place, folder):
        files = family.tokenizer_files(folder)
        if "tokenizer.json" not in files:
            self.problem(place, f'no "{os.path.join(folder, "tokenizer.json")}"')
        return files

    def read_size(self, place, name, entry, files):
        """The model of a size: the config.json that it will have, and what of the tokenizer is known."""
        overrides = {key: value for key, value in entry.items() if key in OVERRIDES}
        own = {key: value for key, value in entry.items() if key not in overrides}
        config, text, tokenizer = {**self.data["train"].get("base", {}), **own}, None, ""
        try:
            json.dumps(config)
            if "tokenizer.json" in files:
                config, text = family.complete(config, files["tokenizer.json"])
                tokenizer = text.hash
        except UserError as error:
            self.problem(place, str(error))
        except TypeError:
            self.problem(place, "a date or a time is nothing that a config.json has")
        folder = os.path.join(self.output, name)
        planned = family.Planned(os.path.join(folder, "config"), config, files)
        return Model(name, os.path.join(folder, "model"), tokenizer, text, overrides, place, planned)

    def has_text(self):
        """Is there anything to tokenize?  Then every model needs its tokenizer."""
        return any("text" in entry for entry in self.data["corpus"]) or any(
            not entry["file"].endswith(".h5") for entry in self.data["queries"]
        )

    def expand(self, place, patterns):
        """The files of paths and glob patterns, in order."""
        found = []
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            pattern = self.absolute(pattern)
            matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
            if not matches:
                self.problem(
                    place, f'"{pattern}" matches no file' if glob.has_magic(pattern) else f'no file "{pattern}"'
                )
            found += matches
        first = {}
        for i, path in enumerate(found):
            other = first.setdefault(file_identity(path), i)
            if other != i:
                self.problem(
                    place, f'"{path}" is there twice' + (f', also as "{found[other]}"' if found[other] != path else "")
                )
        return found

    def read_corpus(self, place, entry):
        if ("tokens" in entry) == ("text" in entry):
            self.problem(place, f'"{entry["name"]}" needs either tokens (*.h5) or text')
            return Corpus(entry["name"], [], [])
        tokens = self.expand(place + ("tokens",), entry.get("tokens", []))
        for path in tokens:
            if not h5py.is_hdf5(path):
                self.problem(place + ("tokens",), f'"{path}" is not an HDF5 file; give a corpus of text as text = ...')
        text = self.expand(place + ("text",), entry.get("text", []))
        sources, names = [], {}
        for path in text:
            try:
                source = corpora.open_source(path)
            except (UserError, UsageError) as error:
                self.problem(place + ("text",), str(error))
                continue
            if source.in_pieces and source.path in names.values():
                continue
            if source.name in names:
                self.problem(
                    place + ("text",), f'"{names[source.name]}" and "{path}" would both become "{source.name}.h5"'
                )
            names[source.name] = source.path if source.in_pieces else path
            sources.append((path, source.name))
        return Corpus(entry["name"], tokens, sources)

    def read_queries(self, place, entry):
        path = self.absolute(entry["file"])
        if not os.path.isfile(path):
            self.problem(place + ("file",), f'no file "{path}"')
        elif path.endswith(".h5") and not h5py.is_hdf5(path):
            self.problem(place + ("file",), f'"{path}" is not an HDF5 file')
        return Queries(entry["name"], path)

    # ---- settings of a stage for a model

    def settings(self, stage, model=None):
        """The stage's keys; later ones win: defaults, [cluster], [STAGE], [model.cluster], [model.STAGE]."""
        overrides = model.overrides if model else {}
        found = dict(CLUSTER_DEFAULTS)
        for table in (self.data, overrides):
            shared = table.get("cluster", {})
            found.update({key: value for key, value in shared.items() if key not in NOT_FOR.get(stage, ())})
            found.update(table.get(stage, {}))
        if model and model.planned and stage == "fit" and "corpus" in self.data["train"]:
            found.setdefault("corpus", self.settings("train", model)["corpus"])
        return found

    def is_prefiltered(self, model):
        """Only if the file has a table of it, of all models or of this one."""
        asked = "prefilter" in self.data or (model is not None and "prefilter" in model.overrides)
        return asked and self.settings("prefilter", model).get("enabled", True)

    def where(self, stage, model, key):
        """The place that gives a stage its key: of a model, or of all."""
        for place, table in [*([(model.place, model.overrides)] if model else []), ((), self.data)]:
            for name in (stage, "cluster"):
                if key in table.get(name, {}):
                    return place + (name, key)
        return (stage, key)

    def check_stages(self):
        for stage in STAGES:
            for model in [None, *self.models.values()]:
                if stage == "train" and (model is None or not model.planned):
                    continue
                for key, what in self.contradictions(stage, self.settings(stage, model)):
                    self.problem(self.where(stage, model, key), what)
                if stage == "score" and "candidates" in self.settings(stage, model) and self.is_prefiltered(model):
                    self.problem(self.where(stage, model, "candidates"), "it and [prefilter] exclude each other")
        for model in self.models.values():
            self.check_preconditioner(model)
        for stage, what in (("train", "are models trained"), ("fit", "are the factors fitted")):
            of_stage = [model for model in self.models.values() if stage != "train" or model.planned]
            if len(self.corpora) > 1 and any("corpus" not in self.settings(stage, model) for model in of_stage):
                self.problem(
                    (stage,), f"which corpus {what} on? [{stage}] corpus takes one of {', '.join(self.corpora)}"
                )
        for model in self.models.values():
            if model.planned:
                self.check_training(model)
        self.check_tokenizers()
        self.check_twice()
        validation.check(self)
        comparison.check(self)
        self.problems = list(dict.fromkeys(self.problems))

    def contradictions(self, stage, found):
        """(key, what is wrong) of a stage's settings together."""
        ranks, limit = found["nodes"] * found["ranks_per_node"], found.get("time")
        if ranks % found["pipeline"]:
            yield (
                "pipeline",
                (
                    f"{found['pipeline']} does not divide the {ranks} ranks "
                    f"({found['nodes']} nodes of {found['ranks_per_node']})"
                ),
            )
        if stage not in ("tokenize", "report") and limit and minutes(limit) * 60 <= found["warning_seconds"]:
            yield "time", f"{limit} is no longer than warning_seconds = {found['warning_seconds']}"
        if stage == "score" and found.get("shards", 1) > MOST_SHARDS:
            yield "shards", f"at most {MOST_SHARDS}"
        corpora = found.get("corpora", [])
        for key, name in [("corpora", name) for name in ([corpora] if isinstance(corpora, str) else corpora)] + [
            ("corpus", name) for name in (found.get("corpus"),) if name
        ]:
            if name not in self.corpora:
                yield key, f'no [[corpus]] is named "{name}"' + self.nearest(name)
        if "damping" in found and "damping_factor" in found:
            yield "damping", "it and damping_factor exclude each other"
        if "tolerance" in found and found.get("rank") != "auto":
            yield "tolerance", 'it needs rank = "auto"'
        for key in FILES:
            if key in found and not os.path.isfile(self.absolute(found[key])):
                yield key, f'no file "{self.absolute(found[key])}"'

    def check_preconditioner(self, model, place=None):
        """One that takes eigenbases takes those that are fitted.  place: of what asks for it, if not of the model's own settings."""
        fitted = self.settings("fit", model).get("preconditioner", STAGES["fit"]["preconditioner"].default)
        asked = self.settings("compress", model).get("preconditioner", fitted)
        if asked in ("ekfac", "shampoo", "kfac") and (asked == "shampoo") != (fitted == "shampoo"):
            self.problem(
                place or self.where("compress", model, "preconditioner"),
                f'"{asked}" cannot be had of factors that are fitted with preconditioner = "{fitted}"',
            )

    def check_training(self, model):
        found = self.settings("train", model)
        for corpus_ in self.heldout(model):
            if corpus_.name and corpus_.name == found.get("corpus"):
                self.problem(self.where("train", model, "heldout"), f'"{corpus_.name}" is what is trained on')
        ranks, slices = found["nodes"] * found["ranks_per_node"], found.get("slices", STAGES["train"]["slices"].default)
        if ranks > slices:
            self.problem(
                self.where("train", model, "slices"),
                f"{ranks} ranks share the {slices} slices of a step: slices = {ranks}",
            )
        if "epochs" in found and found.get("steps"):
            self.problem(self.where("train", model, "epochs"), "it and steps exclude each other")

    def heldout(self, model):
        """What a training's held-out loss is of: corpora by name, and token files as a corpus without one."""
        words = self.settings("train", model).get("heldout", [])
        found = []
        for word in words if isinstance(words, list) else [words]:
            files = [] if word in self.corpora else self.expand(self.where("train", model, "heldout"), word)
            found.append(self.corpora[word] if word in self.corpora else Corpus("", files, []))
        return found

    def nearest(self, name):
        near = difflib.get_close_matches(name, self.corpora, 1)
        return f'; did you mean "{near[0]}"?' if near else ""

    def check_twice(self):
        """Entries of two names that are one would do all their work twice.  A model may be there with other settings."""
        for kind, entries, what in (
            (
                "model",
                self.models,
                lambda m: (
                    repr(sorted(m.planned.config.items())) if m.planned else file_identity(m.path),
                    repr(sorted(m.overrides.items())),
                ),
            ),
            (
                "corpus",
                self.corpora,
                lambda c: tuple(file_identity(path) for path in c.tokens or [path for path, _ in c.text]),
            ),
            ("queries", self.queries, lambda q: file_identity(q.path)),
        ):
            first = {}
            for i, entry in enumerate(entries.values()):
                identity = what(entry)
                other = first.setdefault(identity, entry.name)
                if identity and other != entry.name:  # a corpus whose files are missing has none
                    self.problem(
                        entry.place if kind == "model" and entry.planned else (kind, i, "name"),
                        f'"{entry.name}" is the same as "{other}"'
                        + (", with the same settings" if kind == "model" else ""),
                    )

    def check_tokenizers(self):
        """Token and query files that were made before must be of every model's tokenizer."""
        for kind, files in (
            ("corpus", [c.tokens[:1] for c in self.corpora.values()]),
            ("queries", [[q.path] if q.path.endswith(".h5") else [] for q in self.queries.values()]),
        ):
            for i, paths in enumerate(files):
                for path in paths:
                    self.check_tokenizer((kind, i, "tokens" if kind == "corpus" else "file"), path)

    def check_tokenizer(self, place, path):
        try:
            with h5py.File(path, "r") as file:
                made_by = file.attrs.get("tokenizer_hash", "")
        except OSError:
            return  # reported where it was read
        for model in self.models.values():
            if model.tokenizer and made_by and made_by != model.tokenizer:
                self.problem(place, f'"{path}" was made with another tokenizer than that of "{model.name}"')
