"""The report's figures: inline SVG that takes its colours from the page, and PNGs with a transparent zero."""

import base64
import struct
import zlib
from math import ceil, floor, inf, log10

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MIN_TAIL = 10  # scores that a power law is fitted to at least
MOST_TAIL = 0.05  # part of all scores that is still a tail
MAX_DOTS = 160
CENTRE = 0.01  # part of all scores that the histogram draws as one bin around zero, at most
DECADES_SHOWN = 4  # of scores, in the tail figure

POSITIVE, NEGATIVE = (214, 66, 42), (38, 116, 214)  # the page's --positive and --negative
SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
LEVELS = 15  # colour steps on each side of zero


def significant(value, digits=3):
    """Rounded to so many digits; with a power of ten where it would be long."""
    rounded = float(f"{value:.{digits}g}")
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    if rounded == 0 or -3 <= int(exponent) < 5:
        text = f"{rounded:,.{digits}g}" if abs(rounded) < 10**digits else f"{rounded:,.0f}"
    else:
        text = f"{mantissa}\u00d710{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return text.replace("-", "\u2212")


def signed(value):
    return ("+" if value > 0 else "") + significant(value, 4)


def percent(value):
    """With as many decimals as it takes to tell it from 0 and 100."""
    gap = min(value, 100 - value)
    return f"{value:.{max(1, min(-floor(log10(gap)), 9))}f}" if gap > 0 else f"{value:.0f}"


def power_label(exponent):
    plain = {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1000"}
    if exponent in plain:
        return plain[exponent]
    return Markup('10<tspan dy="-4" font-size="8">{}</tspan>').format(exponent)


class Plot:
    """SVG under construction; x and y are in pixels of the plot area (width, height), y upwards."""

    def __init__(self, title, x_label, y_label, size=(WIDTH, HEIGHT), right=RIGHT):
        self.width, self.height = size[0] - LEFT - right, size[1] - TOP - BOTTOM
        self._parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(*size, title)]
        self.line(0, 0, self.width, 0, "axis")
        self.text(self.width / 2, -29, x_label, "label", "middle")
        self._parts.append(
            Markup(
                '<text class="label" text-anchor="middle" transform="translate(10 {:.0f}) rotate(-90)">{}</text>'
            ).format(TOP + self.height / 2, y_label)
        )

    def line(self, x0, y0, x1, y1, kind):
        self._parts.append(
            Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
                kind, LEFT + x0, TOP + self.height - y0, LEFT + x1, TOP + self.height - y1
            )
        )

    def text(self, x, y, text, kind, anchor):
        self._parts.append(
            Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                kind, LEFT + x, TOP + self.height - y, anchor, text
            )
        )

    def x_tick(self, x, text):
        self.line(x, 0, x, -4, "axis")
        self.text(x, -15, text, "tick", "middle")

    def y_tick(self, y, text):
        self.line(0, y, self.width, y, "grid")
        self.text(-6, y - 3, text, "tick", "end")

    def bar(self, x, width, y0, y1, kind, title):
        self._parts.append(
            Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(kind, LEFT + x, TOP + self.height - max(y0, y1), max(width, 0.5), abs(y1 - y0), title)
        )

    def dots(self, points, kind, radius):
        path = "".join(f"M{LEFT + x:.1f} {TOP + self.height - y:.1f}h0" for x, y in points)
        self._parts.append(Markup('<path class="{}" d="{}" stroke-width="{}"/>').format(kind, path, 2 * radius))

    def curve(self, points, kind):
        path = " ".join(f"{LEFT + x:.1f},{TOP + self.height - y:.1f}" for x, y in points)
        self._parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))

    def svg(self):
        return Markup("").join([*self._parts, Markup("</svg>")])


