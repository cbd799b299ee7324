#!/bin/sh
# More shards than sequences: the empty ones are done like the others, on any grid, and the ranking is that of one shard.
. "$SRC/tests/fault/lib.sh"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
# score OUTPUT SHARD RANKS OPTIONS...: three candidates, or OPTIONS
score() {
    folder=$1 shard=$2 ranks=$3
    shift 3
    cases=$((cases + 1))
    "$SRC/scripts/mpi" "$ranks" "$BUILD/bin/score_shards" --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" \
        --output "$work/$folder" --shard "$shard" "$@" 2> "$work/err" || fail "--shard $shard: $(cat "$work/err")"
}
candidates="--candidates $in/candidates-good.txt --layer-scores"
# shellcheck disable=SC2086
for i in 0 1 2 3 4 5 6; do score many $i/7 1 $candidates; done
grep -q "already done" "$work/err" && fail "done before it was begun: $(cat "$work/err")"
# shellcheck disable=SC2086
score many 0/7 3 --pipeline 3 $candidates
grep -q "already done" "$work/err" || fail "an empty shard is made again: $(cat "$work/err")"
# shellcheck disable=SC2086
score one 0/1 1 $candidates
# shellcheck disable=SC2086
score grid 0/7 2 --pipeline 2 $candidates
score corpus 0/41 1
grep -q -- "--shard 0/41 has no sequence: there are 40" "$work/err" || fail "nothing is said of it: $(cat "$work/err")"
"$BUILD/bin/verify" "$work/many" "$work/grid" "$work/corpus" --quiet > "$work/stdout" 2>&1 || fail "verify: $(cat "$work/stdout")"
for n in many one; do works merge_scores --scores "$work/$n" --output "$work/$n.h5"; done
for n in many one; do
    works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/$n" --explain "$work/$n.h5"
done
cases=$((cases + 1))
"$python" - "$work/one.h5" "$work/many.h5" <<'PYTHON' || fail "the rankings differ"
import sys, h5py
one, many = (h5py.File(path) for path in sys.argv[1:])
names = [f"{side}/{name}" for side in ("top", "bottom") for name in ("sequence", "score", "token_score", "layer_token_score")]
names += [f"moments/{name}" for name in one["moments"]] + ["tail/score"]
assert sorted(one["top/sequence"][0]) == [1, 3, 7]
for name in names:  # other micro-batches round otherwise, on some machines
    a, b = one[name][()], many[name][()]
    same = (a == b) if name.endswith(("sequence", "count")) else abs(a - b) <= 1e-5 * abs(a).max()
    assert same.all(), f"{name}: {a} {b}"
PYTHON
finish
