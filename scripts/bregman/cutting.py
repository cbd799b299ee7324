"""Documents' tokens cut into sequences."""

import collections

import numpy as np

# loss, counts: of each token, of tokens in each sequence; begins, ends: of the characters of a sequence or piece
Sequences = collections.namedtuple(
    "Sequences", "tokens loss counts documents starts begins ends dropped pieces", defaults=(None,)
)
# counts: of pieces in each sequence
Pieces = collections.namedtuple("Pieces", "counts documents starts lengths begins ends")


def characters(covered, first):
    """(begins, ends) of what runs of tokens cover; first: where they begin.  Two tokens of one character both have it."""
    if not len(first):
        return first, first
    return np.minimum.reduceat(covered[:, 0], first), np.maximum.reduceat(covered[:, 1], first)


def cut_documents(tokens, covered, lengths, first_document, max_length):
    """Cut each document by itself."""
    pieces = -(-lengths // max_length)
    document = np.repeat(np.arange(len(lengths)), pieces)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = nth * max_length
    counts = np.minimum(max_length, lengths[document] - starts)
    keep = counts >= 2
    first = np.cumsum(counts) - counts
    return Sequences(
        tokens[np.repeat(keep, counts)],
        covered[np.repeat(keep, counts), 2],
        counts[keep],
        first_document + document[keep],
        starts[keep],
        *(values[keep] for values in characters(covered, first)),
        int(counts[~keep].sum()),
    )


class Concatenation:
    """Cuts the documents put end to end; holds back what does not fill a sequence yet."""

    def __init__(self, max_length, eos_id):
        self.max_length, self.eos_id = max_length, eos_id
        none = np.empty(0, np.int64)
        self._rest = [np.empty(0, np.uint32), none, none, none.reshape(0, 3)]

    def cut(self, tokens, covered, lengths, first_document):
        if self.eos_id is not None:
            ends = np.cumsum(lengths)
            lacks = lengths > 0
            lacks[lacks] = tokens[ends[lacks] - 1] != self.eos_id
            tokens = np.insert(tokens, ends[lacks], self.eos_id)
            # in the loss if the document's last token is
            covered = np.insert(covered, ends[lacks], covered[ends[lacks] - 1][:, [1, 1, 2]], axis=0)
            lengths = lengths + lacks
        document = first_document + np.repeat(np.arange(len(lengths)), lengths)
        position = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        stream = [np.concatenate(pair) for pair in zip(self._rest, (tokens, document, position, covered))]
        whole = len(stream[0]) // self.max_length * self.max_length
        self._rest = [values[whole:] for values in stream]
        return self._sequences([values[:whole] for values in stream])

    def last(self):
        rest, self._rest = self._rest, None
        return self._sequences(rest)

    def _sequences(self, stream):
        tokens, document, position, covered = stream
        if len(tokens) < 2:
            none = document[:0]
            return Sequences(tokens[:0], *[none] * 6, len(tokens), Pieces(*[none] * 6))
        first = np.arange(0, len(tokens), self.max_length)
        counts = np.minimum(self.max_length, len(tokens) - first)
        pieces = self._pieces(document, position, covered, first)
        own = np.cumsum(pieces.counts) - pieces.counts  # of each sequence's pieces the one it is named after
        named = document[first], position[first], pieces.begins[own], pieces.ends[own]
        return Sequences(tokens, covered[:, 2], counts, *named, 0, pieces)

    @staticmethod
    def _pieces(document, position, covered, first):
        """Each run of one document's tokens within a sequence; first: where the sequences begin."""
        begins = np.concatenate(([True], document[1:] != document[:-1]))
        begins[first] = True
        place = np.flatnonzero(begins)
        return Pieces(
            np.add.reduceat(begins, first, dtype=np.int64),
            document[place],
            position[place],
            np.diff(np.append(place, len(document))),
            *characters(covered, place),
        )


def without_masked(sequences, by_document):
    """(the sequences that have a predicted token in the loss, numbers of the others); by_document: a document's first is none."""
    predicted, first = sequences.loss.copy(), np.cumsum(sequences.counts) - sequences.counts
    lengths = sequences.pieces.lengths if by_document else sequences.counts
    predicted[np.cumsum(lengths) - lengths] = 0
    keep = np.add.reduceat(predicted, first) > 0 if len(first) else first > 0
    if keep.all():
        return sequences, first[:0]
    by_token, pieces = np.repeat(keep, sequences.counts), sequences.pieces
    if pieces:
        by_piece = np.repeat(keep, pieces.counts)
        pieces = Pieces(pieces.counts[keep], *(values[by_piece] for values in pieces[1:]))
    by_sequence = (values[keep] for values in sequences[2:7])
    left = Sequences(sequences.tokens[by_token], sequences.loss[by_token], *by_sequence, sequences.dropped, pieces)
    return left, np.flatnonzero(~keep)
