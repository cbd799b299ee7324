#!/bin/sh
# Two attempts of one job at once in one folder, as after a requeue while the first still lives: the second starts a
# little later each time.  Both must end well, with the numbers of an undisturbed run, published files as their manifest
# says, and nothing left over.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f" --unit-sequences 1
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5" --unit-queries 1
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --unit-sequences 1

# attempt NAME RANKS STAGE ARGS...: in the background; its exit code goes to $work/NAME.code
attempt() {
    name=$1
    shift
    { run "$@" > "$work/$name.out" 2> "$work/$name.err"; echo $? > "$work/$name.code"; } &
}

# same_numbers MADE WANTED WHAT: the .h5 files of two folders
same_numbers() {
    for wanted in "$2"/*.h5; do
        made=$1/${wanted##*/}
        if [ ! -e "$made" ]; then
            fail "$3: no $made"
        elif ! "$python" "$SRC/tests/python/make_inputs.py" same "$made" "$wanted" > "$work/same" 2>&1; then
            fail "$3: ${wanted##*/} differs: $(tail -n 1 "$work/same")"
        fi
    done
}

# both DELAY RANKS RANKS WANTED STAGE ARGS...: two attempts, the second DELAY seconds after the first
both() {
    delay=$1 first=$2 second=$3 wanted=$4
    shift 4
    what="$1, $first and $second ranks, $delay s apart"
    cases=$((cases + 1))
    rm -rf "$out"
    mkdir "$out"
    attempt a "$first" "$@"
    sleep "$delay"
    attempt b "$second" "$@"
    wait
    for name in a b; do
        [ "$(cat "$work/$name.code")" -eq 0 ] ||
            fail "$what: attempt $name ends with exit code $(cat "$work/$name.code"): $(head -c 600 "$work/$name.err")"
    done
    same_numbers "$out" "$wanted" "$what"
    no_remains "$out" "$what"
    remains=$(find "$out" -name '*work')
    [ -z "$remains" ] || fail "$what: left behind: $remains"
    run 1 verify "$out" > "$work/verify" 2>&1 || fail "$what: $(cat "$work/verify")"
}

mkdir "$work/c"
cp "$in/c.h5" "$work/c/x.h5"
for delay in 0 0.05 0.1 0.2 0.3 0.4 0.6; do
    case $delay in 0 | 0.1 | 0.4) ranks=2 ;; *) ranks=1 ;; esac
    both $delay 1 $ranks "$in/f" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 1
    both $delay 1 $ranks "$work/c" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out/x.h5" --unit-queries 1
    both $delay $ranks 1 "$in/s" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 1
done

# ---- one that is to go on from a part which the other, being further, has removed
what="a part that is gone" cases=$((cases + 1))
set -- fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 40 --batch-tokens 16
rm -rf "$out"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/whole" --unit-sequences 40 --batch-tokens 16
make_faults
stopped "$@"
[ -n "$(find "$out/work" -name 'covariance-00000-block-000.*')" ] || fail "$what: no part was kept"
held open '*covariance-00000-block-000.*' "$@"
behind=$pid
held open '*gradient-*' "$@"
[ -z "$(find "$out/work" -name 'covariance-00000-block-000.*' ! -name '*-000040.h5')" ] || fail "$what: it is still there"
kill -CONT $behind
wait $behind || fail "$what: exit code $?"
goes_on
same_numbers "$out" "$work/whole" "$what"
finish
