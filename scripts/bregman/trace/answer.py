"""The answer on the terminal: the documents with the most influence on each query, and where the report is."""

import argparse
import re
import shutil
import unicodedata

from bregman.report.opened import Opened
from bregman.report.pieces import named

DOCUMENTS, QUERIES = 10, 20
WIDTH = 100  # where the terminal does not say


def one_line(text, width):
    """The beginning of a text without line ends and characters that a terminal would obey."""
    found = re.sub(r"\s+", " ", text).strip()
    found = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") else c for c in found
    )
    return found if len(found) <= width else found[: max(0, width - 1)] + "…"


def best_documents(opened, query):
    """[(score, document, source, tokens of its best sequence, other documents in it)], the best sequence of each."""
    found = {}
    for entry, tokens in opened.entries("top", query, opened.ranking.size("top")):
        piece, others = named(opened.sequences.documents(entry.sequence), entry)
        key = (piece.id, piece.source) if piece.id else entry.sequence
        found.setdefault(key, (entry, piece, tokens, len(others)))
        if len(found) == DOCUMENTS:
            break
    return list(found.values())


def lines_of(opened, query, width):
    """A table; its last column is what is left of the width."""
    rows = []
    for rank, (entry, piece, tokens, others) in enumerate(best_documents(opened, query), 1):
        document = one_line(piece.id or f"sequence {entry.sequence}", 40)
        document += f" ({one_line(piece.source, 30)})" if piece.source else ""
        document += f" and {others} more" if others else ""
        rows.append((str(rank), f"{entry.score:.4g}", document, opened.text.text(tokens)))
    widths = [max(len(row[c]) for row in rows) for c in range(3)]
    for rank, score, document, text in rows:
        begin = f"{rank.rjust(widths[0])}  {score.rjust(widths[1])}  {document.ljust(widths[2])}  "
        yield begin + one_line(text, max(20, width - len(begin)))


def opened_for(job):
    """What a report's job shows, opened."""
    words = job.arguments
    tokens = words[words.index("--tokens") + 1 : words.index("--queries")]
    of = {key: words[words.index(f"--{key}") + 1] for key in ("ranking", "queries", "model", "output")}
    return Opened(argparse.Namespace(**of, tokens=tokens, tokenizer=None)), of["output"]


def print_answer(plan):
    job = next(job for job in plan.jobs if job.stage == "report")
    opened, report = opened_for(job)
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    ids = opened.ranking.ids
    shown = len(ids) if len(ids) <= QUERIES else 1
    for query, id in enumerate(ids[:shown]):
        prompt, completion = opened.queries.texts(id, opened.text.text)
        print(f"\n{one_line(f'{id}: {prompt} ⟶{completion}', width)}")
        print("the documents that raise the completion's log-probability most, each by its best sequence, in nats:")
        for line in lines_of(opened, query, width):
            print(line)
    if shown < len(ids):
        print(f"\nThis was the first of {len(ids)} queries; the others are in the report.")
    print(f"\nreport: {report}")
