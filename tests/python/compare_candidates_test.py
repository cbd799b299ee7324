#!/usr/bin/env python3
"""compare_scales where one model has scored few candidates of a corpus: the numbers of a slow definition, on a corpus that is read in
several pieces; and memory that goes with the candidates, not with the corpus."""

from engine_checks import FOLDER, check, close, engine, finish, same_file

import math
import os
import re
import subprocess

import h5py
import numpy as np

from check_goldens import write_tokens

DRAW = np.random.default_rng(5)
VOCABULARY, TOP, N = 40, 5, 20000  # more sequences and documents than are read at a time
PIECE = 8192


def path(name):
    return os.path.join(FOLDER, name)


def make_tokens(name, n, longest):
    """Documents of two sequences; with packed ones each sequence has a piece of the document after its own, too."""
    counts = DRAW.integers(2, longest + 1, n).astype("u4")
    with h5py.File(path(name), "w") as file:
        file["token"] = DRAW.integers(0, VOCABULARY, counts.sum()).astype("u4")
        file["count"] = counts
        file.attrs["tokenizer_hash"] = ""
        file["piece/count"] = np.full(n, 2, "u4")
        own = np.arange(n) // 2
        file["piece/document"] = np.stack([own, (own + 1) % (n // 2)], 1).ravel().astype("i8")
        file.create_dataset("documents/id", data=[f"doc/{i}" for i in range(n // 2)], dtype=h5py.string_dtype())
        return np.split(file["token"][()], np.cumsum(counts)[:-1]) if n == N else None


SEQUENCES = make_tokens("tokens.h5", N, 5)
RELATED = [0, 3, 5000, 8200, 9999]  # documents
QUERIES = [np.concatenate([SEQUENCES[i], DRAW.integers(0, VOCABULARY, 4)]) for i in (0, 16400)]
write_tokens(path("queries.h5"), QUERIES, 2)
with h5py.File(path("queries.h5"), "a") as made:
    made["related/count"] = np.array([len(RELATED), 0], "u4")
    made.create_dataset("related/relation", data=["same"] * len(RELATED), dtype=h5py.string_dtype())
    made.create_dataset("related/document", data=[f"doc/{i}" for i in RELATED], dtype=h5py.string_dtype())
# far apart, close together, at both ends, and at the ends of pieces and of the first model's shards
CANDIDATES = sorted({0, 1, 6, 7, PIECE - 1, PIECE, 9999, 10000, 10000 + PIECE, N - 1, *map(int, DRAW.choice(N, 150)), *range(12000, 12030)})  # fmt: skip
with h5py.File(path("candidates.h5"), "w") as made:
    made["sequence"] = np.array(CANDIDATES, "i8")
FACTORS = {}


def rank(case, name, tokens, *options):
    work = engine(case, name)
    if case not in FACTORS:
        factors = work.fit(
            path("tokens.h5"), "factors", "--covariance-sequences", "0:50", "--lambda-sequences", "50:100"
        )
        FACTORS[case] = work.compress(factors, path("queries.h5"), "compressed.h5", "--rank", 4)
    for shard in ("0/2", "1/2"):
        work.score(FACTORS[case], path(tokens), "scores", "--layer-scores", "--shard", shard, *options)
    return work.merge(work.path("scores"), "ranking.h5", "--top", 6), work


def compare(output, tokens, rankings, ranks=0):
    names = [f"model{i}" for i in range(len(rankings))]
    given = ["--rankings", *rankings, "--names", *names, "--tokens", path(tokens), "--queries", path("queries.h5")]
    command = engine("llama", "compare", ranks=ranks).command(
        "compare_scales", *given, "--output", path(output), "--top", TOP
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    check(done.returncode == 0, f"{output}: it runs", done.stderr)
    return done.stderr


def scores_of(work):
    """[query, candidate], and by layer: [query, candidate, layer]."""
    found, layers = {}, {}
    for shard in ("00000-of-00002", "00001-of-00002"):
        with h5py.File(f"{work.path('scores')}/shard-{shard}.h5") as file:
            numbers = file["sequence"][()].tolist()
            found.update(zip(numbers, file["score"][()]))
            layers.update(zip(numbers, file["layer_score"][()]))
    return np.array([found[z] for z in CANDIDATES]).T, np.array([layers[z] for z in CANDIDATES]).transpose(1, 0, 2)


def ngrams(tokens):
    return {tuple(tokens[i : i + n]) for n in (1, 2, 3) for i in range(len(tokens) - n + 1)}


def slow_bm25():
    """[query, candidate]; frequencies are of the whole corpus."""
    asked = [ngrams(q.tolist()) for q in QUERIES]
    wanted, frequency = set().union(*asked), {}
    for z in SEQUENCES:
        for gram in ngrams(z.tolist()) & wanted:
            frequency[gram] = frequency.get(gram, 0) + 1
    idf = {gram: math.log((N - n + 0.5) / (n + 0.5) + 1) for gram, n in frequency.items()}
    return np.array(
        [[sum(idf[g] for g in grams & ngrams(SEQUENCES[z].tolist())) for z in CANDIDATES] for grams in asked]
    )


ALL, ALL_WORK = rank("llama", "all", "tokens.h5")
FEW, FEW_WORK = rank("gpt2", "few", "tokens.h5", "--candidates", path("candidates.h5"))
SMALL = compare("compare.h5", "tokens.h5", [ALL, FEW])
check(
    f"{len(CANDIDATES)} of {N} sequences have scores in all rankings" in SMALL, "it says how many are compared", SMALL
)
PARTS = [scores_of(ALL_WORK), scores_of(FEW_WORK)]
EVERY = [scores.astype(float) for scores, _ in PARTS] + [slow_bm25()]
inside = [z for z in range(N) if {z // 2, (z // 2 + 1) % (N // 2)} & set(RELATED)]
related = [CANDIDATES.index(z) for z in inside if z in CANDIDATES]
with h5py.File(path("compare.h5")) as made:
    check(made["pair/sequences"][0] == len(inside), "sequences of related documents", made["pair/sequences"][0])
    check(len(related) > 2, "some of them are candidates", related)
    for m, q in np.ndindex(len(EVERY), len(QUERIES)):
        row, name = EVERY[m][q], f"model {m}, query {q}"
        order = sorted(range(len(row)), key=lambda i: (-np.float32(row[i]), i))
        check(made["count"][m, q] == len(CANDIDATES), f"{name}: count")
        check(made["top/sequence"][m, q].tolist() == [CANDIDATES[i] for i in order[:TOP]], f"{name}: best")
        close(f"{name}: their scores", made["top/score"][m, q], row[order[:TOP]], 1e-6)
        close(f"{name}: mean", made["mean"][m, q], row.mean(), 1e-5)
        check(made["tail"].shape[2] == N // 100, "the tail is as long as the corpus says", made["tail"].shape)
        close(f"{name}: tail", made["tail"][m, q][: len(row)], row[order][: N // 100], 1e-6)
        bm25 = sorted(range(len(row)), key=lambda i: (-np.float32(EVERY[-1][q][i]), i))
        places = [bm25.index(i) + 1 if EVERY[-1][q][i] > 0 else -1 for i in order[:TOP]]
        check(made["top/bm25_place"][m, q].tolist() == places, f"{name}: places by BM25", places)
        if q == 0:
            check(made["pair/scored"][m, 0] == len(related), f"{name}: scored ones of the related")
            close(f"{name}: their mean", made["pair/mean"][m, 0], row[related].mean(), 1e-5)
            check(made["pair/top"][m, 0] == sum(i in related for i in order[:TOP]) / TOP, f"{name}: among the best")
        if m < len(PARTS):
            best = PARTS[m][1][q][order[:TOP]].astype(float).sum(0)
            at = sum(part.shape[2] for _, part in PARTS[:m])
            close(f"{name}: layers", made["layer/share"][at : at + len(best), q], best / best.sum(), 1e-4)
compare("ranks.h5", "tokens.h5", [ALL, FEW], ranks=3)
same_file("3 ranks", path("ranks.h5"), path("compare.h5"))

# the same candidates of a hundred times the corpus; a process that this one starts would have its peak from this one, mpirun's does not
MANY = 100 * N
make_tokens("many.h5", MANY, 2)
RANKING = rank("gpt2", "large", "many.h5", "--candidates", path("candidates.h5"))[0]
compare("first.h5", "many.h5", [RANKING])  # hashes the corpus
LARGE = compare("large.h5", "many.h5", [RANKING], ranks=1)
SMALL = compare("small.h5", "tokens.h5", [FEW], ranks=1)


def peak(text):
    return float(re.search(r"peak memory ([0-9.]+) MiB", text)[1]) * 2**20


def said(text):
    return float(re.search(r"memory a rank: ([0-9]+) MB", text)[1]) * 1e6


MORE = (peak(LARGE) - peak(SMALL)) / (MANY - N)
check(MORE < 30, "bytes more for each sequence of the corpus: of lengths, as every stage has them", f"{MORE:.1f}")
check(abs(said(LARGE) - said(SMALL) - 8 * (MANY - N)) < 2e6, "and what it says", f"{said(SMALL)} {said(LARGE)}")
finish(60)
