#!/bin/bash
# run.sh BUILD [PATTERN]: run the tests built in BUILD, and the scripts among the tests; with a
# PATTERN (of the shell's case) only those whose path under tests/ (scripts/ for those in Python) matches it.
# A test that exits with 77 is skipped.  Exits 1 if any failed, or if none ran.
# JOBS tests run at a time, one more than there are cores unless it is set: many of them mostly wait.
build=${1:?usage: tests/run.sh BUILD [PATTERN]}
pattern=${2:-*}
SRC=$(cd "$(dirname "$0")/.." && pwd)
BUILD=$(cd "$build" && pwd) || exit 1
BREGMAN_VENV=${BREGMAN_VENV:-$BUILD/venv}
export SRC BUILD BREGMAN_VENV
jobs=${JOBS:-$(($(nproc) + 1))}
results=$(mktemp -d) || exit 1
trap 'rm -rf "$results"' EXIT
trap 'kill $(jobs -p) 2> /dev/null; exit 130' INT TERM
n=0

# run_one FILE NAME LIMIT_S COMMAND...: leaves passed, failed or skipped in FILE
run_one() {
    local file=$1 name=$2 limit=$3 start=$EPOCHREALTIME code seconds
    shift 3
    timeout -k 10 "$limit" "$@" > "$file.output" 2>&1 < /dev/null
    code=$?
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
    case $code in
    0)  echo passed > "$file"; echo "ok $name $seconds s" ;;
    77) echo skipped > "$file"; echo "skipped $name $seconds s: $(tail -n 1 "$file.output")" ;;
    *)  echo failed > "$file"
        printf '%s\n' "FAILED $name $seconds s (exit code $code)" "$(sed 's/^/    /' "$file.output")" ;;
    esac
}

# run NAME LIMIT_S COMMAND...: when one of the places is free
run() {
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    n=$((n + 1))
    run_one "$results/$n" "$@" &
}

# wanted FILE: it exists, is no folder, and its name under tests/ or scripts/ without ending matches
wanted() {
    [ -f "$1" ] || return 1
    name=${1#"$2"/tests/}
    name=${name#"$2"/scripts/}
    case ${name%.*} in $pattern) return 0 ;; esac
    return 1
}

count() { grep -lx "$1" "$results"/* 2> /dev/null | wc -l; }

# the longest first
for test in "$SRC"/tests/*/*_test.sh; do
    wanted "$test" "$SRC" && run "$name" 600 "$test"
done
python=$BREGMAN_VENV/bin/python
[ -x "$python" ] || python=python3
for test in "$SRC"/scripts/checks/*_test.py; do
    wanted "$test" "$SRC" && run "$name" 600 "$python" "$test"
done
for test in "$BUILD"/tests/*/*_mpitest; do
    wanted "$test" "$BUILD" || continue
    for ranks in 1 2 3 4; do
        run "$name($ranks)" 120 env OMP_NUM_THREADS=1 "$SRC/scripts/mpi" "$ranks" "$test"
    done
done
for test in "$BUILD"/tests/*/*_test; do
    wanted "$test" "$BUILD" && run "$name" 300 "$test"
done
wait

passed=$(count passed) failed=$(count failed) skipped=$(count skipped)
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ $((passed + failed)) -gt 0 ]
