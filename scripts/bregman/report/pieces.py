"""The documents of a training sequence, and which of several its influence is from.

A sequence of packed documents has a piece of each: piece/count of them in each sequence of a token file, piece/document
and piece/length of each, of text also which characters they are.  Where a file has none of this, a sequence is of one document."""

from collections import namedtuple

import numpy as np

PARTS = ("piece/count", "piece/document", "piece/start", "piece/length")
CHARACTERS = ("begin_character", "end_character")
# of a document; start: of its tokens, the last two: of its characters; -1: not known
Piece = namedtuple("Piece", "id source language start length begin_character end_character", defaults=(-1, -1))


class Pieces:
    """Reads the pieces of sequences; keeps where each sequence's begin, once for each file."""

    def __init__(self):
        self._offset = {}

    def read(self, file, row):
        """(row of /documents, start in it, tokens, (begin, end) of its characters) of each piece of a file's sequence, in order;
        None where it has no pieces."""
        if not any(file.has(name) for name in PARTS):
            return None
        if file.path not in self._offset:
            self._offset[file.path] = np.concatenate(([0], np.cumsum(file.read("piece/count").astype(np.int64))))
        rows = slice(*self._offset[file.path][row : row + 2])
        parts = [file.read(name, rows=rows).tolist() for name in PARTS[1:]]
        return list(zip(*parts, characters(file, rows, "piece/")))


def characters(file, rows, group=""):
    """[(begin, end)] of the characters that sequences or pieces cover of their document; -1: not known."""
    names = [group + name for name in CHARACTERS]
    if not all(map(file.has, names)):
        return [(-1, -1)] * (rows.stop - rows.start)
    return list(zip(*(file.read(name, rows=rows).tolist() for name in names)))


def follows(first, second):
    """Of two pieces (row of /documents, start, tokens, ...): is the second where its document goes on after the first?"""
    return first[0] == second[0] >= 0 and first[1] >= 0 and first[1] + first[2] == second[1]


def strongest(lengths, token_score, score):
    """The piece that most of a sequence's score is from, by the tokens predicted in it.

    token_score: of the positions before the predicted tokens, so one less than the sequence has tokens."""
    ends = np.cumsum(lengths)
    share = [token_score[max(end - n - 1, 0) : end - 1].sum() for n, end in zip(lengths, ends)]
    return int(np.argmax(np.sign(score) * np.array(share)))


def named(documents, entry):
    """(piece, ids of the others) to show for a sequence; without token scores all documents share the id."""
    if len(documents) == 1:
        return documents[0], []
    if entry.token_score is None:
        return Piece(", ".join(d.id for d in documents), "", "", -1, sum(d.length for d in documents)), []
    chosen = strongest([d.length for d in documents], entry.token_score, entry.score)
    return documents[chosen], [d.id for i, d in enumerate(documents) if i != chosen]
