"""One sequence left out: what is predicted of it, and what training again without it does (math.md M1, M2, M11).

Of a pair of a query and a sequence four numbers are compared, each the rise of the query's loss, in nats of its whole completion,
when the sequence's terms leave the training loss:

  ekfac    influence over N, the number of sequences: M11's objective with ε = -1, by EK-FAC
  pbo      the same by the objective's own response, solved for with the Gauss-Newton matrix of the whole corpus
  start    of models trained again from the start, each with a seed: with a mask, minus without
  halfway  likewise of models that go on from the middle of such a training

The models of a difference have the same seed, so the same order and batches.  The loss of a step is the mean over the terms that are
left in it, so that what a step's other sequences weigh grows by what the masked one's weighed: in expectation over orders that
moves the query by the mean influence of the others, the other way.  `shared` subtracts it from influence: (I(z, q) - that mean) / N.
"""

import os

import numpy as np

from bregman.errors import UserError
from bregman.validate import output, response, statistics
from bregman.validate.experiment import write_queries
from bregman.validate.methods import METHODS

OF_A_QUERY = 4  # pairs
PREDICTED = {"ekfac": "EK-FAC", "pbo": "PBO, solved"}
MEASURED = {"start": "from the start", "halfway": "from halfway"}
NAMES = {**PREDICTED, **{f"{k}_shared": f"{v}, less the others' gain" for k, v in PREDICTED.items()}, **MEASURED}
FEW = f"fewer than {statistics.LEAST_RETRAININGS} sequences are left out: no intervals"


def check_sizes(n, settings):
    """Can the part be measured on n sequences?"""
    pairs = settings["local"]["pairs"]
    if pairs > n:
        raise UserError(
            f"{settings.path}: [local] pairs: {pairs} pairs of a corpus of {n} sequences: each leaves out a sequence of its own; "
            f"give at most {n}"
        )


# ---------------------------------------------------------------- which pairs


