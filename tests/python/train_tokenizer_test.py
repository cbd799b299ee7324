#!/usr/bin/env python3
"""train_tokenizer: vocabulary, decoding, the same bytes again, its use by tokenize_corpus, refusals, reruns."""

from text_checks import check, datasets, finish, path, refused, run, write

import json
import os

import pyarrow
import pyarrow.parquet
import tokenizers

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer_source.json")
SENTENCES = (
    "The cat sat on the mat, and the dog didn't.\n",
    "L'été à Noël, naïve coöperation; ",
    "данные и ещё немного текста\r\n",
    "日本語のテキスト、猫と犬。",
    "مرحبا بالعالم \t 🐍🐍 \u200d\ufeff",
)
TEXTS = [" ".join(SENTENCES[(i + j) % 5] for j in range(1 + i % 4)) for i in range(40)]
# what the corpus has never seen
OTHERS = ["", " ", "Ζευς\x00\x01", "\n\n  a", "ｆｕｌｌ　ｗｉｄｔｈ ñ ñ", "<|endoftext|> 12345"]


def jsonl(name, texts, **more):
    return write(name, "".join(json.dumps({"text": text, **more}) + "\n" for text in texts))


def train(output, *arguments, size=400):
    return run("train_tokenizer", *arguments, "--vocab-size", size, "--output", path(output))


def content(folder):
    return {name: open(os.path.join(path(folder), name), "rb").read() for name in sorted(os.listdir(path(folder)))}


def test_vocabulary():
    done = train("made", CORPUS)
    check(done.returncode == 0 and "400 tokens from 40 documents" in done.stderr, "made", done.stderr)
    check(sorted(os.listdir(path("made"))) == sorted(FILES), "files", os.listdir(path("made")))
    made = tokenizers.Tokenizer.from_file(path("made/tokenizer.json"))
    check(made.get_vocab_size() == 400 and sorted(made.get_vocab().values()) == list(range(400)), "400 ids")
    check(made.token_to_id("<|endoftext|>") == 0, "end of text")
    for text in TEXTS + OTHERS:
        check(made.decode(made.encode(text).ids, skip_special_tokens=False) == text, "decoded", ascii(text))
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    check(sum(len(made.encode(text)) for text in TEXTS) < n_bytes / 2, "merges shorten the corpus")
    settings = json.loads(content("made")["tokenizer_config.json"])
    check(settings["eos_token"] == settings["bos_token"] == "<|endoftext|>", "tokenizer_config.json", settings)


def test_same_bytes():
    train("again", CORPUS, "--threads", 1)
    check(content("again") == content("made"), "made again")
    table = pyarrow.table({"text": TEXTS[:20]})
    pyarrow.parquet.write_table(table, path("half.parquet"))
    train("halves", path("half.parquet"), jsonl("half.jsonl", TEXTS[20:], id="x"))
    check(content("halves")["tokenizer.json"] == content("made")["tokenizer.json"], "the same texts in other files")
    train("other", CORPUS, "--end-of-text", "</s>", "--min-frequency", 3, size=300)
    other = tokenizers.Tokenizer.from_file(path("other/tokenizer.json"))
    check(other.token_to_id("</s>") == 0 and other.get_vocab_size() == 300, "other options")


def test_use():
    """tokenize_corpus takes it, and the token files say what they were made with."""
    write("made/config.json", json.dumps({"model_type": "llama", "vocab_size": 400}))
    done = run("tokenize_corpus", CORPUS, "--model", path("made"), "--output", path("tokens"), "--packing", "concat")
    check(done.returncode == 0 and "<|endoftext|> (0) is put after each document" in done.stderr, "use", done.stderr)
    made = tokenizers.Tokenizer.from_file(path("made/tokenizer.json"))
    ids = datasets("tokens/corpus.h5")["token"]
    check(made.decode(ids, skip_special_tokens=False) == "".join(t + "<|endoftext|>" for t in TEXTS), "tokens")
    os.unlink(path("made/config.json"))


def test_reruns():
    before = content("made")
    done = train("made", CORPUS)
    check(done.returncode == 0 and "already done" in done.stderr and content("made") == before, "already done")
    refused("other options", train("made", CORPUS, size=399), "made/tokenizer.json", "--force")
    check(content("made") == before, "kept")
    os.unlink(path("made/tokenizer.json"))  # as a run that was killed leaves it
    check(train("made", CORPUS).returncode == 0 and content("made") == before, "what is missing is made")
    write("made/tokenizer.json", before["tokenizer.json"] + b" ")
    refused("changed since", train("made", CORPUS), "made/tokenizer.json", "changed", "--force")
    check(train("made", CORPUS, "--force").returncode == 0 and content("made") == before, "--force")
    write("foreign/tokenizer.json", "{}")
    refused("of others", train("foreign", CORPUS), "foreign/tokenizer.json", "not by this program")


def test_refusals():
    refused("too small", train("no", CORPUS, size=256), "--vocab-size 256", "257", code=2)
    refused("too large", train("no", CORPUS, size=100000), "not 100000", "--vocab-size ")
    check(train("bytes", CORPUS, size=257).returncode == 0, "bytes alone")
    refused("no merges", train("no", jsonl("once.jsonl", ["ab"]), size=258), "a vocabulary of 257", "2 times")
    refused("empty", train("no", write("empty.jsonl", "")), "has no text")
    refused("twice", train("no", CORPUS, CORPUS), "give it once", code=2)
    refused("no such file", train("no", path("absent.jsonl")), "absent.jsonl")
    refused("end of text", train("no", CORPUS, "--end-of-text", "x"), "--end-of-text", code=2)
    write("ids.bin", b"")
    write("ids.idx", b"")
    refused("ids", train("no", path("ids.bin")), "token ids", code=2)
    bad = write("bad.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in TEXTS) + '{"text": 1}\n')
    refused("bad line", train("no", bad), "bad.jsonl:41: no text", "--bad-lines skip")
    done = train("skipped", bad, "--bad-lines", "skip")
    check(done.returncode == 0 and "1 bad lines skipped" in done.stderr, "skipped", done.stderr)
    check(content("skipped")["tokenizer.json"] == content("made")["tokenizer.json"], "without the bad line")
    check(not os.path.exists(path("no")), "a refusal writes nothing")


CORPUS = jsonl("corpus.jsonl", TEXTS)
test_vocabulary()
test_same_bytes()
test_use()
test_reruns()
test_refusals()
finish()
