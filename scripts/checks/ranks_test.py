#!/usr/bin/env python3
"""Every stage on 1, 2, 3 and 4 ranks: the same bytes in every dataset, whatever the share of the work."""
from engine_checks import check, contents, engine, finish, same_file, shared_files

CASE = "llama"
TOKENS, QUERIES = shared_files()


def run_all(folder, ranks, unit_sequences, unit_queries):
    """All stages; returns the files they made."""
    work = engine(CASE, folder, ranks=ranks)
    factors = work.fit(TOKENS, "factors", "--unit-sequences", unit_sequences)
    compressed = work.compress(factors, QUERIES, "compressed.h5", "--rank", 8, "--unit-queries", unit_queries)
    scores = work.score(compressed, TOKENS, "scores", "--unit-sequences", unit_sequences, "--layer-scores")
    ranking = work.merge(scores, "ranking.h5", "--top", 6)
    work.score(compressed, TOKENS, "scores", "--explain", ranking)
    return {"factors": f"{factors}/index.h5", "compressed queries": compressed,
            "scores": f"{scores}/shard-00000-of-00001.h5", "ranking": ranking}


def compare(name, made, reference):
    for kind, path in made.items():
        same_file(f"{name}: {kind}", path, reference[kind],
                  ignore=("@factors_fingerprint", "@explained", "@explain_options"))    # they hash or name paths' contents


REFERENCE = run_all("reference", 0, 4, 2)                  # 10 units of 4 sequences, 3 of 2 queries
check(any(k.endswith("gradient_eigenvectors") for k in contents(REFERENCE["factors"])), "factors are compared")
check(any(k.endswith("token_score") for k in contents(REFERENCE["ranking"])), "token scores are compared")
for n in (1, 2, 3, 4):
    compare(f"{n} ranks", run_all(f"ranks{n}", n, 4, 2), REFERENCE)
# more ranks than work: one unit
compare("4 ranks, 1 unit", run_all("idle4", 4, 64, 8), run_all("idle1", 1, 64, 8))
finish(22)
