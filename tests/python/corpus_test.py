#!/usr/bin/env python3
"""tokenize_corpus: formats, packing, processes, bad lines, refusals, reruns."""

from text_checks import ROOT, SCRIPTS, check, counts, datasets, finish, load, path, refused, run, tiny_model, write

import contextlib
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
from tokenizers import Tokenizer

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
    made[1]["text"] = "x"  # one token: gives no sequence
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
    cut = [stream[i : i + max_length] for stream in streams for i in range(0, len(stream), max_length)]
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
    write("c.jsonl", "\ufeff" + LINES + "\n")  # a byte order mark and a blank line do no harm
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
    check(
        attributes["format"] == "bregman/tokens"
        and attributes["format_version"] == 1
        and attributes["max_length"] == 64
        and attributes["packing"] == "none"
        and attributes["vocab_size"] == EOS + 1
        and len(attributes["tokenizer_hash"]) == 32,
        "root attributes",
        attributes,
    )


def test_description():
    with h5py.File(path("format0/c.h5"), "r") as file:
        for name in ("token", "count", "document", "start", "end_character", "documents/id"):
            data = file[name]
            check(
                data.attrs["description"]
                and data.attrs["units"] in ("1", "tokens", "characters")
                and (data.is_scale or len(data.dims[0]) == 1)
                and (name == "documents/id" or data.fletcher32),
                f"{name}: description, units, axis, checksum",
            )
        run_group = file["run"]
        check(
            file["count"].attrs["sample_dimension"] == "token" and file["token"].is_scale,
            "ragged array's sample_dimension",
        )
        check(
            json.loads(run_group.attrs["options"])["max_length"] == 64
            and run_group.attrs["finished"] >= run_group.attrs["started"]
            and run_group["input_name"].asstr()[0] == "c.jsonl"
            and len(run_group["input_hash"].asstr()[0]) == 32,
            "/run",
        )
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
    megatron("m32", parts, [0, 2, 3, 4], np.int32, 4, tail=bytes(4))  # with a mode byte a sequence
    for name in ("m16.bin", "m32.idx"):
        done = run("tokenize_corpus", name, "--vocab-size", 200, "--max-length", 64, "--output", path("meg"))
        check(done.returncode == 0, name, done.stderr)
        found = datasets(f"meg/{name[:-4]}.h5")
        check(found["token"] == list(range(9)) + list(range(200)), f"{name}: token")
        check(
            found["count"] == [9, 64, 64, 64, 8] and found["document"] == [0, 2, 2, 2, 2],
            f"{name}: sequences",
            found["document"],
        )
        check(found["attributes"]["tokenizer_hash"] == "" and len(found["documents/id"]) == 3, f"{name}: documents")
        check("end_character" not in found, f"{name}: there is no text")
    megatron("bare", [np.arange(129), np.arange(129)], [0])  # as Pythia's data: pieces of k * 64 + 1 tokens, unmarked
    done = run("tokenize_corpus", "bare.bin", "--vocab-size", 200, "--max-length", 64, "--output", path("meg"))
    found = datasets("meg/bare.h5")
    check(done.returncode == 0 and found["count"] == [64] * 4, "no document is marked: the odd token is left out", done)
    check(found["document"] == [0, 0, 1, 1] and len(found["documents/id"]) == 2, "each sequence is a document")
    out = ("--output", path("meg2"), "--vocab-size")
    refused("id beyond the vocabulary", run("tokenize_corpus", "m16.bin", *out, 199), "m16", "token id 199", "199")
    megatron("far", parts, [0, 2, 3, 9])
    refused("document marks", run("tokenize_corpus", "far.bin", *out, 200), "far.idx", "document marks")
    megatron("later", parts, [2])
    refused("one mark that is not 0", run("tokenize_corpus", "later.bin", *out, 200), "later.idx", "document marks")
    megatron("short", parts, [0, 4])
    write("short.bin", b"12")
    refused("bin cut short", run("tokenize_corpus", "short.bin", *out, 200), "short.idx", "lies outside")
    megatron("float", parts, [0, 4], np.float32, 7)
    refused("float ids", run("tokenize_corpus", "float.bin", *out, 200), "float.idx", "dtype code 7")
    refused("no vocabulary", run("tokenize_corpus", "m16.bin", "--output", path("meg2")), "--vocab-size", code=2)
    check(os.listdir(path("meg2")) == [], "nothing left of refused megatron files", os.listdir(path("meg2")))


