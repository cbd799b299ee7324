"""What validate leaves: JSON with all numbers, tables in Markdown, figures."""

import json

from bregman.files import write_whole
from bregman.report.figures import Plot
from bregman.training import COLOURS, Axis, short, svg_file, ticks
from markupsafe import Markup

WIDTH, LABELS, STEP, HEAD = 760, 250, 22, 60
PANEL = 330, 300
MINUS = "\u2212"


def write_json(path, value):
    write_whole(path, [json.dumps(value, indent=1, allow_nan=False) + "\n"])


OF_LDS = ("model", "train", "fit", "compress", "score", "bm25", "methods", "lds")  # tables that it depends on


def of_lds(settings):
    return {name: settings.get(name) for name in OF_LDS}, settings.get("validate", {}).get("seed")


def read_lds(path, settings):
    """What LDS has been before, with these settings as far as it depends on them; None if it has not been measured."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    same = of_lds(found.get("settings", {})) == of_lds(json.loads(json.dumps(settings)))
    return found.get("result") if same else None


def number(value, digits=3):
    return "" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def with_interval(found, digits=3):
    """0.612 [0.551, 0.668] of {"mean", "interval"}."""
    if found is None:
        return ""
    interval = found["interval"]
    between = "" if interval is None else f" [{', '.join(number(x, digits) for x in interval)}]"
    return number(found["mean"], digits) + between


def noted(found):
    """Why there are no intervals, where there are none."""
    return [found["note"] + ".\n"] if found["note"] else []


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * 2 + "|---:" * (len(head) - 2) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _chosen(entry):
    counts = sorted({d for d in entry.get("chosen") or []})
    return ", ".join(f"{d:g}" for d in counts)


def row_table(measure, entries):
    """Rows of compared(): method, modules, damping, the measure, its difference from the reference."""
    partly = any(e.get("mean_of_unflagged") is not None for e in entries)
    head = ["method", "modules", "damping", measure, "minus EK-FAC", *["without flagged queries"] * partly]
    rows = []
    for e in entries:
        difference = e["difference"] and with_interval(e["difference"]) + f" ({e['difference']['from']})"
        rows.append([e["label"], e["modules"], _chosen(e), with_interval(e), difference or ""])
        rows[-1] += [number(e["mean_of_unflagged"])] * partly
    return markdown(head, rows)


def lds_text(found):
    parts = []
    for kind in found.values():
        head = f"### LDS, {kind['kind']}: {kind['subsets']} subsets of {kind['kept']} sequences x {len(kind['seeds'])} seeds\n"
        ceiling = kind["ceiling"]
        told = (
            f"The truth's own agreement, one half of the seeds with the other: {with_interval(ceiling['split_half'])}; by "
            f"Spearman and Brown, of all seeds: {number(ceiling['spearman_brown'])}.\n"
            if ceiling
            else "One seed: the truth's own agreement is not known.\n"
        )
        parts += [head, row_table("LDS", kind["rows"]), told]
        parts += noted(kind)
    return "\n".join(parts)


def qld_text(found):
    parts = [_removal_text(found, "QLD", "sequences")]
    return "\n".join(
        parts + ([_removal_text(found["tokens"], "QLD of tokens", "loss terms")] if found["tokens"] else [])
    )


def _removal_text(found, title, what):
    head = (
        f"### {title}: rise of the query's loss, nats a token, without its best {found['removed']} {what} "
        f"({100 * found['share']:g} %), above {found['random_removals']} random removals; {len(found['seeds'])} seeds\n"
    )
    return "\n".join([head, row_table("QLD", found["rows"]), *noted(found)])


def query_text(queries):
    """Of queries that the model cannot predict; "" if there are none."""
    flagged = [q for q in queries if q["flag"]]
    if not flagged:
        return ""
    rows = [
        [q["id"], q["flag"], *(number(q[k] / q["tokens"]) for k in ("loss", "unigram", "uniform"))] for q in flagged
    ]
    head = "### Queries that the model cannot predict: their scores mean little\n"
    return "\n".join([head, markdown(["query", "why", "loss a token", "unigram's", "uniform's"], rows)])


# ---------------------------------------------------------------- figures


def figure(title, x_label, entries, mark=None):
    """SVG: a line for each row, its mean and interval; mark: a value that a dashed line is drawn at."""
    ends = [x for e in entries for x in (e["interval"] or [e["mean"]])] + [e["mean"] for e in entries] + [0.0]
    ends += [mark] if mark is not None else []
    low, high = min(ends), max(ends)
    low, high = low - 0.04 * (high - low or 1), high + 0.04 * (high - low or 1)
    size = WIDTH, HEAD + 40 + STEP * len(entries)
    plot = Plot(title, x_label, "", size, LABELS)
    across = lambda value: (value - low) / (high - low) * plot.width  # noqa: E731
    for value in ticks(low, high, 8):
        plot.x_tick(across(value), short(round(value, 12)))
    plot.line(across(0.0), 0, across(0.0), plot.height, "grid")
    if mark is not None:
        plot.curve([(across(mark), 0), (across(mark), plot.height)], "fit")
    methods = list(dict.fromkeys(e["method"] for e in entries))
    for i, entry in enumerate(entries):
        y = plot.height - 24 - STEP * i
        _row(plot, across, y, entry, COLOURS[methods.index(entry["method"]) % len(COLOURS)])
    plot.text(0, plot.height - 4, title, "key", "start")
    return svg_file(size, [plot.svg()])


def _row(plot, across, y, entry, colour):
    plot._parts.append(Markup('<g stroke="{}">').format(colour))
    if entry["interval"]:
        plot.curve([(across(x), y) for x in entry["interval"]], "heldout")
    plot.dots([(across(entry["mean"]), y)], "dot", 4)
    plot._parts.append(Markup("</g>"))
    name = entry["label"] + (f", {entry['modules']}" if entry["modules"] else "")
    plot.text(plot.width + 10, y - 4, f"{name}: {number(entry['mean'])}", "key", "start")


def panels(found):
    """SVG of part local: EK-FAC's prediction to the right, upwards what the objective and trainings do, a plot for each; whiskers
    are a standard error each way, the dashed line is where both are the same."""
    kinds = {"pbo": "PBO, solved", "start": "trained from the start", "halfway": "trained from halfway"}
    plots = [
        str(_scatter(found["pairs"], kind, label, COLOURS[i])).replace("<svg ", _place(i * PANEL[0]), 1)
        for i, (kind, label) in enumerate(kinds.items())
    ]
    return svg_file((len(plots) * PANEL[0], PANEL[1]), plots)


def _place(x):
    return f'<svg x="{x}" y="0" width="{PANEL[0]}" height="{PANEL[1]}" '


def _scatter(pairs, kind, label, colour):
    x, y = ([pair[name] for pair in pairs] for name in ("ekfac", kind))
    error = [pair.get(f"{kind}_error") or 0.0 for pair in pairs]
    across, up = Axis(x, False), Axis([v + s * e for v, e in zip(y, error) for s in (-1, 1)], False)
    plot = Plot(f"a sequence left out: {label}", "EK-FAC (nats)", f"{label} (nats)", PANEL)
    place = lambda a, b: (float(across.place(a)) * plot.width, float(up.place(b)) * plot.height)  # noqa: E731
    for value, told in up.ticks(6):
        plot.y_tick(place(across.low, value)[1], told)
    for value, told in across.ticks(4):
        plot.x_tick(place(value, up.low)[0], told)
    low, high = max(across.low, up.low), min(across.high, up.high)
    if low < high:
        plot.curve([place(low, low), place(high, high)], "fit")
    plot._parts.append(Markup('<g stroke="{}">').format(colour))
    for a, b, e in zip(x, y, error):
        plot.curve([place(a, b - e), place(a, b + e)], "loss")
    plot.dots([place(a, b) for a, b in zip(x, y)], "dot", 3)
    plot._parts.append(Markup("</g>"))
    return plot.svg()


def figures(part, found):
    """{file name: SVG} of a part's result."""
    if part == "local":
        return {"local.svg": panels(found)}
    if part == "lds":
        return {
            f"lds-{kind}.svg": figure(
                f"linear datamodelling score, {kind}", "rank correlation with retraining (dashed: the truth with itself)",
                f["rows"], f["ceiling"] and f["ceiling"]["spearman_brown"]
            )
            for kind, f in found.items()
        }  # fmt: skip
    labels = {
        "qld": ("loss without the best sequences, above random removals", "nats a token"),
        "pbo": ("scores and the response of the proximal Bregman objective", "correlation over sequences"),
        "facts": ("finding what states a fact", "mean reciprocal rank"),
        "filter": ("finding what was planted", "average precision"),
    }
    made = {f"{part}.svg": figure(*labels[part], found["rows"])}
    if found.get("tokens"):
        made["qld-tokens.svg"] = figure(
            "loss without the best terms, above random ones", labels[part][1], found["tokens"]["rows"]
        )
    return made
