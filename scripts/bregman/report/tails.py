"""Is the upper tail of a query's scores a power law?  After Clauset, Shalizi & Newman 2009, "Power-law distributions in
empirical data", SIAM Review 51(4), here with x_min the smallest of the scores given, not searched for.

Given x_min, the n scores above it are looked at as y = ln(x / x_min) > 0, where all four families have short densities:

  power law    p(x) ~ x^-a       f(y) = b exp(-b y), b = a - 1.  Maximum likelihood: a = 1 + n / sum(y) (Hill 1975)
  exponential  p(x) ~ exp(-c x)  f(y) = c exp(y - c (exp(y) - 1)), with c in units of 1 / x_min: the Weibull with s = 1
  Weibull      P(X > x) ~ exp(-c x^s)         f(y) = c s exp(s y - c (exp(s y) - 1)); given s, c = n / sum(exp(s y) - 1)
  log-normal   ln x normal       f(y) = exp(-2 u t y - t^2 y^2) 2 t / (sqrt(pi) erfcx(u)), erfcx(u) = exp(u^2) erfc(u);
               the normal's mean is ln(x_min) - u / t and its variance 1 / (2 t^2).  Given u,
               t = n / (u sum(y) + sqrt(u^2 sum(y)^2 + 2 n sum(y^2)))

All are truncated below at x_min.  s and u are found on a grid that is refined around its best point.

Goodness of fit: the Kolmogorov-Smirnov distance D between the scores and the fitted power law, and p, the share of samples
drawn from that law, each with an exponent of its own, whose D is at least as large.  y / mean(y) has the same distribution
whatever the exponent, so the samples depend on n alone.  A small p speaks against a power law; a large one does not prove it.

Alternatives: R, the log-likelihood of the power law less that of the other family; above 0 the power law fits better.  Its p is
Vuong's (1989, Econometrica 57(2)): 2 Phi(-|R| / (sd sqrt(n))), sd that of the scores' log-likelihood ratios.  Weibull and
log-normal have the power law as a limit (s to 0, u to infinity), so R is 0 at most, and says nothing for the power law.  Their p
is therefore that of a likelihood-ratio test at the edge of the parameter's range, P(chi^2_1 > 2 |R|) / 2, which holds for many
scores: below 0.05 it was for 4 to 10 % of drawn samples of 50 to 1000 scores that did follow a power law."""

import functools
from math import erfc, inf, isfinite, log, pi, sqrt

import numpy as np

LEAST = 20  # scores above 0 that a fit takes at least, x_min among them
DRAWS = 500  # samples behind the goodness of fit
SEED = 0
GRID, ROUNDS = 41, 6  # of the search: the last grid's step is (2 / 40)^5 of the first one's
NESTED = ("weibull", "log_normal")


def fit(scores):
    """What the docstring above says of one query's largest scores: a dictionary; None where fewer than LEAST are above 0, or all are the same."""
    x = np.asarray(scores, float)
    x = np.sort(x[np.isfinite(x) & (x > 0)])
    if x.size < LEAST or x[-1] <= x[0]:
        return None
    y = np.log(x[1:] / x[0])
    power = -np.log(y.mean()) - y / y.mean()
    distance = float(ks_distance(y[None])[0])
    return {
        "exponent": 1 + 1 / float(y.mean()),
        "x_min": float(x[0]),
        "n": int(y.size),
        "ks": distance,
        "p": float((1 + np.count_nonzero(_drawn_distances(y.size) >= distance)) / (1 + DRAWS)),
        "against": {
            name: compare(power, density, name in NESTED)
            for name, density in (
                ("exponential", weibull(y, 1.0)),
                ("weibull", best_weibull(y)),
                ("log_normal", best_log_normal(y)),
            )
        },
    }


def ks_distance(y):
    """Between each row of y, ascending, and the exponential distribution of the row's own mean."""
    n = y.shape[1]
    below = -np.expm1(-y / y.mean(1, keepdims=True))
    place = np.arange(n)
    return np.maximum((place + 1) / n - below, below - place / n).max(1)


@functools.cache
def _drawn_distances(n):
    random = np.random.default_rng(SEED)
    parts = [random.exponential(size=(rows, n)) for rows in [DRAWS // 10] * 10]  # in parts, as n may be large
    return np.concatenate([ks_distance(np.sort(part, axis=1)) for part in parts])


def compare(power, other, nested):
    """{"ratio", "p"} of two families' log densities at the scores."""
    difference = power - other
    ratio, spread = float(difference.sum()), float(difference.std())
    if nested:
        ratio = min(ratio, 0.0)  # the limit itself is not on the grid
        return {"ratio": ratio, "p": erfc(sqrt(-ratio)) / 2 if ratio < 0 else 1.0}
    return {"ratio": ratio, "p": erfc(abs(ratio) / (spread * sqrt(2 * difference.size))) if spread > 0 else 1.0}


def weibull(y, shape):
    """Log densities at the best rate for this shape."""
    grown = np.expm1(shape * y)
    rate = 1 / grown.mean()
    return log(rate) + log(shape) + shape * y - rate * grown


def best_weibull(y):
    most = min(50.0, 500 / y.max())  # exp(shape y) stays finite
    shape = maximise(lambda s: weibull(y, np.exp(s)).sum(), log(1e-4), log(most))
    return weibull(y, np.exp(shape))


def log_erfcx(u):
    """ln(exp(u^2) erfc(u)); for large u by its asymptotic series."""
    if u < 20:
        return u * u + log(erfc(u))
    return log((1 - 1 / (2 * u**2) + 3 / (4 * u**4)) / (u * sqrt(pi)))


def log_normal(y, u):
    """Log densities at the best scale for this u."""
    n, first, second = y.size, y.sum(), (y * y).sum()
    if u >= 0:
        t = n / (u * first + sqrt((u * first) ** 2 + 2 * n * second))
    else:  # the same number, without a difference of near ones
        t = (-u * first + sqrt((u * first) ** 2 + 2 * n * second)) / (2 * second)
    return -2 * u * t * y - t * t * y * y + log(2 * t / sqrt(pi)) - log_erfcx(u)


def best_log_normal(y):
    """u from -25, where the normal's mean is 35 of its standard deviations above ln(x_min), to 1000, all but a power law."""
    place = maximise(lambda v: log_normal(y, np.sinh(v)).sum(), np.arcsinh(-25), np.arcsinh(1000))
    return log_normal(y, np.sinh(place))


def maximise(value, low, high):
    """Where value() is largest between low and high."""
    best = low
    for _ in range(ROUNDS):
        grid = np.linspace(low, high, GRID)
        values = [v if isfinite(v) else -inf for v in map(value, grid)]
        at = int(np.argmax(values))
        best, low, high = grid[at], grid[max(at - 1, 0)], grid[min(at + 1, GRID - 1)]
    return best
