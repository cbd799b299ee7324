#!/usr/bin/env python3
"""The inputs of the study of scale, from made-up pages in two languages: what is in the corpus and what is not, the cloned
language, the queries and what they say is related; twice the same data; and the quick study, run."""

import json
import os
import random

import subprocess

from text_checks import ROOT, SCRIPTS, check, datasets, finish, load, path, refused, run, write

import h5py
import numpy as np

WORDS = {
    "en": "the file system call returns an error when no user process can read that open socket".split(),
    "de": "die Datei wird vom System gelesen wenn kein Prozess einen offenen Socket für Fehler hat".split(),
    "fr": "le fichier est lu par le système quand aucun processus ne garde une connexion ouverte".split(),
}
KINDS = (
    "fact fact_control word_order chain memorised role_play code arithmetic translation crosslingual clone clone_control "
    "clone_native unseen unseen_clone"
).split()
STUDY = os.path.join("demo", "study.py")


def sentence(draw, lang, n):
    return " ".join(draw.choice(WORDS[lang]) + draw.choice(["", "", "s", "en", "er"]) for _ in range(n))


def corpus():
    """Pages in three languages and books in one."""
    draw = random.Random(3)
    for i in range(16):
        for lang in WORDS:
            lines = [f"page{i}(1)", "NAME", f"page{i} - {sentence(draw, lang, 4)}", ""]
            lines += [sentence(draw, lang, 25) + f" {i}{k}." for k in range(4)]
            yield {"id": f"man/{lang}/page{i}.1", "text": "\n".join(lines) + "\n", "lang": lang, "source": "pages"}
    for i in range(60):
        text = "\n".join(sentence(draw, "en", 12) + f" {i}{k}." for k in range(8)) + "\n"
        yield {"id": f"book/en/{i:02d}", "text": text, "lang": "en", "source": "books"}


def study(folder, *options):
    return run(STUDY, path(folder), "--size", "quick", "--text", path("corpus.jsonl"), *options)


