#!/usr/bin/env python3
"""A report of packed sequences names the document that the influence is from; without token scores all of them."""

from text_checks import check, finish, path, refused, run

import json
import os

import h5py
import numpy as np

import make_sample as sample
from bregman.files import input_identity
from bregman.report import listed
from bregman.report.inputs import Ranking, Sequences

PACKED = ((0, 1, 2), (3, 4), (5,))  # documents of each sequence
LENGTHS = ((4, 5, 3), (6, 2), (7,))


def write_tokens():
    sequences = [np.arange(sum(lengths)) for lengths in LENGTHS]
    documents = [(f"doc-{i}", f"source-{i}", "en") for i in range(6)]
    sample.write_tokens(path("t.h5"), documents, sequences, "", 900)
    with h5py.File(path("t.h5"), "r+") as file:
        file["document"][...] = [documents[0] for documents in PACKED]
        file["piece/count"] = np.array([len(documents) for documents in PACKED], np.uint32)
        file["piece/document"] = np.array([d for documents in PACKED for d in documents])
        file["piece/start"] = np.zeros(6, np.int64)
        file["piece/length"] = np.array([n for lengths in LENGTHS for n in lengths], np.uint32)
        begins = 1000 * np.arange(6)
        ends = begins + 4 * file["piece/length"][:]
        first = [documents[0] for documents in PACKED]
        for name, values in (("begin_character", begins), ("end_character", ends)):
            file[name], file[f"piece/{name}"] = values[first], values


def write_ranking(token_scores):
    """One query; the order of the sequences is 0, 1, 2 at both ends."""
    inputs = [(name, input_identity(path(name))) for name in ("t.h5", "q.h5")]
    with sample.start_file(path("r.h5"), "bregman/ranking", "merge_scores", {}, inputs) as file:
        file.create_dataset("query", data=["q"], dtype=sample.TEXT)
        for end, sign in (("top", 1), ("bottom", -1)):
            file[f"{end}/sequence"] = np.array([[0, 1, 2]])
            file[f"{end}/score"] = np.array([[sign * 3, sign * 2, sign]], np.float32)
            file[f"{end}/count"] = np.array([[sum(lengths) - 1 for lengths in LENGTHS]], np.uint32)
            if token_scores:
                file[f"{end}/token_score"] = np.concatenate(token_scores[end]).astype(np.float32)
        sample.write_origin(file, [path("t.h5")], path("q.h5"), [f"doc-{documents[0]}" for documents in PACKED])
        sample.write_statistics(file, np.random.default_rng(1).standard_normal((1, 400)))


def scores(sequence, **values):
    made = np.zeros(sum(LENGTHS[sequence]) - 1)
    for place, value in values.items():
        made[int(place[1:])] = value
    return made


ARGUMENTS = [
    *("report", "--ranking", path("r.h5"), "--tokens", path("t.h5")),
    *("--queries", path("q.h5"), "--output", path("r.html")),
]


def report():
    done = run(*ARGUMENTS)
    with open(path("r.html"), encoding="utf-8") as file:
        return done, file.read()


def test_percentiles():
    """Equal scores have the percentile of their mean rank, as far as scores are known."""
    made = {  # all scores: those listed at the top, at the bottom, largest kept; percentiles by score
        "none are equal": ([5, 4, 3, 2, 1], 2, 2, 2, {5: 100, 4: 75, 2: 25, 1: 0}),
        "equal at the top": ([5, 5, 3, 2, 1], 3, 2, 2, {5: 87.5, 3: 50, 2: 25, 1: 0}),
        "more are kept than listed": ([5, 5, 5, 2, 1], 2, 2, 3, {5: 75, 2: 25, 1: 0}),
        "from one list to the other": ([5, 2, 2, 2, 1], 2, 2, 2, {5: 100, 2: 50, 1: 0}),
        "all are equal": ([2, 2, 2, 2, 2], 1, 1, 1, {2: 50}),
        "equal at the bottom": ([5, 4, 3, 1, 1], 1, 3, 1, {5: 100, 3: 50, 1: 12.5}),
        "one alone": ([5], 1, 1, 1, {5: None}),
    }
    for name, (scores, top, bottom, tail, wanted) in made.items():
        scores = np.array([scores], float)
        with h5py.File(path(f"{name}.h5"), "w") as file:
            file.attrs["format"] = "bregman/ranking"
            file.create_dataset("query", data=["q"], dtype=sample.TEXT)
            for end, listed in (("top", scores[:, :top]), ("bottom", scores[:, ::-1][:, :bottom])):
                none = max(top, bottom) - listed.size
                file[f"{end}/score"] = np.append(listed, none * [0])[None].astype(np.float32)
                file[f"{end}/sequence"] = np.append(np.arange(listed.size), none * [-1])[None]
            sample.write_statistics(file, scores)
            del file["tail/count"], file["tail/score"]
            file["tail/count"], file["tail/score"] = np.array([tail], np.uint32), scores[0, :tail].astype(np.float32)
        ranking = Ranking(path(f"{name}.h5"))
        for end, listed in (("top", scores[0, :top]), ("bottom", scores[0, ::-1][:bottom])):
            found = {score: ranking.percentile(end, 0, score) for score in listed}
            check(found == {score: wanted[score] for score in listed}, f"percentiles, {name}: {end}", found)


