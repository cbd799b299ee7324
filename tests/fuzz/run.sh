#!/bin/bash
# run.sh BUILD SECONDS: build the fuzz targets in BUILD and run each for SECONDS.  What was found out about inputs stays in
# BUILD/corpus and is where the next run goes on from; an input that shows a fault stays in BUILD/findings, and the exit code is 1.
# The last line is "N passed, M failed, K skipped".
set -uo pipefail
build=${1:?usage: tests/fuzz/run.sh BUILD SECONDS} seconds=${2:?}
SRC=$(cd "$(dirname "$0")/../.." && pwd)
passed=0 failed=0 skipped=0

# report NAME CODE OUTPUT
report() {
    case $2 in
    0)  passed=$((passed + 1)); echo "ok fuzz/$1 $(grep -a 'stat::number_of_executed_units' "$3" | grep -o '[0-9]*$') inputs" ;;
    *)  failed=$((failed + 1)); echo "FAILED fuzz/$1 (exit code $2)"; sed 's/^/    /' "$3" | tail -n 60
        echo "    the input: $(grep -ao 'Test unit written to .*' "$3" | sed 's/.* to //' | tail -n 1)" ;;
    esac
}

build_targets() {
    OMPI_CC=clang MPICH_CC=clang make --no-print-directory -f "$SRC/Makefile" -C "$SRC" -j"$(nproc)" fuzzers B="$build" CC=mpicc ARCH= \
        OPT='-O1 -g' EXTRA='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -w'
}

if command -v clang > /dev/null && printf '#include <omp.h>\nint LLVMFuzzerTestOneInput(void) { return omp_in_parallel(); }' |
    clang -fopenmp -fsanitize=fuzzer,address -x c -o /dev/null - 2> /dev/null; then
    mkdir -p "$build"
    build=$(cd "$build" && pwd)
    build_targets || exit 1
    export UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    for source in "$SRC"/tests/fuzz/*_fuzz.c; do
        name=$(basename "$source" .c)
        mkdir -p "$build/corpus/$name" "$build/findings"
        "$build/tests/fuzz/$name" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -malloc_limit_mb=256 -len_control=0 \
            -max_len=1024 -print_final_stats=1 -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" \
            "$SRC/tests/fuzz/corpus/$name" > "$build/$name.output" 2>&1 < /dev/null
        report "$name" $? "$build/$name.output"
    done
else
    skipped=$((skipped + 1))
    echo "skipped fuzz: no clang with libFuzzer and OpenMP (Debian: clang libclang-rt-dev libomp-dev)"
fi
python=${BREGMAN_VENV:-$SRC/build/venv}/bin/python
if "$python" -c 'import h5py' 2> /dev/null; then
    mkdir -p "$build/findings"
    "$python" "$SRC/tests/fuzz/sweep_fuzz.py" "$seconds" "$build/findings" > "$build/sweep_fuzz.output" 2>&1
    report sweep_fuzz $? "$build/sweep_fuzz.output"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
