#!/bin/sh
# Token and query files, labels and candidates that must be refused.
. "$(dirname "$0")/lib.sh"

model="--model $in/model"    # split on purpose below: paths of mktemp have no spaces
# shellcheck disable=SC2086
works fit_factors $model --tokens "$in/tokens.h5" --output "$in/f"
# shellcheck disable=SC2086
works compress_queries $model --factors "$in/f" --queries "$in/queries.h5" --output "$in/compressed.h5"

# bad_tokens FILE REASON: at both stages that read a corpus
bad_tokens() {
    # shellcheck disable=SC2086
    refused "$in/$1" "$2" fit_factors $model --tokens "$in/$1" --output "$out"
    # shellcheck disable=SC2086
    refused "$in/$1" "$2" score_shards $model --queries "$in/compressed.h5" --tokens "$in/$1" --output "$out"
}
# bad_queries FILE REASON
bad_queries() {
    # shellcheck disable=SC2086
    refused "$in/$1" "$2" compress_queries $model --factors "$in/f" --queries "$in/$1" --output "$out"
}

bad_tokens tokens-id.h5 "token id 32 at position 2 of sequence 30"
bad_tokens tokens-one.h5 "holds 1 at 7; expected 2 or more"
bad_tokens tokens-empty.h5 "holds 0 at"
bad_tokens tokens-none.h5 "no sequence"
bad_tokens tokens-long.h5 "sequence 20"
bad_tokens tokens-tokenizer.h5 "another tokenizer"
bad_tokens tokens-count.h5 "adds up to"
bad_tokens tokens-float.h5 "does not hold whole numbers"
bad_tokens tokens-negative.h5 "out of range"
bad_tokens tokens-missing.h5 'no dataset "count"'
bad_tokens absent.h5 "No such file"
bad_tokens text.h5 "not an HDF5 file"
bad_tokens model "it is a folder"

# a file given twice, under another spelling of its path too
ln -s tokens.h5 "$in/link.h5"
for twice in tokens.h5 ../in/tokens.h5 link.h5; do
    # shellcheck disable=SC2086
    misused "are the same file" fit_factors $model --tokens "$in/tokens.h5" "$in/$twice" --output "$out"
    # shellcheck disable=SC2086
    misused "are the same file" score_shards $model --queries "$in/compressed.h5" --tokens "$in/$twice" "$in/tokens.h5" --output "$out"
done

bad_queries queries-id.h5 "token id 32 at position 2 of sequence 3"
bad_queries queries-none.h5 "is empty: its axis \"query\""
bad_queries queries-one.h5 "expected 2 or more"
bad_queries queries-long.h5 "sequence 3"
bad_queries queries-completion.h5 'query "q1"'
bad_queries queries-prompt.h5 'query "q2"'
bad_queries queries-tokenizer.h5 "another tokenizer"
bad_queries tokens.h5 "holds no queries"
bad_queries absent.h5 "No such file"
bad_queries text.h5 "not an HDF5 file"

# bad_labels NAME FILE REASON: labels are for tests, and what is in them is told by the option
bad_labels() {
    # shellcheck disable=SC2086
    refused "$2" "$3" fit_factors $model --tokens "$in/tokens.h5" --output "$out" --labels "$in/$1.safetensors"
}
bad_labels labels-large labels-large.safetensors "label 32 of sequence 0"
bad_labels labels-few labels-few.safetensors "[3, 16] labels"
bad_labels labels-missing labels-missing.safetensors "pseudo_cov"
bad_labels absent absent.safetensors "No such file"

# bad_candidates FILE REASON
bad_candidates() {
    # shellcheck disable=SC2086
    refused "$in/candidates-$1" "$2" score_shards $model --queries "$in/compressed.h5" --tokens "$in/tokens.h5" \
        --output "$out" --candidates "$in/candidates-$1"
}
bad_candidates word.txt ":2: not a sequence number: seven"
bad_candidates negative.txt ":2: not a sequence number: -2"
bad_candidates large.txt "sequence 40"
bad_candidates huge.txt ":1: not a sequence number"
bad_candidates two.txt ":1: not a sequence number: 1 2"
bad_candidates none.txt "no line with numbers in it"
bad_candidates long.txt ":2: not a sequence number"
bad_candidates negative.h5 "sequence -2"
bad_candidates fractions.h5 '"sequence" of'
bad_candidates table.h5 "has 2 axes instead of 1"
bad_candidates none.h5 "no sequence in it"
bad_candidates absent.txt "No such file"

# the same candidates as text and as HDF5
for kind in txt h5; do
    # shellcheck disable=SC2086
    works score_shards $model --queries "$in/compressed.h5" --tokens "$in/tokens.h5" --output "$work/$kind" \
        --candidates "$in/candidates-good.$kind"
done
"$python" - "$work/txt" "$work/h5" <<'PYTHON' || fail "candidates as text and as HDF5 differ"
import sys, h5py
a, b = (h5py.File(p + "/shard-00000-of-00001.h5") for p in sys.argv[1:])
assert a["sequence"][:].tolist() == b["sequence"][:].tolist() == [1, 3, 7]
assert (a["score"][:] == b["score"][:]).all()
PYTHON
finish
