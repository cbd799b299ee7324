#!/usr/bin/env python3
"""A ranking as CSV, JSON lines and Parquet: the three say the same, and what the files that they come from say."""

from text_checks import FOLDER, check, finish, path, refused, run, write

import csv
import json
import os
import subprocess
import sys

import h5py
import make_sample
import numpy as np
import pyarrow.parquet

COPIES = 20000


def export(name, *options):
    files = ("--ranking", "ranking.h5", "--queries", "queries.h5", "--tokens", "b.h5", "a.h5", "--model", "model")
    return run("export", *files, "--output", path(name), *options)


def read_csv(name):
    with open(path(name), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_jsonl(name):
    with open(path(name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def of_csv(value, as_of):
    if value == "" and as_of != "":
        return None
    if isinstance(as_of, list):
        return json.loads(value)
    return type(as_of)(value) if as_of is not None else value


def check_rows(rows):
    with h5py.File(path("ranking.h5")) as ranking:
        want = []
        for query, id in enumerate(ranking["query"].asstr()[:]):
            for end in ("top", "bottom"):
                for place, sequence in enumerate(ranking[f"{end}/sequence"][query]):
                    if sequence >= 0:
                        want.append((id, end, place + 1, sequence, ranking[f"{end}/document"].asstr()[query, place]))
        found = [tuple(row[k] for k in ("query", "end", "rank", "sequence", "document")) for row in rows]
        check(found == want, "a row for each query and sequence", found[:3])
        mean, sd, n = (ranking[f"moments/{name}"][:] for name in ("mean", "sd", "count"))
        with h5py.File(path("queries.h5")) as queries:
            n_tokens = queries["count"][:].astype(int) - queries["completion_start"][:]
        place = {id: i for i, id in enumerate(ranking["query"].asstr()[:])}
        for row in rows:
            query, below = place[row["query"]], row["rank"] - 1
            if row["end"] == "top":
                below = n[query] - 1 - below
            name = f"{row['query']} {row['end']} {row['rank']}"
            log_probability = -ranking["query_loss"][query]
            check(row["log_probability"] == log_probability, name, "log-probability of the completion")
            check(np.isclose(row["log_probability_per_token"] * n_tokens[query], log_probability), name, "of a token")
            check(row["score"] == ranking[f"{row['end']}/score"][query, row["rank"] - 1], name, "score")
            check(np.isclose(row["z_score"], (row["score"] - mean[query]) / sd[query]), name, "z-score")
            check(np.isclose(row["percentile"], 100 * below / (n[query] - 1)), name, "percentile")
            check(np.isclose(row["score_per_copy"] * COPIES, row["score"]), name, "of one copy")
    texts = {id: (source, lang, text) for id, source, lang, text in make_sample.DOCUMENTS}
    for row in rows:
        source, language, text = texts[row["document"]]
        check((row["source"], row["language"]) == (source, language), row["document"], "source and language")
        check(row["text"].strip() == text.strip(), row["document"], "text")
        check(text[row["begin_character"] : row["end_character"]] == row["text"], row["document"], "characters")


def check_overlap(rows):
    """BM25, from the tokens of all sequences (there are ten, each once in the corpus)."""
    made = {row["sequence"]: set(row["token"]) for row in rows}
    with h5py.File(path("a.h5")) as a, h5py.File(path("b.h5")) as b, h5py.File(path("queries.h5")) as queries:
        for file, first in ((a, 0), (b, 5)):
            for i, tokens in enumerate(np.split(file["token"][:], np.cumsum(file["count"][:])[:-1])):
                check(made.get(first + i, set(tokens)) == set(tokens), "tokens")
                made[first + i] = set(tokens)
        asked = dict(zip(queries["id"].asstr()[:], np.split(queries["token"][:], np.cumsum(queries["count"][:])[:-1])))
    for row in rows:
        common = made[row["sequence"]] & set(asked[row["query"]])
        idf = [
            np.log((len(made) - n + 0.5) / (n + 0.5) + 1)
            for n in (sum(t in has for has in made.values()) for t in common)
        ]
        check(np.isclose(row["bm25"], sum(idf), rtol=1e-12), "BM25", row["document"])


def check_parts(rows):
    explained = [row for row in rows if row["token_score"] is not None]
    check(len(explained) == len(rows), "all are explained")
    for row in explained:
        layers = [value for name, value in row.items() if name.startswith("layer_")]
        size = np.abs(row["token_score"]).sum()
        check(len(layers) == 12 and abs(sum(layers) - row["score"]) < 1e-4 * size, "layers add up to the score")
        check(abs(sum(row["token_score"]) - row["score"]) < 1e-4 * size, "tokens add up to the score")
        check("".join(row["token_text"]) == row["text"], "token texts make up the text")
        n = len(row["token"])
        check(n == row["n_tokens"] == len(row["token_text"]) == len(row["token_score"]) + 1, "lists have one length")


def test_formats():
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        done = export(name, "--corpus-sequences", COPIES, "--token-lists")
        check(done.returncode == 0, name, done.stderr[-300:])
    rows = read_jsonl("t.jsonl")
    check_rows(rows)
    check_parts(rows)
    check_overlap(rows)
    check(pyarrow.parquet.read_table(path("t.parquet")).to_pylist() == rows, "Parquet says what the lines say")
    lines = read_csv("t.csv")
    same = [{k: of_csv(line[k], row[k]) for k in row} for line, row in zip(lines, rows)]
    check(len(lines) == len(rows) and same == rows, "CSV says what the lines say")


def test_selection():
    check(export("few.jsonl", "--show", 2, "--ends", "bottom").returncode == 0, "two of the bottom")
    rows = read_jsonl("few.jsonl")
    check({row["end"] for row in rows} == {"bottom"} and max(row["rank"] for row in rows) == 2, "two of the bottom")
    check("token" not in rows[0] and rows[0]["score_per_copy"] is None, "nothing that was not asked for")


def test_refused():
    refused("another ending", export("t.txt"), "t.txt", ".parquet", code=2)
    refused("no sequences", export("t.csv", "--show", 0), "at least 1", code=2)
    write("mine.csv", "precious,data\n")
    refused("another table", export("mine.csv"), "mine.csv", "choose another --output")
    with open(path("mine.csv"), encoding="utf-8") as file:
        check(file.read() == "precious,data\n", "another table is left alone")
    check(export("t.csv").returncode == 0, "a table of its own is replaced")
    os.mkdir(path("folder.csv"))
    refused("a folder", export("folder.csv"), "folder.csv")
    with h5py.File(path("ranking.h5"), "r+") as file:
        file["top/token_score"][0] += 100
    refused("parts that do not add up", export("u.jsonl"), "add up", "explain it again")
    check(not os.path.exists(path("u.jsonl")), "nothing is left of a table that failed")


subprocess.run([sys.executable, make_sample.__file__, FOLDER], check=True, stdout=subprocess.DEVNULL)
test_formats()
test_selection()
test_refused()
finish()
