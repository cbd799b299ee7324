"""Logs of training runs, and figures of them: losses while a model learns, and what they come to at each size."""

import csv
import json
import math
import os

import numpy as np
from markupsafe import Markup

from bregman.errors import UserError
from bregman.hashes import require_regular
from bregman.report.figures import Plot, log_ticks

LOG = "log.csv"
COLUMNS = ("step", "loss", "tokens", "heldout_loss")
AXES = {"step": "step", "tokens": "tokens trained on", "parameters": "parameters"}
MOST_POINTS = 400  # of a curve: each is the mean of the steps that it stands for
LEAST_FITTED = 3  # models that a power law is fitted to at least

SIZE, KEY_WIDTH, KEY_STEP = (760, 420), 190, 17
COLOURS = ("#d6422a", "#2674d6", "#2b8a3e", "#8a4bb3", "#b8860b", "#0f8b8d", "#c2357f", "#6b7280")
GREY = "#5c6370"
MOST_RUNS = 18  # whose labels have room
# plain colours, without variables: not only browsers read it
STYLE = """
text { font-family: system-ui, "Segoe UI", "Noto Sans", sans-serif; fill: #5c6370; }
.tick { font-size: 11px; } .label { font-size: 11.5px; } .key { font-size: 12px; fill: #1d2127; }
.page { fill: #fff; } .axis { stroke: #5c6370; } .grid { stroke: #e0ddd5; }
.loss { fill: none; stroke-width: 1; opacity: .55; } .heldout { fill: none; stroke-width: 2; }
.dot { fill: none; stroke-linecap: round; } .fit { fill: none; stroke: #1d2127; stroke-dasharray: 5 4; }
"""


def svg_file(size, parts, style=""):
    """The text of an SVG file: plots, and what else is drawn, on white paper.  style: beside STYLE."""
    width, height = size
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    page = '<rect class="page" width="100%" height="100%"/>'
    return "\n".join([head, f"<style>{STYLE}{style}</style>", page, *map(str, parts), "</svg>\n"])


# ---------------------------------------------------------------- runs


class Run:
    """A run's log: arrays of COLUMNS, NaN where a loss was not measured, tokens so far; folder: where its model is."""

    def __init__(self, path):
        self.path = os.path.join(path, LOG) if os.path.isdir(path) else path
        self.folder, self.label = os.path.dirname(self.path), ""
        require_regular(self.path)
        try:
            with open(self.path, encoding="utf-8", newline="") as file:
                self.columns = self._read(csv.reader(file))
        except OSError as error:
            raise UserError(f'cannot read "{self.path}": {error.strerror}') from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f'"{self.path}" is not a log of train_models: {error}') from None

    def _read(self, rows):
        header = next(rows, [])
        lacking = [name for name in COLUMNS if name not in header]
        if lacking:
            raise UserError(f'"{self.path}" is not a log of train_models: it has no column "{lacking[0]}"')
        values = [self._row(rows.line_num, header, row) for row in rows if row]
        if not values:
            raise UserError(f'"{self.path}" has no step yet')
        columns = dict(zip(COLUMNS, np.array(values).T))
        back = np.flatnonzero(np.diff(columns["step"]) <= 0)
        if back.size:
            raise UserError(
                f'"{self.path}": step {columns["step"][back[0] + 1]:.0f} follows step {columns["step"][back[0]]:.0f}'
            )
        columns["tokens"] = np.cumsum(columns["tokens"])  # the log has those of each step
        return columns

    def _row(self, line, header, row):
        found = dict(zip(header, row))
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} values for {len(header)} columns")
            return [float(found[name] or "nan") if "loss" in name else float(int(found[name])) for name in COLUMNS]
        except ValueError as error:
            raise UserError(f'"{self.path}":{line}: {error}') from None

    def points(self, loss, x):
        """(x, value) where a loss ("loss" or "heldout_loss") was measured and is finite."""
        values = self.columns[loss]
        there = np.isfinite(values)
        return self.columns[x][there], values[there]

    def last(self, loss):
        """The loss that was measured last, or None."""
        values = self.points(loss, "step")[1]
        return float(values[-1]) if values.size else None

    def diverged(self):
        """The first step whose loss was no number, or None."""
        steps = self.columns["step"][~np.isfinite(self.columns["loss"])]
        return int(steps[0]) if steps.size else None

    def parameters(self):
        """How many the model has: what its weights' files hold."""
        return sum(_elements(path) for path in _weights(self.folder))


