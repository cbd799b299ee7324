#!/usr/bin/env python3
"""tokenize_corpus: formats, packing, processes, bad lines, refusals, reruns."""
from text_checks import SCRIPTS, check, counts, datasets, finish, path, refused, run, tiny_model, write  # noqa: I001

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

MODEL, TOKENIZER, EOS = tiny_model("model")


def documents(n):
    """Texts of 1 to about 300 tokens, several scripts; some without id, source or lang."""
    draw = random.Random(7)
    words = ["the", "and", "Wort", "été", "猫", "данные", "x", "\n", "0.5", "🐍"]
    made = []
    for i in range(n):
        document = {"text": " ".join(draw.choice(words) for _ in range(draw.choice((1, 2, 9, 60))))}
        if i % 3:
            document.update(id=f"doc/{i}", lang="en", source="test")
        made.append(document)
    made[1]["text"] = "x"                          # one token: gives no sequence
    return made


DOCUMENTS = documents(400)
LINES = "".join(json.dumps(d, ensure_ascii=bool(i % 2)) + "\n" for i, d in enumerate(DOCUMENTS))


def ids_of(document):
    return TOKENIZER.encode(document["text"]).ids


def expected(max_length, packing):
    """The sequences, by a loop over tokens: (ids, document, start) of each."""
    if packing == "none":
        streams = [[(t, d, i) for i, t in enumerate(ids_of(document))] for d, document in enumerate(DOCUMENTS)]
    else:
        streams = [[(t, d, i) for d, document in enumerate(DOCUMENTS) for i, t in enumerate(ids_of(document) + [EOS])]]
    cut = [stream[i:i + max_length] for stream in streams for i in range(0, len(stream), max_length)]
    return [([t for t, _, _ in piece], piece[0][1], piece[0][2]) for piece in cut if len(piece) > 1]


def check_sequences(name, found, wanted):
    flat = [t for ids, _, _ in wanted for t in ids]
    check(found["token"] == flat, f"{name}: token")
    check(found["count"] == [len(ids) for ids, _, _ in wanted], f"{name}: count")
    check(found["document"] == [d for _, d, _ in wanted], f"{name}: document")
    check(found["start"] == [s for _, _, s in wanted], f"{name}: start")


def tokenize(source, out, *options):
    done = run("tokenize_corpus", source, "--model", MODEL, "--output", path(out), *options)
    check(done.returncode == 0, f"{source} into {out}", done.stderr)
    return done


def test_formats():
    write("c.jsonl", "\ufeff" + LINES + "\n")      # a byte order mark and a blank line do no harm
    write("g/c.jsonl.gz", gzip.compress(LINES.encode()))
    two_frames = [zstandard.compress(part) for part in (LINES.encode()[:5000], LINES.encode()[5000:])]
    write("z/c.jsonl.zst", b"".join(two_frames))
    table = pyarrow.Table.from_pylist([{**{"id": None, "lang": None, "source": None}, **d} for d in DOCUMENTS])
    pyarrow.parquet.write_table(table, path("c.parquet"), row_group_size=100)
    wanted = expected(64, "none")
    for i, source in enumerate(("c.jsonl", "g/c.jsonl.gz", "z/c.jsonl.zst", "c.parquet")):
        tokenize(source, f"format{i}", "--max-length", 64, "--processes", 1)
        found = datasets(f"format{i}/c.h5")
        check_sequences(source, found, wanted)
        check(found["documents/id"] == [d.get("id", "") for d in DOCUMENTS], f"{source}: id")
        check(found["documents/source"] == [d.get("source", "") for d in DOCUMENTS], f"{source}: source")
        check(found["documents/lang"] == [d.get("lang", "") for d in DOCUMENTS], f"{source}: lang")
    attributes = found["attributes"]
    check(attributes["format"] == "bregman/tokens" and attributes["format_version"] == 1 and attributes["max_length"] == 64
          and attributes["packing"] == "none" and attributes["vocab_size"] == EOS + 1 and len(attributes["tokenizer_hash"]) == 32,
          "root attributes", attributes)


def test_description():
    with h5py.File(path("format0/c.h5"), "r") as file:
        for name in ("token", "count", "document", "start", "documents/id"):
            data = file[name]
            check(data.attrs["description"] and data.attrs["units"] in ("1", "tokens") and len(data.dims[0]) == 1
                  and (name == "documents/id" or data.fletcher32), f"{name}: description, units, axis, checksum")
        run_group = file["run"]
        check(file["count"].attrs["sample_dimension"] == "n_tokens" and "n_tokens" in file, "ragged array's sample_dimension")
        check(json.loads(run_group.attrs["options"])["max_length"] == 64 and run_group.attrs["finished"] >= run_group.attrs["started"]
              and run_group["input_name"].asstr()[0] == "c.jsonl" and len(run_group["input_hash"].asstr()[0]) == 32, "/run")
    with open(path("format0/MANIFEST"), encoding="utf-8") as manifest:
        digest, size, name = manifest.read().split()
    check(name == "c.h5" and int(size) == os.path.getsize(path("format0/c.h5")) and len(digest) == 32, "MANIFEST")