def choose_pairs(scores, count):
    """[(query, sequence)] by scores [sequence, query] alone: count pairs, about OF_A_QUERY of a query, of queries spread evenly over
    the file.  A query's pairs are the sequences whose scores are nearest to values spread evenly from its highest score to
    its lowest, so its top and its most negative one too; no sequence is in two pairs: the next nearest is taken."""
    n_queries = min(scores.shape[1], -(-count // OF_A_QUERY))
    free, pairs = np.ones(len(scores), bool), []
    for i in range(n_queries):
        q, own = i * scores.shape[1] // n_queries, count // n_queries + (i < count % n_queries)
        for value in np.linspace(scores[:, q].max(), scores[:, q].min(), own):
            z = int(np.argmin(np.where(free, np.abs(scores[:, q] - value), np.inf)))
            free[z] = False
            pairs.append((q, z))
    return pairs


# ---------------------------------------------------------------- the four numbers


def whole(experiment, z):
    """All terms of a sequence's loss."""
    return [(z, position) for position in range(1, len(experiment.sequences[z]))]


def rises_from_start(experiment, masks, span):
    """[mask, seed, query]"""
    without = experiment.masked_bank("local/start", masks, span)[1]
    return without - experiment.masked_bank("local/start-all", {}, span)[1]


def rises_from_halfway(experiment, masks, span):
    rises = [
        experiment.halfway_bank("local/halfway", masks, seed) - experiment.halfway_bank("local/halfway", {}, seed)
        for seed in range(*span)
    ]
    return np.stack(rises, axis=1)


def solved_scores(experiment, settings, stages, queries):
    """(scores [sequence, query] of some queries by the solve at full rank, what it leaves of a gradient)"""
    folder = os.path.join(experiment.folder, "local", "pbo")
    asked = write_queries(os.path.join(folder, "queries.h5"), experiment.queries, queries)
    few = type(experiment)(settings, stages, folder, experiment.tokens, asked, [settings["local"]["modules"]])
    few.trained, few.compress = experiment.model(), {"rank": "full"}
    return response.solution(few, settings["local"])


def shared(scores, terms):
    """Influence less what the others gain: a sequence's terms [sequence] times the mean influence of a term of the others."""
    others = (scores.sum(0) - scores) / (terms.sum() - terms)[:, None]
    return scores - terms[:, None] * others


def numbers(pairs, asked, found):
    """{name: [pair]} of {name: [sequence, query of asked]}"""
    at = [z for _, z in pairs], [asked.index(q) for q, _ in pairs]
    return {name: values[at] for name, values in found.items()}


def predictions(experiment, settings, stages, ekfac, pairs):
    """({name: [pair]} in nats, of leaving out a sequence; what the solve leaves of a gradient)"""
    asked = sorted({q for q, _ in pairs})
    terms = np.array([len(ids) - 1 for ids in experiment.sequences])
    pbo, left = solved_scores(experiment, settings, stages, asked)
    found = {"ekfac": ekfac[:, asked], "pbo": pbo}
    found.update({f"{name}_shared": shared(scores, terms) for name, scores in found.items()})
    return {name: v / experiment.n_sequences for name, v in numbers(pairs, asked, found).items()}, left


def rises(experiment, pairs, span):
    """{name: [pair, seed]} of trainings."""
    masks = {f"{z:06d}": whole(experiment, z) for _, z in pairs}  # a file for each, in the order of pairs
    queries = [q for q, _ in pairs]
    found = {"start": rises_from_start(experiment, masks, span), "halfway": rises_from_halfway(experiment, masks, span)}
    return {name: np.array([each[i, :, q] for i, q in enumerate(queries)]) for name, each in found.items()}


def measure(experiment, settings, stages, queries):
    own, seed = settings["local"], settings[""]["seed"]
    ekfac = experiment.influence_scores(METHODS["ekfac"], own["modules"], own["damping"])["score"]
    pairs = choose_pairs(ekfac, own["pairs"])
    predicted, left = predictions(experiment, settings, stages, ekfac, pairs)
    span = own["first_seed"], own["first_seed"] + own["seeds"]
    measured = rises(experiment, pairs, span)
    truths = {"pbo": predicted["pbo"], **{name: each.mean(1) for name, each in measured.items()}}
    table = [
        {
            "query": experiment.names[q],
            "sequence": z,
            "predictable": not queries[q]["flag"],
            **{name: float(values[i]) for name, values in {**predicted, **truths}.items()},
            **{f"{name}_error": standard_error(each[i]) for name, each in measured.items()},
        }
        for i, (q, z) in enumerate(pairs)
    ]
    found = {
        "modules": own["modules"],
        "damping": own["damping"],
        "sequences": experiment.n_sequences,
        "steps": own["steps"],
        "residual": left,
        "seeds": list(range(*span)),
        "retrainings": len(pairs) * own["seeds"],
        "epochs": {"start": sum(experiment.epochs()), "halfway": experiment.epochs()[1]},
        "note": FEW if len(pairs) < statistics.LEAST_RETRAININGS else None,
        "reliability": {name: statistics.reliability(each) for name, each in measured.items()},
        "pairs": table,
        "compared": comparisons(predicted, truths, seed),
    }
    return {**found, "says": say(found)}


def standard_error(values):
    """Of the mean of values of seeds; None of one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


# ---------------------------------------------------------------- what they say of one another


def comparisons(predicted, truths, seed):
    """[{"predicted", "measured", "pearson", "spearman", "slope", ...}], each prediction with each truth but itself."""
    found = []
    for name, truth in truths.items():
        for other, values in predicted.items():
            if name == "pbo" and other != "ekfac":
                continue
            entry = {"predicted": other, "measured": name, "slope": statistics.slope(values, truth)}
            for kind, of in (("pearson", statistics.pearson), ("spearman", statistics.spearman)):
                few = len(truth) < statistics.LEAST_RETRAININGS
                interval = None if few else statistics.correlation_interval(of, values, truth, seed)
                entry[kind] = {"mean": float(of(values, truth)), "interval": interval}
            found.append(entry)
    return found


WORDS = ((0.9, "closely"), (0.7, "well"), (0.4, "in part"), (-2, "hardly"))
APART = 0.1  # of correlations that are said to differ


def how_well(found):
    """ "closely (r = 0.95 [0.9, 0.97])" """
    told, interval = output.with_interval(found, 2), found["interval"]
    if interval and interval[0] <= 0 <= interval[1]:
        return f"no better than chance might (r = {told})"
    if found["mean"] <= -WORDS[2][0]:
        return f"the wrong way round (r = {told})"
    return f"{next(word for least, word in WORDS if found['mean'] >= least)} (r = {told})"


def where_lost(by, kind):
    """Between the score and a training, which step loses more?  By the correlations, whose intervals stand beside them."""
    of_three = [by[key]["pearson"] for key in (("ekfac", "pbo"), ("ekfac", kind), ("pbo", kind))]
    if any(found["interval"] is None for found in of_three):
        return "of so few pairs it is not said which step loses more"
    near, ekfac, pbo = (found["mean"] for found in of_three)
    if pbo > ekfac + APART:
        return "EK-FAC's approximations lose part of what the objective's own response gets right"
    if ekfac > pbo + APART:
        return "EK-FAC's score does better than the exact response, so it is not for its nearness to the objective that it is of use here"
    if near > max(ekfac, pbo) + APART:
        return "the step from the objective to training loses more than EK-FAC's approximation of the objective does"
    return "neither step loses much more than the other"


def say_reliability(reliability, correlation):
    if reliability is None:
        return "With one seed it is not known how much of it would be there with another."
    told = f"{100 * reliability:.0f} % of the differences between pairs are the removals' own and not the seeds'"
    most = np.sqrt(reliability)
    if correlation > most:
        return f"{told}, by so few pairs and seeds that the correlation is larger than that allows for."
    return f"{told}, so that no prediction is to be expected above r = {output.number(most, 2)}."


def say_truth(found, by, kind):
    """A sentence or two on predictions of one kind of training."""
    ekfac, pbo, reliability = by["ekfac", kind], by["pbo", kind], found["reliability"][kind]
    lines = [
        f"Of what training {MEASURED[kind]} without the sequence does, EK-FAC tells the pairs' differences {how_well(ekfac['pearson'])}, "
        f"the objective's response {how_well(pbo['pearson'])}: {where_lost(by, kind)}.",
        f"For a nat that EK-FAC predicts the loss changes by {output.number(ekfac['slope'], 2)}, for one that the response predicts by "
        f"{output.number(pbo['slope'], 2)}.",
    ]
    lines.append(say_reliability(reliability, max(ekfac["pearson"]["mean"], pbo["pearson"]["mean"])))
    return " ".join(lines)


def say(found):
    """The numbers of this run in words, for who asks what a score has to do with training without a sequence."""
    by = {(e["predicted"], e["measured"]): e for e in found["compared"]}
    near = by["ekfac", "pbo"]
    first = (
        f"What EK-FAC approximates is the response of the proximal Bregman objective, and it follows that {how_well(near['pearson'])}, "
        f"with a slope of {output.number(near['slope'], 2)}."
    )
    if found["residual"] > 0.05:
        first += f" The solve has not converged: it leaves {100 * found['residual']:.0f} % of a gradient; give more steps or damping."
    return "\n".join([first, *(say_truth(found, by, kind) for kind in MEASURED)])


# ---------------------------------------------------------------- text


def _with_error(entry, name):
    error = entry[f"{name}_error"]
    return output.number(entry[name], 4) + ("" if error is None else f" ± {output.number(error, 4)}")


def text(found):
    head = (
        f"### A sequence left out: rise of the query's loss in nats, {len(found['pairs'])} pairs, {len(found['seeds'])} seeds; "
        f"{found['modules']}, damping {found['damping']:g} mean eigenvalues\n\nsolved in {found['steps']} steps, which leave "
        f"{found['residual']:.1g} of the gradient; from the start: {found['epochs']['start']} epochs, from halfway: the last "
        f"{found['epochs']['halfway']}, with an optimiser that begins afresh\n"
    )
    rows = [
        [e["query"], str(e["sequence"]), *(output.number(e[name], 4) for name in PREDICTED)]
        + [_with_error(e, name) for name in MEASURED]
        for e in found["pairs"]
    ]
    pairs = output.markdown(["query", "sequence", *PREDICTED.values(), *MEASURED.values()], rows)
    rows = [
        [NAMES[e["predicted"]], NAMES[e["measured"]], output.with_interval(e["pearson"]), output.with_interval(e["spearman"]),
         output.number(e["slope"])]
        for e in found["compared"]
    ]  # fmt: skip
    compared = output.markdown(["predicted", "measured", "Pearson", "Spearman", "slope"], rows)
    return "\n".join([head, pairs, compared, *output.noted(found), found["says"] + "\n"])