def test_packing_and_processes():
    write("big.jsonl", LINES * 20)  # several chunks
    for packing in ("none", "concat"):
        for processes in (1, 3):
            tokenize(
                "big.jsonl", f"{packing}{processes}", "--max-length", 50, "--packing", packing, "--processes", processes
            )
        check(datasets(f"{packing}1/big.h5") == datasets(f"{packing}3/big.h5"), f"{packing}: 1 process = 3 processes")
    tokenize("c.jsonl", "concat", "--max-length", 50, "--packing", "concat")
    check_sequences("concat", datasets("concat/c.h5"), expected(50, "concat"))


def pieces(max_length):
    """By a loop over tokens: (document, start, length) of each piece, for each sequence."""
    stream = [(d, i) for d, document in enumerate(DOCUMENTS) for i in range(len(ids_of(document)) + 1)]
    made = []
    for first in range(0, len(stream), max_length):
        sequence = stream[first : first + max_length]
        begins = [k for k, (d, _) in enumerate(sequence) if k == 0 or d != sequence[k - 1][0]]
        made.append([(*sequence[k], end - k) for k, end in zip(begins, begins[1:] + [len(sequence)])])
    return [found for found in made if sum(length for *_, length in found) > 1]


def test_pieces():
    """Every document of a sequence is in the file, and where; the schema of the stages knows these datasets."""
    found, wanted = datasets("concat/c.h5"), pieces(50)
    check(
        found["piece/count"] == [len(sequence) for sequence in wanted] and max(found["piece/count"]) > 2, "piece/count"
    )
    for i, name in enumerate(("document", "start", "length")):
        check(found[f"piece/{name}"] == [piece[i] for sequence in wanted for piece in sequence], f"piece/{name}")
    first = [sum(found["piece/count"][:i]) for i in range(len(found["count"]))]
    check(
        [found["piece/document"][i] for i in first] == found["document"]
        and [found["piece/start"][i] for i in first] == found["start"],
        "a sequence's first piece is its document and start",
    )
    check("piece/count" not in datasets("none1/big.h5"), "none without concat")
    verified = subprocess.run(
        [os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "bin", "verify"), path("concat/c.h5")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    check(
        verified.returncode == 0 and "complete" in verified.stdout,
        "verify knows the pieces",
        verified.stdout + verified.stderr,
    )


def check_characters(name, tokens, document, start, begin, end):
    """A range is what the offsets say, and its text is what the tokens are decoded to, but for half characters at the ends."""
    text = DOCUMENTS[document]["text"]
    offsets = TOKENIZER.encode(text).offsets[start : start + len(tokens)]
    if not offsets:  # the end-of-text token alone
        return check(begin == end == len(text), f"{name}: no text", (begin, end))
    wanted = min(b for b, _ in offsets), max(e for _, e in offsets)
    decoded = TOKENIZER.decode(tokens)  # without special tokens
    whole = decoded.strip("\ufffd")
    check((begin, end) == wanted, f"{name}: characters", (begin, end, wanted))
    check(
        text[begin:end] == whole if whole == decoded else whole in text[begin:end], f"{name}: text", (text, begin, end)
    )
    return end - begin - len(whole)  # characters of which there is a part


def test_characters():
    """Which characters of its document a sequence, or a piece of one, covers."""
    for file, group in (("format0/c.h5", ""), ("concat/c.h5", "piece/")):
        found = datasets(file)
        names = [group + name for name in ("document", "start", "begin_character", "end_character")]
        ends = np.cumsum(found[group + "length" if group else "count"])
        parts = [tokens.tolist() for tokens in np.split(found["token"], ends[:-1])]
        rows = zip(parts, *(found[name] for name in names), strict=True)
        halves = [check_characters(f"{group}{i}", *row) or 0 for i, row in enumerate(rows)]
        check(max(halves) > 0 and halves.count(0) > 100, f"{file}: whole and half characters", len(halves))
    first = np.cumsum(found["piece/count"]) - found["piece/count"]
    for name in ("begin_character", "end_character"):
        check([found[f"piece/{name}"][i] for i in first] == found[name], f"a sequence's {name} is its first piece's")
    write("few.jsonl", json.dumps({"text": "é漢字🎉 the"}) + "\n" + json.dumps({"text": "and 🐍"}) + "\n")
    # é漢 and 2 bytes of 字, the third and the rest; of packed ones, the third begins with the first one's end-of-text token
    for packing, group, wanted in (
        ("none", "", [(0, 3), (2, 8), (0, 5)]),
        ("concat", "", [(0, 3), (2, 8), (8, 8)]),
        ("concat", "piece/", [(0, 3), (2, 8), (8, 8), (0, 5)]),
    ):
        tokenize("few.jsonl", f"few-{packing}", "--max-length", 7, "--packing", packing)
        found = datasets(f"few-{packing}/few.h5")
        found = list(zip(found[f"{group}begin_character"], found[f"{group}end_character"]))
        check(found == wanted, f"{packing} {group}", found)


BAD = {
    "invalid JSON": b'{"text": "x',
    "invalid UTF-8": b'{"text": "\xff"}',
    "no text": b'{"id": "a"}',
    "no text ": b'{"text": ""}',
    "not an object": b'["text"]',
    "unpaired surrogate": b'{"text": "\\ud800"}',
}


def test_bad_lines():
    good = b'{"text": "the good line"}\n'
    names = [write(f"bad{i}.jsonl", good + line + b"\n" + good) for i, line in enumerate(BAD.values())]
    done = run("tokenize_corpus", *names, "--model", MODEL, "--output", path("bad"), "--processes", 2)
    lines = sorted(done.stderr.strip().split("\n"), key=lambda line: line.partition("bad")[2])
    check(
        done.returncode == 1 and len(lines) == len(BAD), "each file with a bad line is refused in one line", done.stderr
    )
    for i, (reason, line) in enumerate(zip(BAD, lines)):
        check(f"bad{i}.jsonl:2" in line and reason.strip() in line, reason, line)
    check(os.listdir(path("bad")) == [], "nothing left after bad lines", os.listdir(path("bad")))
    write("bad.jsonl", good + b"\n".join(BAD.values()) + b"\n" + good)
    done = tokenize("bad.jsonl", "bad", "--bad-lines", "skip", "--processes", 2)
    check(
        "6 bad lines skipped" in done.stderr and "bad.jsonl:7: " in done.stderr,
        "bad lines are counted and named",
        done.stderr,
    )
    check(len(datasets("bad/bad.h5")["count"]) == 2, "good lines are kept")
    table = pyarrow.table({"text": ["the good", None]})
    pyarrow.parquet.write_table(table, path("bad.parquet"))
    refused(
        "no text in Parquet",
        run("tokenize_corpus", "bad.parquet", "--model", MODEL, "--output", path("badp")),
        "bad.parquet: row 2: no text",
    )
    write("badfolder/x.txt", b"a\xff")
    refused(
        "invalid UTF-8 in a folder",
        run("tokenize_corpus", "badfolder", "--model", MODEL, "--output", path("badp")),
        "badfolder/x.txt: invalid UTF-8",
    )


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))


