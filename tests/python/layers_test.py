#!/usr/bin/env python3
"""Layers, by what files include: a folder of common/ from itself and those before it in LAYERS, a stage from its own folder and
any of common/, plan also what the other stages say in their costs.h; and no files include one another in a circle.  A header and the file of its name are one."""

import collections
import glob
import graphlib
import os
import re
import sys

LAYERS = (
    "base",
    "parallel",
    "publish",
    "store",
    "data",
    "retrieval",
    "linalg",
    "formats",
    "model",
    "training",
    "engine",
    "ekfac",
    "app",
)
# public headers without a file of their name
OTHERS = {
    "context": "parallel",
    "direction": "model",
    "kernels": "model",
    "mark": "data",
    "model_config": "formats",
    "number": "base",
    "site": "model",
    "store": "store",
    "tap": "model",
}

os.chdir(os.environ.get("SRC", os.path.join(os.path.dirname(__file__), "..", "..")))
FILES = sorted(glob.glob("common/*/*.[ch]") + glob.glob("stages/*/*.[ch]") + glob.glob("include/bregman/*.h"))
FOLDER = {
    os.path.splitext(os.path.basename(f))[0]: f.split("/")[1]
    for f in FILES
    if f.startswith("common") and f.endswith(".c")
}
FOLDER = {**FOLDER, **OTHERS}


def place_of(path):
    """(folder, name) of the module that a file belongs to."""
    name = os.path.splitext(os.path.basename(path))[0]
    return (
        (FOLDER.get(name, "no file of that name"), name)
        if path.startswith("include")
        else (os.path.dirname(path), name)
    )


def included(path):
    with open(path, encoding="utf-8") as text:
        for name in re.findall(r'^#include "(.*)"', text.read(), re.MULTILINE):
            yield (
                f"include/{name}"
                if name.startswith("bregman/")
                else os.path.normpath(os.path.join(os.path.dirname(path), name))
            )


def layer(path):
    folder = place_of(path)[0].removeprefix("common/")
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


wrong = [f"{f}: belongs to no folder of common/" for f in FILES if f.startswith("include") and layer(f) == len(LAYERS)]
graph = collections.defaultdict(set)
for file in FILES:
    for other in included(file):
        if layer(other) > layer(file) or (
            layer(other) == len(LAYERS)
            and os.path.dirname(other) != os.path.dirname(file)
            and not (file.startswith("stages/plan/") and os.path.basename(other) == "costs.h")
        ):
            wrong.append(f"{file} includes {other}, which is above it")
        one, two = (tuple(x.removeprefix("common/") for x in place_of(f)) for f in (file, other))
        if one != two:
            graph[one].add(two)
try:
    graphlib.TopologicalSorter(graph).prepare()
except graphlib.CycleError as error:
    wrong.append("a circle: " + " <- ".join("/".join(place) for place in error.args[1]))
print(
    "\n".join(f"not ok: {line}" for line in wrong)
    or f"{len(FILES)} files, {sum(map(len, graph.values()))} includes, no circle"
)
sys.exit(bool(wrong))
