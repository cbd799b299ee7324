#!/bin/sh
# The Makefile: users' flags are added to the needed ones, what is missing is named with its remedy, warnings stop no
# user's build. What would be run is looked at where that is enough: a build takes minutes.
set -u
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "not ok: $*"; failed=1; }
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS CPPFLAGS LDFLAGS LDLIBS

# would_run ARGUMENTS...: the lines that compile and link, in $work/compile and $work/link
would_run() {
    make -n -C "$SRC" B="$work/b" "$@" > "$work/log" 2>&1 || fail "make $*: $(tail -n 3 "$work/log")"
    grep -- ' -o .*obj/common/base/status\.o ' "$work/log" > "$work/compile" || fail "make $* compiles nothing"
    grep -- ' -o .*bin/verify ' "$work/log" > "$work/link" || fail "make $* links nothing"
}

# has FILE WHAT TEXT...: the lines of FILE hold each TEXT
has() {
    lines=$work/$1 what=$2
    shift 2
    for text in "$@"; do
        grep -qF -e " $text " "$lines" || fail "$what: no $text to $(basename "$lines")"
    done
}

# needed WHAT: what no build is without
needed() {
    has compile "$1" -fopenmp -std=c11 -MMD -D_GNU_SOURCE "-I$SRC/include"
    has link "$1" -fopenmp -ljansson -lxxhash
}

would_run
needed plain
grep -q -e '-Werror' "$work/log" && fail "plain make turns warnings into errors"
sed 's/-lhdf5_hl .*/-lhdf5_hl/' "$work/link" | grep -q -e '-lhdf5 ' && fail "-lhdf5 comes before -lhdf5_hl, which needs it"
would_run CFLAGS=-O3 CPPFLAGS=-DOTHER LDFLAGS=-Wl,-z,now LDLIBS=-lrt
needed "on the command line"
has compile "on the command line" -O3 -DOTHER
has link "on the command line" -Wl,-z,now -lrt
export CFLAGS=-O3 CPPFLAGS=-DOTHER LDFLAGS=-Wl,-z,now LDLIBS=-lrt
would_run
needed "in the environment"
has compile "in the environment" -O3 -DOTHER
has link "in the environment" -Wl,-z,now -lrt
unset CFLAGS CPPFLAGS LDFLAGS LDLIBS
for target in check asan ubsan; do
    would_run $target
    has compile "$target" -Werror
done

# refused TEXT ARGUMENTS...: the build says TEXT and what to do, and stops there
refused() {
    text=$1
    shift
    make -C "$SRC" B="$work/none" "$@" > "$work/log" 2>&1 && fail "make $*: exit code 0"
    grep -qF "make: not found: $text" "$work/log" || fail "make $*: no '$text' in: $(cat "$work/log")"
    grep -q "scripts/setup.sh" "$work/log" || fail "make $*: no remedy in: $(cat "$work/log")"
    [ "$(wc -l < "$work/log")" -le 5 ] || fail "make $*: says more: $(cat "$work/log")"
}
refused no-such-mpicc CC=no-such-mpicc
refused "mpi.h hdf5.h hdf5_hl.h cblas.h lapacke.h jansson.h xxhash.h" CPPFLAGS=-nostdinc

# MPICH's headers give warnings of their own
if command -v mpicc.mpich > /dev/null; then
    make -s -C "$SRC" CC=mpicc.mpich WERROR=-Werror B="$work/mpich" "$work/mpich/obj/common/engine/pipeline.o" > "$work/log" 2>&1 ||
        fail "with MPICH: $(tail -n 5 "$work/log")"
fi
exit $failed
