"""The sections of a comparison's page: what was measured, against scale, along training and by method.

"The paper" is Grosse et al. 2023, "Studying Large Language Model Generalization with Influence Functions"."""

from dataclasses import dataclass, field

import numpy as np

from bregman.report import charts, tails
from bregman.report.compared import nan_mean
from bregman.report.estimates import Table, mean, median, ratio, ratio_change

FIRST_BM25 = 100
SPARSE = 2 / 3  # L2 / L1 of token scores, Grosse et al. 2023
PLAIN = "plain"  # the relation that others are compared with
THIRDS = ("first third", "middle third", "last third")
REJECTED = 0.1  # p of the goodness of fit, as Clauset, Shalizi & Newman have it
BETTER = 0.05  # p of a likelihood ratio
SHARES = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
FAMILIES = {"exponential": "exponential", "weibull": "Weibull", "log_normal": "log-normal"}
SCALE = "model, by parameters"
TRAINING = "checkpoint, in the order of training"


@dataclass
class Section:
    id: str
    title: str
    text: list  # paragraphs
    paper: str = ""  # what it corresponds to
    figures: list = field(default_factory=list)
    tables: list = field(default_factory=list)


def main_models(c):
    """The scales; of a file without any, all that it has."""
    return c.scales() or [model for model in c.models if model not in c.bm25()]


def against_scale(c, caption, y_label, series, level=None):
    """Figures over the scales, and BM25 where a series has it; none of a single scale."""
    models = main_models(c)
    if len(models) < 2:
        return []
    apart = c.bm25() if any(value is not None for _, values in series for value in values[len(models) :]) else []
    every = models + apart
    places = charts.Places([m.name for m in every], [c.parameters[m.row] for m in every], len(apart))
    return charts.against(caption, (SCALE, y_label), places, series, level)


def compared_pairs(c):
    """The largest model and what it is compared with: the smallest, and BM25."""
    scales = c.scales()
    return [(scales[-1], other) for other in [*scales[:1] * (len(scales) > 1), *(c.bm25() if scales else [])]]


def changes(c, id, heads, rows):
    """A table of differences, each query's with itself: from the smallest model to the largest, and from BM25 to that.

    rows: [(labels, {column: values [model, query]})]"""
    columns = list(dict.fromkeys(column for _, measures in rows for column in measures))
    table = Table(id, "Differences, query by query", [*heads, "difference"], columns)
    for labels, measures in rows:
        for model, other in compared_pairs(c):
            cells = [mean(values[model.row] - values[other.row]) for values in measures.values()]
            if any(cell is not None for cell in cells):
                table.add((*labels, f"{model.name} \u2212 {other.name}"), cells)
    return table


# ---------------------------------------------------------------- overlap


def overlap_measures(c):
    """{column: values [model, query]}"""
    place = c.top["bm25_place"]
    return {
        "n-gram overlap": c.over_places("overlap"),
        "longest common run (tokens)": c.over_places("run"),
        f"among the first {FIRST_BM25} by BM25": c.share_of_places((place >= 1) & (place <= FIRST_BM25), True),
    }


def measure_table(table, measures, models, rows_of):
    """A row for each (labels, queries) of rows_of and model, a column for each measure."""
    for labels, queries in rows_of:
        for model in models:
            cells = [mean(values[model.row, queries]) for values in measures.values()]
            if any(cell is not None for cell in cells):
                table.add((*labels, model.name), cells)
    return table


def series_of(table, column, models):
    """[(labels but the model's, the column's value of each model)] of a table whose last label is the model."""
    found = {}
    for labels, cells in table.rows:
        found.setdefault(", ".join(labels[:-1]), {})[labels[-1]] = cells[column]
    return [(name, charts.values_of(of.get(model.name) for model in models)) for name, of in found.items()]


