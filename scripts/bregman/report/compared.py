"""A comparison of models (bregman/comparison) as arrays, and which of its models belong together."""

import re
from dataclasses import dataclass

import numpy as np

from bregman.report.inputs import InputFile, require

NAME = re.compile(r"(?P<size>[^@:]+)(@(?P<step>[^:]+))?(:(?P<method>.+))?", re.DOTALL)
BM25 = "bm25"
UNSAID = "(not said)"  # kind of a query whose kind is empty

PER_QUERY = ("loss", "count", "mean", "sd", "top_percent")
PER_PLACE = ("sequence", "score", "overlap", "run", "bm25_place", "sparsity")
PER_PAIR = ("scored", "mean", "z", "place", "percentile", "positive", "top")


@dataclass(frozen=True)
class Model:
    """A row of the file's models, by its name SIZE[@STEP][:METHOD]."""

    row: int
    name: str
    size: str
    step: str | None
    method: str | None

    @property
    def is_scale(self):
        return self.step is None and self.method is None and self.name != BM25


def parse_models(names, path):
    models = []
    for row, name in enumerate(names):
        found = NAME.fullmatch(name)
        require(found, f'model {name!r} is not named SIZE[@STEP][:METHOD]: "{path}"')
        models.append(Model(row, name, found["size"], found["step"], found["method"]))
    return models


def step_order(model):
    """Steps that are numbers by size, others after them as they are written."""
    try:
        return (0, float(model.step), "")
    except ValueError:
        return (1, 0.0, model.step)


class Comparison:
    """Everything in the file; arrays have its axes: model first, then query, place or other model."""

    def __init__(self, path):
        self.file = file = InputFile(path, "bregman/comparison")
        self.bm25_text = str(file.attribute("bm25", ""))
        self.corpus_sequences = int(file.attribute("corpus_sequences", 0))
        self.models = parse_models(file.strings("model"), path)
        self.parameters = file.read("parameters")
        self.queries = file.strings("query")
        self.kind = (
            [kind or UNSAID for kind in file.strings("kind")] if file.has("kind") else [UNSAID] * len(self.queries)
        )
        self.per_query = {name: file.read(name).astype(float) for name in PER_QUERY}
        self.top = {name: file.read(f"top/{name}") for name in PER_PLACE}
        self.k = self.top["sequence"].shape[2]
        self.tail = file.read("tail").astype(float)
        self.agreement = {name: file.read(f"agreement/{name}") for name in ("spearman", "top")}
        self._read_pairs()
        self._read_layers()

    def _read_pairs(self):
        if not self.file.has("pair/query"):  # no query has related documents
            none = np.zeros((len(self.models), 0))
            self.pair_query, self.relation, self.pair_kind = np.zeros(0, int), [], []
            self.pair = dict.fromkeys(PER_PAIR, none)
            return
        self.pair_query = self.file.read("pair/query").astype(int)
        self.relation = self.file.strings("pair/relation")
        self.pair = {name: self.file.read(f"pair/{name}").astype(float) for name in PER_PAIR}
        n = len(self.queries)
        require(
            not self.pair_query.size or self.pair_query.max() < n,
            f'"pair/query" names a query beyond the {n}: "{self.file.path}"',
        )
        self.pair_kind = [self.kind[q] for q in self.pair_query]

    def _read_layers(self):
        if not self.file.has("layer/count"):
            self.layers = [([], np.zeros((0, len(self.queries))))] * len(self.models)
            return
        counts, names = self.file.read("layer/count").astype(int), self.file.strings("layer/name")
        require(
            counts.sum() == len(names),
            f'"layer/count" adds up to {counts.sum()} where "layer/name" has {len(names)}: "{self.file.path}"',
        )
        share, ends = self.file.read("layer/share"), np.cumsum(counts)
        self.layers = [(names[end - n : end], share[end - n : end]) for n, end in zip(counts, ends)]

    # ------------------------------------------------------------ which models belong together

    def scales(self):
        """Models without step and method, from small to large where all parameters are known, else in the file's order."""
        found = [model for model in self.models if model.is_scale]
        known = all(np.isfinite(self.parameters[model.row]) for model in found)
        return sorted(found, key=lambda model: self.parameters[model.row]) if known else found

    def bm25(self):
        """[the row of BM25], or [] where the file has none."""
        return [model for model in self.models if model.name == BM25]

    def checkpoints(self):
        """{size: its models along training, the finished one last}, of sizes with at least two."""
        found = {}
        for model in sorted((m for m in self.models if m.step and not m.method), key=step_order):
            found.setdefault(model.size, []).append(model)
        for model in self.scales():
            if model.size in found:
                found[model.size].append(model)
        return {size: models for size, models in found.items() if len(models) > 1}

    def methods(self):
        """{what is ranked: [its models by several methods]}: of a size, or of a size at a step."""
        found = {}
        for model in self.models:
            if model.name != BM25:
                of = model.size + (f"@{model.step}" if model.step else "")
                found.setdefault(of, []).append(model)
        return {of: models for of, models in found.items() if any(m.method for m in models)}

    def kinds(self):
        """In the order in which they occur."""
        return list(dict.fromkeys(self.kind))

    def relations(self):
        return list(dict.fromkeys(self.relation))

    def rows_of_kind(self, kind=None):
        """Numbers of the queries of a kind; all without one."""
        return np.array([q for q, k in enumerate(self.kind) if kind in (None, k)], int)

    def pairs_of(self, relation, kind=None):
        return np.array(
            [p for p, (r, k) in enumerate(zip(self.relation, self.pair_kind)) if r == relation and kind in (None, k)],
            int,
        )

    # ------------------------------------------------------------ a value of each query, [model, query]

    def over_places(self, name):
        """Mean over a query's filled places of overlap or run; NaN where none is filled."""
        values = np.where(self.top["sequence"] >= 0, self.top[name].astype(float), np.nan)
        return nan_mean(values)

    def share_of_places(self, condition, known):
        """Share of those places that are filled and known for which the condition holds."""
        counted = (self.top["sequence"] >= 0) & known
        return nan_mean(np.where(counted, condition.astype(float), np.nan))


def nan_mean(values):
    """Along the last axis, of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(-1)
    return np.divide(np.where(known, values, 0).sum(-1), n, out=np.full(n.shape, np.nan), where=n > 0)
