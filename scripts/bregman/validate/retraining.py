"""Scores against models that were trained again: linear datamodelling scores and removals (math.md M15)."""

import numpy as np

from bregman.errors import UserError
from bregman.validate import statistics
from bregman.validate.methods import METHODS, REFERENCE, rows
from bregman.validate.modules import words_of


def draw_subsets(n, count, keep, seed):
    """{name: sorted numbers}: count subsets of keep of n sequences, each drawn on its own."""
    random = np.random.default_rng([seed, keep])
    return {f"{k:03d}": np.sort(random.permutation(n)[:keep]).tolist() for k in range(count)}


def kept_sequences(kind, n, settings):
    """How many of n sequences a subset has."""
    own = settings["lds"]
    keep = n // 2 if kind == "halves" else n - round(n * own["drop"])
    what = f"{settings.path}: [lds] subsets: {own['subsets']} subsets"
    if own["subsets"] > n:
        raise UserError(f"{what} of a corpus of {n} sequences: give at most as many subsets as sequences")
    if keep in (0, n):
        raise UserError(f"{settings.path}: [lds] drop: {own['drop']:g} of {n} sequences is none, or all")
    return keep


def removed_sequences(n, settings):
    share = settings["qld"]["share"]
    if not 0 < round(n * share) < n:
        raise UserError(f"{settings.path}: [qld] share: {share:g} of {n} sequences is none, or all")
    return round(n * share)


