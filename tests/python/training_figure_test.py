#!/usr/bin/env python3
"""training_figure: curves of one run and of several, sizes, labels, axes; logs that are none."""

from text_checks import check, finish, path, refused, run, write

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from bregman.training import Axis, _thinned

HEADER = "step,loss,gradient_norm,rate,tokens,heldout_loss,tokens_per_second\n"
SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"small": 10**5, "medium": 10**6, "large": 10**7}
EXPONENT = 0.1


def final(size):
    return 20 * size**-EXPONENT


def log(steps, size, every=50):
    """A log whose held-out loss ends in final(size)."""
    lines = [HEADER]
    for step in range(1, steps + 1):
        loss = final(size) + 5 * 0.99**step - 5 * 0.99**steps
        heldout = f"{loss:.6f}" if step % every == 0 or step == steps else ""
        lines.append(f"{step},{loss + 0.1:.6f},1.5,0.001,1000,{heldout},123.4\n")
    return "".join(lines)


def make_run(name, steps=200, size=10**5):
    write(f"{name}/log.csv", log(steps, size))
    shapes = {"a": [size // 10, 10], "__metadata__": None}
    header = json.dumps({k: {"dtype": "F32", "shape": v} if v else {"format": "pt"} for k, v in shapes.items()})
    write(f"{name}/model.safetensors", len(header).to_bytes(8, "little") + header.encode())
    return path(name)


def draw(*arguments):
    done = run("training_figure", *arguments, "--output", path("f.svg"))
    return done, ElementTree.parse(path("f.svg")).getroot() if done.returncode == 0 else None


def texts(figure, kind):
    return [e.text for e in figure.iter(SVG + "text") if e.get("class") == kind]


def lines(figure, kind):
    """The points of each line of a kind that is not in the key."""
    found = [e.get("points").split() for e in figure.iter(SVG + "polyline") if e.get("class") == kind]
    found = [[tuple(map(float, point.split(","))) for point in points] for points in found]
    return [points for points in found if points[0][0] < 560]


def test_curves():
    done, figure = draw(*RUNS.values())
    check(done.returncode == 0, "drawn", done.stderr)
    check(
        done.stdout.splitlines()[0] == "small: step 200, 200000 tokens, loss 6.4246, held out 6.3246",
        "told",
        done.stdout,
    )
    check(
        texts(figure, "key")
        == [f"{n}: {final(s):.3f}" for n, s in SIZES.items()] + ["training", "held out, last value"],
        "key",
        texts(figure, "key"),
    )
    check([len(points) for points in lines(figure, "heldout")] == [4, 4, 4], "held-out points")
    check([len(points) for points in lines(figure, "loss")] == [200, 200, 200], "training points")
    first = lines(figure, "loss")[0]
    check(all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(first, first[1:])), "to the right and downwards")
    check("step" in texts(figure, "label") and "200" in texts(figure, "tick"), "axis", texts(figure, "tick"))
    _, figure = draw(path("small/model/log.csv"), "--against", "tokens", "--axis", "log", "--label", "a <b> & c")
    check(texts(figure, "key")[0] == "a <b> & c: 6.325", "label", texts(figure, "key"))
    check(
        "tokens trained on" in texts(figure, "label") and "100k" in texts(figure, "tick"),
        "tokens",
        texts(figure, "tick"),
    )


def test_long_run():
    make_run("long/model", 5000)
    for axis in ("linear", "log"):
        _, figure = draw(path("long/model"), "--axis", axis)
        check(100 < len(lines(figure, "loss")[0]) <= 401, f"{axis}: thinned", len(lines(figure, "loss")[0]))
    check(len(lines(figure, "heldout")[0]) <= 100, "held-out points")
    values = np.arange(1.0, 5001)
    x, y = _thinned(Axis(values, False), values, 2 * values)
    check(np.allclose(y, 2 * x) and len(x) <= 401, "means")


def test_sizes():
    done, figure = draw(*RUNS.values(), "--against", "parameters")
    check(done.returncode == 0 and "loss ∝ N^−0.100" in texts(figure, "key"), "power law", texts(figure, "key"))
    check(
        [t for t in texts(figure, "tick") if t in ("100k", "1M", "10M")] == ["100k", "1M", "10M"],
        "sizes",
        texts(figure, "tick"),
    )
    _, figure = draw(path("small/model"), path("large/model"), "--against", "parameters", "--axis", "linear")
    check(not lines(figure, "fit"), "two sizes are no law")
    write("cut/log.csv", HEADER + "1,2.5,1,1,10,,1\n")
    refused(
        "no held-out loss",
        run("training_figure", path("cut"), "--against", "parameters", "--output", path("no.svg")),
        "cut/log.csv",
        "--heldout",
    )
    write("cut/log.csv", HEADER + "1,2.5,1,1,10,2,1\n")
    refused(
        "no weights",
        run("training_figure", path("cut"), "--against", "parameters", "--output", path("no.svg")),
        "cut/model.safetensors",
    )
    write("cut/model.safetensors", b"\x01")
    refused(
        "no weights",
        run("training_figure", path("cut"), "--against", "parameters", "--output", path("no.svg")),
        "not a safetensors file",
    )


def test_odd_logs():
    write("odd/log.csv", HEADER + "1,2.5,1,1,10,,1\n2,nan,1,1,20,,1\n3,inf,1,1,30,,1\n")
    done, figure = draw(path("odd"))
    check(done.returncode == 0 and "the loss of step 2 is no number" in done.stderr, "diverged", done.stderr)
    check(texts(figure, "key") == ["odd", "training"], "no held-out loss", texts(figure, "key"))
    for name, content, *parts in (
        ("empty", "", 'no column "step"'),
        ("other", "a,b\n1,2\n", 'no column "step"'),
        ("header", HEADER, "no step yet"),
        ("cut", HEADER + "1,2.5,1,1,10,,1\n2,2.4\n", ":3: 2 values for 7 columns"),
        ("word", HEADER + "1,x,1,1,10,,1\n", ":2: ", "x"),
        ("back", HEADER + "2,1,1,1,10,,1\n1,1,1,1,20,,1\n", "step 1 follows step 2"),
        ("never", HEADER + "1,nan,1,1,10,,1\n", "no loss is a number"),
        ("bytes", b"\xff\xfe", "not a log"),
    ):
        write(f"{name}.csv", content)
        done = run("training_figure", path(f"{name}.csv"), "--output", path("no.svg"))
        done.stderr = "\n".join(line for line in done.stderr.strip().split("\n") if "is no number" not in line)
        refused(name, done, f"{name}.csv", *parts)


def test_refusals():
    small = path("small/model")
    refused(
        "labels",
        run("training_figure", small, small, "--label", "a", "--output", path("no.svg")),
        "once for each",
        code=2,
    )
    refused("many", run("training_figure", *[small] * 19, "--output", path("no.svg")), "19 runs", code=2)
    refused("no such file", run("training_figure", path("absent.csv"), "--output", path("no.svg")), "absent.csv")
    page = write("page.html", "<!doctype html>")
    refused("no figure", run("training_figure", small, "--output", page), "page.html", "no figure")
    check(run("training_figure", small, "--output", path("f.svg")).returncode == 0, "a figure is replaced")
    check(not re.search(r"nan|inf", open(path("f.svg"), encoding="utf-8").read().split("</style>")[1]), "numbers")


RUNS = {name: make_run(f"{name}/model", size=size) for name, size in SIZES.items()}
test_curves()
test_long_run()
test_sizes()
test_odd_logs()
test_refusals()
finish()
