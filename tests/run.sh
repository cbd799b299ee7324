#!/bin/bash
# run.sh BUILD [PATTERN]: run the tests built in BUILD, and the scripts among the tests; with a
# PATTERN (of the shell's case) only those whose path under tests/ without ending matches it, such as "python/*".
# With KIND=long instead those scripts that take minutes, whose names end in _long.
# A test that exits with 77 is skipped.  Exits 1 if any failed or is not built, or if none ran.
# JOBS tests run at a time, one more than there are cores unless it is set: many of them mostly wait.
# A test has LIMIT_S seconds (1800, many times what the slowest takes); one that has not ended then fails, and what it was
# running is printed.
build=${1:?usage: tests/run.sh BUILD [PATTERN]}
pattern=${2:-*}
SRC=$(cd "$(dirname "$0")/.." && pwd)
BUILD=$(cd "$build" && pwd) || exit 1
BREGMAN_VENV=${BREGMAN_VENV:-$BUILD/venv}
BREGMAN_SCHEMA=$BUILD/share/schema.json
export SRC BUILD BREGMAN_VENV BREGMAN_SCHEMA
limit=${LIMIT_S:-1800}
jobs=${JOBS:-$(($(nproc) + 1))}
kind=${KIND:-test}
results=$(mktemp -d) || exit 1
trap 'rm -rf "$results"' EXIT
trap 'kill $(jobs -p) 2> /dev/null; exit 130' INT TERM
export BREGMAN_HASH_CACHE=$results/hashes
n=0

# running PID: it and the processes below it, with their ages; from /proc, as ps is not everywhere
running() {
    local folder fields
    printf '%s s: %s\n' $(($(date +%s) - $(stat -c %Y "/proc/$1"))) "$(tr '\0' ' ' < "/proc/$1/cmdline" | cut -c 1-400)"
    for folder in /proc/[0-9]*; do
        fields=$(sed 's/.*) . //' "$folder/stat")
        [ "${fields%% *}" != "$1" ] || running "${folder#/proc/}"
    done
} 2> /dev/null

# run_one FILE NAME COMMAND...: leaves passed, failed or skipped in FILE
run_one() {
    local file=$1 name=$2 start=$EPOCHREALTIME code seconds test sleeper i
    shift 2
    setsid "$@" > "$file.output" 2>&1 < /dev/null &
    test=$!
    trap 'kill -TERM "$sleeper" -"$test" 2> /dev/null; exit 1' TERM
    sleep "$limit" &
    sleeper=$!
    wait -n "$test" "$sleeper"
    if kill "$sleeper" 2> /dev/null; then
        wait "$test"
        code=$?
    else
        printf '%s\n' "not ended after $limit s; running now:" "$(running "$test")" >> "$file.output"
        kill -TERM -"$test"
        for ((i = 0; i < 20; i++)); do kill -0 -"$test" 2> /dev/null && sleep 0.5; done
        kill -KILL -"$test" 2> /dev/null
        wait "$test" 2> /dev/null
        code=124
    fi
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
    case $code in
    0)  echo passed > "$file"; echo "ok $name $seconds s" ;;
    77) echo skipped > "$file"; echo "skipped $name $seconds s: $(tail -n 1 "$file.output")" ;;
    *)  echo failed > "$file"
        printf '%s\n' "FAILED $name $seconds s (exit code $code)" "$(sed 's/^/    /' "$file.output")" ;;
    esac
}

# run NAME COMMAND...: when one of the places is free
run() {
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    n=$((n + 1))
    run_one "$results/$n" "$@" &
}

# wanted FILE: it exists, is no folder, and its name under tests/ without ending matches
wanted() {
    [ -f "$1" ] || return 1
    name=${1#"$2"/tests/}
    case ${name%.*} in $pattern) return 0 ;; esac
    return 1
}

count() { grep -lx "$1" "$results"/* 2> /dev/null | wc -l; }

# the longest first; what starts ranks gives each one thread, as there may be as many tests and ranks as cores
for test in "$SRC"/tests/*/*_"$kind".sh; do
    wanted "$test" "$SRC" && run "$name" env OMP_NUM_THREADS=1 "$test"
done
python=$BREGMAN_VENV/bin/python
[ -x "$python" ] || python=python3
for test in "$SRC"/tests/python/*_"$kind".py; do
    wanted "$test" "$SRC" && run "$name" env OMP_NUM_THREADS=1 "$python" "$test"
done
for test in "$BUILD"/tests/*/*_mpitest; do
    [ "$kind" = test ] && wanted "$test" "$BUILD" || continue
    for ranks in 1 2 3 4; do
        run "$name($ranks)" env OMP_NUM_THREADS=1 "$SRC/scripts/mpi" "$ranks" "$test"
    done
done
for test in "$BUILD"/tests/*/*_test; do
    [ "$kind" = test ] && wanted "$test" "$BUILD" && run "$name" "$test"
done
wait

unbuilt=
for test in "$SRC"/tests/*/*test.c; do
    wanted "$test" "$SRC" && [ ! -x "$BUILD/tests/${name%.c}" ] && unbuilt="$unbuilt ${name%.c}"
done
[ -z "$unbuilt" ] || echo "not built, make all tests builds them:$unbuilt"

passed=$(count passed) failed=$(count failed) skipped=$(count skipped)
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ $((passed + failed)) -gt 0 ] && [ -z "$unbuilt" ]
