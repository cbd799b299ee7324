"""What is compared: a table of methods, each with the options that it adds to the stages' own.

A new method is a row of METHODS.  Its scores are [sequence, query], higher where more training on the sequence should lower
the query's loss."""

import collections
import itertools

import numpy as np

from bregman.validate import peers
from bregman.validate.modules import words_of

# fit, compress, score: options of fit_factors, compress_queries and score_shards; damped: is a damping to be chosen;
# dampings: its own list of them, None: that of [methods]; modules: does it depend on the tracked modules; additive: are the scores of
# several modules the sum of theirs; terms: can it score single terms of the loss; peer: another tool that makes them, or None;
# make(experiment, method, modules, damping): its scores
Method = collections.namedtuple("Method", "label make fit compress score damped dampings modules additive terms peer")


def random_scores(experiment, _method, _modules, _damping):
    """Drawn anew for each query, the same in every run."""
    return np.random.default_rng([experiment.seed, 77]).normal(size=(experiment.n_sequences, experiment.n_queries))


def overlap(experiment, _method, _modules, _damping):
    return experiment.overlap_scores()


def influence(experiment, method, modules, damping):
    return experiment.influence_scores(method, modules, damping)["score"]


def cosine(experiment, method, modules, damping):
    """The dot product over the norm of the sequence's gradient; that of the query changes no order."""
    found = experiment.influence_scores(method, modules, damping)
    norm = found["gradient_norm"][:, None]
    return np.divide(found["score"], norm, out=np.zeros_like(found["score"]), where=norm > 0)


def _method(label, make=influence, damped=False, dampings=None, modules=True, peer=None, **options):
    fit, compress, score = (options.get(stage, {}) for stage in ("fit", "compress", "score"))
    terms, additive = make in (influence, random_scores), "refine" not in compress
    return Method(label, make, fit, compress, score, damped, dampings, modules, additive, terms, peer)


def _of_peer(label, peer):
    return _method(label, peers.scores, damped=True, peer=peer)


def solved(steps):
    """Influence by the Gauss-Newton matrix of all sequences itself: of a solve that is to converge."""
    refine = {"refine": "cg", "refine_sequences": "0:", "refine_steps": steps}
    return _method("solved", compress={"preconditioner": "ekfac", **refine}, damped=True)


PLAIN = {"compress": {"preconditioner": "identity"}, "score": {"gradient_norms": True}}  # both are of the same run


METHODS = {
    "random": _method("random", random_scores, modules=False),
    "bm25": _method("BM25", overlap, modules=False),
    "dot": _method("gradient dot product", **PLAIN),
    "cosine": _method("gradient cosine", cosine, **PLAIN),
    "diagonal": _method("diagonal Fisher", compress={"preconditioner": "diagonal"}, damped=True),
    "kfac": _method("K-FAC", compress={"preconditioner": "kfac"}, damped=True),
    "ekfac": _method("EK-FAC", compress={"preconditioner": "ekfac"}, damped=True),
    "shampoo": _method(
        "Shampoo", fit={"preconditioner": "shampoo"}, compress={"preconditioner": "shampoo"}, damped=True
    ),
    "lissa": _method(
        "LiSSA",
        compress={"preconditioner": "ekfac", "refine": "lissa", "refine_steps": 20},
        damped=True,
        dampings=(10, 100),
    ),
    "cg": _method(
        "EK-FAC + CG", compress={"preconditioner": "ekfac", "refine": "cg"}, damped=True, dampings=(10, 30, 100)
    ),
    "kronfluence": _of_peer("Kronfluence's EK-FAC", peers.KRONFLUENCE),
    "bergson": _of_peer("Bergson's EK-FAC", peers.BERGSON),
}
PEERS = {name: method.peer for name, method in METHODS.items() if method.peer}
DEFAULT = [name for name in METHODS if name not in PEERS]
REFERENCE = "ekfac"  # what others are compared with


class Row:
    """A method with modules: a row of a table."""

    def __init__(self, method, modules, dampings):
        self.method, self.modules = method, modules
        self.dampings = list(METHODS[method].dampings or dampings) if METHODS[method].damped else [None]

    @property
    def name(self):
        return f"{self.method}-{self.modules.replace(',', '+')}" if self.modules else self.method

    @property
    def label(self):
        return METHODS[self.method].label

    def scores(self, experiment, damping):
        return METHODS[self.method].make(experiment, METHODS[self.method], self.modules, damping)


def makes(name, modules):
    """Can the method score the modules?  Any of Bregman's own can."""
    peer = METHODS[name].peer
    return not peer or set(words_of(modules)) <= set(peer.tracks)


def rows(methods, modules, refined_modules=None):
    """Of all methods (a table as [methods]) with all modules that they can score, in the order of a table; refined_modules: those
    of refined solves, which take much longer."""
    names, dampings = methods["names"], methods["dampings"]
    refined = [name for name in names if "refine" in METHODS[name].compress]
    plain = [Row(name, "", dampings) for name in names if not METHODS[name].modules]
    pairs = [(m, name) for m, name in itertools.product(modules, names) if METHODS[name].modules and makes(name, m)]
    return plain + [
        Row(name, m, dampings) for m, name in pairs if name not in refined or m in (refined_modules or modules)
    ]
