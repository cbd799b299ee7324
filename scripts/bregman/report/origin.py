"""Are the files that a report is given those that its ranking was made from?  See input_identity for what a file is known by."""

from bregman.report.inputs import as_text, require

SUM_TOLERANCE = 1e-4  # of the parts' magnitudes: a score and the sum of its parts are float32 sums in different orders


def recorded_tokens(ranking):
    """[(name, hash, sequences)] of the token files that were scored, in the order that numbers their sequences."""
    file = ranking.file
    require(
        file.has("corpus/file"),
        f'"{file.path}" does not say which token files it was made from: remove it and merge the shards again',
    )
    return list(zip(file.strings("corpus/file"), file.strings("corpus/hash"), file.read("corpus/sequences").tolist()))


def order_tokens(ranking, paths, hashes):
    """The token files given, in the order of the ranking's record, whatever order they are given in."""
    recorded, left, ordered = recorded_tokens(ranking), list(paths), []
    for number, (name, digest, sequences) in enumerate(recorded, 1):
        found = next((path for path in left if hashes[path] == digest), None)
        if found is None:
            others = [path for path in paths if hashes[path] not in {known for _, known, _ in recorded}]
            instead = f'; "{others[0]}", with hash {hashes[others[0]]}, is none of its files' if others else ""
            require(
                False,
                f'"{ranking.file.path}" was made from other token files: file {number} of {len(recorded)}, "{name}" '
                f"({sequences} sequences, hash {digest}), is not among those given{instead}",
            )
        left.remove(found)
        ordered.append(found)
    require(
        not left,
        f'"{ranking.file.path}" was made from other token files: "{left[0] if left else ""}", with hash '
        f"{hashes[left[0]] if left else ''}, is none of its {len(recorded)} files",
    )
    return ordered


def check_lists(ranking):
    """Each query's list is in order and names a sequence once; the queries are those of queries.h5, in its order."""
    for end, sign in (("top", -1), ("bottom", 1)):
        for query, id in enumerate(ranking.ids):
            entries = [
                e
                for e in (ranking.entry(end, query, place, scores_only=True) for place in range(ranking.size(end)))
                if e
            ]
            where = f'"{end}" of query "{id}" in "{ranking.file.path}"'
            require(
                all(sign * a.score <= sign * b.score for a, b in zip(entries, entries[1:])),
                f"{where} is not in the order of its scores: merge the shards again",
            )
            require(
                len({e.sequence for e in entries}) == len(entries),
                f"{where} names a sequence twice: merge the shards again",
            )


def check_document(ranking, end, query, entry, file_document, start):
    """What the ranking says of a sequence's place is what its token file says."""
    for name, found in (("document", file_document), ("start", start)):
        recorded = ranking.place(end, name, query, entry.rank - 1)
        require(
            recorded in (None, "", -1, found),
            f'"{ranking.file.path}" names {name} {recorded!r} for sequence {entry.sequence}, '
            f"its token file {found!r}: merge the shards again",
        )


def check_hash(ranking, attribute, path, digest, what):
    """The ranking was made from this very file or model."""
    wanted = as_text(ranking.file.attribute(attribute, ""))
    require(
        wanted,
        f'"{ranking.file.path}" does not say which {what} it was made from: remove it and merge the shards again',
    )
    require(
        digest == wanted,
        f'not the {what} that "{ranking.file.path}" was made from: "{path}" has hash {digest}, not {wanted}',
    )


def check_sum(ranking, entry):
    """An explained entry's token scores add up to its score: they are of this sequence and query."""
    for parts in (entry.token_score, entry.layer_score, entry.output_score):
        if parts is None:
            continue
        total, tolerance = float(parts.sum()), SUM_TOLERANCE * float(abs(parts).sum())
        require(
            abs(total - entry.score) <= tolerance,
            f"sequence {entry.sequence} has the score {entry.score:.7g}, but its token scores add up to {total:.7g} "
            f'(the two may differ by {tolerance:.1g}): "{ranking.file.path}"; explain it again',
        )
