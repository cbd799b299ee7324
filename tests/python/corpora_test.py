#!/usr/bin/env python3
"""The readers of corpora: what each finds in files of its kind, and what it refuses."""

from text_checks import check, datasets, finish, path, refused, run, tiny_model, write

import csv
import gzip
import json
import os
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard
from bregman import corpora
from bregman.corpora import json_text, source
from bregman.errors import UserError
from bregman.sweep.plan import has_changed

# what readers must not stumble over: brackets, quotes and backslashes in texts, nested values, several scripts
VALUES = [
    {"id": "a", "text": "first", "lang": "en", "source": "s"},
    {"text": 'the "second" [of] {these}, \\ and \\\\"', "id": "b", "more": [1, [2, {"x": "]"}], {}]},
    {"id": 3, "text": "été 猫 🐍\nline", "meta": {"url": "u/3", "deep": {"text": "inner"}}},
    {"text": "\\"},
    {"text": "x" * 300, "id": "long"},
]
WANTED = [tuple(str(v.get(name) or "") for name in ("text", "id", "source", "lang")) for v in VALUES]


def read(name, **fields):
    """(place, document, or why it is none) of each record."""
    found = corpora.open_source(path(name), corpora.Fields(**fields))
    made = []
    for records, _ in found.chunks():
        for place, payload in records:
            try:
                made.append((place, tuple(found.parse(payload))))
            except corpora.BadText as reason:
                made.append((place, str(reason)))
    return made


def documents(name, **fields):
    return [document for _, document in read(name, **fields)]


def tokens(name):
    """(ids, id, source) of each document."""
    made = []
    for chunk in corpora.open_source(path(name)).token_chunks():
        parts = np.split(chunk.tokens, np.cumsum(chunk.lengths))[:-1]
        made += zip([part.tolist() for part in parts], chunk.ids, chunk.sources, strict=True)
    return made


def wrong(name, what, *parts, reader=read):
    """A file that is refused, in one line that names it."""
    try:
        found = reader(name)
    except UserError as error:
        text = str(error)
        check("\n" not in text and all(part in text for part in parts), what, text)
    else:
        check(False, what, found)


# ---------------------------------------------------------------- JSON


def lines():
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in VALUES)


def pretty(values):
    return [json.dumps(value, indent=2) for value in values]


PACKED = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".bz2": __import__("bz2").compress,
    ".xz": __import__("lzma").compress,
}


def test_json():
    forms = {
        "lines": lines(),
        "array": json.dumps(VALUES),
        "pretty": json.dumps(VALUES, indent=1, ensure_ascii=False),
        "objects": "\n".join(pretty(VALUES)) + "\n",
        "marked": "\ufeff" + json.dumps(VALUES),
        "marked_lines": "\ufeff\n" + lines() + "\n",
    }
    before = json_text.BLOCK_BYTES
    for name, text in forms.items():
        for packed, pack in PACKED.items():
            write(f"{name}.json{packed}", pack(text.encode()))
            check(
                documents(f"{name}.json{packed}") == WANTED, f"{name}.json{packed}", documents(f"{name}.json{packed}")
            )
        for json_text.BLOCK_BYTES in (4, 5, 7, 64, 500):  # whatever a block ends in
            check(documents(f"{name}.json") == WANTED, f"{name}, blocks of {json_text.BLOCK_BYTES}")
    json_text.BLOCK_BYTES = before
    for name in ("c.jsonl", "c.ndjson"):
        for packed, pack in PACKED.items():
            write(name + packed, pack(lines().encode()))
            check(documents(name + packed) == WANTED, name + packed)
    write("one.json", json.dumps(VALUES[2], indent=4))
    check(documents("one.json") == [WANTED[2]], "one object")
    for name, text in (("none.json", "[]"), ("space.json", " \n"), ("empty.json", "")):
        write(name, text)
        check(read(name) == [], name)