def overlap(c):
    measures, models = overlap_measures(c), main_models(c) + c.bm25()
    every = measure_table(
        Table("overlap", f"The first {c.k}: what they share with the query in letters", ["model"], list(measures)),
        measures,
        models,
        [((), c.rows_of_kind())],
    )
    figures = []
    for column, name in enumerate(measures):
        figures += against_scale(c, f"{name}: mean of the first {c.k}", name, series_of(every, column, models))
    return Section(
        "overlap",
        "Overlap with the query",
        [
            f"N-gram overlap is the share of the query's inverse document frequency, over its n-grams, that is in n-grams of "
            f"the sequence too; the longest run is of tokens in common. All are means over a query's first {c.k} sequences, then over "
            "queries. BM25 ranks by such overlap alone: what a model does that BM25 does as well is no sign of abstraction."
        ],
        "on improvement with model scale it finds that the top sequences of small models overlap with the query in words, "
        "and those of large models in subject",
        figures,
        [every, changes(c, "overlap-changes", [], [((), measures)])],
    )


# ---------------------------------------------------------------- relations

RELATION_COLUMNS = (
    "pairs",
    "percentile",
    "z",
    "best place (median)",
    "positive influence / chance",
    "share of first k",
)


def relation_cells(c, model, pairs):
    of = {name: values[model.row, pairs] for name, values in c.pair.items()}
    count = c.per_query["count"][model.row, c.pair_query[pairs]]
    chance = np.divide(of["scored"], count, out=np.full(len(pairs), np.nan), where=count > 0)
    known = int(np.isfinite(of["percentile"]).sum())
    return [
        known,
        mean(of["percentile"]),
        mean(of["z"]),
        median(of["place"]),
        ratio(of["positive"], np.where(of["scored"] > 0, chance, np.nan)),
        mean(of["top"]),
    ]


def relation_table(c, id, title, models, by_kind=False):
    """A row for each relation, model and, where asked for, kind; then only of relations that several kinds have."""
    table = Table(
        id, title, ["relation", "kind", "model"] if by_kind else ["relation", "model"], list(RELATION_COLUMNS)
    )
    for relation in c.relations():
        kinds = list(dict.fromkeys(k for k, r in zip(c.pair_kind, c.relation) if r == relation)) if by_kind else [None]
        if by_kind and len(kinds) < 2:
            continue
        for kind in kinds:
            for model in models:
                labels = (relation, kind, model.name) if by_kind else (relation, model.name)
                table.add(labels, relation_cells(c, model, c.pairs_of(relation, kind)))
    return table


def relations(c):
    models = main_models(c) + c.bm25()
    every = relation_table(c, "relations", "Documents that are related to a query", models)
    kinds = relation_table(c, "relations-by-kind", "The same by kind of query", models, by_kind=True)
    of_pairs = {"percentile": "percentile", "z": "z", RELATION_COLUMNS[5]: "top"}
    rows = [
        ((relation,), {column: c.pair[name][:, c.pairs_of(relation)] for column, name in of_pairs.items()})
        for relation in c.relations()
    ]
    figures = []
    for column, level in ((1, 0.5), (2, 0.0), (4, 1.0), (5, None)):
        name = RELATION_COLUMNS[column]
        figures += against_scale(c, f"Related documents: {name}", name, series_of(every, column, models), level)
    return Section(
        "relations",
        "Related documents",
        [
            "How high the documents stand that the query file names as related. Percentile: share of all other sequences with a "
            "lower score; 0.5 by chance. z: their mean score less that of all sequences, in standard deviations of all. Best place: "
            "of the highest of them, from 1. Positive influence / chance: their share of all positive influence over their share of "
            "the scored sequences, a ratio of means over queries; 1 by chance. Thin lines in the figures are chance."
        ],
        "what it says on cross-lingual influence, where relations cross languages; on improvement with model scale, where "
        "they are paraphrases; on memorization, where they are word for word",
        figures,
        [every, changes(c, "relations-changes", ["relation"], rows), kinds],
    )


