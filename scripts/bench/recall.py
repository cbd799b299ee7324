#!/usr/bin/env python3
"""What a prefilter would have cost: of the sequences that a ranking of the whole corpus has first, how many are among the
best K of BM25, for K from 100 to everything.

    bregman-prefilter --tokens tokens/*.h5 --queries queries.h5 --output all.h5 --top 1000000000
    scripts/bench/recall.py --ranking ranking.h5 --candidates all.h5

"recall" is the mean over queries of the part that is among the query's own best K; "scored" is the share of the corpus in the
union of all queries' best K, which is what score_shards would score; "in union" is the part that is in that."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import itertools

import h5py
import numpy as np


def read(ranking, candidates):
    """(influence's best [Q, k], BM25's best [Q, C], sequences of the corpus)"""
    with h5py.File(ranking) as a, h5py.File(candidates) as b:
        if a["query"].asstr()[:].tolist() != b["query"].asstr()[:].tolist():
            raise SystemExit(f'"{ranking}" and "{candidates}" are of other queries')
        if a["corpus/hash"].asstr()[:].tolist() != b["corpus/hash"].asstr()[:].tolist():
            raise SystemExit(f'"{ranking}" and "{candidates}" are of other token files')
        if a["moments/count"][:].min() < a.attrs["corpus_sequences"]:
            raise SystemExit(f'"{ranking}" is not of the whole corpus')
        return a["top/sequence"][:], b["top/sequence"][:], int(b.attrs["corpus_sequences"])


def recall(best, lists, k):
    """Means over queries: found among the query's own best k, and among those of any; the size of the union.  Sequences that
    share no term with a query are not in its list, but all of a corpus are candidates where each is asked for."""
    if k >= lists.shape[1]:
        return 1.0, 1.0, lists.shape[1]
    union = np.unique(lists[:, :k])
    own = [np.isin(best[q], lists[q, :k]).mean() for q in range(len(best))]
    return float(np.mean(own)), float(np.isin(best, union).mean()), np.count_nonzero(union >= 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranking", required=True, help="ranking.h5 of all sequences, of the 100 best at least")
    parser.add_argument("--candidates", required=True, help="candidates.h5 with all sequences in its lists")
    arguments = parser.parse_args()
    best, lists, corpus = read(arguments.ranking, arguments.candidates)
    steps = [m * 10**e for e, m in itertools.product(range(2, 10), (1, 2, 5))]
    tops = [n for n in (10, 100) if n <= best.shape[1]]
    print("|      K | scored |" + "".join(f" recall of {n} | in union |" for n in tops))
    print("|---:|---:|" + "---:|---:|" * len(tops))
    for k in [k for k in steps if k < corpus] + [corpus]:
        found = [recall(best[:, :n], lists, k) for n in tops]
        scored = found[0][2] / corpus
        print(
            f"| {k:6d} | {100 * scored:.1f} % |" + "".join(f" {own:.2f} | {any_of:.2f} |" for own, any_of, _ in found)
        )


if __name__ == "__main__":
    main()
