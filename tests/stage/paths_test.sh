#!/bin/sh
# The whole chain with paths that are relative, have spaces, letters beyond ASCII or a slash at the end: the
# same bytes in every dataset as with plain ones.
. "$SRC/tests/fault/lib.sh"

# chain FOLDER MODEL TOKENS QUERIES: all stages, outputs in FOLDER
chain() {
    works fit_factors --model "$2" --tokens "$3" --output "$1/fac tors"
    works compress_queries --model "$2" --factors "$1/fac tors" --queries "$4" --output "$1/compressed é.h5"
    works score_shards --model "$2" --queries "$1/compressed é.h5" --tokens "$3" --output "$1/scores"
    works merge_scores --scores "$1/scores" --output "$1/ranking.h5" --top 5
    works score_shards --model "$2" --queries "$1/compressed é.h5" --tokens "$3" --output "$1/scores" --explain "$1/ranking.h5"
}
mkdir "$work/plain" "$work/a b 語 ü"
chain "$work/plain" "$in/model" "$in/tokens.h5" "$in/queries.h5"
cp -r "$in/model" "$work/a b 語 ü/mo del"
cp "$in/tokens.h5" "$work/a b 語 ü/to'kens"
cp "$in/queries.h5" "$work/a b 語 ü/-queries%s"
cd "$work/a b 語 ü" || exit 1
chain . "mo del/" "to'kens" "-queries%s"

for file in "fac tors/index.h5" "compressed é.h5" scores/shard-00000-of-00001.h5 ranking.h5; do
    cases=$((cases + 1))
    "$python" "$SRC/tests/python/make_inputs.py" same "$work/plain/$file" "$work/a b 語 ü/$file" || fail "$file differs"
done
finish
