"""Numbers of a comparison with their intervals over queries, and the tables that they stand in."""

from dataclasses import dataclass, field
from math import erfc, isfinite, sqrt

import numpy as np

from bregman.report import figures
from bregman.validate import statistics

LEAST_QUERIES = 5  # of which an interval is given
RESAMPLES = 2000
SEED = 0
DASH = "\u2013"


@dataclass(frozen=True)
class Value:
    """An estimate over n queries; low and high are None where no interval is given."""

    value: float
    low: float | None
    high: float | None
    n: int

    def plain(self):
        """As JSON has it."""
        interval = None if self.low is None else [self.low, self.high]
        return {"value": self.value, "interval": interval, "n": self.n}

    @property
    def interval(self):
        return "" if self.low is None else f"[{number(self.low)}, {number(self.high)}]"

    def __str__(self):
        return f"{number(self.value)} {self.interval}".strip()


def number(value):
    """Short, and a dash for what is not known."""
    if value is None or not isfinite(value):
        return DASH
    if 0.01 <= abs(value) < 100:
        return f"{value:.2f}".replace("-", "\u2212")
    return figures.significant(value)


def _ends(n):
    """Which percentiles of resamples are a 95 % interval for n queries.  That of 2.5 and 97.5 is too narrow, as a normal quantile is
    beside a t, and n - 1 beside n in a variance: the expanded percentile interval of Hesterberg 2015, "What teachers should know
    about the bootstrap", The American Statistician 69(4).  The t quantile is Cornish and Fisher's, to 1 % from 4 degrees of
    freedom on."""
    z, nu = 1.959964, n - 1
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    below = erfc(t * sqrt(n / nu) / sqrt(2)) / 2
    return below, 1 - below


def _estimate(middle, values, interval):
    """Values that are all the same have no interval: resamples would all give them again, and say nothing of others."""
    if not values.size or not isfinite(middle):
        return None
    enough = values.size >= LEAST_QUERIES and values.min() < values.max()
    low, high = interval() if enough else (None, None)
    return Value(float(middle), low, high, int(values.size))


def mean(values):
    """Of the queries whose value is known; None where there is none."""
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    middle = known.mean() if known.size else np.nan
    return _estimate(middle, known, lambda: statistics.bootstrap(known, SEED, RESAMPLES, _ends(known.size)))


def median(values):
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    middle = np.median(known) if known.size else np.nan

    def interval():
        return statistics.correlation_interval(
            lambda a, _: np.median(a, axis=1), known, known, SEED, RESAMPLES, _ends(known.size)
        )

    return _estimate(middle, known, interval)


def ratio(above, below):
    """Of the means of two values of each query.  None where the lower mean is not above 0; no interval where that of a
    resample is not."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    known = np.isfinite(above) & np.isfinite(below)
    above, below = above[known], below[known]
    if not known.any() or below.mean() <= 0:
        return None

    def of_means(a, b):
        under = b.mean(1)
        return np.divide(a.mean(1), under, out=np.full(len(a), np.nan), where=under > 0)

    def interval():
        found = statistics.correlation_interval(of_means, above, below, SEED, RESAMPLES, _ends(above.size))
        return found if all(map(isfinite, found)) else (None, None)

    return _estimate(above.mean() / below.mean(), above, interval)


def ratio_change(above, below, other_above, other_below):
    """A ratio less another of the same queries, as ratio has them."""
    values = np.array([above, below, other_above, other_below], float)
    values = values[:, np.isfinite(values).all(0)]
    n = values.shape[1]
    if not n or min(values[1].mean(), values[3].mean()) <= 0:
        return None

    def of_means(chosen, _):
        a, b, other_a, other_b = values[:, chosen.astype(int)].mean(2)
        defined = (b > 0) & (other_b > 0)
        return np.where(defined, a / np.where(defined, b, 1) - other_a / np.where(defined, other_b, 1), np.nan)

    def interval():
        every = np.arange(n)
        found = statistics.correlation_interval(of_means, every, every, SEED, RESAMPLES, _ends(n))
        return found if all(map(isfinite, found)) else (None, None)

    change = values[0].mean() / values[1].mean() - values[2].mean() / values[3].mean()
    return _estimate(change, values[0] - values[2], interval)


@dataclass
class Table:
    """Rows of (labels, cells); a cell is a Value, a number, a text or None, which is shown as a dash."""

    id: str
    title: str
    heads: list  # what the labels are
    columns: list
    rows: list = field(default_factory=list)
    folded: bool = False  # data of a figure, or details
    matrix: bool = False  # intervals in tooltips, shaded by value

    def add(self, labels, cells):
        self.rows.append((labels, cells))

    def __bool__(self):
        return bool(self.rows)

    def plain(self):
        """As JSON has it."""
        rows = [{"labels": list(labels), "values": [plain_cell(c) for c in cells]} for labels, cells in self.rows]
        return {"id": self.id, "title": self.title, "heads": self.heads, "columns": self.columns, "rows": rows}


def plain_cell(cell):
    if isinstance(cell, Value):
        return cell.plain()
    return None if isinstance(cell, float) and not isfinite(cell) else cell


def shown_cell(cell):
    """As the page has it."""
    if isinstance(cell, bool | str):
        return str(cell)
    if isinstance(cell, int | np.integer):
        return f"{cell:,}"
    return str(cell) if isinstance(cell, Value) else number(cell)
