#!/bin/sh
# Every stage's command line: help and version, what is refused with exit code 2, and a second run.
. "$SRC/tests/fault/lib.sh"

# prints TEXT COMMAND...: exit code 0, TEXT on stdout and nothing on stderr
prints() {
    text=$1
    shift
    cases=$((cases + 1))
    "$@" > "$work/stdout" 2> "$work/err" || fail "$*: exit code $?"
    grep -qF -- "$text" "$work/stdout" || fail "$*: no '$text' in: $(cat "$work/stdout")"
    [ ! -s "$work/err" ] || fail "$*: on stderr: $(cat "$work/err")"
}

for program in "$BUILD"/bin/*; do
    stage=${program##*/}
    prints "usage: $stage" "$program" --help
    prints "--threads" "$program" --help
    prints "$stage 0." "$program" --version
    misused "unknown option \"--modle\"" "$stage" --modle x
    misused "is required" "$stage"
    misused "--threads takes a whole number from 0 to 4096, not \"many\"" "$stage" --threads many
    misused "--threads needs a value" "$stage" --threads
done
prints "usage: fit_factors" "$SRC/scripts/mpi" 3 "$BUILD/bin/fit_factors" --help


# what a rank says on one stream stays in one piece, whatever it says on the other, and the launcher adds nothing
cases=$((cases + 1))
"$SRC/scripts/mpi" 2 sh -c '[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 1 ] || { printf "half a "; sleep 0.3; echo said >&2; sleep 0.3; echo line; }' \
    > "$work/stdout" 2> "$work/err" || fail "mpi: exit code $?"
[ "$(cat "$work/stdout")" = "half a line" ] || fail "mpi: on stdout: $(cat "$work/stdout")"
[ "$(cat "$work/err")" = "said" ] || fail "mpi: on stderr: $(cat "$work/err")"

fit() { misused "$1" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out" "$2" "$3"; }
misused "(did you mean --model?)" fit_factors --modle x
fit "(did you mean --covariance-sequences?)" --covariance-sequence 0:1
fit "takes a range A:B with A <= B, not \"5\"" --covariance-sequences 5
fit "takes a range A:B with A <= B, not \"7:5\"" --lambda-sequences 7:5
fit "the token files hold 40 sequences" --covariance-sequences 0:41
fit "the token files hold 40 sequences" --lambda-sequences 40:
fit "--covariance-sequences 3:3" --covariance-sequences 3:3
fit "--blocks takes a whole number from 1 to 64, not \"0\"" --blocks 0
fit "--blocks 33 is more than" --blocks 33
fit "--seed takes a whole number" --seed -1
fit "nor a regular expression" --modules "("
fit "matches no module" --modules nothing
fit "--modules is empty" --modules ""

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
compress() { misused "$1" compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$out" "$2" "$3"; }
compress "--rank takes a number from 1, full or auto, not \"0\"" --rank 0
compress "--rank takes a number from 1, full or auto, not \"3x\"" --rank 3x
compress "--tolerance takes a number from 1e-12 to 1, not \"nan\"" --tolerance nan
compress "--damping-factor takes a number" --damping-factor 1e400
compress "\"newton\"" --preconditioner newton

works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
score() { misused "$1" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" "$2" "$3"; }
for shard in 3/3 -1/3 0/0 1 1/2/3 x/y; do
    score "--shard takes I/N with 0 <= I < N <= 99999, not \"$shard\"" --shard $shard
done
score "--top takes a whole number from 1" --top 0

# each rank with its own command line
cases=$((cases + 1))
timeout 60 "$SRC/scripts/mpi" 2 sh -c 'exec "$0" --quiet --scores absent --output x --top $((1 + ${OMPI_COMM_WORLD_RANK:-$PMI_RANK}))' \
    "$BUILD/bin/merge_scores" 2> "$work/err"
one_error 2 $? merge_scores "" "differs between ranks" "two command lines"

# ---- a second run says so and changes nothing
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"
works merge_scores --scores "$in/s" --output "$in/r.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --explain "$in/r.h5"
# again STAGE ARGS...: other options that change no result are no other command
again() {
    cases=$((cases + 1))
    for ranks in 1 3; do
        before=$(find "$in" -newer "$in/queries.h5" -type f -exec cksum {} + | sort)
        "$SRC/scripts/mpi" $ranks "$BUILD/bin/$@" --threads 2 > "$work/stdout" 2> "$work/err" || fail "$*: exit code $?"
        grep -q ": already done" "$work/err" || fail "$*: not already done: $(cat "$work/err")"
        [ "$before" = "$(find "$in" -newer "$in/queries.h5" -type f -exec cksum {} + | sort)" ] || fail "$*: files changed"
    done
}
again fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
again compress_queries --model "$in/model/" --factors "$in/f/" --queries "$in/queries.h5" --output "$in/c.h5"
again score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"
again merge_scores --scores "$in/s" --output "$in/r.h5"
again score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --explain "$in/r.h5"
finish
