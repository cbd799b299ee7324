"""BM25 of the sequences that are shown, in the paper's form over single tokens: what prefilter has by default (math.md M12,
common/retrieval/bm25.c)."""

import numpy as np

BLOCK_TOKENS = 1 << 20  # read at a time
MOST_TOKENS = 1 << 28  # that are read; of a larger corpus evenly spread blocks


class Lexical:
    """queries: tokens of each, prompt and completion.  Reads the token files once, when the first score is asked for."""

    def __init__(self, sequences, queries, most_tokens=MOST_TOKENS):
        self._sequences, self._queries, self._most = sequences, [np.unique(tokens) for tokens in queries], most_tokens
        self._frequency, self._counted = None, 0

    @property
    def counted(self):
        """Sequences that the frequencies are of."""
        if self._frequency is None:
            self._count()
        return self._counted

    def _count(self):
        """Those that have each of the queries' tokens, as far as blocks are read."""
        terms = np.concatenate(self._queries).astype(np.int64)
        n_ids = int(terms.max()) + 2  # the last stands for all above
        wanted = np.bincount(terms, minlength=n_ids) > 0
        self._frequency = np.zeros(n_ids, np.int64)
        for lengths, tokens in self._sequences.blocks(BLOCK_TOKENS, self._most):
            ids = np.minimum(tokens, n_ids - 1).astype(np.int64)
            at = np.flatnonzero(wanted[ids])
            owner = np.repeat(np.arange(len(lengths)), lengths)
            pairs = np.unique(owner[at] * n_ids + ids[at])
            self._frequency += np.bincount(pairs % n_ids, minlength=n_ids)
            self._counted += len(lengths)

    def score(self, query, tokens):
        """Of a sequence's tokens: the inverse document frequencies, added, of the query's tokens that it has; 0: none."""
        counted = self.counted
        n = np.sort(self._frequency[np.intersect1d(self._queries[query], tokens)])
        return float(np.log1p((counted - n + 0.5) / (n + 0.5)).sum())
