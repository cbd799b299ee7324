#!/bin/sh
# compress_queries --refine: one step is EK-FAC's answer but for its length, the residual falls, ranks and units do not
# matter; and what is refused.
. "$SRC/tests/fault/lib.sh"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
set -- --model "$in/model" --factors "$in/f" --queries "$in/queries.h5"
score() { # score NAME: of compressed queries, all sequences
    works score_shards --model "$in/model" --queries "$work/$1.h5" --tokens "$in/tokens.h5" --output "$work/$1"
}
compress() { # compress NAME RANKS OPTIONS...
    name=$1 ranks=$2
    shift 2
    cases=$((cases + 1))
    run "$ranks" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --rank full \
        --output "$work/$name.h5" "$@" 2> "$work/$name.err" || fail "$name: $(cat "$work/$name.err")"
    score "$name"
}
compress ekfac 1 --damping-factor 30
compress one 1 --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences 0:40 --refine-steps 1
compress five 1 --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences 0:40
compress many 3 --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences 0:40 --unit-queries 1
compress lissa 1 --refine lissa --refine-tokens "$in/tokens.h5" --refine-sequences : --refine-steps 40 --refine-damping-factor 300
compress solved 1 --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences : --refine-steps 40 --refine-damping-factor 300
"$BUILD/bin/verify" "$work" --quiet > "$work/stdout" 2>&1 || fail "verify: $(cat "$work/stdout")"
"$BUILD/bin/compress_queries" "$@" --output "$work/low.h5" --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences 0:20 \
    --refine-steps 1 --refine-damping-factor 1 --damping-factor 0.2 2> "$work/err" || fail "little damping: $(cat "$work/err")"
grep -q "warning: the damping is below 10 mean eigenvalues in 4 of 4 modules" "$work/err" || fail "little damping: $(cat "$work/err")"
grep -q "warning: --damping-factor 0.2 is not used" "$work/err" || fail "two dampings: $(cat "$work/err")"
grep -q "warning: --refine-sequences: the curvature of 20" "$work/err" || fail "few sequences: $(cat "$work/err")"
for damping in 1e-12 1e12; do
    "$BUILD/bin/compress_queries" "$@" --output "$work/absolute-$damping.h5" --refine cg --refine-tokens "$in/tokens.h5" \
        --refine-sequences : --refine-steps 1 --damping $damping 2> "$work/err" || fail "damping $damping: $(cat "$work/err")"
    grep -q "the damping is below 10" "$work/err" && said=yes || said=no
    [ "$damping $said" = "1e-12 yes" ] || [ "$damping $said" = "1e12 no" ] || fail "damping $damping: $(cat "$work/err")"
done
"$BUILD/bin/compress_queries" "$@" --output "$work/none.h5" --refine cg --refine-tokens "$in/tokens.h5" --refine-sequences : \
    --refine-steps 2 --refine-damping-factor 1e-6 2> "$work/err" || fail "hardly any damping: $(cat "$work/err")"
grep -q "warning: query q[0-9]*: 2 steps leave .* of the residual: the solve stagnates" "$work/err" || fail "stagnation: $(cat "$work/err")"
"$BUILD/bin/compress_queries" "$@" --output "$work/plain.h5" --refine-tokens "$in/tokens.h5" 2> "$work/err" ||
    fail "no solve: $(cat "$work/err")"
grep -q "warning: --refine-tokens are not used without --refine" "$work/err" || fail "no solve: $(cat "$work/err")"
cases=$((cases + 1))
"$python" - "$work" <<'PYTHON' || fail "the refined queries are wrong"
import sys, h5py, numpy as np
folder = sys.argv[1]
def scores(name):
    return h5py.File(f"{folder}/{name}/shard-00000-of-00001.h5")["score"][()].astype(float)
ekfac, one, five, many = map(scores, ("ekfac", "one", "five", "many"))
ratio = (one * ekfac).sum(0) / (ekfac**2).sum(0)
assert (ratio > 0).all()
assert abs(one - ratio * ekfac).max() <= 1e-4 * abs(one).max(), abs(one - ratio * ekfac).max()
assert abs(five - many).max() <= 1e-5 * abs(five).max()
assert abs(five - one).max() > 1e-2 * abs(five).max(), "five steps are one"
lissa, solved = scores("lissa"), scores("solved")
assert abs(lissa - solved).max() <= 1e-3 * abs(solved).max(), abs(lissa - solved).max() / abs(solved).max()
file = h5py.File(f"{folder}/five.h5")
residual = file["residual"][()]
assert residual.shape == (len(file["id"]), 6) and (residual[:, 0] == 1).all() and (residual[:, 5] < residual[:, 1]).all(), residual
assert file.attrs["damping_factor"] == 30 and "residual" not in h5py.File(f"{folder}/ekfac.h5")
PYTHON
cg="--refine cg --refine-tokens $in/tokens.h5"
misused "--refine takes" compress_queries "$@" --output "$out" --refine newton
misused "give --refine-tokens" compress_queries "$@" --output "$out" --refine cg
# shellcheck disable=SC2086
{
    misused "identity has none" compress_queries "$@" --output "$out" $cg --preconditioner identity
    misused "the token files hold 40" compress_queries "$@" --output "$out" $cg --refine-sequences 0:41
    misused "the token files hold 40" compress_queries "$@" --output "$out" $cg
}
refused "$in/queries.h5" "" compress_queries "$@" --output "$out" --refine cg --refine-tokens "$in/queries.h5"
run 2 compress_queries "$@" --output "$out" --pipeline 2 --refine cg --refine-tokens "$in/tokens.h5" 2> "$work/err" && fail "a pipeline was taken"
grep -q -- "--pipeline 1" "$work/err" || fail "a pipeline: $(cat "$work/err")"
finish