def removed_for(n, settings):
    """The queries that the best are removed of: all n, or as many as the settings say, spread over them."""
    count = settings["qld"].get("queries", n)
    if count > n:
        raise UserError(f"{settings.path}: [qld] queries: {count} of {n} queries; give at most as many as there are")
    return [i * n // count for i in range(count)]


def check_sizes(sequences, settings, parts):
    """Can all that is asked for be drawn from these sequences?  Before anything is trained."""
    n = len(sequences)
    for kind in settings["lds"]["kinds"] if "lds" in parts else []:
        if f"{kind}_bank" not in settings["lds"]:
            kept_sequences(kind, n, settings)
    if "qld" in parts:
        removed_sequences(n, settings)
        if settings["qld"]["tokens"]:
            masked_terms(sequences, settings)


def reference_of(measured, row):
    """The row that another is compared with: EK-FAC of its modules, else of the first; of EK-FAC itself that of the first."""
    modules = [other.modules for other in measured if other.method == REFERENCE]
    if not modules:
        return None
    wanted = row.modules if row.modules in modules and row.method != REFERENCE else modules[0]
    return next(other for other in measured if other.method == REFERENCE and other.modules == wanted)


def compared(found, retrainings, seed, above=None):
    """Rows of a table: found {Row: values [query]} with means, intervals and paired differences from the reference; above: what all
    values are above, as bootstrap's, which their differences do not depend on."""
    table = []
    for row, values in found.items():
        entry = {"method": row.method, "label": row.label, "modules": row.modules, "per_query": values.tolist()}
        entry.update(statistics.summary(values, retrainings, seed, above))
        other = reference_of(found, row)
        entry["difference"] = None
        if other not in (None, row):
            paired = statistics.summary(values - found[other], retrainings, seed)
            entry["difference"] = {"from": other.name, **paired}
        table.append(entry)
    return table


def unflagged_means(table, queries):
    """The means without the queries that the model cannot predict, if there are any such and others."""
    good = [q for q, query in enumerate(queries) if not query["flag"]]
    for entry in table:
        some = 0 < len(good) < len(queries)
        entry["mean_of_unflagged"] = float(np.mean(np.array(entry["per_query"])[good])) if some else None


# ---------------------------------------------------------------- LDS


def check_members(kind, members, path, settings):
    """Of a bank that was there: can scores be compared with it, and is it of this kind?"""
    if len(np.unique(members, axis=0)) < 2:
        raise UserError(f'"{path}" has no two different subsets: a correlation is over two subsets or more')
    n, sizes = members.shape[1], members.sum(1)
    share = 0.5 if kind == "halves" else 1 - settings["lds"]["drop"]
    if (abs(sizes - n * share) > 1).any():
        raise UserError(
            f'{settings.path}: [lds] {kind}_bank: a subset of "{path}" has {int(sizes[0])} of {n} sequences, not '
            f"{100 * share:g} %: it is of another kind, or of another [lds] drop"
        )


def lds_of_kind(kind, experiment, settings, queries):
    own, seed = settings["lds"], settings[""]["seed"]
    given = own.get(f"{kind}_bank")
    if given:
        members, losses, seeds, path = experiment.read_bank(given)
        check_members(kind, members, path, settings)
    else:
        keep = kept_sequences(kind, experiment.n_sequences, settings)
        subsets = draw_subsets(experiment.n_sequences, own["subsets"], keep, seed)
        span = own["first_seed"], own["first_seed"] + own["seeds"]
        members, losses, seeds, path = experiment.bank(kind, subsets, span)
    n_subsets = losses.shape[0]
    found, chosen = {}, {}
    methods = settings["methods"]
    for row in rows(methods, methods["modules"], methods.get("refined_modules")):
        each = np.array([statistics.lds(row.scores(experiment, d), members, losses) for d in row.dampings])
        found[row], setting = statistics.cross_chosen(each, seed)
        chosen[row] = {
            "dampings": {f"{d:g}": float(values.mean()) for d, values in zip(row.dampings, each)}
            if row.dampings[0]
            else {},
            "chosen": [row.dampings[i] for i in setting] if row.dampings[0] else None,
        }
    table = compared(found, n_subsets, seed)
    for entry, row in zip(table, found):
        entry.update(chosen[row])
    unflagged_means(table, queries)
    return {
        "kind": kind,
        "bank": path,
        "subsets": n_subsets,
        "kept": int(members[0].sum()),
        "seeds": seeds,
        "retrainings": n_subsets * losses.shape[1],
        "note": statistics.why_no_interval(
            n_subsets, experiment.n_queries, "subsets"
        ),  # seeds are no points of a correlation
        "ceiling": ceiling(losses, seed),
        "rows": table,
    }


def ceiling(losses, seed):
    """The truth's agreement with itself, None with one seed."""
    halves = statistics.split_half(losses)
    if halves is None:
        return None
    found = statistics.summary(halves, losses.shape[0], seed)
    return {"split_half": found, "spearman_brown": statistics.spearman_brown(found["mean"])}


def lds(experiment, settings, queries):
    return {kind: lds_of_kind(kind, experiment, settings, queries) for kind in settings["lds"]["kinds"]}


# ---------------------------------------------------------------- removals


def dampings_of(row, experiment, settings, measured):
    """[query] the damping that was best for the LDS of the other half of the queries; where there is none, [qld] damping, or of a
    method with a list of its own the first of that.  None of a method without.  measured: what lds gave, or None."""
    if not METHODS[row.method].damped:
        return None
    entries = [e for kind in (measured or {}).values() for e in kind["rows"]]
    words = set(words_of(row.modules))
    entry = next((e for e in entries if e["method"] == row.method and set(words_of(e["modules"])) == words), None)
    if entry:
        return entry["chosen"]
    other = row.dampings[0] if METHODS[row.method].dampings else settings["qld"]["damping"]
    experiment.stages.tell(f"qld {row.name}: damping {other:g}, as these settings' lds has not measured which is best")
    return [other] * experiment.n_queries


def at_dampings(dampings, scores):
    """Of scores(damping) [query, ...] each query's at its own damping."""
    if dampings is None:
        return scores(None)
    each = {d: scores(d) for d in set(dampings)}
    return np.array([each[d][q] for q, d in enumerate(dampings)])


def rises(found, base, experiment, settings, queries):
    """Table of rises of each query's loss, in nats a token, above those of random removals.  found: {Row: (losses [removal, seed,
    query] of the models without each query's best, dampings)}; base: of the models without random ones."""
    own, seed = settings["qld"], settings[""]["seed"]
    asked = removed_for(experiment.n_queries, settings)
    tokens, base = experiment.query_tokens[asked], base.mean(1)[:, asked]
    values = {
        row: (np.array([losses[i, :, q].mean() for i, q in enumerate(asked)]) - base.mean(0)) / tokens
        for row, (losses, _) in found.items()
    }
    retrainings = len(asked) * own["seeds"]
    table = compared(values, retrainings, seed, base / tokens)
    for entry, (_, dampings) in zip(table, found.values()):
        entry["chosen"] = dampings
    unflagged_means(table, [queries[q] for q in asked])
    return {
        "queries": [experiment.names[q] for q in asked],
        "random_removals": own["random"],
        "seeds": list(range(own["first_seed"], own["first_seed"] + own["seeds"])),
        "retrainings": retrainings,
        "note": statistics.why_no_interval(retrainings, len(asked)),
        "rows": table,
    }


def qld_rows(settings):
    modules = [settings["qld"].get("modules", settings["methods"]["modules"][0])]
    return rows(settings["methods"], modules)


def qld(experiment, settings, queries, measured):
    """Trained without each query's best share of the sequences."""
    own, seed, n = settings["qld"], settings[""]["seed"], experiment.n_sequences
    removed = removed_sequences(n, settings)
    span = own["first_seed"], own["first_seed"] + own["seeds"]
    random = draw_subsets(n, own["random"], n - removed, seed + 1)
    base, found = experiment.bank("qld/random-removals", random, span)[1], {}
    for row in qld_rows(settings):
        dampings = dampings_of(row, experiment, settings, measured)
        scores = at_dampings(dampings, lambda d: row.scores(experiment, d).T)
        without = {}
        for q in removed_for(experiment.n_queries, settings):
            best = set(statistics.best_first(scores[q])[:removed].tolist())
            without[f"{q:04d}"] = [z for z in range(n) if z not in best]
        found[row] = experiment.bank(f"qld/{row.name}", without, span)[1], dampings
    made = {"removed": removed, "share": own["share"], **rises(found, base, experiment, settings, queries)}
    return {**made, "tokens": token_qld(experiment, settings, queries, measured) if own["tokens"] else None}


# ---------------------------------------------------------------- removals of loss terms


def masked_terms(sequences, settings):
    """(all terms of the training loss as (sequence, position), sequence after sequence; how many are masked)"""
    share = settings["qld"]["token_share"]
    terms = [(z, at) for z, ids in enumerate(sequences) for at in range(1, len(ids))]
    if not 0 < round(len(terms) * share) < len(terms):
        raise UserError(f"{settings.path}: [qld] token_share: {share:g} of {len(terms)} loss terms is none, or all")
    return terms, round(len(terms) * share)


def term_scores(row, experiment, damping):
    """[query, term]; random ones are drawn anew for each query."""
    if row.method == "random":
        return np.random.default_rng([experiment.seed, 78]).normal(
            size=(experiment.n_queries, sum(len(ids) - 1 for ids in experiment.sequences))
        )
    return experiment.term_scores(METHODS[row.method], row.modules, damping)


def token_qld(experiment, settings, queries, measured):
    """Trained on all sequences without each query's best share of the loss terms (M14, M15: per-token QLD)."""
    own, seed = settings["qld"], settings[""]["seed"]
    terms, removed = masked_terms(experiment.sequences, settings)
    span = own["first_seed"], own["first_seed"] + own["seeds"]
    random = draw_subsets(len(terms), own["random"], removed, seed + 2)
    random = {name: [terms[t] for t in drawn] for name, drawn in random.items()}
    base, found = experiment.masked_bank("qld-tokens/random-removals", random, span)[1], {}
    for row in qld_rows(settings):
        if not METHODS[row.method].terms:
            continue
        dampings = dampings_of(row, experiment, settings, measured)
        scores = at_dampings(dampings, lambda d: term_scores(row, experiment, d))
        masks = {
            f"{q:04d}": [terms[t] for t in statistics.best_first(scores[q])[:removed]]
            for q in removed_for(experiment.n_queries, settings)
        }
        found[row] = experiment.masked_bank(f"qld-tokens/{row.name}", masks, span)[1], dampings
    made = rises(found, base, experiment, settings, queries)
    return {"removed": removed, "share": own["token_share"], **made}