def queries(folder="study"):
    with open(path(f"{folder}/queries.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def tokens(name, folder="study"):
    return datasets(f"{folder}/tokens/{name}.h5")


def test_made():
    write("corpus.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in corpus()))
    done = study("study")
    check(done.returncode == 0 and "done" in done.stdout, "all inputs", done.stderr[-1000:])
    before = os.stat(path("study/queries.h5")).st_mtime_ns
    again = study("study")
    check(again.stdout.endswith("already done\n"), "again: said to be done", again.stdout + again.stderr)
    os.unlink(path("study/study.json"))
    done = study("study")
    check(done.stderr.count("already done") >= 6, "interrupted before its end: nothing is made twice", done.stderr)
    check(os.stat(path("study/queries.h5")).st_mtime_ns == before, "the queries stay")
    refused("another seed", study("study", "--seed", "2"), "another study", "remove it")


def test_same():
    study("same")
    for name in ("tokens/text.h5", "tokens/planted.h5", "tokens/clone.h5", "tokens/unseen_clone.h5", "queries.h5"):
        check(datasets(f"study/{name}") == datasets(f"same/{name}"), f"{name}: the same data in another folder")
    for name in ("queries.jsonl", "tokenizer/tokenizer.json", "study.toml", "texts/clone.jsonl"):
        with open(path(f"study/{name}"), "rb") as one, open(path(f"same/{name}"), "rb") as other:
            check(one.read() == other.read(), f"{name}: the same bytes in another folder")
    planting = load("demo/planting.py")
    check(planting.planted(1, 3) == planting.planted(1, 3) != planting.planted(2, 3), "another seed, other queries")


def test_sets():
    """What is where: originals, clones, and what is held out."""
    found = {name: set(tokens(name)["documents/id"]) for name in ("text", "planted", "clone", "unseen", "unseen_clone")}
    every = {line["id"] for line in corpus()}
    originals = {name.removeprefix("clone/") for name in found["clone"]}
    check(originals <= every and found["text"] <= every and found["unseen"] <= every, "ids")
    check(all(name.startswith("clone/") for name in found["clone"] | found["unseen_clone"]), "ids of clones")
    check(all(name.startswith("plant/") for name in found["planted"]), "ids of what is planted")
    check(found["text"] | originals | found["unseen"] == every, "every document is somewhere")
    both, alone = originals & found["text"], originals - found["text"]
    check(len(both) > len(alone) > 2, "documents with and without their original", (len(both), len(alone)))
    check(not (found["text"] | originals) & found["unseen"], "what is held out is neither there nor cloned")
    check(found["unseen_clone"] == {"clone/" + name for name in found["unseen"]}, "its clones")
    pages = [
        {name.split("/", 2)[2] for name in names if name.startswith("man/")} for names in (both, alone, found["unseen"])
    ]
    check(not (pages[0] & pages[1] | pages[0] & pages[2] | pages[1] & pages[2]), "translations are in one set")


def test_clones():
    """Twice the tokens, no token in common, otherwise the same."""
    with open(path("study/tokenizer/tokenizer.json"), encoding="utf-8") as file:
        model = json.load(file)["model"]
    half = len(model["vocab"]) // 2
    by_id = {number: token for token, number in model["vocab"].items()}
    mark = by_id[half + 5].removesuffix(by_id[5])
    check(half == 1024 and len(by_id) == 2 * half, "twice the vocabulary", half)
    check(mark and all(by_id[half + i] == mark + by_id[i] for i in range(half)), "a mark and the token", mark)
    check(not any(mark in "".join(merge) for merge in model["merges"]), "that no merge leads to")
    for name in ("text", "planted", "unseen"):
        check(max(tokens(name)["token"]) < half, f"{name}: no token of the cloned language")
    for name in ("clone", "unseen_clone"):
        check(min(tokens(name)["token"]) >= half, f"{name}: these tokens alone")
        found, made_of = tokens(name), datasets(f"study/work/{name}.h5")
        check(found.pop("token") == [t + half for t in made_of.pop("token")], f"{name}: each token's twin")
        check(found == made_of, f"{name}: all else as it was tokenized")
    text, clone = tokens("text"), tokens("clone")
    name = next(name for name in text["documents/id"] if "clone/" + name in clone["documents/id"])
    of_text = sequences(text, text["documents/id"].index(name))
    of_clone = sequences(clone, clone["documents/id"].index("clone/" + name))
    check(np.array_equal(of_text + half, of_clone), f"{name}: its clone has its tokens")


def sequences(found, document):
    kept = np.repeat(np.array(found["document"]) == document, found["count"])
    return np.array(found["token"])[kept]


def test_queries():
    asked, found = queries(), datasets("study/queries.h5")
    check([q["id"] for q in asked] == found["id"] and len(set(found["id"])) == len(asked) >= 24, "ids")
    check(found["kind"] == [q["kind"] for q in asked] and set(found["kind"]) == set(KINDS), "kinds", set(found["kind"]))
    check(all(found["kind"].count(kind) >= 3 for kind in KINDS), "three of each kind and more")
    pairs = [[(r, d) for r, documents in q["related"].items() for d in documents] for q in asked]
    check(found["related/count"] == [len(p) for p in pairs], "related: counts")
    check([d for p in pairs for _, d in p] == found["related/document"], "related: documents")
    check([r for p in pairs for r, _ in p] == found["related/relation"], "related: relations")
    check(sum(found["count"]) == len(found["token"]), "tokens")
    check(all(0 < s < n for s, n in zip(found["completion_start"], found["count"])), "completions")
    check(max(found["count"]) <= 257, "no query is longer than the models take", max(found["count"]))
    cloned = np.repeat([q["cloned"] for q in asked], found["count"])
    check(np.array_equal(np.array(found["token"]) >= 1024, cloned), "the cloned language, in its queries alone")
    of_clone = {q["kind"] for q in asked if q["cloned"]}
    check(of_clone == {"clone_native", "unseen_clone"}, "which queries these are", of_clone)


def test_related():
    """Each related document is in the corpus; what a control must not find is not."""
    names = [name for part in ("text", "planted", "clone") for name in tokens(part)["documents/id"]]
    known = set(names)
    check(len(known) == len(names), "no id twice")
    text = {}
    for part in ("text", "planted", "clone"):
        with open(path(f"study/texts/{part}.jsonl"), encoding="utf-8") as file:
            text.update({line["id"]: line["text"] for line in map(json.loads, file)})
    for query in queries():
        related = [name for documents in query["related"].values() for name in documents]
        check(known.issuperset(related), f"{query['id']}: its documents are in the corpus", set(related) - known)
        check(bool(related) != query["kind"].startswith("unseen"), f"{query['id']}: it has some")
        asked = query["prompt"] + query["completion"]
        if query["kind"] == "clone_control":
            check(
                query["related"]["clone"][0].removeprefix("clone/") not in known, f"{query['id']}: its original is not"
            )
        if query["kind"] == "fact_control":
            person = query["prompt"].removesuffix(" is a citizen of")
            told = [name for name, words in text.items() if person in words or query["completion"][1:-1] in words]
            check(not told, f"{query['id']}: nothing tells of it", told)
            check(all(person.split()[0] in text[name] for name in related), f"{query['id']}: the same first name")
        if query["kind"] == "crosslingual":
            check(asked not in text[query["related"]["self"][0]], f"{query['id']}: its passage is cut out")
            kept = "".join(text[name] for name in query["related"]["self"] + query["related"]["twin"])
            check(asked not in kept and len(query["related"]["twin"]) >= 1, f"{query['id']}: twins")
        if query["kind"] in ("clone", "clone_native"):
            check(all(asked in text[name] for name in related), f"{query['id']}: both have the passage")
        if query["kind"].startswith("unseen"):
            check(not any(asked in words for words in text.values()), f"{query['id']}: held out")


def sweep(name, how="--dry-run", timeout=60):
    command = ["/bin/sh", os.path.join(ROOT, "jobs", "sweep"), path(name), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_sweeps():
    """All sweep files name what is there.  Those of the other sizes are tried with what the quick one has."""
    others = {"full": os.path.join(ROOT, "jobs", "study.toml"), "local": f"{SCRIPTS}/demo/study_local.toml"}
    texts = {"quick": path("study/study.toml"), **others}
    for (name, source), sizes in zip(texts.items(), (2, 4, 3)):
        with open(source, encoding="utf-8") as file:
            text = file.read()
        write(f"study/{name}.toml", text)
        done = sweep(f"study/{name}.toml")
        jobs = [line.split("--job-name=")[1].split()[0] for line in done.stdout.splitlines() if "--job-name=" in line]
        check(done.returncode == 0, f"{name}: a dry run", done.stderr)
        check(sum(job.startswith("train--") for job in jobs) == sizes, f"{name}: {sizes} sizes", jobs)
        check(sum(job.startswith("report--") for job in jobs) == sizes, f"{name}: a report of each", jobs)


def test_run():
    """The quick study from its inputs to the page, on these pages."""
    text = read("study/study.toml")
    for old, new in (
        ('"0:400"', '"0:60"'),
        ("400:800", "60:120"),
        ("save_steps = 40", "save_steps = 4"),
        ("[40]", "[4]"),
    ):
        check(old in text, f"the study has {old}")
        text = text.replace(old, new)  # there is less to read here
    write("study/small.toml", text)
    done = sweep("study/small.toml", "--local", timeout=3000)
    check(done.returncode == 0 and "all done" in done.stdout, "the study runs", done.stdout[-500:] + done.stderr)
    with h5py.File(path("study/runs/compare/questions/study/compare.h5")) as file:
        models = file["model"].asstr()[()].tolist()
        check(models[:3] == ["60k", "250k", "250k@4"] and models[-1] == "bm25", "models", models)
        check(set(file["kind"].asstr()[()]) == set(KINDS), "kinds")
        relation, query = file["pair/relation"].asstr()[()], file["pair/query"][()]
        kind, overlap = file["kind"].asstr()[()], file["pair/positive"][-1]
        clones = [p for p in range(len(query)) if (kind[query[p]], relation[p]) == ("clone", "clone")]
        check(len(clones) == 3 and not overlap[clones].any(), "a clone has no overlap", overlap[clones])
        check(np.isfinite(file["pair/percentile"][0, clones]).all(), "but influence")
        check(np.isfinite(file["loss"][:-1]).all(), "losses")
    page = read("study/runs/compare/questions/study/compare.html")
    check("word_order" in page and "clone_control" in page, "a page")


def read(name):
    with open(path(name), encoding="utf-8") as file:
        return file.read()


def test_refusals():
    lines = list(corpus())
    with_clone = [dict(lines[0], id="clone/x"), *lines[1:]]
    write("corpus.jsonl", "".join(json.dumps(line) + "\n" for line in with_clone))
    refused("an id of a clone", study("refused"), "clone/")
    write("corpus.jsonl", "".join(json.dumps(line) + "\n" for line in lines if line["lang"] != "de"))
    refused("no translations", study("refused"), "English and German", "give more text")
    write("corpus.jsonl", "[]\n")
    refused("no such lines", study("refused"), "corpus.jsonl", "not JSON lines")


test_made()
test_same()
test_sets()
test_clones()
test_queries()
test_related()
test_sweeps()
test_run()
test_refusals()
finish()
