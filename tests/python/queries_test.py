#!/usr/bin/env python3
"""tokenize_queries: the boundary, special tokens, refusals, reruns; the demo's queries are well formed."""

from text_checks import SCRIPTS, check, datasets, finish, path, refused, run, tiny_model, write

import json
import os

MODEL, TOKENIZER, EOS = tiny_model("model")
BOS_MODEL, _, _ = tiny_model("bos", bos=True)  # <eos> TEXT <eos>: what stands behind the prompt must go
SHORT_MODEL, _, _ = tiny_model("short", config={"vocab_size": 261, "max_position_embeddings": 8})


def tokenize(text, model=MODEL, out="q.h5", *options):
    write("q.jsonl", text)
    return run("tokenize_queries", "q.jsonl", "--model", model, "--output", path(out), *options)


def query(**fields):
    return json.dumps({"id": "a", "prompt": "the", "completion": " and", **fields}) + "\n"


def test_tokens():
    # "t" + "he" would merge into one token: the boundary must stay between prompt and completion
    two = query(prompt="t", completion="he and") + query(id="ä", prompt="the cat", completion=" sat", expect=["x"])
    done = tokenize(two)
    check(done.returncode == 0, "two queries", done.stderr)
    found = datasets("q.h5")
    parts = [TOKENIZER.encode(text).ids for text in ("t", "he and", "the cat", " sat")]
    check(found["token"] == sum(parts, []), "token", found["token"])
    check(found["count"] == [len(parts[0] + parts[1]), len(parts[2] + parts[3])], "count")
    check(found["completion_start"] == [1, len(parts[2])] and found["id"] == ["a", "ä"], "completion_start, id")
    check(
        found["attributes"]["format"] == "bregman/queries" and found["attributes"]["vocab_size"] == EOS + 1,
        "root attributes",
    )
    check("already done" in tokenize(two).stdout, "already done")
    refused("other queries", tokenize(query()), "q.h5", "--force")
    check(tokenize(query(), MODEL, "q.h5", "--force").returncode == 0, "--force replaces")

    tokenize(query(prompt=""), BOS_MODEL, "bos.h5")
    found = datasets("bos.h5")
    check(
        found["token"] == [EOS] + TOKENIZER.encode(" and").ids and found["completion_start"] == [1],
        "an empty prompt after a begin token",
        found["token"],
    )
    tokenize(query(), BOS_MODEL, "bos2.h5")
    found = datasets("bos2.h5")
    check(
        found["token"] == [EOS] + TOKENIZER.encode("the").ids + TOKENIZER.encode(" and").ids,
        "begin token, no end token",
        found["token"],
    )


def test_refusals():
    refusals = {
        "no completion": (query(completion=""), '"a"', "no completion"),
        "missing completion": ('{"id": "a", "prompt": "x"}\n', '"a"', "no completion"),
        "nothing to predict from": (query(prompt=""), '"a"', "prompt gives no token"),
        "same id twice": (query() + query(), "q.jsonl:2", '"a"', "q.jsonl:1"),
        "no id": ('{"prompt": "x", "completion": "y"}\n', "q.jsonl:1", '"id"'),
        "invalid JSON": (query() + "{\n", "q.jsonl:2", "invalid JSON"),
        "not an object": ("[]\n", "q.jsonl:1", "not an object"),
        "unpaired surrogate": ('{"id": "a", "prompt": "x", "completion": "\\ud800"}\n', '"a"', "invalid UTF-8"),
        "prompt is no text": (query(prompt=1), '"a"', "prompt"),
        "no query": ("\n", "holds no query"),
    }
    for name, (text, *parts) in refusals.items():
        refused(name, tokenize(text, MODEL, "refused/q.h5"), "q.jsonl", *parts)
    write("bad.jsonl", b'{"id": "a", "prompt": "\xff"}')
    refused(
        "invalid UTF-8",
        run("tokenize_queries", "bad.jsonl", "--model", MODEL, "--output", path("refused/q.h5")),
        "bad.jsonl:1",
        "invalid UTF-8",
    )
    refused(
        "longer than the model",
        tokenize(query(completion="0123456789"), SHORT_MODEL, "refused/q.h5"),
        '"a"',
        "8 positions",
    )
    check(os.listdir(path("refused")) == [], "nothing left of what was refused")
    # the last token is predicted only: one more than there are positions
    check(
        tokenize(query(completion="01234567"), SHORT_MODEL, "short.h5").returncode == 0
        and datasets("short.h5")["count"] == [9],
        "one token more than positions",
    )
    refused(
        "two more",
        tokenize(query(completion="012345678"), SHORT_MODEL, "refused/q.h5"),
        '"a"',
        "10 tokens",
        "8 positions",
    )


def test_about():
    """kind and related: stored as they are, left out where no query has them, refused where they are something else."""
    related = {"same": ["d/1", "d/2"], "ä": ["d/3"]}
    lines = query(id="x", kind="fact", related=related) + query(id="y") + query(id="z", related={"same": ["d/1"]})
    check(tokenize(lines, MODEL, "about.h5").returncode == 0, "kind and related")
    found = datasets("about.h5")
    check(found["kind"] == ["fact", "", ""] and found["related/count"] == [3, 0, 1], "kind, counts", found)
    check(found["related/relation"] == ["same", "same", "ä", "same"], "relations", found["related/relation"])
    check(found["related/document"] == ["d/1", "d/2", "d/3", "d/1"], "documents", found["related/document"])
    check("already done" in tokenize(lines, MODEL, "about.h5").stdout, "already done, with kind and related")
    without = query(id="x") + query(id="y") + query(id="z")
    tokenize(without, MODEL, "without.h5")
    bare = datasets("without.h5")
    check(not {"kind", "related/count"} & set(bare) and bare["token"] == found["token"], "neither, the same tokens")
    tokenize(query(kind="", related={"same": []}), MODEL, "empty.h5")
    check(not {"kind", "related/count"} & set(datasets("empty.h5")), "empty ones are none")
    refusals = {
        "kind is no text": ({"kind": 3}, "its kind is 3"),
        "kind is null": ({"kind": None}, "its kind is null"),
        "kind with an unpaired surrogate": ({"kind": "\ud800"}, "kind"),
        "related is a list": ({"related": ["d"]}, "no object of relations"),
        "a relation without a name": ({"related": {"": ["d"]}}, "relation's name"),
        "one document without a list": ({"related": {"same": "d"}}, '"same" are no list'),
        "a document's number": ({"related": {"same": ["d", 1]}}, '"same" are no list'),
        "a document twice": ({"related": {"same": ["d", "d"]}}, 'twice as "same"'),
    }
    for name, (fields, part) in refusals.items():
        done = tokenize(query(id="first") + query(**fields), MODEL, "refused/q.h5")
        refused(name, done, "q.jsonl:2", '"a"', part)


def test_demo_queries():
    with open(os.path.join(SCRIPTS, "demo", "queries.jsonl"), encoding="utf-8") as file:
        queries = [json.loads(line) for line in file]
    check(len(queries) == 8 and all(q["expect"] and q["prompt"] and q["completion"] for q in queries), "demo queries")


test_tokens()
test_refusals()
test_about()
test_demo_queries()
finish()
