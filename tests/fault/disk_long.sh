#!/bin/sh
# Outputs that cannot be written: a path through a file, a folder in the way, a read-only and a full file system.
# Checkpoints that were cut short, and manifests.
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

# ---- checkpoints cut short
# cut_short WANTED STAGE ARGS...: stop it, cut one of its work files after the other, each from there anew, and go on; the
# last is then removed, as the error says: the result must be WANTED's
cut_short() {
    wanted=$1 program=$2
    shift 2
    rm -rf "$work/stopped" "$work/kept"
    mkdir "$work/stopped"
    stopped "$program" "$@"
    cp -r "$work/stopped" "$work/kept"
    unit=
    for unit in $(find "$work/stopped" -path '*work/*.h5' | sort); do
        rm -rf "$work/stopped"
        cp -r "$work/kept" "$work/stopped"
        truncate -s -100 "$unit"
        refused "$unit" "remove it, then run the same command again" "$program" "$@"
    done
    if [ -z "$unit" ]; then
        fail "$program: nothing was kept when it stopped"
        return
    fi
    rm "$unit"
    works "$program" "$@"
    for file in "$wanted"/*.h5; do
        "$python" "$SRC/tests/python/make_inputs.py" same "$file" "$work/stopped/${file##*/}" || fail "$program: ${file##*/} differs after a damaged checkpoint"
    done
    run 1 verify "$work/stopped" > "$work/stdout" 2>&1 || fail "$program: $(cat "$work/stdout")"
}
mkdir "$work/c"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/f" --unit-sequences 8
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$work/c/x.h5" --unit-queries 1
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/s" --unit-sequences 4
cut_short "$work/f" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/stopped" --unit-sequences 8
cut_short "$work/c" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$work/stopped/x.h5" --unit-queries 1
cut_short "$work/s" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/stopped" --unit-sequences 4

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
            "$python" "$SRC/tests/python/make_inputs.py" check "$disk" || fail "$stage in $room KiB ($ranks ranks): a partial file"
        done
        [ $code -eq 0 ] || fail "$stage: fails with room enough: $(cat "$work/err")"
        [ $failures -gt 0 ] || fail "$stage: never met a full disk"
    done
}
each_stage full

# ---- a new version of a ranking: the old one stays until it is there
explain() { run "$1" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$disk/x" --explain "$disk/r.h5"; }
for ranks in 1 3; do
    find "$disk" -mindepth 1 -delete
    cp "$in/r.h5" "$disk/"
    grep ' r.h5$' "$in/MANIFEST" > "$disk/MANIFEST"
    used=$(df -k --output=used "$disk" | tail -n 1) failures=0
    before=$(cksum < "$disk/r.h5")
    mount -o remount,ro "$disk"
    cases=$((cases + 1))
    explain $ranks > "$work/stdout" 2> "$work/err"
    one_error 1 $? score_shards "$disk" "Read-only file system" "explain on a read-only disk ($ranks ranks)"
    for room in 4 12 24 40 64 96 160 320 1024 4096; do
        mount -o "remount,rw,size=$((used + room))k" "$disk"
        cases=$((cases + 1))
        explain $ranks > "$work/stdout" 2> "$work/err"
        code=$?
        [ $code -ne 0 ] || break
        failures=$((failures + 1))
        one_error 1 $code score_shards "$disk" "No space left on device" "explain in $room KiB ($ranks ranks)"
        no_remains "$disk" "explain in $room KiB ($ranks ranks)"
        [ "$(cksum < "$disk/r.h5")" = "$before" ] || fail "explain in $room KiB ($ranks ranks): the ranking has changed"
    done
    [ $code -eq 0 ] || fail "explain: fails with room enough: $(cat "$work/err")"
    [ $failures -gt 0 ] || fail "explain: never met a full disk"
    run 1 verify "$disk" > "$work/stdout" 2>&1 || fail "explain: $(cat "$work/stdout")"
done
finish
