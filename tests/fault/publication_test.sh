#!/bin/sh
# Two attempts of one call, or two calls into one folder, where one is stopped at a moment until the other has ended: before it marks its
# work folder, before its file takes its name, before it lists it, before it folds the manifest.  The first one's file stays and is listed; no line is lost.
# One that is killed at such a moment leaves nothing that the next attempt does not put right.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f" --unit-sequences 10
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5" --unit-queries 1
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --unit-sequences 10
make_faults
ends_at_once() {
    run 1 "$@" > "$work/other" 2>&1
    ends_well $? "$work/other"
}

# is_whole: the folder is as its manifest says, which is folded, and nothing is left over
is_whole() {
    run 1 verify "$out" > "$work/verify" 2>&1 || fail "$what: $(cat "$work/verify")"
    ! grep -q "not listed\|left over\|cannot be read" "$work/verify" || fail "$what: $(cat "$work/verify")"
    no_remains "$out" "$what"
    [ ! -e "$out/MANIFEST.d" ] || fail "$what: not folded: $(ls "$out/MANIFEST.d")"
    [ -z "$(find "$out" -name '*work')" ] || fail "$what: a work folder is left"
}

# two_attempts FILE STAGE ARGS...
two_attempts() {
    file=$1
    shift
    for moment in "open */IDENTITY.tmp-*" "link */$file" "open */MANIFEST.d/*.open"; do
        case "$1 $moment" in "merge_scores open */IDENTITY"*) continue ;; esac    # it has no work folder
        cases=$((cases + 1))
        what="$1 held before its ${moment%% *}"
        rm -rf "$out"
        mkdir "$out"
        held "${moment%% *}" "${moment#* }" "$@"
        [ "${moment%% *}" = link ] && [ -e "$out/$file" ] && fail "$what: it has its name already"
        first=$(stat -c %i "$out/$file" 2> /dev/null)
        ends_at_once "$@"
        first=${first:-$(stat -c %i "$out/$file")}
        goes_on
        [ "$(stat -c %i "$out/$file")" = "$first" ] || fail "$what: the first attempt's file was replaced"
        is_whole
        ends_at_once "$@"
        [ "$(stat -c %i "$out/$file")" = "$first" ] || fail "$what: made once more though it was done"
    done
}
two_attempts c.h5 compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out/c.h5" --unit-queries 1
two_attempts shard-00000-of-00001.h5 score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 10
two_attempts r.h5 merge_scores --scores "$in/s" --output "$out/r.h5" --top 5

# ---- two calls into one folder: the second leaves its lines where they are as long as the first folds; the next one folds them
for moment in "fsync */MANIFEST.tmp-*" "rename */MANIFEST"; do
    cases=$((cases + 1))
    what="a fold held before its ${moment%% *}"
    rm -rf "$out"
    mkdir "$out"
    set -- score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 10
    held "${moment%% *}" "${moment#* }" "$@" --shard 0/2
    ends_at_once "$@" --shard 1/2
    [ ! -e "$out/MANIFEST" ] || fail "$what: another one folded at the same time"
    goes_on
    [ -e "$out/MANIFEST" ] || fail "$what: not folded"
    run 1 verify "$out" > "$work/verify" 2>&1 && grep -q "2 of 2 shards, complete" "$work/verify" || fail "$what: $(cat "$work/verify")"
    ends_at_once merge_scores --scores "$out" --output "$out/r.h5" --top 5
    is_whole
done

# ---- what is published is so though its line cannot be folded, or though another host's job has left its own open
what="a disk that is full when the manifest is folded"
cases=$((cases + 1))
rm -rf "$out"
mkdir "$out"
set -- --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --unit-sequences 10
FAULT_CALL=write FAULT_PATH='*/MANIFEST.tmp-*' FAULT_ACTION=ENOSPC FAULT_LOG=$work/log LD_PRELOAD=$work/fault.so \
    "$BUILD/bin/score_shards" "$@" --shard 0/2 > "$work/other" 2>&1
ends_well $? "$work/other"
grep -q "MANIFEST.d\" stay there, .*: cannot write \"$out/MANIFEST\": No space left" "$work/other" || fail "$what: $(cat "$work/other")"
[ ! -e "$out/MANIFEST" ] || fail "$what: folded"
no_remains "$out" "$what"
ends_at_once score_shards "$@" --shard 1/2
is_whole
what="a file that is open for ever"
cases=$((cases + 1))
rm -rf "$out"
mkdir -p "$out/MANIFEST.d"
foreign=MANIFEST.d/node7.0123abcd.4026531836-12.345-0a1b2c3d.open
touch "$out/$foreign"
ends_at_once score_shards "$@" --shard 0/2
ends_at_once score_shards "$@" --shard 1/2
[ "$(grep -c '' "$out/MANIFEST")" -eq 2 ] && [ "$(ls "$out/MANIFEST.d")" = "${foreign#*/}" ] || fail "$what: not folded: $(ls "$out"/*)"

# ---- killed there: the next attempt makes good, and removes what is surely left over
foreign=c.h5.tmp-node7.0123abcd.4026531836-12.345-0a1b2c3d
for moment in "link */c.h5" "open */MANIFEST.d/*.open" "write */MANIFEST.d/*.open" "rename */MANIFEST"; do
    cases=$((cases + 1))
    what="killed before its ${moment%% *} of ${moment#* }"
    rm -rf "$out"
    mkdir "$out"
    set -- compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out/c.h5" --unit-queries 1
    held "${moment%% *}" "${moment#* }" "$@"
    kill -KILL $pid
    wait $pid 2> /dev/null
    touch "$out/$foreign"
    ends_at_once "$@"
    [ -e "$out/$foreign" ] || fail "$what: removed what a process of another host may be writing"
    run 1 verify "$out" > "$work/verify" 2>&1
    grep -q "$foreign: being written by process 12 of node7, or left over by it" "$work/verify" || fail "$what: $(cat "$work/verify")"
    rm "$out/$foreign"
    # what the killed one had listed is folded by the next that lists something
    ends_at_once merge_scores --scores "$in/s" --output "$out/r.h5" --top 5
    is_whole
done
finish
