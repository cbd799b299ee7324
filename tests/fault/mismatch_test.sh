#!/bin/sh
# Files that are sound each but do not belong together, and work files of another command line.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f-down" --modules c_proj
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries-two.h5" --output "$in/c-two.h5"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c-full.h5" --rank full
for shard in 0 1 2; do
    works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --shard $shard/3
done
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 5

# ---- another model, other modules, other queries, another corpus
refused "$in/f/index.h5" "another model" compress_queries --model "$in/other-weights" --factors "$in/f" --queries "$in/queries.h5" --output "$out"
refused "$in/f-down/index.h5" "other --modules" compress_queries --model "$in/model" --factors "$in/f-down" --queries "$in/queries.h5" --output "$out" --modules mlp
refused "$in/f/index.h5" "attn.c_attn" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out" --modules all
misused "matches no module" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out" --modules nothing
refused "$in/c.h5" "another model" score_shards --model "$in/other-weights" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out"
refused "$in/tokens.h5" "another tokenizer" score_shards --model "$in/other-tokenizer" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out"
refused "$in/queries.h5" "another tokenizer" compress_queries --model "$in/other-tokenizer" --factors "$in/f" --queries "$in/queries.h5" --output "$out"
refused "$in/tokens-tokenizer.h5" "different tokenizers" fit_factors --model "$in/model" --tokens "$in/tokens.h5" "$in/tokens-tokenizer.h5" --output "$out"
refused "$in/r.h5" "other compressed queries" score_shards --model "$in/model" --queries "$in/c-two.h5" --tokens "$in/tokens.h5" --output "$out" --explain "$in/r.h5"
refused "$in/r.h5" "token file 1 is \"tokens-fewer.h5\" (30 sequences" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens-fewer.h5" --output "$out" --explain "$in/r.h5"

cp -r "$in/model" "$work/bare"
rm "$work/bare/tokenizer.json"
refused "$in/tokens-tokenizer.h5" "than the queries of" score_shards --model "$work/bare" --queries "$in/c.h5" --tokens "$in/tokens-tokenizer.h5" --output "$out"

# ---- without --modules all that the factors hold is compressed
for fit in f f-down; do
    works compress_queries --model "$in/model" --factors "$in/$fit" --queries "$in/queries.h5" --output "$work/$fit.h5"
done
"$python" - "$work/f.h5" "$work/f-down.h5" <<'PYTHON' || fail "other modules were compressed than the factors hold"
import sys, h5py
def modules(path):
    names = []
    with h5py.File(path) as f:
        f.visit(lambda name: names.append(name) if name.endswith("/left") else None)
    return sorted(name.split(".")[-1] for name in names)
both, down = map(modules, sys.argv[1:])
assert both == ["c_fc/left"] * 2 + ["c_proj/left"] * 2, both
assert down == ["c_proj/left"] * 4, down
PYTHON

# ---- a folder of factors: of one fit, and as its MANIFEST lists it
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f-seed" --seed 1
cp -r "$in/f" "$work/mixed"
cp "$in/f-seed/block-001.h5" "$work/mixed"
refused "$work/mixed/block-001.h5" "of another fit than" compress_queries --model "$in/model" --factors "$work/mixed" --queries "$in/queries.h5" --output "$out"
cp -r "$in/f" "$work/no-manifest"
rm "$work/no-manifest/MANIFEST"
refused "$work/no-manifest/index.h5" "MANIFEST does not list it" compress_queries --model "$in/model" --factors "$work/no-manifest" --queries "$in/queries.h5" --output "$out"
cp -r "$in/f" "$work/no-block"
rm "$work/no-block/block-000.h5"
refused "$work/no-block/block-000.h5" "is missing" compress_queries --model "$in/model" --factors "$work/no-block" --queries "$in/queries.h5" --output "$out"