def test_json_places():
    text = json.dumps(VALUES, indent=1)
    begins = [text.index(json.dumps(value, indent=1).replace("\n", "\n ")) for value in VALUES]
    write("places.json", text)
    wanted = [f"{path('places.json')}:{text.count(chr(10), 0, begin) + 1}" for begin in begins]
    check([place for place, _ in read("places.json")] == wanted, "the line that a value begins in", wanted)
    write("places.json", lines())
    check(read("places.json")[4][0].endswith("places.json:5"), "of lines")


def test_json_streams():
    many = [{"text": "x" * 1000, "id": i} for i in range(4000)]
    write("many.json", json.dumps(many))
    found = corpora.open_source(path("many.json"))
    records, progress = next(found.chunks())
    check(len(records) < 400 and progress < found.size() / 2, "an array is not read whole", (len(records), progress))
    check(sum(n for _, n in found.chunks()) == found.size(), "progress ends at the size")
    check(len(documents("many.json")) == 4000, "all of it")


def test_json_wrong():
    write("bad.json", '[{"text": "a"}, 7, "b", {"text": "c"], {"x": 1 2}, {"text": "d"}]')
    found = documents("bad.json")
    check(
        found[0] == ("a", "", "", "")
        and found[1] == found[2] == "invalid JSON: not an object"
        and "Expecting ',' delimiter" in found[3]
        and "Expecting ',' delimiter" in found[4]
        and found[5] == ("d", "", "", ""),
        "values that are no documents are bad lines",
        found,
    )
    for name, text, part in (
        ("cut.json", '[{"text": "a"}, {"text": "b"', "no end"),
        ("cut2.json", '[{"text": "a"},', "no end"),
        ("cut3.json", '[\n{"text": "a', "no end"),
        ("behind.json", '[{"text": "a"}]\n{"text": "b"}', "line 2: more behind"),
        ("comma.json", '[{"text": "a"},,{"text": "b"}]', "nothing before ,"),
        ("comma2.json", '{"text":\n "a"}\n, {"text": "b"}', "line 3: nothing before ,"),
        ("crossed.json", '[{"x": [}, {"text": "b"}]', "no end"),
        ("brace.json", '[{"text": "a"]},\n{"text": "b"}]', "line 1: nothing before }"),
        ("closed.json", '{"text":\n "a"}]', "line 2: more behind"),
    ):
        write(name, text)
        wrong(name, f"{name} is refused", f'{name}"', part)
    for packed in (".gz", ".zst", ".zstd", ".bz2", ".xz"):
        write(f"short.json{packed}", PACKED[packed](lines().encode())[:-9])
        wrong(f"short.json{packed}", f"cut short: {packed}", f'short.json{packed}" is corrupt')


def test_encodings():
    for mark, encoding, name in (
        (b"\xff\xfe", "utf-16-le", "UTF-16"),
        (b"\xfe\xff", "utf-16-be", "UTF-16"),
        (b"\xff\xfe\0\0", "utf-32-le", "UTF-32"),
        (b"\0\0\xfe\xff", "utf-32-be", "UTF-32"),
    ):
        data = mark + lines().encode(encoding)
        for file in ("wide.jsonl", "wide.json"):
            write(file, data)
            wrong(file, f"{encoding} in {file}", f'{file}" is {name} ', f"iconv -f {name}")
        write("widefolder/a.txt", data)
        check(f"is {name} " in documents("widefolder")[0], f"{encoding} in a folder", documents("widefolder"))
    write("q.jsonl", b"\xff\xfe" + '{"id": "a", "prompt": "b", "completion": "c"}\n'.encode("utf-16-le"))
    done = run("tokenize_queries", "q.jsonl", "--model", MODEL, "--output", path("q.h5"))
    refused("queries in UTF-16", done, 'q.jsonl" is UTF-16')


