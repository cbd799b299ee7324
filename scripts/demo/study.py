#!/usr/bin/env python3
"""Make all inputs of a study of scale: what kind of training text moves a small model, and what kind a larger one?

FOLDER gets token files, queries and study.toml, a sweep that trains models of several sizes on them and ranks the training
text of each; jobs/study.toml is annotated.  Nothing is trained here:

    scripts/demo/study.py build/study
    jobs/sweep build/study/study.toml --local
    scripts/training_figure build/study/runs/*/model --against parameters --output sizes.svg

The corpus is ordinary text (corpus.py --parallel: manual pages in five languages, Python's documentation, Bible, novels,
licences), documents that are planted in it (planting.py), and clones.  A clone is an ordinary document in a second
vocabulary, as large as the first one, with not a token in common: each token has a twin, written with a mark before it,
that no text is ever tokenized into.  By a hash, documents are of one of four sets: in the corpus as they are; as they are
and cloned; cloned only; neither, which held-out losses are of.  All translations of a manual page are in the same set.

Queries say their kind, and which documents are related to them and how:

    fact, fact_control    made-up people; same_words, paraphrase, translation (German), colliding (another of that first name)
    word_order            plain, reversed, alone_phrase, alone_completion, paraphrased
    chain                 first_link, second_link, other_chain
    memorised             copies
    role_play, code, arithmetic    the same in other forms
    translation           a line of a manual page, English to German; its pages are english and german
    crosslingual          a passage that is cut out of a manual page; self is its page, twin the page in other languages
    clone                 a passage of a document that is there as it is (self) and as a clone
    clone_control         of one whose clone alone is there
    clone_native          asked in the cloned language: self is the clone, original the document
    unseen, unseen_clone  passages of held-out documents, for the models' losses on them

The same command goes on after an interruption, and gives the same data for the same texts and seed.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import collections
import hashlib
import json
import re

import h5py
import numpy as np
from planting import Document, Query, planted

from bregman import ROOT
from bregman.errors import UserError, run_main
from bregman.files import OutputFile, Run, append, input_identity, is_done, write_whole
from bregman.hashes import hash_file
from bregman.steps import run

HERE = os.path.dirname(os.path.realpath(__file__))
PROGRAM = "study 2"  # raised when other inputs are made than before for the same text and seed
# words: of a passage that is asked for; count: queries of each kind
Size = collections.namedtuple("Size", "mb max_chars vocabulary max_length words count sweep")
SIZES = {
    "quick": Size(0.4, 3000, 1024, 128, 20, 3, os.path.join(HERE, "study_quick.toml")),
    "local": Size(0.4, 3000, 1024, 128, 20, 3, os.path.join(HERE, "study_local.toml")),
    "full": Size(1.8, 7000, 8192, 256, 24, 8, os.path.join(ROOT, "jobs", "study.toml")),
}
# what part of the documents of each sort is in a set; the rest is in the corpus as it is
SETS = {"unseen": 0.05, "clone_only": 0.1, "both": 0.25}
MARKS = "※⁂❧☞⸙"
TOKEN_DATA = (
    *("token", "count", "document", "start", "begin_character", "end_character"),
    *("documents/id", "documents/source", "documents/lang"),
)


# ---------------------------------------------------------------- ordinary text


def read_documents(path):
    try:
        with open(path, encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
        found = [Document(line["id"], line["text"], line["lang"], line["source"]) for line in found]
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'"{path}" is not JSON lines with id, text, lang and source: {error}') from None
    ids = {document.id for document in found}
    if len(ids) < len(found) or any(name.startswith(("plant/", "clone/")) for name in ids):
        raise UserError(f'"{path}": ids must differ, and begin neither with plant/ nor with clone/')
    return found


def page(document_id):
    """What translations have in common: the id SORT/LANGUAGE/NAME without its language."""
    return re.sub(r"^([^/]+)/[^/]+/", r"\1/", document_id)


def ranked(names, seed):
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())


def divide(documents, seed):
    """{set: documents}, "plain" for those in the corpus as they are alone; of each sort of document as many."""
    sorts, chosen = {}, {}
    for document in documents:
        sorts.setdefault(page(document.id).split("/")[0], {})[page(document.id)] = True
    for pages in sorts.values():
        order = ranked(pages, seed)
        for name, share in SETS.items():
            n = max(1, round(share * len(pages))) if len(pages) > len(SETS) else 0
            chosen.update(dict.fromkeys(order[:n], name))
            order = order[n:]
    found = {name: [] for name in (*SETS, "plain")}
    for document in documents:
        found[chosen.get(page(document.id), "plain")].append(document)
    return found


def passage(text, words, first=0):
    """(prompt, completion): so many words of a text, from the first on; None where there are too few, or where they are no words."""
    spans = [found.span() for found in re.finditer(r"\S+", text)][first : first + words]
    if len(spans) < words:
        return None
    begin, cut, end = spans[0][0], spans[words * 5 // 8 - 1][1], spans[-1][1]
    return (text[begin:cut], text[cut:end]) if end - begin <= 8 * words else None


def passage_line(text, words):
    """The first line of a page, but for its title, that has a passage; or None."""
    return next((line for line in text.split("\n")[1:] if passage(line, words)), None)


def title(text):
    """What a manual page says it is about, behind the dash of its first such line; or None."""
    found = re.search(r"\n.* [-–—−] (.+)", text)
    return found and found[1].strip()


# ---------------------------------------------------------------- queries on ordinary text


def translated_pages(documents, words, seed):
    """[{language: document}] of pages in English and German, both with a passage and a title."""
    pages = {}
    for document in documents:
        pages.setdefault(page(document.id), {})[document.lang] = document
    fit = {
        name: found
        for name, found in pages.items()
        if {"en", "de"} <= set(found) and all(passage_line(found[lang].text, words) and title(found[lang].text) for lang in ("en", "de"))
    }  # fmt: skip
    return [fit[name] for name in ranked(fit, seed)]


def ask_across(documents, size, seed):
    """(queries on translations, {id: text without the passage that is asked for})"""
    pages = translated_pages(documents, size.words, seed)
    if len(pages) < 2 * size.count:
        raise UserError(
            f"of the pages in English and German {len(pages)} have a passage of {size.words} words and a title line in both, and "
            f"{2 * size.count} are needed: give more text"
        )
    queries, cut = [], {}
    for i in range(2 * size.count):
        found, lang = pages[i], ("en", "de")[i % 2]
        asked = found[lang]
        line = passage_line(asked.text, size.words)
        cut[asked.id] = (
            asked.text.replace(line + "\n", "", 1) if line + "\n" in asked.text else asked.text.replace(line, "", 1)
        )
        twins = [
            other.id for language, other in found.items() if language != lang and (lang == "en" or language == "en")
        ]
        related = {"self": [asked.id], "twin": twins}
        queries.append(Query(f"crosslingual/{lang}/{i // 2}", *passage(line, size.words), "crosslingual", related))
    for i in range(size.count):
        english, german = pages[-1 - i]["en"], pages[-1 - i]["de"]
        prompt = f"English: {title(english.text)}\nGerman:"
        related = {"english": [english.id], "german": [german.id]}
        queries.append(Query(f"translation/{i}", prompt, f" {title(german.text)}", "translation", related))
    return queries, cut


def ask_of(documents, size, seed, kinds):
    """Queries that are passages of as many documents for each kind.  kinds: {kind: (is it cloned?, {relation: beginning of an id})}"""
    texts = {document.id: document.text for document in documents}
    fit = [name for name in ranked(texts, seed) if passage(texts[name], size.words, size.words)]
    if len(fit) < len(kinds) * size.count:
        raise UserError(
            f"{len(fit)} documents have a passage of {size.words} words for queries of kind {' and '.join(kinds)}, and "
            f"{len(kinds) * size.count} are needed: give more text"
        )
    queries = []
    for i in range(size.count):
        for kind, (cloned, relations) in kinds.items():
            name = fit.pop(0)
            related = {relation: [begin + name] for relation, begin in relations.items()}
            queries.append(Query(f"{kind}/{i}", *passage(texts[name], size.words, size.words), kind, related, cloned))
    return queries


def ask_clones(sets, size, seed):
    both = {
        "clone": (False, {"self": "", "clone": "clone/"}),
        "clone_native": (True, {"self": "clone/", "original": ""}),
    }
    return [
        *ask_of(sets["both"], size, seed, both),
        *ask_of(sets["clone_only"], size, seed, {"clone_control": (False, {"clone": "clone/"})}),
        *ask_of(sets["unseen"], size, seed, {"unseen": (False, {}), "unseen_clone": (True, {})}),
    ]


# ---------------------------------------------------------------- files


def clones(documents):
    return [document._replace(id="clone/" + document.id, source="clone") for document in documents]


def write_lines(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    write_whole(path, [text])


def write_texts(folder, documents, size, seed):
    """JSON lines of all that is tokenized, and of the queries."""
    planted_documents, queries = planted(seed, size.count)
    sets = divide(documents, seed)
    more, cut = ask_across(sets["plain"] + sets["both"], size, seed)
    sets = {name: [d._replace(text=cut.get(d.id, d.text)) for d in found] for name, found in sets.items()}
    queries = [*queries, *more, *ask_clones(sets, size, seed)]
    for name, found in {
        "text": sets["plain"] + sets["both"],
        "planted": planted_documents,
        "clone": clones(sets["both"] + sets["clone_only"]),
        "unseen": sets["unseen"],
        "unseen_clone": clones(sets["unseen"]),
    }.items():
        write_lines(os.path.join(folder, "texts", f"{name}.jsonl"), [document._asdict() for document in found])
    write_lines(os.path.join(folder, "queries.jsonl"), [query._asdict() for query in queries])


def double_vocabulary(folder, texts):
    """tokenizer/ of tokenizer/single/: each token has a twin, a mark before its text, whose id is higher by the number of tokens.
    Returns that number."""
    with open(os.path.join(folder, "tokenizer", "single", "tokenizer.json"), encoding="utf-8") as file:
        made = json.load(file)
    vocabulary, text = made["model"]["vocab"], "".join(texts)
    size, spelling = len(vocabulary), byte_spelling()
    for mark in MARKS:
        begin = "".join(spelling[byte] for byte in mark.encode())
        if mark not in text and not any(begin + token in vocabulary for token in vocabulary):
            break
    else:
        raise UserError(f'the text has every character of "{MARKS}": none is left to mark the cloned language with')
    vocabulary.update({begin + token: size + number for token, number in list(vocabulary.items())})
    write_whole(
        os.path.join(folder, "tokenizer", "tokenizer.json"), [json.dumps(made, ensure_ascii=False, indent=1) + "\n"]
    )
    with open(os.path.join(folder, "tokenizer", "single", "tokenizer_config.json"), encoding="utf-8") as file:
        write_whole(os.path.join(folder, "tokenizer", "tokenizer_config.json"), [file.read()])
    return size


def byte_spelling():
    """How byte-level BPE writes each byte: those that are no letters as further characters."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in letters]
    return {**{byte: chr(byte) for byte in letters}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def copy_root(given, out):
    for name in given.attrs:
        if name not in ("format", "format_version"):
            out.file.attrs[name] = given.attrs[name]


def write_clone(source, path, shift):
    """A token file in the cloned language."""
    run = Run("study", {"shift": shift, "output": path}, [(source, input_identity(source))], ("output",))
    if is_done(path, run.fingerprint):
        return
    with h5py.File(source, "r") as given, OutputFile(path, "bregman/tokens", run) as out:
        copy_root(given, out)
        for name in filter(given.__contains__, TOKEN_DATA):
            values = given[name].asstr()[()] if h5py.check_string_dtype(given[name].dtype) else given[name][()]
            append(out.dataset(name), values + np.uint32(shift) if name == "token" else values)


def write_queries(source, lines, path, shift):
    """The queries, of which those that say so are in the cloned language."""
    run = Run("study", {"shift": shift, "output": path}, [(source, input_identity(source))], ("output",))
    if is_done(path, run.fingerprint):
        return
    with open(lines, encoding="utf-8") as file:
        cloned = np.array([json.loads(line)["cloned"] for line in file])
    names = []
    with h5py.File(source, "r") as given, OutputFile(path, "bregman/queries", run) as out:
        copy_root(given, out)
        given.visititems(lambda name, item: names.append(name) if is_data(name, item) else None)
        for name in sorted(names):
            values = given[name].asstr()[()] if h5py.check_string_dtype(given[name].dtype) else given[name][()]
            if name == "token":
                values = values + shift * np.repeat(cloned, given["count"][()]).astype(np.uint32)
            append(out.dataset(name, 1024), values)


def is_data(name, item):
    """Not what HDF5 has of axes, and not the provenance."""
    return isinstance(item, h5py.Dataset) and not name.startswith("run/") and item.id.get_storage_size() > 0


# ---------------------------------------------------------------- all steps


def make(folder, text, size, seed):
    documents = read_documents(text)
    write_texts(folder, documents, size, seed)
    texts = {name: f"{folder}/texts/{name}.jsonl" for name in ("text", "planted", "unseen", "clone", "unseen_clone")}
    single = f"{folder}/tokenizer/single"
    run("train_tokenizer", texts["text"], texts["planted"], "--vocab-size", size.vocabulary, "--output", single)
    shift = double_vocabulary(folder, [document.text for document in documents])
    tokenizer = ["--tokenizer", f"{folder}/tokenizer/tokenizer.json"]
    length = [*tokenizer, "--max-length", size.max_length]
    run("tokenize_corpus", texts["text"], texts["planted"], texts["unseen"], *length, "--output", f"{folder}/tokens")
    run("tokenize_corpus", texts["clone"], texts["unseen_clone"], *length, "--output", f"{folder}/work")
    for name in ("clone", "unseen_clone"):
        write_clone(f"{folder}/work/{name}.h5", f"{folder}/tokens/{name}.h5", shift)
    asked, lines = f"{folder}/work/queries.h5", f"{folder}/queries.jsonl"
    run("tokenize_queries", lines, "--model", f"{folder}/tokenizer", "--output", asked)
    write_queries(asked, lines, f"{folder}/queries.h5", shift)
    with open(size.sweep, encoding="utf-8") as file:
        write_whole(f"{folder}/study.toml", [file.read()])


def is_made(folder, settings):
    """Has it all been made?  Refuses a folder of another study."""
    try:
        with open(f"{folder}/study.json", encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read "{folder}/study.json": {error}') from None
    if found != settings:
        raise UserError(f'"{folder}" holds another study, {json.dumps(found)}: remove it, or give another folder')
    return True


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="full", help="of corpus, queries and models (%(default)s)"
    )
    parser.add_argument(
        "--text",
        metavar="FILE.jsonl",
        help="JSON lines with id, text, lang and source, instead of Debian packages' texts",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of names, sets and queries (%(default)s)")
    return parser.parse_args()


def main():
    options = parse_options()
    folder, size = os.path.abspath(options.folder), SIZES[options.size]
    os.makedirs(folder, exist_ok=True)
    settings = {"program": PROGRAM, "size": options.size, "seed": options.seed}
    settings["text"] = hash_file(options.text) if options.text else "debian"
    if is_made(folder, settings):
        print(f"{folder}: already done")
        return
    text = options.text or f"{folder}/debian.jsonl"
    if not os.path.exists(text):
        made = ["--parallel", "--cache", f"{folder}/packages", "--mb", size.mb, "--max-chars", size.max_chars]
        run("demo/corpus.py", *made, text)
    make(folder, text, size, options.seed)
    write_whole(f"{folder}/study.json", [json.dumps(settings) + "\n"])
    print(f"{folder}: done; jobs/sweep {folder}/study.toml --local runs it")


if __name__ == "__main__":
    run_main(main)
