#!/usr/bin/env python3
"""prefilter against BM25 in plain Python: lists, scores and their union, for any number of ranks and whatever interrupted
it; and what it says of bad input."""

import collections
import math
import os
import signal
import subprocess
import time

import h5py
import numpy as np

from engine_checks import BUILD, FOLDER, ROOT, SCRIPTS, check, engine, finish, same_file
from check_goldens import write_tokens
from restart_checks import kill
from bregman.report import inputs, lexical

STOPPED = 75
RUN = engine("llama", "prefilter")


def skewed(n, longest, seed, vocabulary=40):
    """Sequences in which some ids are far more frequent than others, as words are."""
    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocabulary + 1)
    return [random.choice(vocabulary, length, p=share / share.sum()) for length in random.integers(2, longest + 1, n)]


CORPUS = skewed(120, 30, 5)
CORPUS += [CORPUS[7].copy(), CORPUS[7][::-1].copy(), np.array([60, 61])]  # equal scores, and terms of no query
QUERIES = skewed(5, 12, 6) + [np.array([1, 2, 1, 2, 1, 2, 39]), np.array([50, 51, 52])]
START = np.array([max(1, len(q) // 2) for q in QUERIES])
TOKENS = write_tokens(os.path.join(FOLDER, "tokens.h5"), CORPUS)
QUERY_FILE = write_tokens(os.path.join(FOLDER, "queries.h5"), QUERIES, START)
STRANGE = len(QUERIES) - 1  # the query without a term in the corpus


# ---- the reference


def grams(tokens, most):
    tokens = list(map(int, tokens))
    return [tuple(tokens[i : i + n]) for i in range(len(tokens)) for n in range(1, most + 1) if i + n <= len(tokens)]


def part(query, start, terms):
    return {"both": query, "prompt": query[:start], "completion": query[start:]}[terms]


def reference(top, form="paper", k1=1.5, b=0.75, terms="both", ngrams=1, max_share=1.0):
    """[query] of (score, sequence), best first; ties by number."""
    queries = [collections.Counter(grams(part(q, s, terms), ngrams)) for q, s in zip(QUERIES, START)]
    number = {}
    for query in queries:
        for term in query:
            number.setdefault(term, len(number))
    found = [collections.Counter(g for g in grams(z, ngrams) if g in number) for z in CORPUS]
    frequency, all_sequences = collections.Counter(t for z in found for t in z), len(CORPUS)
    mean = sum(map(len, CORPUS)) / all_sequences
    idf = {
        t: math.log((all_sequences - n + 0.5) / (n + 0.5) + 1)
        for t, n in frequency.items()
        if n <= max_share * all_sequences
    }
    ranked = []
    for query in queries:
        hits = []
        for z, has in enumerate(found):
            score = 0.0
            for t in sorted(query.keys() & has.keys() & idf.keys(), key=lambda t: (frequency[t], number[t])):
                if form == "paper":
                    score += idf[t]
                else:
                    saturation = k1 * (1 - b + b * len(CORPUS[z]) / mean)
                    score += query[t] * has[t] * (k1 + 1) / (has[t] + saturation) * idf[t]
            if score > 0:
                hits.append((-score, z))
        ranked.append([(-s, z) for s, z in sorted(hits)[:top]])
    return ranked


def prefilter(name, *options, run=RUN, **settings):
    """Runs the stage; (path, what it said)."""
    words = [w for key, value in settings.items() for w in ("--" + key.replace("_", "-"), value)]
    path = run.path(name + ".h5")
    said = run.run("prefilter", "--tokens", TOKENS, "--queries", QUERY_FILE, "--output", path, *words, *options)
    return path, said


def check_file(name, path, wanted, top):
    with h5py.File(path) as file:
        sequence, score = file["top/sequence"][:], file["top/score"][:]
        union = file["sequence"][:].tolist()
    k = min(top, len(CORPUS))
    check(sequence.shape == score.shape == (len(QUERIES), k), f"{name}: shape", sequence.shape)
    for q, hits in enumerate(wanted):
        numbers = [z for _, z in hits]
        check(sequence[q].tolist() == numbers + [-1] * (k - len(hits)), f"{name}: sequences of query {q}", sequence[q])
        found, limit = score[q, : len(hits)], [s for s, _ in hits]
        check(np.allclose(found, limit, rtol=1e-14, atol=0), f"{name}: scores of query {q}", found)
    listed = sorted({z for hits in wanted for _, z in hits}) if top < len(CORPUS) else list(range(len(CORPUS)))
    check(union == listed, f"{name}: union", union)


def test_reports():
    """What reports and tables say of a sequence's BM25 is what the stage says, whatever the blocks in which tokens are read."""
    path, _ = prefilter("reports", top=len(CORPUS))
    halves = [
        write_tokens(os.path.join(FOLDER, f"half-{i}.h5"), part) for i, part in enumerate((CORPUS[:50], CORPUS[50:]))
    ]
    with h5py.File(path) as file:
        sequence, score = file["top/sequence"][:], file["top/score"][:]
    wanted = np.zeros((len(QUERIES), len(CORPUS)))
    for q, row in enumerate(sequence):
        wanted[q, row[row >= 0]] = score[q, row >= 0]
    for block in (1, 7, lexical.BLOCK_TOKENS):
        lexical.BLOCK_TOKENS = block
        for files in ([TOKENS], halves):
            made = lexical.Lexical(inputs.Sequences(files), QUERIES)
            found = [[made.score(q, tokens) for tokens in CORPUS] for q in range(len(QUERIES))]
            check(made.counted == len(CORPUS), "all are counted", made.counted)
            check(np.allclose(found, wanted, rtol=1e-13, atol=0), f"BM25 of reports, blocks of {block}", len(files))
    lexical.BLOCK_TOKENS = 50
    fewer = lexical.Lexical(inputs.Sequences(halves), QUERIES, most_tokens=sum(map(len, CORPUS)) // 3)
    blocks = list(inputs.Sequences(halves).blocks(50, 10**9))
    kept = [n for lengths, _ in blocks[:: -(-sum(map(len, CORPUS)) // (sum(map(len, CORPUS)) // 3))] for n in lengths]
    check(fewer.counted == len(kept) < len(CORPUS) / 2, "a sample of a large corpus", fewer.counted)
    rare, common = fewer.score(STRANGE, QUERIES[STRANGE]), fewer.score(0, QUERIES[0][:1])
    check(rare > common > 0, "a token that the sample lacks counts most", (rare, common))


def test_reference():
    cases = [
        {},
        {"terms": "prompt"},
        {"terms": "completion", "ngrams": 2},
        {"ngrams": 3},
        {"max_share": 0.3, "ngrams": 2},
        {"form": "okapi", "k1": 0.4, "b": 1.0, "ngrams": 2},
        {"form": "okapi", "b": 0.0, "max_share": 0.5},
    ]
    for i, settings in enumerate(cases):
        top = 3 if i % 3 == 0 else 17
        path, _ = prefilter(f"reference-{i}", "--unit-sequences", 50, top=top, **settings)
        check_file(f"{settings}, top {top}", path, reference(top, **settings), top)


def test_k1_cancels():
    """With a term there or not, the factor is the same for all terms, whatever k1."""
    paths = [prefilter(f"k1-{k1}", k1=k1, top=20)[0] for k1 in (0, 1.5, 1000)]
    for path in paths[1:]:
        same_file(f"k1 of {path}", path, paths[0], ignore=("@k1",))


def test_ranks():
    one, _ = prefilter("one", "--unit-sequences", 7, top=10, ngrams=2)
    whole, _ = prefilter("whole", top=10, ngrams=2)
    same_file("one unit", whole, one)
    for ranks in (2, 3, 4):
        run = engine("llama", f"ranks-{ranks}", ranks=ranks)
        path, _ = prefilter("candidates", "--unit-sequences", 7, run=run, top=10, ngrams=2)
        same_file(f"{ranks} ranks", path, one)
        check(not os.path.exists(path.replace(".h5", ".work")), f"{ranks} ranks: no work folder")
    check("already done" in prefilter("one", "--unit-sequences", 7, top=10, ngrams=2)[1], "a second run says so")


# ---- interrupted


def interrupt(name, ranks, number):
    """Start on so many ranks, end them at the 20th work file; (exit code, command, output)"""
    run = engine("llama", name, ranks=ranks)
    path = run.path("candidates.h5")
    command = run.command(
        *("prefilter", "--tokens", TOKENS, "--queries", QUERY_FILE, "--output", path),
        *("--unit-sequences", 1, "--top", 10, "--ngrams", 2),
    )
    work = path.replace(".h5", ".work")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as job:
        limit = time.monotonic() + 120
        while job.poll() is None and time.monotonic() < limit:
            if os.path.isdir(work) and sum(f.endswith(".h5") for f in os.listdir(work)) >= 20:
                break
            time.sleep(0.001)
        if number == signal.SIGKILL:
            kill(job.pid)
        else:
            job.send_signal(number)
        code = job.wait(timeout=120)
    check(not os.path.exists(path), f"{name}: interrupted in time")
    check(os.path.isdir(work), f"{name}: work is kept")
    return code, command, path


def test_interrupted():
    whole, _ = prefilter("uninterrupted", "--unit-sequences", 1, top=10, ngrams=2)
    for ranks, number in ((2, signal.SIGKILL), (0, signal.SIGUSR1), (3, signal.SIGTERM)):
        name = f"{signal.Signals(number).name} on {ranks or 1}"
        code, command, path = interrupt(f"{number.name}-{ranks}", ranks, number)
        if number != signal.SIGKILL:
            check(code == STOPPED, f"{name}: exit {STOPPED}", code)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        check(done.returncode == 0 and "going on" in done.stderr, f"{name}: goes on", done.stderr[-400:])
        same_file(name, path, whole)


def test_stop_file():
    run = engine("llama", "stop-file")
    with open(run.path("stop"), "w", encoding="utf-8"):
        pass
    command = run.command("prefilter", "--tokens", TOKENS, "--queries", QUERY_FILE, "--output", run.path("c.h5"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    check(done.returncode == STOPPED and "remove it" in done.stderr, "a stop file", done.stderr[-300:])
    os.remove(run.path("stop"))
    check(subprocess.run(command, capture_output=True, timeout=300, check=False).returncode == 0, "removed: it runs")


# ---- what is made of it


def refused_scores(name, reason, compressed, tokens, candidates):
    command = RUN.command(
        *("score_shards", "--model", RUN.model, "--queries", compressed, "--tokens", *tokens),
        *("--output", RUN.path("refused-scores"), "--candidates", candidates),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    check(done.returncode == 1 and reason in done.stderr, name, done.stderr[-400:])


def scored(name, compressed, candidates, shards=1):
    """Their scores; (path of a ranking that is to be made, folder of the shards)"""
    for i in range(shards):
        folder = RUN.score(
            compressed, TOKENS, f"{name}-scores", "--candidates", candidates, "--shard", f"{i}/{shards}", "--top", 5
        )
    return RUN.path(f"{name}-ranking.h5"), folder


def places(path):
    with h5py.File(path) as file:
        return {
            end: (file[f"{end}/sequence"][:], file[f"{end}/prefilter_rank"][:])
            for end in ("top", "bottom")
            if f"{end}/prefilter_rank" in file
        }


def check_places(name, path, candidates):
    with h5py.File(candidates) as file:
        lists = file["top/sequence"][:].tolist()
    seen = set()
    for end, (sequence, rank) in places(path).items():
        for q, (row, found) in enumerate(zip(sequence.tolist(), rank.tolist())):
            for z, r in zip(row, found):
                right = (lists[q].index(z) + 1 if z in lists[q] else -1) if z >= 0 else r
                check(r in (right, 0), f"{name}: {end} of query {q}: sequence {z}", (r, right))
                seen.add("none" if r == -1 else "unknown" if r == 0 else "place")
    return seen


def report(ranking):
    page = RUN.path("report.html")
    command = [os.path.join(SCRIPTS, "report"), "--ranking", ranking, "--tokens", TOKENS, "--queries", QUERY_FILE]
    done = subprocess.run([*command, "--output", page], capture_output=True, text=True, timeout=300, check=False)
    check(done.returncode == 0, "a report", done.stderr[-300:])
    with open(page, encoding="utf-8") as file:
        return file.read()


def check_recall(compressed):
    """scripts/bench/recall.py: of a ranking of the whole corpus, whose candidates are all of it."""
    ranking = RUN.merge(RUN.score(compressed, TOKENS, "whole-scores"), "whole-ranking.h5")
    everything, _ = prefilter("all", top=len(CORPUS))
    command = [os.path.join(ROOT, "scripts", "bench", "recall.py"), "--ranking", ranking, "--candidates", everything]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = [line.split("|") for line in done.stdout.splitlines()[2:]]
    check([line[1].strip() for line in lines] == ["100", str(len(CORPUS))], "recall: its K", done.stdout + done.stderr)
    with h5py.File(ranking) as a, h5py.File(everything) as b:
        best, lists = a["top/sequence"][:, :10].tolist(), b["top/sequence"][:, :100].tolist()
    found = np.mean([np.mean([z in own for z in first]) for first, own in zip(best, lists)])
    check(lines and lines[0][3].strip() == f"{found:.2f}", "recall: found among the query's own", done.stdout)
    check(lines and lines[-1][2].strip() == "100.0 %" and "1.00" in lines[-1][3], "recall: everything", done.stdout)


def test_ranking():
    half = write_tokens(os.path.join(FOLDER, "half.h5"), CORPUS[:60])
    rest = write_tokens(os.path.join(FOLDER, "rest.h5"), CORPUS[60:])
    compressed = RUN.compress(RUN.fit(TOKENS, "factors"), QUERY_FILE, "compressed.h5")
    candidates, _ = prefilter("chosen", top=8)
    ranking, folder = scored("chosen", compressed, candidates, shards=2)
    said = RUN.run("merge_scores", "--scores", folder, "--output", ranking, "--top", 5)
    with h5py.File(candidates) as file:
        n = len(file["sequence"])
    share = f"{n} sequences, {100 * n / len(CORPUS):.3g} % of the corpus"
    check(share in said, "the share of the corpus is said", said)
    seen = check_places("a ranking", ranking, candidates)
    check(seen == {"none", "place"}, "both sorts of places", seen)
    with h5py.File(ranking) as file:
        check(file.attrs["prefilter"] == "BM25 (paper), the best 8 of each query", "says how", dict(file.attrs))
    before = places(ranking)
    inputs = ["--model", RUN.model, "--queries", compressed, "--tokens", TOKENS, "--output", folder]
    said = RUN.run("score_shards", *inputs, "--explain", ranking)
    listed = int((before["top"][1] > 0).sum())
    check(f"BM25 (paper), the best 8 of each query: {listed} of {5 * len(QUERIES)} best" in said, "said of them", said)
    check(f"{100 * n / len(CORPUS):.3g} % of the corpus were scored" in said, "and the share", said)
    after = places(ranking)
    same = all(np.array_equal(a, b) for end in ("top", "bottom") for a, b in zip(before[end], after[end]))
    check(same, "an explained ranking keeps them")
    page = report(ranking)
    with h5py.File(ranking) as file:
        first = [r for q in range(len(QUERIES)) for r in file["top/prefilter_rank"][q]]
    check(f"{n} sequences scored, {100 * n / len(CORPUS):.3g} % of the corpus" in page, "the report says the share")
    check("BM25 (paper), the best 8 of each query" in page, "and how they were chosen")
    check(
        page.count("not among the prefilter’s best for this query") >= first.count(-1),
        "and which were chosen for others",
    )
    check(all(f"prefilter’s rank {r} ·" in page for r in first if r > 0), "and the places")
    check_recall(compressed)
    longer = RUN.path("longer.h5")
    RUN.run("merge_scores", "--scores", folder, "--output", longer, "--top", 9)
    check("unknown" in check_places("a longer ranking", longer, candidates), "more than the shards list: not known")

    numbers = RUN.path("candidates.txt")
    with open(numbers, "w", encoding="utf-8") as file:
        file.write("3\n5\n60\n")
    ranking, folder = scored("plain", compressed, numbers)
    RUN.run("merge_scores", "--scores", folder, "--output", ranking)
    check(not places(ranking), "a list of numbers has no places")
    others = write_tokens(os.path.join(FOLDER, "others.h5"), [q[::-1].copy() for q in QUERIES], START)
    path = RUN.path("of-others.h5")
    RUN.run("prefilter", "--tokens", TOKENS, "--queries", others, "--output", path, "--top", 8)
    ranking, folder = scored("of-others", compressed, path)
    RUN.run("merge_scores", "--scores", folder, "--output", ranking)
    check(not places(ranking), "candidates of other queries have no places")

    refused_scores("another corpus", "made from other inputs: token file 1", compressed, [half, rest], candidates)
    empty = RUN.path("empty.h5")
    with h5py.File(empty, "w") as file:
        file["sequence"] = np.zeros(0, "i8")
    refused_scores("no candidates", "no sequence in it", compressed, [TOKENS], empty)


# ---- odd and bad input


def refused(name, reason, *arguments, code=1):
    done = subprocess.run(
        [os.path.join(BUILD, "bin", "prefilter"), "--output", RUN.path("refused.h5"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    check(done.returncode == code, f"{name}: exit {code}", (done.returncode, done.stderr[-300:]))
    check(reason in done.stderr, f"{name}: says why", done.stderr[-400:])
    check(not os.path.exists(RUN.path("refused.h5")), f"{name}: writes nothing")
    check(not os.path.exists(RUN.path("refused.work")), f"{name}: leaves no work folder")


def queries_of(name, tokens, tokenizer=""):
    path = write_tokens(os.path.join(FOLDER, name + ".h5"), tokens, 1)
    with h5py.File(path, "a") as file:
        file.attrs["tokenizer_hash"] = tokenizer
    return path


def test_input():
    n = len(CORPUS)
    path, said = prefilter("everything", top=n + 5)
    check(f"the corpus has {n} sequences, and all of them are candidates" in said, "more than there are: said", said)
    check_file("everything", path, reference(n + 5), n + 5)
    check(f'warning: query "q{STRANGE}" has no term in the corpus' in said, "a strange query: a warning", said)
    check(said.count("warning: query") == 1, "a strange query: no other", said)

    here = ["--tokens", TOKENS, "--queries"]
    strange = queries_of("strange", [np.array([50, 51]), np.array([52, 53])])
    refused("no candidates", "there are no candidates", *here, strange)
    refused("all stopped", "that --max-share leaves", *here, QUERY_FILE, "--max-share", 0)
    known = write_tokens(os.path.join(FOLDER, "known.h5"), CORPUS[:9])
    with h5py.File(known, "a") as file:
        file.attrs["tokenizer_hash"] = "a" * 32
    other = queries_of("other", [np.array([1, 2, 3])], "b" * 32)
    refused("another tokenizer", "made with another tokenizer", "--tokens", known, "--queries", other)
    refused("no queries", "holds no queries", *here, TOKENS)
    refused("no corpus", "holds queries, not a corpus", "--tokens", QUERY_FILE, "--queries", QUERY_FILE)
    refused("a wild id", "ids up to 16777215", *here, queries_of("wild", [np.array([1, 1 << 30])]))
    refused("a form", "--form takes paper or okapi", *here, QUERY_FILE, "--form", "bm11", code=2)
    refused("a part", "--terms takes both, prompt", *here, QUERY_FILE, "--terms", "all", code=2)
    refused("long n-grams", "--ngrams takes a whole number from 1 to 3", *here, QUERY_FILE, "--ngrams", 4, code=2)
    refused("no top", "--top takes a whole number from 1", *here, QUERY_FILE, "--top", 0, code=2)


test_reference()
test_reports()
test_k1_cancels()
test_ranks()
test_interrupted()
test_ranking()
test_stop_file()
test_input()
finish(200)