def test_fields():
    write("f.json", json.dumps(VALUES[2]))
    names = {"text": "meta.deep.text", "id": "meta.url", "source": "id"}
    check(documents("f.json", **names) == [("inner", "u/3", "3", "")], "nested names", documents("f.json", **names))
    have = 'there are "id", "text", "meta.url", "meta.deep.text"'
    for fields, part in (
        ({"text": "body"}, f'no text: no field "body" (--text-field), {have}'),
        ({"text": "meta"}, 'no text: "meta" is an object'),
        ({"text": "id"}, 'no text: "id" is a number'),
        ({"id": "meta.name"}, f'no id: no field "meta.name" (--id-field), {have}'),
        ({"lang": "meta.url.more"}, "(--lang-field)"),
    ):
        found = documents("f.json", **fields)
        check(part in found[0], f"{fields}", found)
    write("dots.json", json.dumps({"a.b": "whole", "a": {"b": "nested", "c.d": {"e": "both"}}}))
    check(documents("dots.json", text="a.b")[0][0] == "whole", "a field of the whole name comes first")
    check(documents("dots.json", text="a.c.d.e")[0][0] == "both", "a name with a dot inside another")
    check(source.look_up({"a": {}}, "a.b.c") == (False, None), "nothing there")


# ---------------------------------------------------------------- tables


def table():
    rows = [{"text": t, "id": i, "source": s, "lang": lang} for t, i, s, lang in WANTED]
    for i, row in enumerate(rows):
        row["meta"] = {"url": f"u/{i}", "deep": {"text": f"inner {i}"}} if i != 1 else None
    made = pyarrow.Table.from_pylist(rows)
    return made.set_column(made.schema.get_field_index("lang"), "lang", made["lang"].dictionary_encode())


def write_arrow(name, made, kind):
    """In batches of two rows."""
    with kind(path(name), made.schema) as writer:
        writer.write_table(made, max_chunksize=2)


def write_tables(made, name="t"):
    pyarrow.parquet.write_table(made, path(f"{name}.parquet"), row_group_size=2)
    write_arrow(f"{name}.arrow", made, pyarrow.ipc.new_stream)
    write_arrow(f"{name}.feather", made, pyarrow.ipc.new_file)
    return [f"{name}.parquet", f"{name}.arrow", f"{name}.feather"]