def test_folder():
    write("texts/b/second.txt", "and the second")
    write("texts/a.txt", "the first")
    write("texts/.hidden", b"\xff")
    tokenize("texts", "folder")
    found = datasets("folder/texts.h5")
    check(found["documents/id"] == ["a.txt", "b/second.txt"], "folder: ids", found["documents/id"])
    check(found["token"] == TOKENIZER.encode("the first").ids + TOKENIZER.encode("and the second").ids, "folder: token")


def megatron(name, parts, marks, dtype=np.uint16, code=8, tail=b""):
    lengths = np.array([len(part) for part in parts], "<i4")
    data = np.concatenate(parts).astype(dtype)
    offsets = (np.cumsum(lengths) - lengths).astype("<i8") * data.itemsize
    head = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([code])
    head += len(parts).to_bytes(8, "little") + len(marks).to_bytes(8, "little")
    write(name + ".bin", data.tobytes())
    write(name + ".idx", head + lengths.tobytes() + offsets.tobytes() + np.array(marks, "<i8").tobytes() + tail)


def test_megatron():
    parts = [np.arange(5), np.arange(5, 9), np.array([7]), np.arange(200)]
    megatron("m16", parts, [0, 2, 3, 4])
    megatron("m32", parts, [0, 2, 3, 4], np.int32, 4, tail=bytes(4))        # with a mode byte a sequence
    for name in ("m16.bin", "m32.idx"):
        done = run("tokenize_corpus", name, "--vocab-size", 200, "--max-length", 64, "--output", path("meg"))
        check(done.returncode == 0, name, done.stderr)
        found = datasets(f"meg/{name[:-4]}.h5")
        check(found["token"] == list(range(9)) + list(range(200)), f"{name}: token")
        check(found["count"] == [9, 64, 64, 64, 8] and found["document"] == [0, 2, 2, 2, 2], f"{name}: sequences", found["document"])
        check(found["attributes"]["tokenizer_hash"] == "" and len(found["documents/id"]) == 3, f"{name}: documents")
    out = ("--output", path("meg2"), "--vocab-size")
    refused("id beyond the vocabulary", run("tokenize_corpus", "m16.bin", *out, 199), "m16", "token id 199", "199")
    megatron("far", parts, [0, 2, 3, 9])
    refused("document marks", run("tokenize_corpus", "far.bin", *out, 200), "far.idx", "document marks")
    megatron("short", parts, [0, 4])
    write("short.bin", b"12")
    refused("bin cut short", run("tokenize_corpus", "short.bin", *out, 200), "short.idx", "lies outside")
    megatron("float", parts, [0, 4], np.float32, 7)
    refused("float ids", run("tokenize_corpus", "float.bin", *out, 200), "float.idx", "dtype code 7")
    refused("no vocabulary", run("tokenize_corpus", "m16.bin", "--output", path("meg2")), "--vocab-size", code=2)
    check(os.listdir(path("meg2")) == [], "nothing left of refused megatron files", os.listdir(path("meg2")))


def test_packing_and_processes():
    write("big.jsonl", LINES * 20)                 # several chunks
    for packing in ("none", "concat"):
        for processes in (1, 3):
            tokenize("big.jsonl", f"{packing}{processes}", "--max-length", 50, "--packing", packing, "--processes", processes)
        check(datasets(f"{packing}1/big.h5") == datasets(f"{packing}3/big.h5"), f"{packing}: 1 process = 3 processes")
    tokenize("c.jsonl", "concat", "--max-length", 50, "--packing", "concat")
    check_sequences("concat", datasets("concat/c.h5"), expected(50, "concat"))


BAD = {"invalid JSON": b'{"text": "x', "invalid UTF-8": b'{"text": "\xff"}', "no text": b'{"id": "a"}', "no text ": b'{"text": ""}',
       "not an object": b'["text"]', "unpaired surrogate": b'{"text": "\\ud800"}'}


def test_bad_lines():
    good = b'{"text": "the good line"}\n'
    names = [write(f"bad{i}.jsonl", good + line + b"\n" + good) for i, line in enumerate(BAD.values())]
    done = run("tokenize_corpus", *names, "--model", MODEL, "--output", path("bad"), "--processes", 2)
    lines = sorted(done.stderr.strip().split("\n"), key=lambda line: line.partition("bad")[2])
    check(done.returncode == 1 and len(lines) == len(BAD), "each file with a bad line is refused in one line", done.stderr)
    for i, (reason, line) in enumerate(zip(BAD, lines)):
        check(f"bad{i}.jsonl:2" in line and reason.strip() in line, reason, line)
    check(os.listdir(path("bad")) == [], "nothing left after bad lines", os.listdir(path("bad")))
    write("bad.jsonl", good + b"\n".join(BAD.values()) + b"\n" + good)
    done = tokenize("bad.jsonl", "bad", "--bad-lines", "skip", "--processes", 2)
    check("6 bad lines skipped" in done.stderr and "bad.jsonl:7: " in done.stderr, "bad lines are counted and named", done.stderr)
    check(len(datasets("bad/bad.h5")["count"]) == 2, "good lines are kept")
    table = pyarrow.table({"text": ["the good", None]})
    pyarrow.parquet.write_table(table, path("bad.parquet"))
    refused("no text in Parquet", run("tokenize_corpus", "bad.parquet", "--model", MODEL, "--output", path("badp")),
            "bad.parquet: row 2: no text")
    write("badfolder/x.txt", b"\xff\xfe")
    refused("invalid UTF-8 in a folder", run("tokenize_corpus", "badfolder", "--model", MODEL, "--output", path("badp")),
            "badfolder/x.txt: invalid UTF-8")


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))