def refused_inputs(out):
    """One file by two paths, whatever those are."""
    os.makedirs(path("twice/folder"))
    os.symlink(path("c.jsonl"), path("twice/link.jsonl"))
    os.link(path("c.jsonl"), path("twice/hard.jsonl"))
    os.symlink(path("texts"), path("twice/folder/whole"))
    for other in ("twice/link.jsonl", "twice/hard.jsonl"):
        refused(other, run("tokenize_corpus", "c.jsonl", other, *out), "c.jsonl", other, "the same file", code=2)
    refused("./c.jsonl", run("tokenize_corpus", "c.jsonl", "./c.jsonl", *out), "c.jsonl", code=2)
    for other in ("texts/b", "twice/folder/whole"):
        refused(other, run("tokenize_corpus", "texts", other, *out), '"texts/', other, "the same file", code=2)


def test_vocabulary():
    """A token that the model lacks: its text, its line; skipped like other bad lines."""
    made = Tokenizer.from_str(TOKENIZER.to_str())
    made.add_special_tokens(["<user>"])
    made.save(path("added/tokenizer.json"))
    write("added/config.json", json.dumps({"vocab_size": EOS + 1}))
    write("v.jsonl", '{"text": "the good"}\n{"text": ""}\n{"text": "the <user> one"}\n')
    arguments = ("tokenize_corpus", "v.jsonl", "--model", path("added"), "--output", path("added/out"))
    skipped = run(*arguments, "--bad-lines", "skip")
    token = f"v.jsonl:3: token id <user> ({EOS + 1}) is not in the vocabulary of {EOS + 1}"
    check(
        skipped.returncode == 0
        and token in skipped.stderr
        and "2 bad lines" in skipped.stderr
        and skipped.stderr.index("v.jsonl:2") < skipped.stderr.index("v.jsonl:3"),
        "skipped",
        skipped.stderr,
    )
    write("v.jsonl", '{"text": "the good"}\n{"text": "the <user> one"}\n')
    refused("a token that the model lacks", run(*arguments, "--force"), f"v.jsonl:2: token id <user> ({EOS + 1})")