def test_tables():
    for name in write_tables(table()):
        found = read(name)
        check([document for _, document in found] == WANTED, name, found)
        check(found[3][0] == f"{path(name)}: row 4", f"{name}: place", found[3])
        whole = corpora.open_source(path(name))
        check(sum(n for _, n in whole.chunks()) <= whole.size(), f"{name}: progress")
        nested = documents(name, text="meta.deep.text", id="meta.url")
        check(nested[2][:2] == ("inner 2", "u/2") and "null" in nested[1], f"{name}: nested columns", nested)
        wrong(
            name,
            f"{name}: a column that is not there",
            'has no column "meta.text" (--text-field); it has: "text", "id", "source", "lang", "meta.url", "meta.deep.text"',
            reader=lambda one: read(one, text="meta.text"),
        )
        with open(path(name), "rb") as file:
            data = file.read()
        for n in (0, 5, 40, len(data) // 2, len(data) - 8):
            write("cut" + name, data[:n])
            wrong("cut" + name, f"{name}: {n} bytes of {len(data)}", f"cut{name}")
    twice = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    for name in write_tables(twice, "twice"):
        wrong(name, f"{name}: a column twice", 'has 2 columns named "text"')
    invalid = pyarrow.table({"text": ["good", "bad"]})
    data = invalid["text"].combine_chunks().buffers()
    broken = pyarrow.StringArray.from_buffers(2, data[1], pyarrow.py_buffer(b"good\xffad"))
    for name in write_tables(pyarrow.table({"text": broken}), "invalid"):
        check(documents(name) == [("good", "", "", ""), "invalid UTF-8 at byte 0"], f"{name}: a row's bytes")


def test_chats():
    """Records without a text, of every kind that has fields."""
    chats = [{"messages": [{"role": "user", "content": str(i)}], "id": f"c{i}"} for i in range(5)]
    ids = [{"input_ids": [1, 2, i], "labels": [-100, 2, i], "id": f"c{i}"} for i in range(5)]
    for what, rows in (("messages", chats), ("input_ids", ids)):
        made = pyarrow.Table.from_pylist(rows)
        write("chat.json", json.dumps(rows))
        saved("chats", [made.slice(0, 2), made.slice(2)])
        for name in ("chat.json", "chats", *write_tables(made, "chat")):
            found = documents(name)
            check([document[1] for document in found] == [row["id"] for row in rows], f"{what} in {name}", found)
            got = [d[0].messages if what == "messages" else d[0].tokens.tolist() for d in found]
            check(got == [row[what] for row in rows], f"{what} in {name}: what they are", got)
    write("chat.json", '{"text": null, "messages": 7}')
    check("messages is no list" in documents("chat.json")[0], "no chat", documents("chat.json"))
    for name in write_tables(pyarrow.table({"labels": [[1]], "tools": ["x"]}), "none"):
        wrong(name, f"{name}: labels alone", 'no column "text"')


# ---------------------------------------------------------------- folders


def saved(name, parts, **state):
    for i, part in enumerate(parts):
        os.makedirs(path(name), exist_ok=True)
        write_arrow(f"{name}/data-{i:05d}-of-{len(parts):05d}.arrow", part, pyarrow.ipc.new_stream)
    files = [{"filename": f"data-{i:05d}-of-{len(parts):05d}.arrow"} for i in range(len(parts))]
    write(f"{name}/state.json", json.dumps({"_data_files": files, "_split": "train", **state}))
    write(f"{name}/dataset_info.json", "{}")


def test_saved_dataset():
    made = table()
    saved("saved/train", [made.slice(0, 2), made.slice(2)])
    found = documents("saved/train")
    wanted = [one[:1] + (one[1] or "data-00001-of-00002.arrow: row 2",) + one[2:] for one in WANTED]
    check(found == wanted, "save_to_disk", found)
    files = {"_data_files": [{"filename": f"data-0000{i}-of-00002.arrow"} for i in (1, 0)]}
    saved("turned", [made.slice(0, 2), made.slice(2)], **files)
    check([d[0] for d in documents("turned")] == [w[0] for w in WANTED[2:] + WANTED[:2]], "the order of state.json")
    write("saved/dataset_dict.json", '{"splits": ["train"]}')
    wrong("saved", "several splits", '"train"', "give one")
    saved("chosen", [made], _indices_data_files=[{"filename": "indices.arrow"}])
    wrong("chosen", "rows that were chosen", "flatten_indices")
    saved("lacks", [made], _data_files=[{"filename": "data-00000-of-00001.arrow"}, {"filename": "x.arrow"}])
    wrong("lacks", "a file that is missing", "x.arrow", "No such file")
    saved("away", [made], _data_files=[{"filename": "../t.arrow"}])
    wrong("away", "a file elsewhere", "state.json")


def test_folders():
    os.makedirs(path("hub/data"))
    for i, part in enumerate((table().slice(0, 2), table().slice(2))):
        pyarrow.parquet.write_table(part, path(f"hub/data/train-{i}.parquet"))
    for name in ("README.md", "LICENSE", "dataset_infos.json", ".gitattributes"):
        write(f"hub/{name}", "no document")
    found = documents("hub")
    check([d[0] for d in found] == [w[0] for w in WANTED], "a clone of the hub's", found)
    check(found[3][1] == "data/train-1.parquet: row 2", "a document without an id is named by its place", found[3])
    notes = corpora.open_source(path("hub")).notes
    check(len(notes) == 1 and '"README.md"' in notes[0] and "2 files" in notes[0], "what is not read is told", notes)
    write("mixed/a.jsonl", lines())
    write("mixed/b.jsonl.gz", gzip.compress(lines().encode()))
    found = read("mixed")
    check([d[0] for _, d in found] == [w[0] for w in WANTED * 2], "lines, packed or not")
    check(found[8][0] == path("mixed/b.jsonl.gz:4") and found[8][1][1] == "b.jsonl.gz:4", "their places", found[8])
    whole = [corpora.open_source(path("mixed")).hashes() for _ in range(2)]
    write("mixed/a.jsonl", lines() + lines())
    check(whole[0] == whole[1] != corpora.open_source(path("mixed")).hashes(), "the hash is of all files")
    for name, data in (("other/a.txt", "x"), ("other/b.json", "{}"), ("kinds/a.jsonl", lines()), ("kinds/b.npy", "x")):
        write(name, data)
    wrong("other", "text beside documents", '"a.txt", "b.json"')
    wrong("kinds", "two kinds", '"a.jsonl", "b.npy"')
    write("ids/a.bin", "x")
    wrong("ids", "token ids", "a.bin", "by their names")
    write("meta/dataset_info.json", "{}")
    wrong("meta", "no document at all", "dataset_info.json")
    os.makedirs(path("cache"))
    for name in ("x-train.arrow", "cache-1f.arrow"):
        write_arrow(f"cache/{name}", table(), pyarrow.ipc.new_stream)
    for name in ("dataset_info.json", "x_builder.lock"):
        write(f"cache/{name}", "{}")
    check([d[0] for d in documents("cache")] == [w[0] for w in WANTED], "what datasets keeps of a download")
    write("plain/README.md", "read me")
    check([d[0] for d in documents("plain")] == ["read me"], "in a folder of plain text, README is a document")


def test_changed_folder():
    """What a sweep asks of a folder that was tokenized."""
    for name in ("watched/deep/a.txt", "watched/b.txt"):
        write(name, "text")
    (_, recorded), *_ = corpora.open_source(path("watched")).hashes()
    output = write("watched.h5", "")
    os.utime(output, (1, 1))  # all of the folder is younger
    check(not has_changed(path("watched"), recorded, output), "touched, and the same")
    write("watched/deep/a.txt", "other")
    check(has_changed(path("watched"), recorded, output), "a file inside is another")
    os.utime(output)
    for file in ("watched/deep/a.txt", "watched/b.txt", "watched/deep", "watched"):
        os.utime(path(file), (1, 1))
    check(not has_changed(path("watched"), recorded, output), "what is older is not read")
    os.remove(path("watched/b.txt"))
    os.utime(path("watched"))
    os.utime(output, (2, 2))
    check(has_changed(path("watched"), recorded, output), "a file is gone")


# ---------------------------------------------------------------- token ids

PARTS = [np.arange(5), np.arange(5, 9), np.array([7]), np.arange(200), np.arange(3)]
IDS = [part.tolist() for part in PARTS]


def index(parts, marks, itemsize=2):
    lengths = np.array([len(part) for part in parts], "<i4")
    offsets = (np.cumsum(lengths) - lengths).astype("<i8") * itemsize
    head = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([8 if itemsize == 2 else 4])
    head += len(parts).to_bytes(8, "little") + len(marks).to_bytes(8, "little")
    return head + lengths.tobytes() + offsets.tobytes() + np.array(marks, "<i8").tobytes()


def test_pieces_of_megatron():
    data = np.concatenate(PARTS).astype("<u2").tobytes()
    for folder, cuts, last in (("p0", (0, 14, 20, 100), 3), ("p1", (0, 14, 20, 100), 4), ("p2", (0,), 1)):
        write(f"{folder}/x.idx", index(PARTS, [0]))
        for i, part in enumerate([data[a:b] for a, b in zip(cuts, (*cuts[1:], None))]):
            write(f"{folder}/x-{i:05d}-of-{last:05d}.bin", part)
        for name in (f"{folder}/x-00000-of-{last:05d}.bin", f"{folder}/x.idx"):
            found = tokens(name)
            check([ids for ids, _, _ in found] == IDS, f"{name}: documents over pieces", found)
    pieces = [path(f"p0/x-{i:05d}-of-00003.bin") for i in (2, 0)]
    found = corpora.open_sources([*pieces, path("p2/x.idx")])
    check([one.name for one in found] == ["x", "x"] and len(found[0].files()) == 5, "pieces of one are one")
    os.remove(path("p0/x-00001-of-00003.bin"))
    wrong("p0/x.idx", "a piece is missing", "x-00001-of-00003.bin", "missing", reader=tokens)
    os.remove(path("p1/x-00003-of-00004.bin"))
    wrong("p1/x.idx", "the last piece is missing", "missing", reader=tokens)
    write("p2/x-00000-of-00001.bin", data[:-2])
    wrong("p2/x.idx", "a piece is cut short", "x.idx", "sequence 4", reader=tokens)
    write("lone/x-00000-of-00001.bin", data)
    wrong("lone/x-00000-of-00001.bin", "no index", "x.idx", "No such file", reader=tokens)
    write("merged.idx", index(PARTS, [0, 1, 3]))
    write("merged.bin", data)
    wrong("merged.bin", "marks that were not merged", "from 0 to 5", "from 0 to 3", "merge", reader=tokens)


def write_dolma(name, dtype="<u2", rows=None):
    ends = np.cumsum([len(part) for part in PARTS]).tolist()
    rows = rows or [(e - len(p), e, f"d{e}" if i else "", "in.json.gz", i) for i, (p, e) in enumerate(zip(PARTS, ends))]
    write(f"{name}.npy", np.concatenate(PARTS).astype(dtype).tobytes())
    with gzip.open(path(f"{name}.csv.gz"), "wt", newline="") as file:
        csv.writer(file).writerows(rows)
    return rows


def test_dolma():
    for dtype in ("<u2", "<u4"):
        rows = write_dolma("olmo/part", dtype)
        found = tokens("olmo/part.npy")
        wanted = [(ids, row[2] or "in.json.gz:0", row[3]) for ids, row in zip(IDS, rows)]
        check(found == wanted, f"{dtype} by its size", found)
    write_dolma("olmo/bare", rows=[row[:2] for row in rows])
    wanted = [(ids, f"bare.csv.gz: row {i}", "") for i, ids in enumerate(IDS, 1)]
    check(tokens("olmo/bare.npy") == wanted, "starts and ends alone", tokens("olmo/bare.npy"))
    np.save(path("olmo/rows.npy"), np.arange(12, dtype=np.int32).reshape(3, 4))
    wanted = [(list(range(4 * i, 4 * i + 4)), f"rows.npy[{i}]", "") for i in range(3)]
    check(tokens("olmo/rows.npy") == wanted, "NumPy's rows", tokens("olmo/rows.npy"))
    shutil.copy(path("olmo/part.csv.gz"), path("olmo/own.csv.gz"))
    np.save(path("olmo/own.npy"), np.concatenate(PARTS))
    check([ids for ids, _, _ in tokens("olmo/own.npy")] == IDS, "NumPy's own file, one dimension")
    np.save(path("olmo/own.npy"), np.arange(9))
    wrong("olmo/own.npy", "other lengths", "has 9 tokens", "213", reader=tokens)
    np.save(path("olmo/float.npy"), np.zeros((2, 2)))
    wrong("olmo/float.npy", "floats", "float64", reader=tokens)
    write("olmo/float.npy", b"\x93NUMPY\x01\x00")
    wrong("olmo/float.npy", "NumPy's head alone", "float.npy", reader=tokens)
    write("olmo/lone.npy", b"12")
    wrong("olmo/lone.npy", "no csv", "lone.csv.gz", "No such file", reader=tokens)
    write_dolma("olmo/eight", "<u8")
    wrong("olmo/eight.npy", "eight bytes each", "1704 bytes", "213 tokens", reader=tokens)
    for what, changed, part in (
        ("a gap", [(0, 5), (6, 213)], "row 2: tokens 6 to 213 follow those to 5"),
        ("an end before its start", [(0, 5), (5, 4)], "row 2"),
        ("no number", [("start", "end")], "row 1"),
        ("one column", [(0,)], "row 1"),
        ("fewer than the ids", [(0, 5)], "has 426 bytes"),
    ):
        write_dolma("olmo/bad", rows=changed)
        wrong("olmo/bad.npy", what, "bad.csv.gz", part, reader=tokens)
    with open(path("olmo/part.csv.gz"), "rb") as file:
        data = file.read()
    write("olmo/part.csv.gz", data[:-12])
    wrong("olmo/part.npy", "a csv that is cut short", "part.csv.gz", reader=tokens)


def write_datatrove(name, dtype, ends=None):
    write(f"{name}.ds", np.concatenate(PARTS).astype(dtype).tobytes())
    ends = np.cumsum([len(part) for part in PARTS]) if ends is None else np.array(ends)
    write(f"{name}.ds.index", ends.astype("<u8").tobytes())


def test_datatrove():
    for dtype in ("<u2", "<u4"):
        write_datatrove("trove/a", dtype)
        for name in ("trove/a.ds", "trove/a.ds.index"):
            wanted = [(ids, f"a.ds: document {i}", "") for i, ids in enumerate(IDS)]
            check(tokens(name) == wanted, f"{name}, {dtype}", tokens(name))
    for what, ends, part in (
        ("ends that go back", [5, 4, 213], "document 1 runs from token 5 to 4"),
        ("fewer than the ids", [5, 9], "9 tokens"),
        ("an end beyond", [300, 213], "document 0"),
        ("no end", [], "a.ds.index"),
    ):
        write_datatrove("trove/a", "<u2", ends)
        wrong("trove/a.ds", what, part, reader=tokens)
    write_datatrove("trove/a", "<u2")
    write("trove/a.ds.index", b"123")
    wrong("trove/a.ds", "an index that is cut short", "3 bytes", reader=tokens)
    write_datatrove("trove/masked", "<u2")
    write("trove/masked.ds.loss", b"")
    wrong("trove/masked.ds", "a mask is not passed over in silence", "masked.ds.loss", reader=tokens)
    os.remove(path("trove/a.ds.index"))
    wrong("trove/a.ds", "no index", "a.ds.index", "No such file", reader=tokens)


# ---------------------------------------------------------------- MDS


def write_mds(name, columns, rows, per_shard=2, pack=None, **changed):
    """columns: {name: (encoding, size or None)}; rows: lists of bytes."""
    shards = []
    for number, first in enumerate(range(0, len(rows), per_shard)):
        samples = []
        for row in rows[first : first + per_shard]:
            sizes = [len(data).to_bytes(4, "little") for data, (_, size) in zip(row, columns.values()) if not size]
            samples.append(b"".join(sizes) + b"".join(row))
        begin = 4 + 4 * (len(samples) + 1) + 2
        offsets = np.cumsum([begin] + [len(sample) for sample in samples]).astype("<u4")
        data = len(samples).to_bytes(4, "little") + offsets.tobytes() + b"{}" + b"".join(samples)
        raw = {"basename": f"shard.{number:05d}.mds", "bytes": len(data), "hashes": {}}
        packed = pack and {"basename": f"{raw['basename']}.{pack}", "bytes": 0, "hashes": {}}
        write(f"{name}/{(packed or raw)['basename']}", zstandard.compress(data) if pack else data)
        shard = {"column_names": list(columns), "format": "mds", "compression": pack, "samples": len(samples)}
        shard |= {
            "column_encodings": [e for e, _ in columns.values()],
            "column_sizes": [s for _, s in columns.values()],
        }
        shards.append({**shard, "raw_data": raw, "zip_data": packed, "size_limit": 9, "version": 2, **changed})
    write(f"{name}/index.json", json.dumps({"version": 2, "shards": shards}))


def test_mds():
    columns = {"n": ("int", 8), "text": ("str", None), "lang": ("str", None)}
    rows = [[i.to_bytes(8, "little"), t.encode(), lang.encode()] for i, (t, _, _, lang) in enumerate(WANTED)]
    for pack in (None, "zstd"):
        write_mds(f"mds{pack}", columns, rows, pack=pack)
        found = documents(f"mds{pack}", id="n")
        check(found == [(w[0], str(i), "", w[3]) for i, w in enumerate(WANTED)], f"text, packed: {pack}", found)
    check(
        documents("mdsNone")[3][1] == "shard.00001.mds: sample 2", "a document without an id", documents("mdsNone")[3]
    )
    for encoding, dtype, size in (
        ("bytes", "<i8", None),
        ("ndarray:uint16:4", "<u2", 8),
        ("ndarray:int32:4", "<i4", 16),
    ):
        values = [np.arange(i, i + 4).astype(dtype) for i in range(5)]
        write_mds("mdst", {"tokens": (encoding, size)}, [[value.tobytes()] for value in values])
        check([ids for ids, _, _ in tokens("mdst")] == [v.tolist() for v in values], f"token ids as {encoding}")
        check(tokens("mdst")[4][1] == "shard.00002.mds: sample 1", "their places")
    write_mds("mdst", {"tokens": ("bytes", None)}, [[b"12345"]])
    wrong("mdst", "no whole number of ids", "5 bytes", reader=tokens)
    write_mds("mdst", {"tokens": ("pkl", None)}, [[b"1234"]])
    wrong("mdst", "pickles", "pkl", reader=tokens)
    write("mdsNone/shard.00001.mds", b"1234")
    wrong("mdsNone", "a shard that is cut short", "shard.00001.mds", "4 bytes")
    write("mdszstd/shard.00000.mds.zstd", b"1234")
    wrong("mdszstd", "a packed shard that is broken", "shard.00000.mds.zstd", "corrupt")
    os.remove(path("mdszstd/shard.00000.mds.zstd"))
    wrong("mdszstd", "a shard that is missing", "shard.00000.mds.zstd", "No such file")
    write_mds("mdsn", columns, rows, samples=3)
    wrong("mdsn", "another number of samples", "shard of 3 samples")
    write_mds("mdsn", columns, rows, column_sizes=[4, None, None])
    wrong("mdsn", "other sizes", "sample 1", "do not fit")
    write_mds("mdsn", columns, rows, format="csv")
    wrong("mdsn", "another format", "index.json", "MDS")
    write_mds("mdsn", columns, rows)
    wrong("mdsn", "no such column", '"n", "text", "lang"', reader=lambda name: read(name, text="body"))


# ---------------------------------------------------------------- by the program

MODEL, TOKENIZER, _ = tiny_model("model")


def test_program():
    write_dolma("all/o")
    write_datatrove("all/d", "<u4")
    write("all/a.json", json.dumps(VALUES))
    saved("all/s", [table()])
    inputs = [path(f"all/{name}") for name in ("o.npy", "d.ds", "a.json", "s")]
    done = run("tokenize_corpus", *inputs, "--model", MODEL, "--output", path("all/out"), "--id-field", "id")
    check(done.returncode == 0, "all of them", done.stderr)
    for name, source_of in (("o", "in.json.gz"), ("d", "")):
        found = datasets(f"all/out/{name}.h5")
        wanted = [part for part in IDS if len(part) > 1]
        check(
            found["token"] == sum(wanted, []) and found["documents/source"] == [source_of] * 5, f"{name}: token", found
        )
    text = sum((TOKENIZER.encode(document[0]).ids for document in WANTED if len(document[0]) > 1), [])
    for name in ("a", "s"):
        check(datasets(f"all/out/{name}.h5")["token"] == text, f"{name}: token")
    check(datasets("all/out/s.h5")["documents/id"][3] == "data-00000-of-00001.arrow: row 4", "s: id")
    write("all/a.json", json.dumps(VALUES)[:-1])
    write("all/d.ds", b"1234")
    inputs = [path(f"all/{name}") for name in ("d.ds", "a.json")]
    for name in inputs:
        done = run("tokenize_corpus", name, "--model", MODEL, "--output", path("all/no"))
        refused(f"{name} of wrong length", done, name)
    check(os.listdir(path("all/no")) == [], "nothing is written", os.listdir(path("all/no")))


for test in (
    test_json,
    test_json_places,
    test_json_streams,
    test_json_wrong,
    test_encodings,
    test_fields,
    test_tables,
    test_chats,
    test_saved_dataset,
    test_folders,
    test_changed_folder,
    test_pieces_of_megatron,
    test_dolma,
    test_datatrove,
    test_mds,
    test_program,
):
    test()
finish()
