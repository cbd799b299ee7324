#!/bin/sh
# A ranking explained by output tokens: they add up to the scores, on any grid, beside the positions' parts, which do not
# change; and what is refused.
. "$SRC/tests/fault/lib.sh"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
set -- --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5"
works score_shards "$@" --output "$work/s"
works merge_scores --scores "$work/s" --top 5 --output "$work/position.h5"
# explain NAME RANKS OPTIONS...: a copy of the ranking
explain() {
    name=$1 ranks=$2
    shift 2
    cases=$((cases + 1))
    [ "$name" = position ] || cp "$work/position.h5" "$work/$name.h5"
    "$SRC/scripts/mpi" "$ranks" "$BUILD/bin/score_shards" --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" \
        --output "$work/s" --explain "$work/$name.h5" "$@" 2> "$work/err" || fail "$name: $(cat "$work/err")"
}
explain one 1 --attribution output
explain many 3 --attribution output
explain line 2 --pipeline 2 --attribution output
explain lines 4 --pipeline 2 --attribution output
explain together 1 --attribution output --batch-tokens 512
explain position 1
"$BUILD/bin/verify" "$work" --quiet > "$work/stdout" 2>&1 || fail "verify: $(cat "$work/stdout")"
cases=$((cases + 1))
"$python" - "$work" <<'PYTHON' || fail "the explanations are wrong"
import sys, h5py, numpy as np
folder = sys.argv[1]
one, plain = h5py.File(f"{folder}/one.h5"), h5py.File(f"{folder}/position.h5")
assert "top/output_token_score" not in plain
for side in ("top", "bottom"):
    count, score = one[f"{side}/count"][()].ravel(), one[f"{side}/score"][()].ravel()
    output, position = one[f"{side}/output_token_score"][()], one[f"{side}/token_score"][()]
    ends = np.cumsum(count)
    for n, end, want in zip(count, ends, score):
        part = output[end - n : end].astype(float)
        assert n > 0 and abs(part.sum() - want) <= 1e-4 * abs(part).sum(), (part.sum(), want)
    assert abs(output - position).max() > 0.1 * abs(position).max(), "the two blame the same"
    assert np.allclose(position, plain[f"{side}/token_score"][()], rtol=0, atol=1e-5 * abs(position).max())
    for name in ("many", "line", "lines", "together"):
        other = h5py.File(f"{folder}/{name}.h5")[f"{side}/output_token_score"][()]
        assert np.allclose(output, other, rtol=0, atol=1e-5 * abs(output).max()), (name, abs(output - other).max())
PYTHON
cp "$work/position.h5" "$work/other.h5"
misused "--attribution" score_shards "$@" --output "$out" --explain "$work/other.h5" --attribution outputs
for by in output input all; do
    misused "--attribution $by is for --explain" score_shards "$@" --output "$out" --attribution $by
done
finish