def _weights(folder):
    whole, index = os.path.join(folder, "model.safetensors"), os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(whole) or not os.path.exists(index):
        return [whole]
    try:
        with open(index, encoding="utf-8") as file:
            return [os.path.join(folder, name) for name in sorted(set(json.load(file)["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f'"{index}" is not an index of weights') from None


def _elements(path):
    """Of all tensors of a safetensors file, by its header."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 1 << 27)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except OSError as error:
        raise UserError(
            f'cannot read "{path}": {error.strerror} (a run\'s folder has the weights beside its {LOG})'
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f'"{path}" is not a safetensors file') from None


def name_runs(runs, labels=()):
    """Give each its label: what is asked for, else the part of its folder's path in which it differs from the others."""
    if labels:
        for run, label in zip(runs, labels):
            run.label = label
        return
    paths = [os.path.realpath(run.folder).split(os.sep) for run in runs]
    while len(paths) > 1 and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    while len(paths) > 1 and all(len(path) > 1 and path[-1] == paths[0][-1] for path in paths):
        paths = [path[:-1] for path in paths]
    for run, path in zip(runs, paths):
        run.label = "/".join(path if len(paths) > 1 else path[-1:])


# ---------------------------------------------------------------- figures


def short(value):
    """1500 as 1.5k, 2000000 as 2M."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def ticks(low, high, about):
    """Round values from low to high."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


class Axis:
    """Where a value is, from 0 to 1, with a little room at both ends."""

    def __init__(self, values, logarithmic, room=0.04):
        self.logarithmic = logarithmic
        low, high = (float(f(self._scaled(values))) for f in (np.min, np.max))
        room = (high - low) * room or abs(high) * 0.05 or 1.0
        self.low, self.high = low - room, high + room

    def _scaled(self, values):
        return np.log10(values) if self.logarithmic else np.asarray(values, float)

    def place(self, values):
        return (self._scaled(values) - self.low) / (self.high - self.low)

    def ticks(self, about):
        """(value, label); of a logarithmic axis as many as there are."""
        if self.logarithmic:
            found = [value for value, _ in log_ticks(self.low, self.high)]
            if len(found) > 2:
                return [(value, short(value)) for value in found]
        ends = (10**self.low, 10**self.high) if self.logarithmic else (self.low, self.high)
        return [(value, short(round(value, 12))) for value in ticks(*ends, about)]


class Figure(Plot):
    """A plot that is a file of its own, with a key beside it."""

    def __init__(self, title, x_label, x, y):
        super().__init__(title, x_label, "loss (nats per token)", SIZE, KEY_WIDTH)
        self.x, self.y, self._keys = x, y, 0
        for value, label in y.ticks(7):
            self.y_tick(float(y.place(value)) * self.height, label)
        for value, label in x.ticks(8):
            self.x_tick(float(x.place(value)) * self.width, label)

    def places(self, x, y):
        return list(zip(self.x.place(x) * self.width, self.y.place(y) * self.height))

    def coloured(self, colour, draw, *arguments):
        self._parts.append(Markup('<g stroke="{}">').format(colour))
        draw(*arguments)
        self._parts.append(Markup("</g>"))

    def key(self, colour, kind, text):
        """A line of the key."""
        x, y = self.width + 14, self.height - 8 - KEY_STEP * self._keys
        self.coloured(colour, self.curve, [(x, y + 4), (x + 18, y + 4)], kind)
        self.text(x + 26, y, text, "key", "start")
        self._keys += 1

    def run_key(self, i, run):
        last = run.last("heldout_loss")
        self.key(COLOURS[i % len(COLOURS)], "heldout", _cut(run.label, 17) + ("" if last is None else f": {last:.3f}"))

    def svg(self):
        return svg_file(SIZE, [super().svg()])


def _thinned(axis, x, y):
    """Means of neighbours on the axis, so that no more than MOST_POINTS are left."""
    if len(x) <= MOST_POINTS:
        return x, y
    piece = np.floor(axis.place(x) * MOST_POINTS)
    first = np.flatnonzero(np.append(True, piece[1:] != piece[:-1]))
    counts = np.diff(np.append(first, len(x)))
    return np.add.reduceat(x, first) / counts, np.add.reduceat(y, first) / counts


def _cut(text, most):
    return text if len(text) <= most else text[: most - 1] + "…"


def _measured(runs, against, logarithmic):
    """(run, loss, x, y) of all that can be drawn."""
    found = []
    for run in runs:
        for loss in ("loss", "heldout_loss"):
            x, y = run.points(loss, against)
            if logarithmic:
                x, y = x[x > 0], y[x > 0]
            if x.size:
                found.append((run, loss, x, y))
    if not found:
        raise UserError(f'"{runs[0].path}": no loss is a number')
    return found


def curves(runs, against, logarithmic):
    """Training loss (thin) and held-out loss (thick) of every run against steps or tokens."""
    measured = _measured(runs, against, logarithmic)
    across = Axis(np.concatenate([x for _, _, x, _ in measured]), logarithmic, 0.01)
    drawn = [(run, loss, *_thinned(across, x, y)) for run, loss, x, y in measured]
    up = Axis(np.concatenate([y for _, _, _, y in drawn]), False)
    figure = Figure("losses of training runs", AXES[against], across, up)
    for run, loss, x, y in drawn:
        points, colour = figure.places(x, y), COLOURS[runs.index(run) % len(COLOURS)]
        figure.coloured(colour, figure.curve, points, "loss" if loss == "loss" else "heldout")
        if loss == "heldout_loss" or len(points) == 1:
            figure.coloured(colour, figure.dots, points, "dot", 2.5)
    for i, run in enumerate(runs):
        figure.run_key(i, run)
    for loss, kind, text in (("loss", "loss", "training"), ("heldout_loss", "heldout", "held out, last value")):
        if any(loss == name for _, name, _, _ in drawn):
            figure.key(GREY, kind, text)
    return figure.svg()


def power_law(sizes, losses):
    """(a, b) of losses about a * sizes ** -b, by least squares of logarithms; None of fewer than LEAST_FITTED sizes."""
    if len(set(sizes)) < LEAST_FITTED or min(losses) <= 0:
        return None
    slope, start = np.polyfit(np.log(sizes), np.log(losses), 1)
    return float(np.exp(start)), -float(slope)


def sizes(runs, logarithmic):
    """The last held-out loss of every run against its number of parameters."""
    found = []
    for run in runs:
        loss = run.last("heldout_loss")
        if loss is None:
            raise UserError(f'"{run.path}" has no held-out loss: train with --heldout')
        found.append((run.parameters(), loss))
    x, y = (np.array(values, float) for values in zip(*found))
    figure = Figure("held-out loss by size", AXES["parameters"], Axis(x, logarithmic), Axis(y, logarithmic))
    law = power_law(x, y)
    if law:
        ends = np.geomspace(x.min(), x.max(), 50)
        figure.curve(figure.places(ends, law[0] * ends ** -law[1]), "fit")
    for i, (run, place) in enumerate(zip(runs, figure.places(x, y))):
        colour = COLOURS[i % len(COLOURS)]
        figure.coloured(colour, figure.dots, [place], "dot", 4)
        figure.run_key(i, run)
    if law:
        figure.key(GREY, "fit", f"loss ∝ N^\u2212{law[1]:.3f}".replace("\u2212-", ""))
    return figure.svg()
