#!/bin/sh
# Two calls with other options or inputs, one output: neither may take the other's work for its own.
. "$(dirname "$0")/lib.sh"
make_faults

fit_to() { folder=$1; shift; run 1 fit_factors --model "$in/model" --output "$folder" --unit-sequences 1 "$@"; }
wanted() { fit_to "$work/$1" $2 > /dev/null || fail "fit $2: exit code $?"; }
one="--tokens $in/tokens.h5 --seed 1" two="--tokens $in/tokens.h5 --seed 2" short="--tokens $in/tokens-short.h5 --batch-tokens 3"
wanted two "$two"
wanted short "$short"

# begins WHAT MOMENT PATH ARGS...: an attempt in $out that is held there
begins() {
    what=$1 moment=$2 path=$3
    shift 3
    cases=$((cases + 1))
    rm -rf "$out"
    held "$moment" "$path" fit_factors --model "$in/model" --output "$out" --unit-sequences 1 "$@"
}
dies() {
    kill -KILL $pid
    wait $pid 2> /dev/null
}
# then_works WANTED ARGS...: the other call ends well in the same folder, with its own numbers
then_works() {
    numbers=$work/$1
    shift
    fit_to "$out" "$@" > "$work/other" 2>&1 || fail "$what: exit code $?: $(head -c 600 "$work/other")"
    for file in "$numbers"/block-*.h5; do
        "$python" "$SRC/tests/python/make_inputs.py" same "$out/${file##*/}" "$file" > "$work/same" 2>&1 ||
            fail "$what: ${file##*/} differs: $(tail -n 1 "$work/same")"
    done
    [ ! -e "$out/work" ] || fail "$what: the work folder is left"
}
# then_refused FILE REASON ARGS...
then_refused() {
    file=$1 reason=$2
    shift 2
    fit_to "$out" "$@" > /dev/null 2> "$work/err"
    one_error 1 $? fit_factors "$file" "$reason" "$what"
}

# One that has kept nothing yet, but lives
begins "beside one that lives" open '*covariance-00000*' $one
then_refused "$out/work/IDENTITY" "made from other inputs or options" $two
kill -CONT $pid
wait $pid || fail "$what: the first ends with exit code $?"
rm -r "$out"
# that has died, and kept nothing
begins "after one that kept nothing" open '*covariance-00000*' $one
dies
then_works two $two
begins "after one with smaller micro-batches" open '*covariance-00000*' $short
dies
then_works two $two
# of which that cannot be told
begins "after one of another host" open '*covariance-00000*' $one
dies
mv "$out"/work/ATTEMPT.tmp-* "$out/work/ATTEMPT.tmp-node7.0123abcd.4026531836-12.345-0a1b2c3d"
then_refused "$out/work/IDENTITY" "or remove its folder" $two
# that has kept something
begins "after one with micro-batches that are too small" open '*lambda-00000*' $short
dies
then_refused "$out/work/IDENTITY" "made from other inputs or options" $two
sed -i "s/^rows .*/rows 1/" "$out/work/IDENTITY"
then_refused "work folder's IDENTITY is damaged" "a sequence has 3" $short
for rows in -1 0 99999999999999999999999 4000000000 3x; do
    sed -i "s/^rows .*/rows $rows/" "$out/work/IDENTITY"
    then_refused "$out/work/IDENTITY" "is damaged" $short
done

# The first one fails before anything was kept, while another of the same call is in the folder: it opens no file any more
begins "beside one that fails" rename '*/UNITS' $one
first=$pid
held open '*covariance-00000*' fit_factors --model "$in/model" --output "$out" --unit-sequences 1 $one
prlimit --pid $first --nofile=3:3
kill -CONT $first
wait $first && fail "$what: the first ends well"
goes_on

# Its files beside one's own, whatever the folder says
for kind in activation gradient covariance lambda; do
    begins "files of $kind of another call" open '*block-000.h5*' $one
    dies
    find "$out/work" ! -name "$kind-*.h5" -type f -delete
    then_refused "$out/work/$kind-" "made from other inputs or options" $two
done

# One that fails before it has kept anything, or is stopped, leaves no folder behind
what="after one that failed" cases=$((cases + 1))
rm -rf "$out"
FAULT_CALL=open FAULT_PATH='*covariance-00000*' FAULT_ACTION=ENOSPC LD_PRELOAD=$work/fault.so \
    "$BUILD/bin/fit_factors" --quiet --model "$in/model" --output "$out" $one > "$work/other" 2>&1 && fail "$what: exit code 0"
[ ! -e "$out/work" ] || fail "$what: left a work folder with $(ls "$out/work")"

# ---- two rankings of one folder of scores, explained at once
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"
works merge_scores --scores "$in/s" --output "$in/top.3.h5" --top 3
works merge_scores --scores "$in/s" --output "$in/top.5.h5" --top 5
what="two rankings explained at once" cases=$((cases + 1))
held open '*token_scores-00000*' score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --explain "$in/top.3.h5"
run 1 score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --explain "$in/top.5.h5" \
    > "$work/other" 2>&1 || fail "$what: exit code $?: $(head -c 600 "$work/other")"
kill -CONT $pid
wait $pid || fail "$what: the first ends with exit code $?: $(cat "$work/held")"
finish
