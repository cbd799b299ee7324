#!/bin/sh
# How idle threads wait in a stage that was started by hand or by mpirun, and that a small model gives the same bytes
# with one thread and with two.
. "$SRC/tests/fault/lib.sh"
ldd "$BUILD/bin/fit_factors" | grep -q libgomp || { echo "not GNU's OpenMP"; exit 77; }
unset OMP_WAIT_POLICY GOMP_SPINCOUNT

spin_counts() { sed -n "s/.*GOMP_SPINCOUNT = '\([0-9]*\)'.*/\1/p"; }

# spins WANTED COMMAND...: the spin counts that OpenMP says it read, in every program that was started
spins() {
    wanted=$1
    shift
    cases=$((cases + 1))
    found=$(OMP_DISPLAY_ENV=verbose "$@" --version 2>&1 | spin_counts | sort -n | tr '\n' ' ')
    [ "$found" = "$wanted" ] || fail "$*: spin counts $found, not $wanted"
}

program=$BUILD/bin/fit_factors
by_default=$(OMP_DISPLAY_ENV=verbose LD_PRELOAD=vgpreload_none.so "$program" --version 2>&1 | spin_counts)
[ "$by_default" -gt 3000 ] || fail "under valgrind: spin count $by_default"
spins "3000 $by_default " "$program"
spins "3000 $by_default " sh -c "cd / && exec '$program' \"\$@\"" sh
spins "3000 3000 $by_default $by_default " "$SRC/scripts/mpi" 2 "$program"
spins "77 " env GOMP_SPINCOUNT=77 "$program"
spins "0 " env OMP_WAIT_POLICY=passive "$program"

# the arguments arrive as they were given, and the name in messages too
cases=$((cases + 1))
"$program" --output "a  b" --modle '' 2> "$work/err"
one_error 2 $? fit_factors "" "unknown option \"--modle\"" "arguments with spaces"

for threads in 1 2; do
    works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/f$threads" --threads $threads
    works compress_queries --model "$in/model" --factors "$work/f$threads" --queries "$in/queries.h5" \
        --output "$work/c$threads.h5" --threads $threads
done
same() {
    cases=$((cases + 1))
    "$python" "$SRC/tests/python/make_inputs.py" same "$1" "$2" || fail "$1 and $2"
}
same "$work/f1/index.h5" "$work/f2/index.h5"
same "$work/c1.h5" "$work/c2.h5"
finish
