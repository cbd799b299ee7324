#!/usr/bin/env python3
"""Functions that can be read at a glance: at most 50 lines, 7 parameters, and 4 steps in a row of `if (st == BG_OK) st = ...`:
more want a table or a smaller function."""

import glob
import os
import re
import sys

MOST_LINES, MOST_PARAMETERS, MOST_STEPS = 50, 7, 4
GIVEN = {"keep_references"}  # with parameters that HDF5 wants
FUNCTION = re.compile(
    r"^[A-Za-z_][\w \*]*?[ \*](\w+)\(((?:[^()]|\([^()]*\))*)\)\s*\n\{(.*?)\n\}", re.DOTALL | re.MULTILINE
)
STEPS = re.compile(r"(?:^( +)if \(st == BG_OK\)\n(?:\1 +.*\n)+?(?=\1\S|\1?\}|\n))+", re.MULTILINE)


def parameters(text):
    """Separated by commas outside of brackets."""
    while re.search(r"\([^()]*\)", text):
        text = re.sub(r"\([^()]*\)", "", text)
    return 0 if text.strip() in ("", "void") else text.count(",") + 1


os.chdir(os.environ.get("SRC", os.path.join(os.path.dirname(__file__), "..", "..")))
wrong, n = [], 0
for path in sorted(glob.glob("common/*/*.[ch]") + glob.glob("stages/*/*.[ch]")):
    with open(path, encoding="utf-8") as file:
        code = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), file.read(), flags=re.DOTALL)
    for name, arguments, body in FUNCTION.findall(code):
        n += 1
        lines, steps = (
            body.count("\n"),
            max((m[0].count("if (st == BG_OK)\n") for m in STEPS.finditer(body + "\n}")), default=0),
        )
        if lines > MOST_LINES:
            wrong.append(f"{path}: {name} has {lines} lines")
        if parameters(arguments) > MOST_PARAMETERS and name not in GIVEN:
            wrong.append(f"{path}: {name} has {parameters(arguments)} parameters")
        if steps > MOST_STEPS:
            wrong.append(f"{path}: {name} has {steps} steps in a row")
print("\n".join(f"not ok: {line}" for line in wrong) or f"{n} functions")
sys.exit(bool(wrong) or n < 1000)