def word_order(c):
    """None where no query has both the plain relation and another."""
    plain = {int(c.pair_query[p]): p for p in c.pairs_of(PLAIN)}
    models, columns = main_models(c) + c.bm25(), ["queries", f"mean influence / that of {PLAIN}"]
    table = Table(
        "word-order", f"Influence beside that of the relation \u201c{PLAIN}\u201d", ["relation", "model"], columns
    )
    differences = Table("word-order-changes", "Differences, query by query", ["relation", "difference"], columns[1:])
    for relation in c.relations():
        pairs = [(p, plain[int(c.pair_query[p])]) for p in c.pairs_of(relation) if int(c.pair_query[p]) in plain]
        if relation == PLAIN or not pairs:
            continue
        own, other = (np.array(side) for side in zip(*pairs))
        for model in models:
            above, below = c.pair["mean"][model.row, own], c.pair["mean"][model.row, other]
            known = int((np.isfinite(above) & np.isfinite(below)).sum())
            table.add((relation, model.name), [known, ratio(above, below)])
        for model, other_model in compared_pairs(c):
            sides = (c.pair["mean"][m.row, of] for m in (model, other_model) for of in (own, other))
            differences.add((relation, f"{model.name} \u2212 {other_model.name}"), [ratio_change(*sides)])
    if not table:
        return None
    return Section(
        "word-order",
        "Word order and other changes",
        [
            f"The mean score of related documents over that of the same query's documents of the relation \u201c{PLAIN}\u201d: a ratio of means "
            "over the queries that have both. 1: as much influence; 0: none. A dash where the plain documents' mean is not above 0; no "
            "interval where that of a resample is not."
        ],
        "on sensitivity to word ordering it finds that influence decays to near zero where the order of key phrases is flipped",
        against_scale(c, f"Mean influence over that of \u201c{PLAIN}\u201d", "ratio", series_of(table, 1, models), 1.0),
        [table, differences],
    )


# ---------------------------------------------------------------- kinds of query


def kinds(c):
    overlaps, models = overlap_measures(c), main_models(c) + c.bm25()
    measures = {
        "loss (nats a token)": c.per_query["loss"],
        "top 1 % share": c.per_query["top_percent"],
        "n-gram overlap": overlaps["n-gram overlap"],
        "longest common run (tokens)": overlaps["longest common run (tokens)"],
    }
    rows = [((kind,), c.rows_of_kind(kind)) for kind in c.kinds()]
    table = measure_table(Table("kinds", "By kind of query", ["kind", "model"], list(measures)), measures, models, rows)
    figures = []
    for column, name in enumerate(measures):
        figures += against_scale(c, f"{name}, by kind of query", name, series_of(table, column, models))
    by_kind = [((kind,), {name: values[:, queries] for name, values in measures.items()}) for (kind,), queries in rows]
    return Section(
        "kinds",
        "Kinds of query",
        [
            "Loss is the model's own on the query's completion: a model that has not learnt a completion has little to attribute, so "
            "read all else beside it. Top 1 % share: of all positive influence, what the best 1 % of the sequences have."
        ],
        "",
        figures,
        [table, changes(c, "kinds-changes", ["kind"], by_kind)],
    )


# ---------------------------------------------------------------- layers


def depth_of(names):
    """[(part of the model, relative depth or None)] of its layers by their names: blocks have numbers."""
    blocks = sorted((int(n) for n in names if n.isdecimal()))
    place = {n: (i + 0.5) / len(blocks) for i, n in enumerate(blocks)}
    return [(THIRDS[int(3 * place[int(n)])], place[int(n)]) if n.isdecimal() else (n, None) for n in names]


def layer_parts(c, models):
    """({part: values [model, query]}) in the order of the model."""
    found, shape = {}, (len(c.models), len(c.queries))
    for model in models:
        names, share = c.layers[model.row]
        parts = [part for part, _ in depth_of(names)]
        for part in dict.fromkeys(parts):
            values = found.setdefault(part, np.full(shape, np.nan))
            values[model.row] = share[[p == part for p in parts]].sum(0)
    order = ["embedding", *THIRDS, "head"]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def profile(c, models, kind, table):
    """[(model, points)] of the mean share of each block times the number of blocks, which go into the table as well."""
    series, queries = [], c.rows_of_kind(kind)
    for model in models:
        names, share = c.layers[model.row]
        depths = depth_of(names)
        n, points = sum(d is not None for _, d in depths), []
        for (_, depth), name, values in zip(depths, names, nan_mean(share[:, queries])):
            table.add((kind or "all", model.name, name), [float(depth) if depth else None, float(values)])
            if depth is not None and np.isfinite(values):
                points.append((depth, n * float(values)))
        series.append((model.name, points))
    return series


