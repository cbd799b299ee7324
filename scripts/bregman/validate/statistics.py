"""The measures of truth and their uncertainty (math.md M15), of arrays; no file is read here."""

import itertools

import numpy as np

LEAST_RETRAININGS = 8  # of which an interval is given
LEAST_QUERIES = 5  # likewise
RESAMPLES = 10000
ENDS = (0.025, 0.975)  # of an interval
AT_ONCE = 1000  # of them: all would take much memory where there are many queries
PAIR_RESAMPLES = 2000
MOST_SPLITS = 200


def ranks(values):
    """Ranks along the last axis, from 1; equal values share their mean rank."""
    values = np.asarray(values, float)
    if values.ndim > 1:
        return np.array([ranks(row) for row in values]).reshape(values.shape)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def pearson(a, b):
    """Correlations along the last axis; 0 where one side is the same everywhere, and so tells nothing."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (np.asarray(a, float), np.asarray(b, float)))
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), norm, out=np.zeros_like(norm), where=norm > 0)


def spearman(a, b):
    """Rank correlations, as pearson."""
    return pearson(ranks(a), ranks(b))


def slope(a, b):
    """Of the line through points (a, b) by least squares; 0 where a is the same everywhere."""
    a, b = (x - x.mean() for x in (np.asarray(a, float), np.asarray(b, float)))
    return float((a * b).sum() / (a * a).sum()) if (a * a).sum() > 0 else 0.0


def reliability(values):
    """Of means over seeds, values [pair, seed]: the share of their variance over pairs that is not the seeds', which would
    be there again with others; None with one seed."""
    values = np.asarray(values, float)
    if values.shape[1] < 2:
        return None
    noise, every = values.var(1, ddof=1).mean() / values.shape[1], values.mean(1).var(ddof=1)
    return float(max(0.0, 1 - noise / every)) if every > 0 else 0.0


def lds(scores, members, losses):
    """Each query's linear datamodelling score: the rank correlation over subsets of summed influence and minus the loss.

    scores [sequence, query]; members [subset, sequence], 1 for those that a subset has; losses [subset, seed, query]."""
    predicted = np.asarray(members, float) @ np.asarray(scores, float)
    return spearman(predicted.T, -np.asarray(losses).mean(1).T)


def split_half(losses):
    """Each query's agreement of the truth with itself: the rank correlation over subsets of two halves of the seeds, the mean
    over all ways to halve them; None with one seed.  losses [subset, seed, query]"""
    losses, seeds = np.asarray(losses), range(np.shape(losses)[1])
    if len(seeds) < 2:
        return None
    ways = list(itertools.islice(itertools.combinations(seeds, len(seeds) // 2), MOST_SPLITS))
    rests = [[s for s in seeds if s not in way] for way in ways]
    halves = [(losses[:, list(way)].mean(1).T, losses[:, rest].mean(1).T) for way, rest in zip(ways, rests)]
    return np.mean([spearman(a, b) for a, b in halves], axis=0)


def spearman_brown(correlation):
    """The reliability of the mean of all seeds, from that of halves of them; None where these do not agree at all."""
    return 2 * correlation / (1 + correlation) if correlation > 0 else None


def bootstrap(values, seed=0, resamples=RESAMPLES, ends=ENDS, above=None):
    """The 95 % interval of the mean of values (of queries): percentiles of the means of resamples.

    above [draw, query]: the values are above the mean of these draws, which all queries share: they are drawn again too."""
    values = np.asarray(values, float)
    random = np.random.default_rng(seed)
    if above is not None:
        above = np.asarray(above, float) - np.mean(above, axis=0)
    means = []
    for first in range(0, resamples, AT_ONCE):
        n = min(AT_ONCE, resamples - first)
        queries = random.integers(0, len(values), (n, len(values)))
        found = values[queries]
        if above is not None:
            shift = above[random.integers(0, len(above), (n, len(above)))].mean(1)
            found = found - np.take_along_axis(shift, queries, axis=1)
        means.append(found.mean(1))
    return [float(x) for x in np.quantile(np.concatenate(means), ends)]


def correlation_interval(measure, a, b, seed=0, resamples=PAIR_RESAMPLES, ends=ENDS):
    """The 95 % interval of a correlation over pairs, which are drawn again: percentiles of resamples."""
    which = np.random.default_rng(seed).integers(0, len(a), (resamples, len(a)))
    found = measure(np.asarray(a, float)[which], np.asarray(b, float)[which])
    return [float(x) for x in np.quantile(found, ends)]


def why_no_interval(retrainings, queries, what="retrainings"):
    """Of so many, in words; None where there is one."""
    for n, least, name in ((retrainings, LEAST_RETRAININGS, what), (queries, LEAST_QUERIES, "queries")):
        if n < least:
            return f"fewer than {least} {name}: no intervals"
    return None


def summary(values, retrainings, seed=0, above=None):
    """{"mean", "interval"}; above: as bootstrap's."""
    few = why_no_interval(retrainings, len(values))
    return {"mean": float(np.mean(values)), "interval": None if few else bootstrap(values, seed, above=above)}


def folds(n, seed=0):
    """Two halves of n queries, as arrays of numbers."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def cross_chosen(values, seed=0):
    """Of values [setting, query] each query's, at the setting that is best in the mean of the other half of the queries.

    Returns ([query], [query] the setting's number).  One setting, or one query: no choice is made."""
    values = np.asarray(values, float)
    chosen = np.zeros(values.shape[1], int)
    if len(values) > 1 and values.shape[1] > 1:
        first, second = folds(values.shape[1], seed)
        for own, other in ((first, second), (second, first)):
            chosen[own] = int(np.argmax(values[:, other].mean(1)))
    return values[chosen, np.arange(values.shape[1])], chosen


def best_first(scores):
    """Numbers of the sequences, the highest score first, of equal scores the lower number first.  scores [sequence]"""
    return np.argsort(-np.asarray(scores, float), kind="stable")


def reciprocal_rank(scores, relevant):
    """1 / the place of the first relevant sequence; places that equal scores share count as their last."""
    scores, relevant = np.asarray(scores, float), np.asarray(relevant, bool)
    best = scores[relevant].max()
    return 1.0 / (1 + np.count_nonzero((scores >= best) & ~relevant))


def recall_at(scores, relevant, k):
    """The part of the relevant sequences among the best k; of what could be found, where more than k are relevant."""
    relevant = np.asarray(relevant, bool)
    return float(relevant[best_first(scores)[:k]].sum() / min(k, relevant.sum()))


def average_precision(scores, relevant):
    """Area under precision and recall: the sum of precision times what recall gains, a step for each different score."""
    scores, relevant = np.asarray(scores, float), np.asarray(relevant, bool)
    order = best_first(scores)
    found = np.cumsum(relevant[order])
    ends = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    precision, gained = found[ends] / (ends + 1), np.diff(found[ends], prepend=0)
    return float((precision * gained).sum() / relevant.sum())
