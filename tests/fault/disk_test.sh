#!/bin/sh
# Outputs that cannot be written: a path through a file, a folder in the way, a read-only and a full file system.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 5

# each_stage FUNCTION: with the stage and its arguments but the output
each_stage() {
    "$1" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --unit-sequences 10
    "$1" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --unit-queries 1
    "$1" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --unit-sequences 5
    "$1" merge_scores --scores "$in/s" --top 5
}

through_a_file() {
    refused "$in/model/config.json/x" "Not a directory" "$@" --output "$in/model/config.json/x"
    refused "/proc/self/x" "No such file" "$@" --output /proc/self/x
}
each_stage through_a_file

mkdir "$work/folder"
for stage in compress_queries merge_scores; do
    case $stage in
    compress_queries) set -- --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" ;;
    merge_scores) set -- --scores "$in/s" ;;
    esac
    refused "$work/folder" "irectory" $stage "$@" --output "$work/folder"
done
refused "$work/no/r.h5" "No such file" merge_scores --scores "$in/s" --output "$work/no/r.h5"

# ---- a file system of our own
disk=$work/disk
mkdir "$disk"
if ! mount -t tmpfs -o size=64k tmpfs "$disk" 2> /dev/null; then
    [ $failed -ne 0 ] || { echo "$cases cases; no full disk: mounting is not permitted"; exit 77; }
    finish
fi
trap 'umount "$disk"; rm -rf "$work"' EXIT

read_only() {
    refused "$disk/x" "Read-only file system" "$@" --output "$disk/x"
}
mount -o remount,ro "$disk"
each_stage read_only
mount -o remount,rw "$disk"

# full STAGE ARGS...: in ever more room until it works.  Before that it must fail in each as it should, and
# with more room go on from what it has done.
full() {
    stage=$1
    shift
    for ranks in 1 3; do
        find "$disk" -mindepth 1 -delete
        failures=0
        for room in 4 12 24 40 64 96 160 320 1024 4096; do
            mount -o "remount,size=${room}k" "$disk"
            cases=$((cases + 1))
            run $ranks "$stage" "$@" --output "$disk/x.h5" > "$work/stdout" 2> "$work/err"
            code=$?
            [ $code -ne 0 ] || break
            failures=$((failures + 1))
            one_error 1 $code "$stage" "$disk" "No space left on device" "$stage in $room KiB ($ranks ranks)"
            no_remains "$disk" "$stage in $room KiB ($ranks ranks)"
            "$python" "$SRC/scripts/checks/make_inputs.py" check "$disk" || fail "$stage in $room KiB ($ranks ranks): a partial file"
        done
        [ $code -eq 0 ] || fail "$stage: fails with room enough: $(cat "$work/err")"
        [ $failures -gt 0 ] || fail "$stage: never met a full disk"
    done
}
each_stage full
finish
