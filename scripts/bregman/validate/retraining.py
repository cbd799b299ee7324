"""Scores against models that were trained again: linear datamodelling scores and removals (math.md M15)."""

import numpy as np

from bregman.errors import UserError
from bregman.validate import statistics
from bregman.validate.methods import METHODS, REFERENCE, rows

FEW = f"fewer than {statistics.LEAST_RETRAININGS} retrainings: no intervals"


def draw_subsets(n, count, keep, seed):
    """{name: sorted numbers}: count subsets of keep of n sequences, each drawn on its own."""
    random = np.random.default_rng([seed, keep])
    return {f"{k:03d}": np.sort(random.permutation(n)[:keep]).tolist() for k in range(count)}


def kept_sequences(kind, n, settings):
    """How many of n sequences a subset has."""
    own = settings["lds"]
    keep = n // 2 if kind == "halves" else n - round(n * own["drop"])
    what = f"{settings.path}: [lds] subsets: {own['subsets']} subsets"
    if own["subsets"] < 2:
        raise UserError(f"{what}: a correlation is over two subsets or more")
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


def check_sizes(n, settings, parts):
    """Can all that is asked for be drawn from n sequences?  Before anything is trained."""
    for kind in settings["lds"]["kinds"] if "lds" in parts else []:
        if f"{kind}_bank" not in settings["lds"]:
            kept_sequences(kind, n, settings)
    if "qld" in parts:
        removed_sequences(n, settings)


def reference_of(measured, row):
    """The row that another is compared with: EK-FAC of its modules, else of the first; of EK-FAC itself that of the first."""
    modules = [other.modules for other in measured if other.method == REFERENCE]
    if not modules:
        return None
    wanted = row.modules if row.modules in modules and row.method != REFERENCE else modules[0]
    return next(other for other in measured if other.method == REFERENCE and other.modules == wanted)


def compared(found, retrainings, seed):
    """Rows of a table: found {Row: values [query]} with means, intervals and paired differences from the reference."""
    table = []
    for row, values in found.items():
        entry = {"method": row.method, "label": row.label, "modules": row.modules, "per_query": values.tolist()}
        entry.update(statistics.summary(values, retrainings, seed))
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


def lds_of_kind(kind, experiment, settings, queries):
    own, seed = settings["lds"], settings[""]["seed"]
    given = own.get(f"{kind}_bank")
    if given:
        members, losses, seeds, path = experiment.read_bank(given)
    else:
        keep = kept_sequences(kind, experiment.n_sequences, settings)
        subsets = draw_subsets(experiment.n_sequences, own["subsets"], keep, seed)
        span = own["first_seed"], own["first_seed"] + own["seeds"]
        members, losses, seeds, path = experiment.bank(kind, subsets, span)
    retrainings = losses.shape[0] * losses.shape[1]
    found, chosen = {}, {}
    for row in rows(settings["methods"]["names"], settings["methods"]["modules"], settings["methods"]["dampings"]):
        each = np.array([statistics.lds(row.scores(experiment, d), members, losses) for d in row.dampings])
        found[row], setting = statistics.cross_chosen(each, seed)
        chosen[row] = {
            "dampings": {f"{d:g}": float(values.mean()) for d, values in zip(row.dampings, each)}
            if row.dampings[0]
            else {},
            "chosen": [row.dampings[i] for i in setting] if row.dampings[0] else None,
        }
    table = compared(found, retrainings, seed)
    for entry, row in zip(table, found):
        entry.update(chosen[row])
    unflagged_means(table, queries)
    return {
        "kind": kind,
        "bank": path,
        "subsets": losses.shape[0],
        "kept": int(members[0].sum()),
        "seeds": seeds,
        "retrainings": retrainings,
        "note": FEW if retrainings < statistics.LEAST_RETRAININGS else None,
        "ceiling": ceiling(losses, seed),
        "rows": table,
    }


def ceiling(losses, seed):
    """The truth's agreement with itself, None with one seed."""
    halves = statistics.split_half(losses)
    if halves is None:
        return None
    found = statistics.summary(halves, losses.shape[0] * losses.shape[1], seed)
    return {"split_half": found, "spearman_brown": float(statistics.spearman_brown(found["mean"]))}


def lds(experiment, settings, queries):
    return {kind: lds_of_kind(kind, experiment, settings, queries) for kind in settings["lds"]["kinds"]}


# ---------------------------------------------------------------- removals


def removal_scores(row, experiment, settings, measured):
    """[sequence, query], each query's at the damping that was best for the LDS of the other half of the queries; where there is
    no such, at [qld] damping.  measured: what lds gave, or None; also the dampings."""
    own = settings["qld"]
    if not METHODS[row.method].damped:
        return row.scores(experiment, None), None
    entries = [e for kind in (measured or {}).values() for e in kind["rows"]]
    entry = next((e for e in entries if (e["method"], e["modules"]) == (row.method, row.modules)), None)
    dampings = entry["chosen"] if entry else [own["damping"]] * experiment.n_queries
    scores = np.empty((experiment.n_sequences, experiment.n_queries))
    for d in set(dampings):
        which = [q for q, other in enumerate(dampings) if other == d]
        scores[:, which] = row.scores(experiment, d)[:, which]
    return scores, dampings


def qld(experiment, settings, queries, measured):
    """Rise of each query's loss, in nats a token, after training without its best share of the sequences, above the rise after
    removals of as many random ones."""
    own, seed, n = settings["qld"], settings[""]["seed"], experiment.n_sequences
    removed = removed_sequences(n, settings)
    span = own["first_seed"], own["first_seed"] + own["seeds"]
    random = draw_subsets(n, own["random"], n - removed, seed + 1)
    base = experiment.bank("qld/random-removals", random, span)[1].mean((0, 1))
    names, modules = settings["methods"]["names"], [own.get("modules", settings["methods"]["modules"][0])]
    found, dampings = {}, {}
    for row in rows(names, modules, settings["methods"]["dampings"]):
        scores, dampings[row] = removal_scores(row, experiment, settings, measured)
        without = {}
        for q in range(experiment.n_queries):
            best = set(statistics.best_first(scores[:, q])[:removed].tolist())
            without[f"{q:04d}"] = [z for z in range(n) if z not in best]
        losses = experiment.bank(f"qld/{row.name}", without, span)[1].mean(1)
        found[row] = (losses.diagonal() - base) / experiment.query_tokens
    retrainings = experiment.n_queries * own["seeds"]
    table = compared(found, retrainings, seed)
    for entry, row in zip(table, found):
        entry["chosen"] = dampings[row]
    unflagged_means(table, queries)
    return {
        "removed": removed,
        "share": own["share"],
        "random_removals": own["random"],
        "seeds": list(range(*span)),
        "retrainings": retrainings,
        "note": FEW if retrainings < statistics.LEAST_RETRAININGS else None,
        "rows": table,
    }
