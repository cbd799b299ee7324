"""What is said of the sequences listed for a query together: which are near-duplicates, and what their scores add up to."""

GRAM = 5  # tokens of a run
LIKE = 0.8  # share of all runs that two near-duplicates have in common
MOST_TOTALS = 10  # rows of a table of sums; what is left shares one more
KINDS = ("document", "source", "language")


def runs(tokens):
    """The set of a sequence's runs of GRAM tokens; a shorter one is one run."""
    tokens = tokens.tolist()
    return set(zip(*(tokens[i:] for i in range(GRAM)))) or {tuple(tokens)}


def alike(a, b):
    """Is the Jaccard index of two sets of runs at least LIKE?"""
    fewer, more = sorted((len(a), len(b)))
    if fewer < LIKE * more:
        return False
    common = len(a & b)
    return common >= LIKE * (fewer + more - common)


def fold(sequences):
    """[[first, others like it...], ...]: places of the token arrays given.  Each is with the earliest first that it is
    like, or is a first itself."""
    groups, firsts = [], []
    for place, tokens in enumerate(sequences):
        own = runs(tokens)
        for group, first in zip(groups, firsts):
            if alike(first, own):
                group.append(place)
                break
        else:
            groups.append([place])
            firsts.append(own)
    return groups


def totals(rows, end):
    """[(kind, [(name, sequences, sum of their scores), ...]), ...], the most helpful or harmful first; a kind of which nothing
    is known is left out, and a name of None is all those that are not named in the table."""
    found = []
    for kind in KINDS:
        sums = {}
        for row in rows:
            n, total = sums.get(row[kind], (0, 0.0))
            sums[row[kind]] = (n + 1, total + row["score"])
        if not any(sums):
            continue
        table = sorted(((name, *values) for name, values in sums.items()), key=lambda r: r[2], reverse=end == "top")
        rest = table[MOST_TOTALS:]
        if len(rest) > 1:
            table[MOST_TOTALS:] = [(None, sum(r[1] for r in rest), sum(r[2] for r in rest))]
        found.append((kind, table))
    return found