def histogram(statistics):
    """Counts of scores in the ranking's own bins: logarithmic on both sides of zero."""
    edge, count = statistics.edge, statistics.count
    filled = np.flatnonzero(count)
    if filled.size == 0:
        return None
    edge, count = _with_centre(edge, count)
    filled = np.flatnonzero(count)
    first, last = int(filled[0]), int(filled[-1])
    step = PLOT_WIDTH / (last - first + 1)
    highest = log10(1 + int(count.max()))
    plot = Plot("histogram of scores", "score (nats), logarithmic bins", "sequences")
    for exponent in range(0, floor(highest) + 1, 1 + floor(highest) // 6):
        plot.y_tick(log10(1 + 10**exponent) / highest * PLOT_HEIGHT, power_label(exponent))
    for bin in range(first, last + 1):
        if not count[bin]:
            continue
        low, high = edge[bin], edge[bin + 1]
        kind = "positive" if low >= 0 < high else "negative" if high <= 0 else "neutral"
        title = f"{significant(low)} to {significant(high)}: {count[bin]:,}"
        height = log10(1 + int(count[bin])) / highest * PLOT_HEIGHT
        plot.bar((bin - first) * step, step - min(1, step / 4), 0, height, kind, title)
    _signed_ticks(plot, edge, first, last, step)
    return plot.svg()


def _with_centre(edge, count):
    """The bins around zero as one, as wide as leaves at most CENTRE of the scores in it: most of them are empty."""
    inside, low, high = 0, int(np.searchsorted(edge, 0, "right")) - 1, int(np.searchsorted(edge, 0))
    if low < 0 or high >= len(edge) or np.any(edge[low : high + 1] == 0):
        return edge, count  # zero is an edge, or outside
    inside = count[low:high].sum()
    while low > 0 and high < len(count) and inside + count[low - 1] + count[high] <= CENTRE * count.sum():
        low, high = low - 1, high + 1
        inside += count[low] + count[high - 1]
    return np.delete(edge, slice(low + 1, high)), np.concatenate((count[:low], [inside], count[high:]))


def _signed_ticks(plot, edge, first, last, step):
    """Label the edges nearest to powers of ten, as many as fit, from the outside in."""
    candidates = []
    for i in range(first, last + 2):
        value = abs(edge[i])
        if 0 < value < inf and abs(log10(value) - round(log10(value))) < 1e-6:
            candidates.append((-value, (i - first) * step, "-" if edge[i] < 0 else "", round(log10(value))))
        elif value == 0:
            candidates.append((-inf, (i - first) * step, "", None))
    placed = []
    for _, x, sign, exponent in sorted(candidates, key=lambda c: c[0]):
        if all(abs(x - other) > 44 for other in placed):
            placed.append(x)
            plot.x_tick(x, "0" if exponent is None else sign.replace("-", "\u2212") + power_label(exponent))


def power_law(tail, n):
    """Exponent a of a density x^-a over the positive tail scores, by maximum likelihood (Hill); None if they are too few,
    or so large a part of all n scores that they are no tail."""
    positive = tail[tail > 0]
    if positive.size < MIN_TAIL or positive.size > MOST_TAIL * n or positive[0] <= positive[-1]:
        return None
    return 1 + positive.size / float(np.log(positive / positive[-1]).sum())


def tail(statistics, exponent):
    """Share of sequences with at least a score, both axes logarithmic, with the power law fitted to the tail."""
    n, largest = statistics.moments["count"], statistics.moments["maximum"]
    if n < 2 or largest <= 0:
        return None
    scores = statistics.tail[statistics.tail > 0]
    lowest = largest / 10**DECADES_SHOWN
    bulk = _bulk_survival(statistics, lowest, scores[-1] if scores.size else inf)
    points = [(x, (i + 1) / n) for i, x in enumerate(scores)]
    shown = bulk + points
    if not shown:
        return None
    left = floor(log10(max(lowest, min(x for x, _ in shown))) * 4) / 4
    right, low = log10(largest) + 0.08, -ceil(log10(n) * 2) / 2
    if right - left < 0.5:
        left = right - 0.5

    def place(point):
        return (log10(point[0]) - left) / (right - left) * PLOT_WIDTH, (1 - log10(point[1]) / low) * PLOT_HEIGHT

    plot = Plot("tail of the score distribution", "score (nats)", "share of sequences \u2265 score")
    for power in range(0, floor(low), -(1 + floor(-low) // 6)):
        plot.y_tick((1 - power / low) * PLOT_HEIGHT, power_label(power))
    for value, label in log_ticks(left, right):
        plot.x_tick((log10(value) - left) / (right - left) * PLOT_WIDTH, label)
    plot.curve([place(p) for p in bulk], "bulk")
    plot.dots([place(p) for p in _thinned(points)], "dot", 2.2)
    if exponent is not None:
        x_min, share = scores[-1], scores.size / n
        ends = [(x, share * (x / x_min) ** (1 - exponent)) for x in (x_min, largest)]
        plot.curve([place((x, max(y, 10**low))) for x, y in ends], "fit")
    return plot.svg()


def _bulk_survival(statistics, lowest, highest):
    """Points of the complementary distribution below the stored tail, from the histogram."""
    above = np.cumsum(statistics.count[::-1])[::-1]
    n = statistics.moments["count"]
    return [
        (float(edge), int(c) / n) for edge, c in zip(statistics.edge[:-1], above) if lowest <= edge <= highest and c > 0
    ]


def log_ticks(left, right):
    """(value, label) of powers of ten, or of 1, 2 and 5 times them, between 10**left and 10**right."""
    values = [m * 10.0**e for e in range(floor(left), ceil(right) + 1) for m in (1, 2, 5)]
    inside = [v for v in values if left <= log10(v) <= right]
    if len(inside) > 8:
        inside = [v for v in inside if abs(log10(v) - round(log10(v))) < 1e-9]
    return [
        (
            v,
            f"{v:g}"
            if 1e-3 <= v < 1e5
            else power_label(round(log10(v)))
            if f"{v:e}".startswith("1.0")
            else significant(v),
        )
        for v in inside
    ]


def _thinned(points):
    if len(points) <= MAX_DOTS:
        return points
    ranks = sorted({int(r) - 1 for r in np.geomspace(1, len(points), MAX_DOTS)})
    return [points[r] for r in ranks]


def layer_profile(totals, names):
    """Influence of each layer, added over the top sequences."""
    largest = float(np.abs(totals).max()) if totals.size else 0
    if largest == 0:
        return None
    highest, lowest = max(totals.max(), 0), min(totals.min(), 0)
    scale = PLOT_HEIGHT / (highest - lowest)
    zero = -lowest * scale
    plot = Plot("influence by layer", "layer", "nats")
    for value in (0, highest, lowest):
        if value and abs(value) * scale < 14:  # its label would cover that of zero
            continue
        plot.y_tick(zero + value * scale, significant(value, 2))
    step = PLOT_WIDTH / totals.size
    for layer, value in enumerate(totals):
        kind = "positive" if value >= 0 else "negative"
        title = f"layer {names[layer]}: {significant(value)}"
        plot.bar(layer * step + step * 0.1, step * 0.8, zero, zero + value * scale, kind, title)
    for layer in range(0, totals.size, ceil(totals.size / 10)):
        plot.x_tick((layer + 0.5) * step, names[layer])
    return plot.svg()


def layer_bars(totals):
    """Row totals beside a layer x token matrix: one bar a layer, the first at the bottom, stretched to its height."""
    lowest, highest = min(float(totals.min()), 0.0), max(float(totals.max()), 0.0)
    n, scale = totals.size, 100 / ((highest - lowest) or 1)
    bars = {"positive": "", "negative": ""}
    for layer, value in enumerate(totals):
        width = abs(value) * scale
        if width >= 0.1:
            bars["positive" if value > 0 else "negative"] += (
                f"M{(min(value, 0) - lowest) * scale:.1f} {n - 0.9 - layer:.1f}h{width:.1f}v.8h-{width:.1f}z"
            )
    paths = Markup("").join(Markup('<path class="{}" d="{}"/>').format(kind, d) for kind, d in bars.items() if d)
    return Markup(
        '<svg class="rows" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-label="totals by layer">{}</svg>'
    ).format(n, paths)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _palette():
    """Colour 0 is transparent, 1..LEVELS grow towards full positive, then as many towards full negative."""
    colours = bytes((0, 0, 0)) + bytes(POSITIVE) * LEVELS + bytes(NEGATIVE) * LEVELS
    alpha = [round(255 * level / LEVELS) for level in range(1, LEVELS + 1)]
    return colours, bytes([0, *alpha, *alpha])


def matrix_png(values):
    """Data URI of values [position, layer]: positions to the right, the first layer at the bottom.

    Full colour is the largest |value|."""
    largest = float(np.abs(values).max())
    level = np.rint(values / largest * LEVELS).astype(int) if largest else np.zeros(values.shape, int)
    pixels = np.where(level < 0, LEVELS - level, level).astype(np.uint8).T[::-1]
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter type, 0
    rows[:, 1:] = pixels
    colours, alpha = _palette()
    png = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", colours),
            _chunk(b"tRNS", alpha),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode()
