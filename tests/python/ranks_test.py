#!/usr/bin/env python3
"""Every stage on grids of data x pipeline ranks: the same bytes in every dataset, whatever the share of the work."""

from engine_checks import check, contents, deep_model, engine, finish, same_file, shared_files

TOKENS, QUERIES = shared_files()


def run_all(model, folder, data, pipeline, unit_sequences=4, unit_queries=2, modules="mlp", common=()):
    """All stages; returns the files they made.  data 0: without mpirun."""
    work = engine(model, folder, ranks=data * pipeline, common=["--pipeline", pipeline, *common])
    units = ("--unit-sequences", unit_sequences)
    factors = work.fit(TOKENS, "factors", *units, "--modules", modules, "--batch-tokens", 40)
    compressed = work.compress(
        factors, QUERIES, "compressed.h5", "--rank", 8, "--unit-queries", unit_queries, "--modules", modules
    )
    scores = work.score(compressed, TOKENS, "scores", *units, "--layer-scores", "--batch-tokens", 40)
    ranking = work.merge(scores, "ranking.h5", "--top", 6)
    work.score(compressed, TOKENS, "scores", "--explain", ranking, "--batch-tokens", 40)
    return {
        "factors": f"{factors}/index.h5",
        "compressed queries": compressed,
        "scores": f"{scores}/shard-00000-of-00001.h5",
        "ranking": ranking,
    }


def compare(name, made, reference):
    for kind, path in made.items():
        same_file(
            f"{name}: {kind}", path, reference[kind], ignore=("@factors_fingerprint", "@explained", "@explain_options")
        )  # they hash or name paths' contents


REFERENCE = run_all("llama", "reference", 0, 1)  # 10 units of 4 sequences, 3 of 2 queries
check(any(k.endswith("gradient_eigenvectors") for k in contents(REFERENCE["factors"])), "factors are compared")
check(any(k.endswith("token_score") for k in contents(REFERENCE["ranking"])), "token scores are compared")
# two blocks: a pipeline of three gives the head a rank of its own
for d, p in ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3)):
    compare(f"{d} x {p}", run_all("llama", f"grid{d}x{p}", d, p), REFERENCE)
# more ranks than work: one unit
compare("4 x 1, 1 unit", run_all("llama", "idle4", 4, 1, 64, 8), run_all("llama", "idle1", 0, 1, 64, 8))
# pipelines that do not divide the blocks; every third batch a checkpoint; tracked modules in the upper blocks only
DEEP = deep_model()
for modules in ("all,embedding,head", r"layers\.[34]\.mlp"):
    reference = run_all(DEEP, f"deep-{modules[:3]}", 0, 1, modules=modules)
    for d, p in ((1, 2), (1, 3), (1, 4), (2, 2)):
        compare(
            f"5 blocks, {modules}, {d} x {p}",
            run_all(DEEP, f"deep{d}x{p}{modules[:3]}", d, p, modules=modules),
            reference,
        )
compare(
    "parts",
    run_all(DEEP, "parts", 2, 2, modules="all,embedding,head", common=["--checkpoint-minutes", 1e-6]),
    {
        kind: path.replace("parts/", "deep-all/")
        for kind, path in run_all(DEEP, "parts1", 1, 1, modules="all,embedding,head").items()
    },
)
finish(60)
