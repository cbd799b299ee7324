#!/usr/bin/env python3
"""One table of the file formats: what the stages and the scripts write is as scripts/bregman/schema.py reads it, and no
script has a text of its own for what the table describes."""

from text_checks import SCRIPTS, check, finish, path, refused, run, tiny_model, write
from engine_checks import FOLDER as ENGINE_FOLDER, engine, shared_files

import glob
import json
import os
import shutil

import h5py

from bregman import schema
from bregman.files import DTYPE

MODEL = tiny_model("model")[0]


def own_datasets(path):
    """{name: dataset} of a file's own datasets: not the axes without values."""
    found, file = {}, h5py.File(path, "r")

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not (item.is_scale and item.id.get_storage_size() == 0):
            found[name] = item

    file.visititems(visit)
    return found


def axis_of(data, d):
    """(the axis's name, its scale's path)"""
    scale = data if data.is_scale else data.dims[d][0]
    return data.dims[d].label, scale.name.lstrip("/")


def compare(what, data, row):
    """A dataset against its row."""
    right = h5py.check_string_dtype(data.dtype) if row.dtype == "text" else data.dtype == DTYPE[row.dtype]
    check(right, f"{what}: type", data.dtype)
    for name in ("units", "description", "sample_dimension"):
        check(data.attrs.get(name) == getattr(row, name), f"{what}: {name}", data.attrs.get(name))
    check(tuple(data.dims[d].label for d in range(data.ndim)) == row.axes, f"{what}: axes", row.axes)


def test_scripts():
    write("c.jsonl", '{"text": "the cat and the dog", "id": "a"}\n{"text": "and then", "id": "b"}\n')
    related = '"kind": "fact", "related": {"same": ["a", "b"]}'
    write("q.jsonl", f'{{"id": "q", "prompt": "the", "completion": " and", "alternative": " cat", {related}}}\n')
    for done in (
        run("tokenize_corpus", "c.jsonl", "--model", MODEL, "--output", path("t"), "--packing", "concat"),
        run("tokenize_queries", "q.jsonl", "--model", MODEL, "--output", path("q.h5")),
    ):
        check(done.returncode == 0, "files are written", done.stderr)
    for kind, name in (("bregman/tokens", "t/c.h5"), ("bregman/queries", "q.h5")):
        found = own_datasets(path(name))
        # a corpus of text has no mask; a query of several texts has one
        rows = {n: row for n, row in schema.rows(kind).items() if n != "loss" or name == "q.h5"}
        check({n for n in found if not n.startswith("run/")} == set(rows), f"{name}: datasets", sorted(found))
        for dataset, row in rows.items():
            compare(dataset, found[dataset], row)
            check(axis_of(found[dataset], 0) == (row.axes[0], row.keys[0]), f"{dataset}: scale", row.keys)
        for dataset in ("run/input_name", "run/input_hash"):
            row, attributes = schema.find(kind, dataset), found[dataset].attrs
            check(
                (attributes["units"], attributes["description"]) == (row.units, row.description), f"{name}: {dataset}"
            )


def test_stages():
    work, tokens, seen = engine("llama", "schema"), shared_files()[0], set()
    rows = {name.removeprefix("*"): row for name, row in schema.rows("bregman/factors").items()}
    for kind in ("ekfac", "shampoo"):
        factors = work.fit(tokens, kind, "--preconditioner", kind)
        found = own_datasets(glob.glob(f"{factors}/block-*.h5")[0])
        of_modules = [name for name in found if not name.startswith("run/")]
        seen |= {"/" + name.split("/")[-1] for name in of_modules}
        for name in of_modules:
            compare(name, found[name], rows["/" + name.split("/")[-1]])
    check(seen == set(rows), "all datasets of factors", seen ^ set(rows))
    with h5py.File(f"{factors}/index.h5") as file:
        run = dict(file["run"].attrs)
    check('"hdf5":' in run["library_versions"], "a stage's file names its libraries", run["library_versions"])
    check(run["precision"] == "float32", "and the precision of its products", run["precision"])


def test_axes():
    """The same axis in several datasets of a file, or in one group only."""
    for kind, name, keys in (
        ("bregman/tokens", "piece/count", ("sequence",)),
        ("bregman/tokens", "piece/start", ("piece/piece",)),
        ("bregman/tokens", "documents/id", ("documents/document",)),
        ("bregman/ranking", "top/score", ("query", "k")),
        ("bregman/ranking", "bottom/token_score", ("bottom/value",)),
        ("bregman/ranking", "run/input_hash", ("run/input_file",)),
    ):
        row = schema.find(kind, name)
        check(row.keys == keys and len(row.axes) == len(keys), f"{name}: which axes are one", row.keys)
    check(schema.find("bregman/queries", "documents/id") is None, "a dataset of another format")


def test_no_copies():
    with open(schema._path(), encoding="utf-8") as file:
        descriptions = {row["description"] for row in json.load(file)["rows"]}
    descriptions = {text for text in descriptions if len(text) > 12}
    for folder, _, names in os.walk(SCRIPTS):
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                text = " ".join(file.read().split())
            copies = [] if name.endswith((".c", ".pyc")) else [d for d in descriptions if f'"{d}"' in text]
            check(not copies, f"{name} has its own text for a dataset", copies)


def test_before_make():
    for table, cause in ((path("none.json"), "No such file"), (write("short.json", '{"rows": ['), "cut short")):
        environment = {**os.environ, "BREGMAN_SCHEMA": table}
        for script, *arguments in (
            ("tokenize_corpus", "c.jsonl", "--output", path("none"), "--model", MODEL),
            ("tokenize_queries", "q.jsonl", "--output", path("none.h5"), "--model", MODEL),
            (
                "report",
                "--ranking",
                path("q.h5"),
                "--queries",
                path("q.h5"),
                "--tokens",
                path("t/c.h5"),
                "--output",
                path("r.html"),
            ),
        ):
            done = run(script, *arguments, env=environment)
            refused(f"{script} without the table", done, script, table, cause, "run make in")
        check(not glob.glob(path("none*.h5*")) and not glob.glob(path("none/*")), "nothing is left behind")


test_scripts()
test_stages()
test_axes()
test_no_copies()
test_before_make()
shutil.rmtree(ENGINE_FOLDER)
finish()
