"""Figures of a comparison: inline SVG with a line for each series, values with their intervals."""

from math import ceil, floor, isfinite, log10

from markupsafe import Markup

from bregman.report import figures
from bregman.report.estimates import Value
from bregman.training import COLOURS as PLAIN_COLOURS
from bregman.training import KEY_STEP, svg_file

SIZE = (420, 230)
COLOURS = 8  # classes s0, s1, ... of the page
MOST_SERIES = 6  # in one figure
DASHES = ("none", "7 3", "3 2", "8 3 2 3", "12 3", "1.5 2.5", "none", "none")  # of lines, as the page has them
CHART_STYLE = (
    ".line { fill: none; stroke-width: 1.8; } .bar { stroke-width: 1.2; opacity: .75; } .point { stroke: none; }\n"
    ".level { stroke: #5c6370; stroke-dasharray: 2 3; }\n"
    + "\n".join(
        f".s{i} .line, .s{i} .bar {{ stroke: {c}; }} .s{i} .line {{ stroke-dasharray: {d}; }} .s{i} .point {{ fill: {c}; }}"
        for i, (c, d) in enumerate(zip(PLAIN_COLOURS, DASHES))
    )
    + "\n"
)
CHARACTER, BETWEEN = 6, 6  # pixels of a label's characters, and between labels
MOST_CHARACTERS = 10
LEGEND = Markup(
    '<span class="s{}"><svg viewBox="0 0 26 8" aria-hidden="true"><path class="line" d="M0 4h26"/></svg>{}</span>'
)


class Chart(figures.Plot):
    """A plot with linear axes from 0 to 1 across and from low to high upwards."""

    def __init__(self, title, labels, low, high, least=0):
        """least: the least distance of ticks."""
        super().__init__(title, *labels, SIZE)
        step = max(_step((high - low) or 1), least)
        self.low, self.high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
        if self.high <= self.low:
            self.high = self.low + step
        self._step = step

    def y_ticks(self, label):
        for i in range(round((self.high - self.low) / self._step) + 1):
            value = self.low + i * self._step
            self.y_tick(self.up(value), label(value))

    def across(self, share):
        return share * self.width

    def up(self, value):
        return (value - self.low) / (self.high - self.low) * self.height

    def begin(self, series):
        self._parts.append(Markup('<g class="s{}">').format(series % COLOURS))

    def end(self):
        self._parts.append(Markup("</g>"))

    def point(self, x, y, title):
        self._parts.append(
            Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="3.2"><title>{}</title></circle>').format(
                figures.LEFT + x, figures.TOP + self.height - y, title
            )
        )


def _step(extent):
    """A round distance of ticks, 4 to 8 of them."""
    power = 10.0 ** floor(log10(extent))
    return next(power * m for m in (0.1, 0.2, 0.5, 1, 2) if extent / (power * m) <= 6)


def tick(value):
    return "0" if abs(value) < 1e-12 else figures.significant(value)


def legend(names):
    """Empty for one series."""
    if len(names) < 2:
        return Markup("")
    return Markup("").join(LEGEND.format(i % COLOURS, name) for i, name in enumerate(names))


def figure(svg, caption, names):
    return {"svg": svg, "caption": caption, "names": names, "legend": legend(names)}


def file_of(figure):
    """The text of an SVG file: the figure, its caption above it and its key beneath, in plain colours that not only browsers read."""
    names = figure["names"] if len(figure["names"]) > 1 else []
    place = f'<svg y="{KEY_STEP + 6}" width="{SIZE[0]}" height="{SIZE[1]}" '
    caption = Markup('<text class="key" x="8" y="{}">{}</text>').format(KEY_STEP, figure["caption"])
    parts = [caption, str(figure["svg"]).replace("<svg ", place, 1)]
    for i, name in enumerate(names):
        y = SIZE[1] + KEY_STEP * (2 + i)
        line = Markup('<g class="s{}"><path class="line" d="M8 {}h26"/></g>').format(i % COLOURS, y - 4)
        parts.append(line + Markup('<text class="key" x="40" y="{}">{}</text>').format(y, name))
    return svg_file((SIZE[0], SIZE[1] + KEY_STEP * (2 + len(names))), parts, CHART_STYLE)