def test_refusals():
    out = ("--model", MODEL, "--output", path("refused"))
    write("cut.jsonl.gz", gzip.compress(LINES.encode())[:-40])
    write("cutz.jsonl.zst", zstandard.compress(LINES.encode())[:-40])
    both = run("tokenize_corpus", "cut.jsonl.gz", "cutz.jsonl.zst", *out)
    check(both.returncode == 1 and len(both.stderr.strip().split("\n")) == 2 and '"cut.jsonl.gz" is corrupt' in both.stderr
          and '"cutz.jsonl.zst" is corrupt' in both.stderr, "corrupt compressed files", both.stderr)
    refused("no such file", run("tokenize_corpus", "none.jsonl", *out), '"none.jsonl"', "No such file")
    refused("unknown kind", run("tokenize_corpus", write("a.csv", "x"), *out), "a.csv", code=2)
    refused("same name twice", run("tokenize_corpus", "c.jsonl", "c.parquet", *out), "c.parquet", "c.h5", code=2)
    refused("no tokenizer", run("tokenize_corpus", "c.jsonl", "--model", path("g"), "--output", path("refused")), "tokenizer.json")
    broken = write("broken/tokenizer.json", "{}")
    refused("broken tokenizer", run("tokenize_corpus", "c.jsonl", "--tokenizer", broken, "--output", path("refused")),
            "broken/tokenizer.json")
    pointer = write("pointer/tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2114924\n")
    refused("pointer to a tokenizer", run("tokenize_corpus", "c.jsonl", "--tokenizer", pointer, "--output", path("refused")),
            "pointer/tokenizer.json", "Git LFS")
    shutil.copy(os.path.join(MODEL, "tokenizer.json"), path("small/tokenizer.json"))
    write("small/config.json", '{"vocab_size": 100}')
    refused("tokenizer of another model", run("tokenize_corpus", "c.jsonl", "--model", path("small"), "--output", path("refused")),
            "vocabulary of 100", "wrong tokenizer")
    refused("full disk", run("tokenize_corpus", "big.jsonl", *out, preexec_fn=limit_file_size), "refused/big.h5", "File too large")
    refused("output is a file", run("tokenize_corpus", "c.jsonl", "--model", MODEL, "--output", path("c.jsonl")), "c.jsonl")
    check(os.listdir(path("refused")) == [], "nothing left of what was refused", os.listdir(path("refused")))


def test_interrupted():
    """SIGTERM ends it, children included, and leaves nothing behind."""
    write("long.jsonl", LINES * 400)
    os.makedirs(path("interrupted"))
    command = [sys.executable, os.path.join(SCRIPTS, "tokenize_corpus"), path("long.jsonl"), "--model", MODEL,
               "--output", path("interrupted"), "--processes", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(200):
            if os.listdir(path("interrupted")):
                break
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, message = process.communicate(timeout=30)
    check(process.returncode == 130 and message.strip() == "tokenize_corpus: interrupted", "interrupted", message)
    check(os.listdir(path("interrupted")) == [], "nothing left after an interrupt", os.listdir(path("interrupted")))


def test_rerun():
    options = ("--max-length", 64, "--processes", 1)
    with open(path("format0/c.h5"), "rb") as file:
        before = file.read()
    done = tokenize("c.jsonl", "format0", *options[:2])
    check("already done" in done.stderr, "already done", done.stderr)
    arguments = ("tokenize_corpus", "c.jsonl", "--model", MODEL, "--output", path("format0"))
    refused("other options", run(*arguments, "--max-length", 32), "format0/c.h5", "--force")
    with open(path("format0/c.h5"), "rb") as file:
        check(file.read() == before, "a refused rerun leaves the file")
    write("c.jsonl", LINES + LINES)
    refused("changed input", run(*arguments, *options), "format0/c.h5", "--force")
    tokenize("c.jsonl", "format0", *options, "--force")
    check(len(datasets("format0/c.h5")["documents/id"]) == 800, "--force replaces")


for test in (test_formats, test_description, test_folder, test_megatron, test_packing_and_processes, test_bad_lines,
             test_refusals, test_interrupted, test_rerun):
    test()
assert counts["passed"] + counts["failed"] > 60
finish()