def test_repeated_ids():
    write(
        "one/r.jsonl", "".join(json.dumps({"id": i, "text": "the good"}) + "\n" for i in ("a", "b", "", "", "a", "c"))
    )
    write("two/s.jsonl", "".join(json.dumps({"id": i, "text": "the good"}) + "\n" for i in ("c", "d", "c")))
    done = tokenize("one/r.jsonl", "ids")
    check('1 documents have an id that another one has, such as "a" in' in done.stderr, "within a file", done.stderr)
    both = run("tokenize_corpus", "one/r.jsonl", "two/s.jsonl", "--model", MODEL, "--output", path("ids"))
    check(
        "3 documents have an id" in both.stderr and "already done" in both.stderr,
        "over files, of those done as well",
        both.stderr,
    )
    write("two/t.jsonl", '{"id": "c", "text": "the good"}\n')
    done = run("tokenize_corpus", "two/t.jsonl", "two/s.jsonl", "--model", MODEL, "--output", path("ids2"))
    check(
        'such as "c" in "' in done.stderr and "t.h5" in done.stderr and "s.h5" in done.stderr,
        "both files are named",
        done.stderr,
    )
    check("warning" not in tokenize("c.jsonl", "ids3").stderr, "documents without an id are none of them")


def test_max_length():
    """By default 512, or the model's positions; one token more, which is only predicted."""
    write("long/l.jsonl", json.dumps({"text": "x" * 1300}) + "\n")
    for positions, wanted in ((None, [512, 512, 276]), (400, [400, 400, 400, 100])):
        made = tiny_model("positions", config={"vocab_size": EOS + 1, "max_position_embeddings": positions})[0]
        done = run("tokenize_corpus", "long/l.jsonl", "--model", made, "--output", path(f"positions/{positions}"))
        check(
            done.returncode == 0 and datasets(f"positions/{positions}/l.h5")["count"] == wanted,
            f"{positions} positions",
            done.stderr,
        )
    arguments = ("tokenize_corpus", "long/l.jsonl", "--model", made, "--output", path("positions/more"), "--max-length")
    check(
        run(*arguments, 401).returncode == 0 and datasets("positions/more/l.h5")["count"][0] == 401,
        "one more than positions",
    )
    refused("two more than positions", run(*arguments, 402), "402", "400 positions")


def test_names():
    """Names that are not UTF-8."""
    name = os.fsdecode(b"caf\xe9")
    write(f"names/{name}/a.txt", "the good")
    write(f"names/{name}/{name}.txt", "the good")
    done = tokenize(f"names/{name}", "names/out")
    check(
        "Traceback" not in done.stderr
        and datasets(f"names/out/{name}.h5")["documents/id"] == ["a.txt", "caf\\xe9.txt"],
        "a folder",
        done.stderr,
    )
    check("already done" in tokenize(f"names/{name}", "names/out").stderr, "done as well")
    write(f"names/{name}.jsonl", '{"text": "the good"}\n')
    tokenize(f"names/{name}.jsonl", f"names/{name}/out")