def test_named():
    # the first token of document 1 is predicted at position 3, that of document 4 at 5: the last of the one before
    write_ranking(
        {
            "top": [scores(0, p0=-5, p3=9, p9=-1), scores(1, p0=0.5, p5=1.5), scores(2, p0=1)],
            "bottom": [scores(0, p0=5, p8=-8), scores(1, p4=-3, p6=1), scores(2, p0=-1)],
        }
    )
    done, page = report()
    check(
        done.stdout.startswith("q: first doc-1 (score 3)"),
        "the first document by its influence",
        done.stdout + done.stderr,
    )
    shown = [part.split("</b>")[0] for part in page.split('<span class="who"><b>')[1:]]
    check(shown == ["doc-1", "doc-4", "doc-5", "doc-2", "doc-3", "doc-5"], "the document of each card", shown)
    check(
        "the sequence also has doc-0, doc-2" in page and page.count("one of 3 documents") == 2, "the others are named"
    )
    check(page.count("one of") == 4, "one document has no others")
    check(
        'Tokens 0 to 4, <span title="text[1000:1020] of the document">characters 1,000 to 1,020</span> of document doc-1'
        in page
        and 'data-place="tokens 0 to 4, characters 1000 to 1020"' in page
        and '"start": 0, "begin_character": 1000, "end_character": 1020,' in page,
        "characters of the document that is named",
    )
    check("<b>Characters.</b>" in page, "what characters are is said")


def test_unexplained():
    write_ranking(None)
    done, page = report()
    check(done.stdout.startswith("q: first doc-0, doc-1, doc-2 (score 3)"), "all documents", done.stdout + done.stderr)
    check("<b>doc-3, doc-4</b>" in page and "one of" not in page, "all documents on the page")
    check('data-place="8 tokens"' in page, "no characters of several documents", page.count("data-place"))


def test_open_places():
    """Scores 3, 2 and 1: which differ by more than 1.96 standard errors of their difference, and which have no order.  The last may be
    below others that are not listed."""
    for errors, wanted in (
        ((0.1, 0.1, 0.1), [(1, 1), (2, 2), (3, 3)]),
        ((0.1, 1.0, 1.0), [(1, 2), (1, None), (2, None)]),
        ((2.0, 2.0, 2.0), [(1, None)] * 3),
        ((0.1, np.nan, 0.1), None),
    ):
        os.remove(path("r.h5"))  # the one before is open
        write_ranking(None)
        with h5py.File(path("r.h5"), "r+") as file:
            for end in ("top", "bottom"):
                file[f"{end}/score_error"] = np.array([errors], np.float32)
        ranking = Ranking(path("r.h5"))
        for end in ("top", "bottom"):
            found = ranking.open_places(end, 0)
            check(found == wanted, f"places with errors {errors}", found)


def test_damaged():
    with h5py.File(path("t.h5"), "r+") as file:
        file["piece/length"][0] = 3
    write_ranking(None)
    done = run(
        "report",
        "--ranking",
        path("r.h5"),
        "--tokens",
        path("t.h5"),
        "--queries",
        path("q.h5"),
        "--output",
        path("no.html"),
    )
    refused("pieces that are no sequence", done, "t.h5", "12 tokens")


def test_around():
    """A document of three sequences, one of another that does not go on, and packed ones that do."""
    lengths, document, start = (4, 3, 5, 6), [0, 0, 0, 1], [0, 4, 7, 3]
    sequences = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    documents = [(f"doc-{i}", "https://example.org/a?b=1&c=2", "en") for i in range(4)]
    sample.write_tokens(path("u.h5"), documents, sequences, "", 900)
    with h5py.File(path("u.h5"), "r+") as file:
        file["document"][...], file["start"][...] = document, start
    found = [[part.tolist() for part in Sequences([path("u.h5")]).around(i, 6)] for i in range(4)]
    wanted = [[[], [4, 5, 6, 7, 8, 9]], [[0, 1, 2, 3], [7, 8, 9, 10, 11]], [[1, 2, 3, 4, 5, 6], []], [[], []]]
    check(found == wanted, "the tokens before and after", found)
    check([len(part) for part in Sequences([path("u.h5")]).around(1, 0)] == [0, 0], "no tokens are asked for")
    with h5py.File(path("u.h5"), "r+") as file:  # doc-0 to token 2 | its last 2 and doc-1 whole | doc-2 | doc-3
        file["piece/count"] = np.array([1, 2, 1, 1], np.uint32)
        file["piece/document"] = np.array([0, 0, 1, 2, 3])
        file["piece/start"] = np.array([0, 4, 0, 0, 0])
        file["piece/length"] = np.array([4, 2, 1, 5, 6], np.uint32)
    found = [[part.tolist() for part in Sequences([path("u.h5")]).around(i, 6)] for i in range(3)]
    check(found == [[[], [4, 5]], [[0, 1, 2, 3], []], [[], []]], "the tokens around packed documents", found)


