#!/bin/sh
# Many more work units than a process may have files open: every stage ends, with the numbers of a run without that limit.
. "$(dirname "$0")/lib.sh"

PYTHONPATH=$SRC/tests/python "$python" - "$in" <<'PYTHON' || exit 1
import sys
from check_goldens import write_tokens
import numpy as np
random = np.random.default_rng(1)
write_tokens(sys.argv[1] + "/short.h5", list(random.integers(0, 64, (2000, 2))))
write_tokens(sys.argv[1] + "/asked.h5", list(random.integers(0, 64, (600, 2))), 1)
write_tokens(sys.argv[1] + "/one.h5", [np.array([1, 2, 3])], 1)
PYTHON
model=$SRC/tests/goldens/gpt2

# limited RANKS STAGE ARGS...: with 64 descriptors
limited() {
    cases=$((cases + 1))
    (ulimit -n 64 && run "$@") 2> "$work/err" || fail "$* with 64 descriptors: exit code $?: $(cat "$work/err")"
}
same() { "$python" "$SRC/tests/python/make_inputs.py" same "$1" "$2" > "$work/same" 2>&1 || fail "$1 and $2 differ: $(tail -n 1 "$work/same")"; }

# chain FOLDER UNITS RUN...: fit, compress and score in UNITS units each, by `RUN STAGE ARGS...`
chain() {
    folder=$1 units=$2
    shift 2
    mkdir "$folder"
    "$@" fit_factors --model "$model" --tokens "$in/short.h5" --output "$folder/f" --modules h.1.mlp.c_proj --unit-sequences 1 \
        --covariance-sequences "0:$units" --lambda-sequences "0:$units"
    "$@" compress_queries --model "$model" --factors "$folder/f" --queries "$in/asked.h5" --output "$folder/c.h5" --rank 1 \
        --unit-queries $((600 / units))
    "$@" compress_queries --model "$model" --factors "$folder/f" --queries "$in/one.h5" --output "$folder/one.h5"
    "$@" score_shards --model "$model" --queries "$folder/one.h5" --tokens "$in/short.h5" --output "$folder/s" \
        --unit-sequences $((600 / units))
}
for units in 600 100; do
    chain "$work/free-$units" $units run 1
done
chain "$work/limited-600" 600 limited 1                  # 2,000 units of scores
chain "$work/limited-100" 100 limited 2
for units in 600 100; do
    for file in f/index.h5 c.h5 s/shard-00000-of-00001.h5; do
        same "$work/limited-$units/$file" "$work/free-$units/$file"
    done
done
finish
