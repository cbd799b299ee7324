#!/bin/sh
# run.sh BUILD [PATTERN]: run the tests built in BUILD, and the scripts among the tests; with a
# PATTERN (of the shell's case) only those whose path under tests/ (scripts/ for those in Python) matches it.
# A test that exits with 77 is skipped.  Exits 1 if any failed, or if none ran.
build=${1:?usage: tests/run.sh BUILD [PATTERN]}
pattern=${2:-*}
SRC=$(cd "$(dirname "$0")/.." && pwd)
BUILD=$(cd "$build" && pwd) || exit 1
BREGMAN_VENV=${BREGMAN_VENV:-$BUILD/venv}
export SRC BUILD BREGMAN_VENV
passed=0 failed=0 skipped=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
trap 'exit 130' INT TERM

# run NAME LIMIT_S COMMAND...
run() {
    name=$1 limit=$2
    shift 2
    start=$(date +%s.%N)
    timeout -k 10 "$limit" "$@" > "$output" 2>&1 < /dev/null
    code=$?
    seconds=$(echo "$(date +%s.%N) $start" | awk '{ printf "%.1f", $1 - $2 }')
    case $code in
    0)  passed=$((passed + 1)); echo "ok $name $seconds s" ;;
    77) skipped=$((skipped + 1)); echo "skipped $name $seconds s: $(tail -n 1 "$output")" ;;
    *)  failed=$((failed + 1)); echo "FAILED $name $seconds s (exit code $code)"
        sed 's/^/    /' "$output" ;;
    esac
}

# wanted FILE: it exists, is no folder, and its name under tests/ without ending matches
wanted() {
    [ -f "$1" ] || return 1
    name=${1#"$2"/tests/}
    name=${name#"$2"/scripts/}
    case ${name%.*} in $pattern) return 0 ;; esac
    return 1
}

for test in "$BUILD"/tests/*/*_test; do
    wanted "$test" "$BUILD" && run "$name" 300 "$test"
done
for test in "$BUILD"/tests/*/*_mpitest; do
    wanted "$test" "$BUILD" || continue
    mpi_name=$name
    for ranks in 1 2 3 4; do
        run "$mpi_name($ranks)" 120 "$SRC/scripts/mpi" "$ranks" "$test"
    done
done
for test in "$SRC"/tests/*/*_test.sh; do
    wanted "$test" "$SRC" && run "$name" 600 "$test"
done
python=$BREGMAN_VENV/bin/python
[ -x "$python" ] || python=python3
for test in "$SRC"/scripts/checks/*_test.py; do
    wanted "$test" "$SRC" && run "$name" 600 "$python" "$test"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ $((passed + failed)) -gt 0 ]
