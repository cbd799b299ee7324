"""Ids that several documents of a corpus share."""

import h5py
import numpy as np
import xxhash

ROWS = 1 << 16


def _hashes(path):
    """A hash of each document's id, 0 for none.  Eight bytes each: a corpus has more ids than fit into memory."""
    found = []
    with h5py.File(path, "r") as file:
        ids = file["documents/id"]
        for first in range(0, len(ids), ROWS):
            rows = ids[first : first + ROWS]  # as bytes
            found.append(
                np.fromiter((xxhash.xxh3_64_intdigest(text) if text else 0 for text in rows), np.uint64, len(rows))
            )
    return np.concatenate(found or [np.empty(0, np.uint64)])


def repeated_ids(paths):
    """(documents beyond the first of each id, an id of several documents, the files of two of them), or None."""
    hashes = [_hashes(path) for path in paths]
    ends = np.cumsum([len(part) for part in hashes])
    joined = np.concatenate(hashes)
    order = np.argsort(joined, kind="stable")
    ordered = joined[order]
    again = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    if not len(again):
        return None
    first = min(again, key=lambda i: order[i])
    one, other = (int(np.searchsorted(ends, order[i], "right")) for i in (first, first + 1))
    row = int(order[first] - (ends[one] - len(hashes[one])))
    with h5py.File(paths[one], "r") as file:
        return len(again), f'"{file["documents/id"].asstr()[row]}"', paths[one], paths[other]
