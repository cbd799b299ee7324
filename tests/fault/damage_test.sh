#!/bin/sh
# Damage to the files between the stages: a byte flipped inside a dataset (its checksum tells), cut short,
# a dataset or an attribute gone, a NaN.
. "$(dirname "$0")/lib.sh"

damage() { "$python" "$SRC/tests/python/make_inputs.py" "$@" || exit 1; }
# pristine FILE: a copy to damage, $work/d
pristine() { rm -rf "$work/d"; cp -r "$1" "$work/d"; }

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --layer-scores
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 5

# ---- tokens and queries
pristine "$in/tokens.h5"
damage flip "$work/d" token
refused "$work/d" '"token"' fit_factors --model "$in/model" --tokens "$work/d" --output "$out"
refused "$work/d" '"token"' score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$work/d" --output "$out"
pristine "$in/tokens.h5"
truncate -s -50 "$work/d"
refused "$work/d" "truncated" fit_factors --model "$in/model" --tokens "$work/d" --output "$out"
pristine "$in/queries.h5"
damage flip "$work/d" token
refused "$work/d" '"token"' compress_queries --model "$in/model" --factors "$in/f" --queries "$work/d" --output "$out"
pristine "$in/queries.h5"
damage remove "$work/d" id
refused "$work/d" 'no dataset "id"' compress_queries --model "$in/model" --factors "$in/f" --queries "$work/d" --output "$out"

# ---- factors
compress() { refused "$1" "$2" compress_queries --model "$in/model" --factors "$work/d" --queries "$in/queries.h5" --output "$out"; }
pristine "$in/f"
damage flip "$work/d/block-001.h5" transformer.h.1.mlp.c_fc/lambda
compress "$work/d/index.h5" lambda
pristine "$in/f"
rm "$work/d/block-001.h5"
compress "$work/d/block-001.h5" "is missing"
pristine "$in/f"
truncate -s 1000 "$work/d/block-000.h5"
compress "$work/d/block-000.h5" "by its folder's MANIFEST"
pristine "$in/f"
truncate -s 1000 "$work/d/index.h5"
compress "$work/d/index.h5" ""
pristine "$in/f"
damage remove "$work/d/block-000.h5" transformer.h.0.mlp.c_proj/gradient_eigenvectors
compress "$work/d/index.h5" gradient_eigenvectors
pristine "$in/f"
damage nan "$work/d/block-000.h5" transformer.h.0.mlp.c_proj/lambda
compress "$work/d/index.h5" transformer.h.0.mlp.c_proj
pristine "$in/f"
damage nan "$work/d/block-001.h5" transformer.h.1.mlp.c_fc/activation_eigenvectors
compress "$work/d/index.h5" transformer.h.1.mlp.c_fc/activation_eigenvectors
pristine "$in/f"
damage attribute "$work/d/index.h5" format_version x
compress "$work/d/index.h5" format_version

# ---- compressed queries
score() { refused "$work/d" "$1" score_shards --model "$in/model" --queries "$work/d" --tokens "$in/tokens.h5" --output "$out"; }
pristine "$in/c.h5"
damage flip "$work/d" transformer.h.0.mlp.c_fc/left
score transformer.h.0.mlp.c_fc/left
pristine "$in/c.h5"
truncate -s -1000 "$work/d"
score truncated
pristine "$in/c.h5"
damage remove "$work/d" transformer.h.1.mlp.c_fc
score transformer.h.1.mlp.c_fc
pristine "$in/c.h5"
damage nan "$work/d" transformer.h.1.mlp.c_fc/right
score transformer.h.1.mlp.c_fc/right

# ---- scores and rankings
merge() { refused "$work/d/shard-00000-of-00001.h5" "$1" merge_scores --scores "$work/d" --output "$out"; }
pristine "$in/s"
damage flip "$work/d/shard-00000-of-00001.h5" score
merge score
pristine "$in/s"
damage nan "$work/d/shard-00000-of-00001.h5" score
relist "$work/d/shard-00000-of-00001.h5"
merge nan
pristine "$in/s"
damage attribute "$work/d/shard-00000-of-00001.h5" format bregman/other
merge "by its folder's MANIFEST"
for name in shard-00000-of--0001.h5 shard-00001-of-99999999999999999999.h5 shard-00001-of-00001.h5; do
    pristine "$in/s"
    mv "$work/d/shard-00000-of-00001.h5" "$work/d/$name"
    sed -i "s/shard-.*/$name/" "$work/d/MANIFEST"
    refused "$work/d" "no shard-IIIII-of-NNNNN.h5 in it" merge_scores --scores "$work/d" --output "$out"
done
pristine "$in/r.h5"
damage flip "$work/d" top/sequence
refused "$work/d" "top/sequence" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --explain "$work/d"
pristine "$in/r.h5"
damage remove "$work/d" tail
refused "$work/d" "tail" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --explain "$work/d"
finish
