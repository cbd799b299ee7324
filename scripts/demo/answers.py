#!/usr/bin/env python3
"""Print which document came first for each demo query, and whether it is one that the query is about."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import json

from bregman.errors import run_main
from bregman.report.inputs import Ranking, Sequences


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranking", required=True, metavar="FILE")
    parser.add_argument("--tokens", required=True, nargs="+", metavar="FILE")
    parser.add_argument(
        "--queries", required=True, metavar="FILE", help="JSON lines with the field expect: ids, or their beginnings"
    )
    options = parser.parse_args()
    with open(options.queries, encoding="utf-8") as file:
        expected = {query["id"]: tuple(query["expect"]) for query in map(json.loads, file)}
    ranking, sequences = Ranking(options.ranking), Sequences(options.tokens)

    print(f"{'query':<16}{'first document':<32}{'score, nats':>12}  expected")
    n_right = 0
    for row, query in enumerate(ranking.ids):
        places = [ranking.entry("top", row, place) for place in range(ranking.size("top"))]
        documents = [sequences.document(entry.sequence)[0] for entry in places if entry]
        right = [place for place, document in enumerate(documents, 1) if document.startswith(expected[query])]
        n_right += right[:1] == [1]
        verdict = (
            "yes"
            if right[:1] == [1]
            else f"no: {expected[query][0]} is " + (f"number {right[0]}" if right else f"below {len(documents)}")
        )
        print(f"{query:<16}{documents[0]:<32}{places[0].score:>12.4g}  {verdict}")
    print(f"{n_right} of {len(ranking.ids)} queries have an expected document first, among {len(sequences)} sequences")


if __name__ == "__main__":
    run_main(main)