# ---- one kind of file for another
refused "$in/queries.h5" "format" score_shards --model "$in/model" --queries "$in/queries.h5" --tokens "$in/tokens.h5" --output "$out"
refused "$in/c.h5" "bregman/compressed" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/c.h5" --output "$out"
refused "$in/f/block-000.h5" "bregman/factors" fit_factors --model "$in/model" --tokens "$in/f/block-000.h5" --output "$out"
refused "$in/queries.h5" "holds queries" fit_factors --model "$in/model" --tokens "$in/queries.h5" --output "$out"
refused "$in/queries.h5" "holds queries" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/queries.h5" --output "$out"
refused "$in/s/index.h5" "No such file" compress_queries --model "$in/model" --factors "$in/s" --queries "$in/queries.h5" --output "$out"
refused "$in/c.h5" "bregman/compressed" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --explain "$in/c.h5"
refused "$in/model/config.json" "Not a directory" fit_factors --model "$in/model/config.json" --tokens "$in/tokens.h5" --output "$out"

# ---- shards: missing, of two runs, of other inputs
refused "$in/f" "no shard-IIIII-of-NNNNN.h5" merge_scores --scores "$in/f" --output "$out"
refused "$in/absent" "No such file" merge_scores --scores "$in/absent" --output "$out"
cp -r "$in/s" "$work/lost"
rm "$work/lost/shard-00001-of-00003.h5"
refused "$work/lost" "1 of 3 shards are missing: 1" merge_scores --scores "$work/lost" --output "$out"
cp -r "$in/s" "$work/unlisted"
grep -v shard-00002 "$in/s/MANIFEST" > "$work/unlisted/MANIFEST"
refused "$work/unlisted" "1 of 3 shards are missing: 2" merge_scores --scores "$work/unlisted" --output "$out"
cp -r "$in/s" "$work/two"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/two" --shard 0/2
refused "$work/two" "remove one set" merge_scores --scores "$work/two" --output "$out"
cp -r "$in/s" "$work/stale"
rm "$work/stale/shard-00001-of-00003.h5"
works score_shards --model "$in/model" --queries "$in/c-full.h5" --tokens "$in/tokens.h5" --output "$work/stale" --shard 1/3
refused "$work/stale/shard-00001-of-00003.h5" "score it again" merge_scores --scores "$work/stale" --output "$out"
cp -r "$in/s" "$work/cut"
truncate -s -100 "$work/cut/shard-00002-of-00003.h5"
refused "$work/cut/shard-00002-of-00003.h5" "by its folder's MANIFEST" merge_scores --scores "$work/cut" --output "$out"

# ---- outputs and work files that another command line made
# kept FILE STAGE ARGS...: refused on 1 and 3 ranks with the remedy, and FILE stays as it is
kept() {
    file=$1
    shift
    before=$(cksum < "$file")
    refused "$file" "remove it or choose another output" "$@"
    [ "$(cksum < "$file")" = "$before" ] || fail "$file was changed by: $*"
}
kept "$in/f/index.h5" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f" --seed 1
kept "$in/f/index.h5" fit_factors --model "$in/model" --tokens "$in/tokens-fewer.h5" --output "$in/f"
kept "$in/c.h5" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5" --rank 4
kept "$in/s/shard-00001-of-00003.h5" score_shards --model "$in/model" --queries "$in/c-full.h5" --tokens "$in/tokens.h5" --output "$in/s" --shard 1/3
kept "$in/r.h5" merge_scores --scores "$in/s" --output "$in/r.h5" --top 6

for stage in fit compress score; do
    case $stage in
    fit) set -- fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/stopped" --unit-sequences 8
        other="--seed 1" ;;
    compress) set -- compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$work/stopped.h5" --unit-queries 1
        other="--rank 4" ;;
    score) set -- score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/stopped-scores" --unit-sequences 4
        other="--layer-scores" ;;
    esac
    program=$1
    shift
    stopped "$program" "$@"
    # shellcheck disable=SC2086
    refused "$work/stopped" "remove its folder" "$program" "$@" $other
    works "$program" "$@"
done
finish