def layers(c):
    """None where no model has layers."""
    models = [m for m in main_models(c) if c.layers[m.row][0]]
    if not models:
        return None
    parts = layer_parts(c, models)
    table = Table("layers", "Share of the influence by part of the model", ["kind", "model"], list(parts))
    kinds = [None, *c.kinds()] if len(c.kinds()) > 1 else [None]
    measure_table(table, parts, models, [((kind or "all",), c.rows_of_kind(kind)) for kind in kinds])
    values = Table(
        "layer-profile", "Mean share of each layer", ["kind", "model", "layer"], ["depth", "share"], folded=True
    )
    figures = []
    for kind in kinds:
        caption = f"Share of a block, over an equal one: {kind or 'all queries'}"
        series = profile(c, models, kind, values)
        figures.append(charts.curves(caption, ("relative depth", "share \u00d7 blocks"), series))
    return Section(
        "layers",
        "Layers",
        [
            f"Where in the model the influence of a query's first {c.k} sequences comes from: shares of their summed scores, which "
            "add up to 1 and may be below 0. Thirds are of the model's blocks. In the figures shares are multiplied by the number of "
            "blocks, so that models of different depth compare: 1 is an equal share."
        ],
        "what it says on layerwise attribution",
        [figure for figure in figures if figure],
        [table, values],
    )


# ---------------------------------------------------------------- the tail


def fitted_tails(c, models):
    """{(model's row, query): fit}, of those that can be fitted."""
    fits = {(m.row, q): tails.fit(c.tail[m.row, q]) for m in models for q in range(len(c.queries))}
    return {place: fit for place, fit in fits.items() if fit}


def tail_measures(c, fits):
    """{column: values [model, query]}"""
    shape = len(c.models), len(c.queries)

    def of(value):
        values = np.full(shape, np.nan)
        for place, fit in fits.items():
            values[place] = value(fit)
        return values

    def better(name, sign):
        """Is the power law (+1) or the other family (-1) significantly better?"""
        return of(lambda fit: fit["against"][name]["p"] < BETTER and sign * fit["against"][name]["ratio"] > 0)

    sparsity = c.top["sparsity"]
    return {
        "exponent": of(lambda fit: fit["exponent"]),
        f"fit not rejected (p \u2265 {REJECTED})": of(lambda fit: fit["p"] >= REJECTED),
        "better than exponential": better("exponential", 1),
        **{f"{name} is better": better(key, -1) for key, name in FAMILIES.items()},
        "top 1 % share": c.per_query["top_percent"],
        f"first {c.k}: on a token or two": c.share_of_places(sparsity > SPARSE, np.isfinite(sparsity)),
    }


def fit_table(c, models, fits):
    columns = ["exponent", "x_min", "scores", "KS distance", "p"]
    columns += [f"{name}: {what}" for name in FAMILIES.values() for what in ("log ratio", "p")]
    table = Table("tail-fits", "Each query's fit", ["model", "query"], columns, folded=True)
    for model in models:
        for q, query in enumerate(c.queries):
            fit = fits.get((model.row, q))
            if fit:
                against = [fit["against"][f][what] for f in FAMILIES for what in ("ratio", "p")]
                table.add((model.name, query), [*(fit[k] for k in ("exponent", "x_min", "n", "ks", "p")), *against])
    return table