def test_fold():
    def place(*sequences):
        return listed.fold([np.array(s) for s in sequences])

    base = np.arange(104)  # 100 runs of five
    near, far = base.copy(), base.copy()
    near[[0, 103]], far[[20, 50, 80]] = 900, 900  # 98 and 85 runs left: 98/102 and 85/115
    check(place(base, far, near, base[:3], base[:3]) == [[0, 2], [1], [3, 4]], "near-duplicates are found")
    check(
        listed.alike(set(range(9)), set(range(1, 10))) and not listed.alike({1, 2}, {2, 3}), "0.8 of all runs, and 1/3"
    )
    rows = [
        {"document": d, "source": "", "language": "en", "score": s} for d, s in (("a", 1.0), ("b", 3.0), ("a", 1.5))
    ]
    wanted = [("document", [("b", 1, 3.0), ("a", 2, 2.5)]), ("language", [("en", 3, 5.5)])]
    check(listed.totals(rows, "top") == wanted, "sums", listed.totals(rows, "top"))
    many = [{"document": str(i), "source": "", "language": "", "score": -float(i)} for i in range(13)]
    table = listed.totals(many, "bottom")[0][1]
    check(table[0] == ("12", 1, -12.0) and table[10:] == [(None, 3, -3.0)], "the rest of many documents", table)


def test_context():
    """The page has the text beside a sequence, and links to a source that is an address."""
    lengths = (4, 3)
    documents = [("doc-0", "https://example.org/a?b=1&c=2", "en"), ("doc-1", "javascript:x", "en")]
    sample.write_tokens(path("t.h5"), documents, np.split(np.arange(sum(lengths)), [4]), "", 900)
    with h5py.File(path("t.h5"), "r+") as file:
        file["document"][...], file["start"][...] = [0, 0], [0, 4]
    os.remove(path("r.h5"))
    inputs = [(name, input_identity(path(name))) for name in ("t.h5", "q.h5")]
    with sample.start_file(path("r.h5"), "bregman/ranking", "merge_scores", {}, inputs) as file:
        file.create_dataset("query", data=["q"], dtype=sample.TEXT)
        for end, sign in (("top", 1), ("bottom", -1)):
            file[f"{end}/sequence"], file[f"{end}/score"] = np.array([[1]]), np.array([[sign]], np.float32)
        sample.write_origin(file, [path("t.h5")], path("q.h5"), ["doc-0", "doc-0"])
        for end in ("top", "bottom"):
            file[f"{end}/start"][...] = 4
        sample.write_statistics(file, np.random.default_rng(1).standard_normal((1, 400)))
    done, page = report()
    check(page.count("Text before: 4 tokens") == 2 and "[0] [1] [2] [3] " in page, "text before", done.stderr)
    check("Text after" not in page and "Tokens 4 to 6 of document doc-0" in page, "no text after; the range")
    check('href="https://example.org/a?b=1&amp;c=2"' in page, "an address is a link")
    check(
        "characters" not in page.replace("_characters", "").lower().split("<script>")[0],
        "a file that does not say which characters",
    )
    done = run("export", *ARGUMENTS[1:-1], path("r.jsonl"))
    with open(path("r.jsonl"), encoding="utf-8") as file:
        row = json.loads(file.readline())
    check(row["start"] == 4 and row["begin_character"] is row["end_character"] is None, "nor does its table", row)
    done = run(*ARGUMENTS, "--context", "0")
    with open(path("r.html"), encoding="utf-8") as file:
        check("Text before" not in file.read(), "--context 0", done.stderr)
    refused("no such context", run(*ARGUMENTS, "--context", "-1"), "--context -1", code=2)


write_tokens()
tokenizer = sample.train_tokenizer(path("tokenizer.json"))
sample.write_queries(path("q.h5"), [("q", "the", " heaven", 0)], tokenizer, "")
test_percentiles()
test_named()
test_unexplained()
test_open_places()
test_damaged()
test_around()
test_fold()
test_context()
finish()
