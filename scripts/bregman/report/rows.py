"""What a table says of one place in a ranking: the columns that bregman-export and the report's page share."""

from bregman.report.pieces import CHARACTERS


def of_completion(ranking, query, n_tokens):
    """n_tokens: of the completion.  Both are None where the ranking does not say."""
    known = ranking.log_probability(query)
    return {"log_probability": known, "log_probability_per_token": known / n_tokens if known is not None else None}


def of_score(ranking, end, query, entry, copies, bm25):
    places = ranking.open_places(end, query)
    best, worst = places[entry.rank - 1] if places else (None, None)
    return {
        "rank": entry.rank,
        "score": entry.score,
        "score_per_copy": entry.score / copies if copies else None,
        "z_score": ranking.z_score(query, entry.score),
        "percentile": ranking.percentile(end, query, entry.score),
        "score_error": entry.error,
        "best_place": best,
        "worst_place": worst,
        "bm25": bm25,
        "prefilter_rank": entry.prefilter_rank,
    }


def of_sequence(entry, piece, n_tokens):
    """piece: that the sequence is named after."""
    places = {name: getattr(piece, name) for name in ("start", *CHARACTERS)}
    return {
        "sequence": entry.sequence,
        "document": piece.id,
        "source": piece.source,
        "language": piece.language,
        **{name: place if place >= 0 else None for name, place in places.items()},
        "n_tokens": n_tokens,
    }