def tail_shape(c, models, fits):
    """(figure, table) of one query's tail by model: the query of the median exponent, by the last model that has one."""
    last = next((m for m in reversed(models) if any(row == m.row for row, _ in fits)), None)
    if last is None:
        return None, Table("tail-shape", "", [], [])
    exponents = sorted((fit["exponent"], q) for (row, q), fit in fits.items() if row == last.row)
    query = exponents[(len(exponents) - 1) // 2][1]
    name = c.queries[query]
    table = Table(
        "tail-shape", f"Score over the smallest of the tail, query {name}", ["share of the tail"], [], folded=True
    )
    series, columns = [], {}
    for model in models:
        if (model.row, query) in fits:
            values = c.tail[model.row, query]
            values = np.sort(values[np.isfinite(values) & (values > 0)])[::-1]
            shown = [s for s in SHARES if s * values.size >= 1]
            places = np.unique(np.geomspace(1, values.size, 60).astype(int))
            points = np.log10(values[places - 1] / values[-1]), np.log10(places / values.size)
            series.append((model.name, [(float(x), float(y)) for x, y in zip(*points)]))
            columns[model.name] = {s: float(values[int(s * values.size) - 1] / values[-1]) for s in shown}
    table.columns = list(columns)
    for share in SHARES:
        if any(share in of for of in columns.values()):
            table.add((f"{share:g}",), [of.get(share) for of in columns.values()])
    caption = f"Tail of query {name}: a power law is a straight line"
    labels = "score / smallest of the tail", "share of the tail \u2265 score"
    return charts.curves(caption, labels, series, powers=True), table


def tail(c):
    models = main_models(c)
    fits = fitted_tails(c, models)
    measures = tail_measures(c, fits)
    table = Table("tail", "The upper tail of the scores", ["model"], ["queries fitted", *measures])
    for model in models:
        n = sum(row == model.row for row, _ in fits)
        table.add((model.name,), [n, *(mean(values[model.row]) for values in measures.values())])
    kinds = measure_table(
        Table("tail-by-kind", "The same by kind of query", ["kind", "model"], list(measures)),
        measures,
        models,
        [((kind,), c.rows_of_kind(kind)) for kind in c.kinds()] if len(c.kinds()) > 1 else [],
    )
    figures = against_scale(c, "Exponent of the tail", "exponent", series_of(table, 1, models))
    shape, shares = tail_shape(c, models, fits)
    figures += [shape] if shape else []
    return Section(
        "tail",
        "The tail of the scores",
        [
            "A power law with density x to the minus exponent, fitted by maximum likelihood to each query's largest scores, above "
            f"the smallest of them that the file has; of fewer than {tails.LEAST} positive scores no fit is made. The smaller the "
            "exponent, the more of the influence a few sequences have. Not rejected: share of the queries whose fit a "
            f"Kolmogorov\u2013Smirnov test with {tails.DRAWS} drawn samples does not reject (Clauset, Shalizi & Newman 2009); that is no proof "
            f"of a power law. Better: share of the queries for which a likelihood ratio says so at p < {BETTER}. Against the exponential "
            "that is Vuong's test, of two sides. Weibull and log-normal have the power law as a limit: they can be better than it, never "
            "worse, and by chance they are for some 5 to 10 % of the queries. All families begin at the same smallest score.",
            f"On a token or two: share of the first {c.k} sequences whose token scores have L2 / L1 above 2/3; such matches are often "
            "spurious.",
        ],
        "on the sparsity of the influence distribution it finds that the tail is close to a power law",
        figures,
        [table, kinds, shares, fit_table(c, models, fits)],
    )


# ---------------------------------------------------------------- agreement


def matrix(c, name, title):
    names = [model.name for model in c.models]
    table = Table(f"agreement-{name}", title, ["model"], names, matrix=True)
    for model in c.models:
        table.add((model.name,), [mean(c.agreement[name][model.row, other.row]) for other in c.models])
    return table


def agreement(c):
    return Section(
        "agreement",
        "Agreement between models",
        [
            f"Rank correlation (Spearman) of two models' scores over the sequences that both have, and the share of the first {c.k} that "
            "they have in common; means over queries. Intervals are in the tooltips."
        ],
        "",
        [],
        [
            matrix(c, "spearman", "Rank correlation of all scores"),
            matrix(c, "top", f"Share of the first {c.k} in common"),
        ],
    )


# ---------------------------------------------------------------- checkpoints


def checkpoint_tables(c, size, models):
    """(agreement with the last one and what was learnt, related documents) of one size's checkpoints."""
    last, overlaps = models[-1], overlap_measures(c)
    by_step = Table(
        f"checkpoints-{size}",
        f"{size}: checkpoints beside {last.name}",
        ["checkpoint"],
        ["rank correlation with the last", f"share of first {c.k} in common", "loss (nats a token)", "n-gram overlap"],
    )
    for model in models:
        values = [c.agreement[name][model.row, last.row] for name in ("spearman", "top")]
        values += [c.per_query["loss"][model.row], overlaps["n-gram overlap"][model.row]]
        by_step.add((model.name,), [mean(v) for v in values])
    title = f"{size}: when does a model begin to use a document?"
    return by_step, relation_table(c, f"checkpoint-relations-{size}", title, models)


def checkpoints(c):
    """None where no model has checkpoints."""
    section = Section(
        "checkpoints",
        "Along training",
        [
            "Checkpoints of one model, the last of them the finished model where the file has it. That scores agree with those of the last "
            "one says that the ranking has settled; the loss says what is learnt by then."
        ],
    )
    for size, models in c.checkpoints().items():
        by_step, related = checkpoint_tables(c, size, models)
        places = charts.Places([m.step or "end" for m in models])
        columns = [charts.values_of(cells[i] for _, cells in by_step.rows) for i in range(4)]
        both = list(zip(by_step.columns[:2], columns))
        section.figures += charts.against(f"{size}: agreement with the last", (TRAINING, "agreement"), places, both)
        section.figures += charts.against(f"{size}: loss", (TRAINING, "nats a token"), places, [("loss", columns[2])])
        percentiles = series_of(related, 1, models)
        caption = f"{size}: percentile of related documents"
        section.figures += charts.against(caption, (TRAINING, "percentile"), places, percentiles, 0.5)
        section.tables += [by_step, related]
    return section if section.tables else None


# ---------------------------------------------------------------- methods


def methods(c):
    """None where all models are ranked in one way."""
    section = Section(
        "methods",
        "Role of the method",
        [
            "The same measures for the same model by different ways of scoring, and for BM25. What all of them show does not depend on "
            "how influence is estimated; what BM25 shows too needs no influence."
        ],
    )
    for of, models in c.methods().items():
        rows, measures = models + c.bm25(), overlap_measures(c)
        table = Table(f"methods-{of}", f"{of}: overlap by method", ["method"], list(measures))
        section.tables.append(measure_table(table, measures, rows, [((), c.rows_of_kind())]))
        section.tables.append(relation_table(c, f"method-relations-{of}", f"{of}: related documents by method", rows))
    return section if section.tables else None


def sections(c):
    every = (overlap, relations, word_order, kinds, layers, tail, agreement, checkpoints, methods)
    found = [section for section in (make(c) for make in every) if section]
    for section in found:
        section.tables = [table for table in section.tables if table]
    return [section for section in found if section.tables]


def overview(c):
    """Tables of what is compared."""
    models = Table("models", "Models", ["model"], ["what", "parameters", "sequences scored", "loss (nats a token)"])
    for m in c.models:
        what = ", ".join([f"step {m.step}"] * bool(m.step) + [f"by {m.method}"] * bool(m.method))
        what = what or ("lexical overlap" if m in c.bm25() else "scale")
        count = c.per_query["count"][m.row]
        scored = int(round(count.mean())) if count.size else None
        known = np.isfinite(c.parameters[m.row])
        parameters = int(round(c.parameters[m.row])) if known else None
        models.add((m.name,), [what, parameters, scored, mean(c.per_query["loss"][m.row])])
    kinds = Table("queries", "Queries by kind", ["kind"], ["queries", "related documents: query and relation"])
    for kind in c.kinds():
        kinds.add((kind,), [c.kind.count(kind), c.pair_kind.count(kind)])
    return [models, kinds]
