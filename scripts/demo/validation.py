#!/usr/bin/env python3
"""The built-in validation: a small language model, trained again some hundred times on two cores.

A GPT-2 of 116,000 parameters (d 64, 2 blocks) reads characters, in lower case, in 512 sequences of 64; the 32 queries are further
sequences of the same documents, from the second character on.  FOLDER gets the inputs and two files for validate, which is then
run with each: scratch.toml trains the model from random values, tuned.toml goes on with one that has been trained on other text.

The text is what corpus.py makes: English manual pages, Bible, novels and licences are trained on, Python's documentation is the
other text.  --text takes JSON lines with id and text instead; those with an id that begins with pydoc/ are the other text.  Where
$BREGMAN_PEER_PYTHON has Kronfluence or Bergson, their rows are among the others.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import json
import random
import re
import string
import unicodedata

import tokenizers

from bregman import ROOT
from bregman.errors import UserError, run_main
from bregman.files import write_whole
from bregman.steps import call, run
from bregman.validate.methods import DEFAULT, PEERS
from bregman.validate.peers import importable

HERE = os.path.dirname(os.path.realpath(__file__))
PROGRAMS = os.environ.get("BREGMAN_BIN", os.path.join(ROOT, "build", "bin"))
ALPHABET = "\n " + string.ascii_lowercase + string.digits + ".,;:?!'\"()[]{}-_/\\*+=<>@#%&"[:26]
LENGTH, SEQUENCES, QUERIES, FEW, OTHER = 64, 512, 32, 5, 2048
CONFIG = {
    "model_type": "gpt2",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 2 * LENGTH,
    "vocab_size": len(ALPHABET),
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}


def plain(text):
    """In the alphabet: lower case, without accents, runs of blanks as one, what is unknown left out."""
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(c for c in text if c in ALPHABET or c == "\t")
    return re.sub(r" *\n[ \n\t]*", "\n", re.sub(r"[ \t]+", " ", text)).strip()


def read_documents(path):
    """[(id, text)], English only where the lines say a language."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        return [(line["id"], plain(line["text"])) for line in lines if line.get("lang", "en") == "en"]
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'"{path}" is not JSON lines with id and text: {error}') from None


def pieces(documents, n, seed):
    """n pieces of LENGTH characters, drawn from all documents; {"id", "text"}."""
    every = [
        {"id": f"{name}:{at}", "text": text[at : at + LENGTH]}
        for name, text in documents
        for at in range(0, len(text) - LENGTH + 1, LENGTH)
    ]
    if len(every) < n:
        raise UserError(f"the text has {len(every)} pieces of {LENGTH} characters, {n} are needed: give more text")
    random.Random(seed).shuffle(every)
    return every[:n]


def write_lines(path, lines):
    write_whole(path, (json.dumps(line) + "\n" for line in lines))


def write_model(folder):
    """config.json and a tokenizer of which each character is a token."""
    os.makedirs(folder, exist_ok=True)
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(ALPHABET)}, []))
    made.decoder = tokenizers.decoders.Fuse()
    write_whole(os.path.join(folder, "tokenizer.json"), [made.to_str(pretty=True)])
    write_whole(os.path.join(folder, "config.json"), [json.dumps(CONFIG, indent=2) + "\n"])


def write_inputs(folder, documents, sequences=SEQUENCES, queries=QUERIES, other=OTHER):
    """The model's folder, and JSON lines of the corpus, the queries and the other text (none of 0)."""
    write_model(os.path.join(folder, "new"))
    own = pieces([d for d in documents if not d[0].startswith("pydoc/")], sequences + queries, seed=1)
    asked = [{"id": p["id"], "prompt": p["text"][:1], "completion": p["text"][1:]} for p in own[sequences:]]
    write_lines(os.path.join(folder, "corpus.jsonl"), own[:sequences])
    write_lines(os.path.join(folder, "queries.jsonl"), asked)
    write_lines(os.path.join(folder, "few.jsonl"), asked[:FEW])
    if other:
        found = pieces([d for d in documents if d[0].startswith("pydoc/")], other, seed=2)
        write_lines(os.path.join(folder, "other.jsonl"), found)


def tokenize(folder, names):
    for name in names:
        command = [f"{folder}/{name}.jsonl", "--model", f"{folder}/new", "--output", f"{folder}/tokens"]
        run("tokenize_corpus", *command, "--max-length", LENGTH)
    for name in ("queries", "few"):
        run("tokenize_queries", f"{folder}/{name}.jsonl", "--model", f"{folder}/new", "--output", f"{folder}/{name}.h5")


def stage(ranks, name, *arguments):
    call([os.path.join(HERE, "..", "mpi"), str(ranks), os.path.join(PROGRAMS, name), *map(str, arguments)])


SETTINGS = """\
# {what}
output = "{name}"
parts = {parts}

[model]
{begin}
tokens = "tokens/corpus.h5"
queries = "queries.h5"

[train]
epochs = {epochs}
batch_tokens = 1024
learning_rate = 1e-3

[methods]
names = {names}
modules = ["attention,mlp", "mlp", "attention,mlp,head"]
refined_modules = ["attention,mlp"]
dampings = [0.001, 0.01, 0.1, 1]

[compress]
rank = "full"

[bm25]
form = "okapi"
ngrams = 3

[lds]
kinds = {kinds}

[qld]
queries = 8
tokens = true

[pbo]
queries = "few.h5"
steps = 30

[local]
steps = 30
modules = "attention,mlp,head"

[facts.train]
epochs = 40

[filter.train]
epochs = 20
"""
REGIMES = {
    "scratch": {"what": "From random values.", "begin": 'config = "new"', "epochs": 10, "kinds": '["halves"]',
                "parts": '["lds"]'},
    "tuned": {"what": "Going on with a model of other text.", "begin": 'start = "other"', "epochs": 4,
              "kinds": '["halves", "drops"]', "parts": '["lds", "qld", "pbo", "local", "facts", "filter"]'},
}  # fmt: skip


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--text", metavar="FILE.jsonl", help="instead of Debian packages' texts, which are downloaded")
    parser.add_argument("--regimes", default="scratch,tuned", help="scratch, tuned or both (%(default)s)")
    return parser.parse_args()


def main():
    options = parse_options()
    folder = os.path.abspath(options.folder)
    os.makedirs(folder, exist_ok=True)
    text = options.text or os.path.join(folder, "text.jsonl")
    if not options.text and not os.path.exists(text):
        made = ["--cache", f"{folder}/packages", "--mb", 1, "--max-chars", 20000, text]
        run("demo/corpus.py", *made)
    regimes = options.regimes.split(",")
    write_inputs(folder, read_documents(text))
    tokenize(folder, ["corpus", "other"])
    if "tuned" in regimes:
        begin = ["--config", f"{folder}/new", "--tokens", f"{folder}/tokens/other.h5", "--output", f"{folder}/other"]
        stage(1, "train_models", *begin, "--steps", 700, "--batch-tokens", 1024, "--slices", 1, "--threads", 1)
    names = json.dumps(DEFAULT + importable(PEERS))
    for name in regimes:
        write_whole(f"{folder}/{name}.toml", [SETTINGS.format(name=name, names=names, **REGIMES[name])])
        run("validate", f"{folder}/{name}.toml")


if __name__ == "__main__":
    run_main(main)
