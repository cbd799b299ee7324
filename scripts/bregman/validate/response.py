"""The proximal Bregman objective's response (math.md M11), and what each approximation of it costs.

The response to a sequence's weight, at weight 0, is g_q' (G + λ)^-1 g_z with the Gauss-Newton matrix G of the whole corpus.  It is
solved for by conjugate gradients (compress_queries --refine cg on every sequence, --rank full), which minimise the objective's
quadratic part; what is left of the gradient is reported.  Compared with it are the methods of the tables, and the same solve with
one approximation at a time."""

import os

from bregman.validate import output, statistics
from bregman.validate.methods import METHODS, makes, solved
from bregman.validate.modules import words_of
from bregman.validate.retraining import compared


class Named:
    """A row of the table that is not one of METHODS, or is one with other options."""

    def __init__(self, method, label, modules):
        self.method, self.label, self.modules, self.name = method, label, modules, method


def layers_of(experiment, modules):
    """Regular expressions of the modules' names, one for each that the factors have and the words of `modules` track."""
    experiment.influence_scores(METHODS["ekfac"], modules, 1)  # of which the names are read
    names = [name for word in words_of(modules) for name in experiment.layers(word)]
    return ["^" + name.replace(".", "\\.") + "$" for name in names]


def approximations(experiment, own, names):
    """{row: scores}: the methods at the same damping, and the solve with one approximation at a time."""
    modules, damping, exact = own["modules"], own["damping"], solved(own["steps"])
    rank = METHODS["ekfac"]._replace(compress={**METHODS["ekfac"].compress, "rank": own["rank"]})
    anew = {"seed": experiment.settings["fit"].get("seed", 0) + 1, "empirical_fisher": False}
    resampled = METHODS["ekfac"]._replace(fit=anew)
    found = {
        Named("block-diagonal", "solved, layers on their own", modules): sum(
            experiment.influence_scores(exact, layer, damping)["score"] for layer in layers_of(experiment, modules)
        ),
        Named("labels", "EK-FAC, labels sampled anew", modules): experiment.influence_scores(
            resampled, modules, damping
        )["score"],
        Named("rank", f"EK-FAC, rank {own['rank']}", modules): experiment.influence_scores(rank, modules, damping)[
            "score"
        ],
    }
    row = Named("damping-10", "solved, 10 times the damping", modules)
    found[row] = experiment.influence_scores(exact, modules, 10 * damping)["score"]
    for name in names:
        method = METHODS[name]
        if method.dampings or not makes(name, modules):
            continue  # of a solve: what is asked is the solve itself
        scores = method.make(experiment, method, modules, damping if method.damped else None)
        found[Named(name, method.label, modules if method.modules else "")] = scores
    return found


def solution(experiment, own):
    """(scores [sequence, query] of the solve that own has modules, damping and steps of; the largest share of a query's gradient
    that it leaves)"""
    exact = solved(own["steps"])
    scores = experiment.influence_scores(exact, own["modules"], own["damping"])["score"]
    return scores, float(experiment.residuals(exact, own["modules"], own["damping"]).max())


def measure(settings, stages, main, modules):
    """(experiment, result): of the scored model of `main`, with queries that may be fewer."""
    own = settings["pbo"]
    folder = os.path.join(settings.output, "pbo")
    experiment = type(main)(settings, stages, folder, main.tokens, own.get("queries", main.queries), modules)
    experiment.trained = main.model()
    experiment.compress = {"rank": "full"}
    truth, left = solution(experiment, own)
    rows = approximations(experiment, own, settings["methods"]["names"])
    found = {row: statistics.pearson(scores.T, truth.T) for row, scores in rows.items()}
    return experiment, {
        "measure": "pearson",
        "modules": own["modules"],
        "damping": own["damping"],
        "sequences": experiment.n_sequences,
        "steps": own["steps"],
        "residual": left,
        "note": statistics.why_no_interval(statistics.LEAST_RETRAININGS, experiment.n_queries),
        "rows": compared(found, statistics.LEAST_RETRAININGS, settings[""]["seed"]),
    }


def text(found):
    head = (
        f"### Response of the proximal Bregman objective, {found['modules']}, damping {found['damping']:g} mean eigenvalues, "
        f"{found['sequences']} sequences\n\nsolved in {found['steps']} steps, which leave {found['residual']:.1g} of the gradient\n"
    )
    rows = [[e["label"], e["modules"], output.with_interval(e)] for e in found["rows"]]
    return "\n".join([head, output.markdown(["scores", "modules", "Pearson correlation"], rows), *output.noted(found)])