def against(caption, labels, places, series, level=None):
    """Figures of series [(name, [Value or None of each place])], MOST_SERIES in each; [] where nothing is known.

    labels: of the two axes; places: Places; level: a value that is marked, as by chance."""
    known = [(name, values) for name, values in series if any(v is not None for v in values)]
    parts = [known[i : i + MOST_SERIES] for i in range(0, len(known), MOST_SERIES)]
    return [_against(caption, labels, places, part, level) for part in parts]


def _against(caption, labels, places, series, level):
    bounds = [b for _, values in series for v in values if v for b in (v.value, v.low, v.high) if b is not None]
    bounds += [level] * (level is not None)
    chart = Chart(caption, labels, min(bounds), max(bounds))
    chart.y_ticks(tick)
    for x, text in places.labels(chart.width):
        chart.x_tick(x, text)
    if level is not None:
        chart.line(0, chart.up(level), chart.width, chart.up(level), "level")
    for i, (name, values) in enumerate(series):
        chart.begin(i)
        shift = (i - (len(series) - 1) / 2) * 4
        points = [(chart.across(x) + shift, v, n) for x, v, n in zip(places.x, values, places.names)]
        joined = points[: len(places.names) - places.apart]
        chart.curve([(x, chart.up(v.value)) for x, v, _ in joined if v], "line")
        for x, v, place in points:
            if v is None:
                continue
            if v.low is not None:
                chart.line(x, chart.up(v.low), x, chart.up(v.high), "bar")
            chart.point(x, chart.up(v.value), f"{name}, {place}: {v}")
        chart.end()
    return figure(chart.svg(), caption, [name for name, _ in series])


class Places:
    """Where models stand across: scales by the logarithm of their parameters, where these are known, and others evenly.

    The last `apart` stand by themselves behind the others, which a line joins."""

    def __init__(self, names, parameters=None, apart=0):
        self.names, self.apart = names, apart
        n = len(names) - apart
        room = 1 - 0.14 * apart
        if parameters is not None and n > 1 and all(isfinite(p) and p > 0 for p in parameters[:n]):
            logs = [log10(p) for p in parameters[:n]]
            extent = logs[-1] - logs[0]
            shares = [(v - logs[0]) / extent if extent else 0.5 for v in logs]
        else:
            shares = [i / (n - 1) if n > 1 else 0.5 for i in range(n)]
        self.x = [0.07 + 0.86 * room * share for share in shares] + [0.93 + 0.07 * i for i in range(apart)]

    def labels(self, width):
        """(x, text) of those that have room, the ones apart first; a name that is long is cut."""
        placed, n = [], len(self.names)
        for i in [*range(n - self.apart, n), *range(n - self.apart)]:
            x, name = self.x[i] * width, self.names[i]
            text = name if len(name) <= MOST_CHARACTERS else name[: MOST_CHARACTERS - 1] + "\u2026"
            half = CHARACTER * len(text) / 2
            if all(abs(x - other) > half + room + BETWEEN for other, room in placed):
                placed.append((x, half))
                yield x, text


def curves(caption, labels, series, powers=False):
    """A figure of series [(name, [(x, y)])] on linear axes; None without points.  powers: x and y are logarithms to base 10."""
    series = [(name, points) for name, points in series if points]
    if not series:
        return None
    xs, ys = ([p[d] for _, points in series for p in points] for d in (0, 1))
    least, label = (1, lambda v: figures.power_label(round(v))) if powers else (0, tick)
    chart = Chart(caption, labels, min(ys), max(ys), least)
    chart.y_ticks(label)
    left, extent = min(xs), (max(xs) - min(xs)) or 1
    step = max(_step(extent), least)
    for i in range(ceil(left / step - 1e-9), floor((left + extent) / step + 1e-9) + 1):
        chart.x_tick(chart.across((i * step - left) / extent), label(i * step))
    for i, (name, points) in enumerate(series):
        chart.begin(i)
        chart.curve([(chart.across((x - left) / extent), chart.up(y)) for x, y in points], "line")
        chart.end()
    return figure(chart.svg(), caption, [name for name, _ in series])


def values_of(cells):
    """Those of a table's column that a figure can show."""
    return [c if isinstance(c, Value) else None for c in cells]