def test_refusals():
    out = ("--model", MODEL, "--output", path("refused"))
    write("cut.jsonl.gz", gzip.compress(LINES.encode())[:-40])
    write("cutz.jsonl.zst", zstandard.compress(LINES.encode())[:-40])
    both = run("tokenize_corpus", "cut.jsonl.gz", "cutz.jsonl.zst", *out)
    check(
        both.returncode == 1
        and len(both.stderr.strip().split("\n")) == 2
        and '"cut.jsonl.gz" is corrupt' in both.stderr
        and '"cutz.jsonl.zst" is corrupt' in both.stderr,
        "corrupt compressed files",
        both.stderr,
    )
    refused_inputs(out)
    refused("no such file", run("tokenize_corpus", "none.jsonl", *out), '"none.jsonl"', "No such file")
    refused("unknown kind", run("tokenize_corpus", write("a.csv", "x"), *out), "a.csv", code=2)
    os.symlink("c.jsonl", path("other-name.jsonl"))
    refused(
        "same file twice",
        run("tokenize_corpus", "c.jsonl", "other-name.jsonl", *out),
        "other-name.jsonl",
        "are the same file",
        code=2,
    )
    refused("same name twice", run("tokenize_corpus", "c.jsonl", "c.parquet", *out), "c.parquet", "c.h5", code=2)
    refused(
        "no tokenizer",
        run("tokenize_corpus", "c.jsonl", "--model", path("g"), "--output", path("refused")),
        "tokenizer.json",
    )
    broken = write("broken/tokenizer.json", "{}")
    refused(
        "broken tokenizer",
        run("tokenize_corpus", "c.jsonl", "--tokenizer", broken, "--output", path("refused")),
        "broken/tokenizer.json",
    )
    for name in ("tokenizer.json", "c.jsonl", "c.jsonl.gz", "c.jsonl.zst", "c.parquet", "c.idx"):
        pointer = write(f"pointer/{name}", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2114924\n")
        corpus, tokenizer = ("c.jsonl", pointer) if name == "tokenizer.json" else (pointer, f"{MODEL}/tokenizer.json")
        refused(
            f"pointer to {name}",
            run("tokenize_corpus", corpus, "--tokenizer", tokenizer, "--output", path("refused")),
            f"pointer/{name}",
            "Git LFS",
        )
    shutil.copy(os.path.join(MODEL, "tokenizer.json"), path("small/tokenizer.json"))
    write("small/config.json", '{"vocab_size": 100}')
    refused(
        "tokenizer of another model",
        run("tokenize_corpus", "c.jsonl", "--model", path("small"), "--output", path("refused")),
        "vocabulary of 100",
        "wrong tokenizer",
    )
    refused(
        "full disk",
        run("tokenize_corpus", "big.jsonl", *out, preexec_fn=limit_file_size),
        "refused/big.h5",
        "File too large",
    )
    refused(
        "output is a file", run("tokenize_corpus", "c.jsonl", "--model", MODEL, "--output", path("c.jsonl")), "c.jsonl"
    )
    check(os.listdir(path("refused")) == [], "nothing left of what was refused", os.listdir(path("refused")))


def test_interrupted():
    """SIGTERM ends it, children included, and leaves nothing behind."""
    write("long.jsonl", LINES * 400)
    os.makedirs(path("interrupted"))
    command = [
        sys.executable,
        os.path.join(SCRIPTS, "tokenize_corpus"),
        path("long.jsonl"),
        "--model",
        MODEL,
        "--output",
        path("interrupted"),
        "--processes",
        "2",
    ]
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


def test_interrupted_for_nothing():
    """A process whose parent is gone ends even where the interruption is lost."""
    script = load("tokenize_corpus")
    script.UNWIND_S = 1
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, script.interrupt_child)
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM, "it ends", status)


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


for test in (
    test_formats,
    test_description,
    test_folder,
    test_megatron,
    test_packing_and_processes,
    test_bad_lines,
    test_pieces,
    test_characters,
    test_vocabulary,
    test_repeated_ids,
    test_max_length,
    test_names,
    test_refusals,
    test_interrupted,
    test_interrupted_for_nothing,
    test_rerun,
):
    test()
assert counts["passed"] + counts["failed"] > 60
finish()
