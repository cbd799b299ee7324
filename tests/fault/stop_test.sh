#!/bin/sh
# A signal that asks for a stop comes while no micro-batch is under way: while inputs are hashed, queries are read, results are put together,
# shards are merged.  Exit code 75, nothing half done, and the next run ends well; what only reads ends at once.
. "$(dirname "$0")/lib.sh"
make_faults

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 5

# signalled SIGNAL CALL PATTERN STAGE ARGS...: it comes before such a call; $code then
signalled() {
    signal=$1 call=$2 pattern=$3 executable=$BUILD/bin/$4
    what="$4, $signal at the $call of $pattern" cases=$((cases + 1))
    shift 4
    rm -f "$work/log"
    FAULT_CALL=$call FAULT_PATH=$pattern FAULT_ACTION=$signal FAULT_LOG=$work/log LD_PRELOAD=$work/fault.so HDF5_USE_FILE_LOCKING=FALSE \
        "$executable" --quiet --hash-cache "$work/none" "$@" > "$work/said" 2>&1
    code=$?
    [ -s "$work/log" ] || fail "$what: there was no such call"
}

# asked CALL PATTERN OUTPUT STAGE ARGS...
asked() {
    call=$1 pattern=$2 output=$3
    shift 3
    for signal in SIGTERM SIGUSR1; do
        rm -rf "$out"
        mkdir "$out"
        signalled $signal "$call" "$pattern" "$@"
        [ $code -eq 75 ] || fail "$what: exit code $code: $(head -c 600 "$work/said")"
        [ ! -e "$output" ] || fail "$what: it went on to its end"
        no_remains "$out" "$what"
    done
    run 1 "$@" > "$work/said" 2>&1 || fail "$what: then exit code $?: $(head -c 600 "$work/said")"
}
set -- fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out"
asked read '*/tokens.h5' "$out/work" "$@"
set -- compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out/c.h5"
asked read '*/queries.h5' "$out/c.h5.work" "$@"
asked open '*/c.h5.tmp-*' "$out/c.h5" "$@"
set -- score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out"
asked read '*/tokens.h5' "$out/shard-00000-of-00001.work" "$@"
asked open '*/shard-00000-of-00001.h5.tmp-*' "$out/shard-00000-of-00001.h5" "$@"
asked read '*/shard-00000-of-00001.h5' "$out/r.h5" merge_scores --scores "$in/s" --output "$out/r.h5" --top 5

for stage in inspect verify; do
    signalled SIGTERM read '*/index.h5' $stage "$in/f"
    [ $code -eq 143 ] || fail "$what: exit code $code: $(head -c 600 "$work/said")"
    signalled SIGUSR1 open '*/index.h5' $stage "$in/f"
    [ $code -eq 138 ] || fail "$what: exit code $code: $(head -c 600 "$work/said")"
done
finish
