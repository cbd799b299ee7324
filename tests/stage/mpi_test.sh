#!/bin/bash
# scripts/mpi: what it does with signals, and its exit codes, on ranks that are shells.
# What a shell starts with & ignores SIGINT for good: this test begins anew without, and -m keeps its own jobs from it.
[ -n "${LISTENS:-}" ] || exec env --default-signal=INT LISTENS=yes "$0"
set -um
work=$(mktemp -d) || exit 1
export TMPDIR=$work
trap 'kill -KILL $(jobs -p) 2> /dev/null; rm -rf "$work"' EXIT
failed=0
fail() { echo "not ok: $*: $(cat "$work/log")"; failed=1; }

# until COMMAND...: it succeeds, tried for a minute
until_so() {
    local i
    for ((i = 0; i < 1200; i++)); do "$@" && return; sleep 0.05; done
    fail "never: $*"
}
n_files() { [ "$(find "$work" -name "$1" | wc -l)" = "$2" ]; }

# start RANKS SHELL-TEXT: ranks that run it after they have left a file ready-PID
start() {
    rm -f "$work"/ready-* "$work"/got-*
    # shellcheck disable=SC2016
    "$SRC/scripts/mpi" "$1" bash -c "$2"'
cd "$0" && : > ready-$$
for ((i = 0; i < 1200; i++)); do sleep 0.05; done' "$work" > "$work/log" 2>&1 &
    mpi=$!
    until_so n_files 'ready-*' "$1"
}
# ends CODE WHAT: and no rank is left
ends() {
    wait "$mpi"
    code=$?
    [ "$code" = "$1" ] || fail "$2: exit code $code, not $1"
    for rank in "$work"/ready-*; do until_so gone "${rank##*-}"; done
}
gone() { ! kill -0 "$1" 2> /dev/null; }

for launcher in mpirun mpirun.mpich; do
    command -v $launcher > /dev/null || continue
    export MPIRUN=$launcher
    "$SRC/scripts/mpi" 2 sh -c 'exit 3' > "$work/log" 2>&1
    [ $? = 3 ] || fail "$launcher: exit code of the ranks"
    [ "$(echo text | "$SRC/scripts/mpi" 1 cat)" = text ] || fail "$launcher: stdin"
    for signal in TERM INT HUP USR1; do
        start 2 'trap ": > $0/got-\$\$; exit 75" USR1'
        kill -s $signal $mpi
        ends 75 "$launcher, SIG$signal"
        n_files 'got-*' 2 || fail "$launcher, SIG$signal: not both ranks got SIGUSR1"
    done
    # ended by SIGUSR1 before they could listen
    start 2 ''
    kill $mpi
    ends 75 "$launcher, ranks that do not listen yet"
    # the second time there is no waiting, and an end by force is no stop
    start 2 'trap ": > $0/got-\$\$" USR1'
    kill -s INT $mpi
    until_so n_files 'got-*' 2
    kill -s INT $mpi
    wait $mpi
    case $? in 0|75) fail "$launcher, a second Ctrl-C: exit code 0 or 75" ;; esac
    for rank in "$work"/ready-*; do until_so gone "${rank##*-}"; done
    # whoever kills the script ends the ranks
    start 2 ''
    kill -s KILL $mpi
    wait $mpi 2> /dev/null
    for rank in "$work"/ready-*; do until_so gone "${rank##*-}"; done
done

# a command that ends at once, again and again: its exit code is not lost
printf '#!/bin/sh\n[ "$1" = --version ] || exit 3\n' > "$work/quick"
chmod +x "$work/quick"
for ((i = 0; i < 60; i++)); do
    MPIRUN=$work/quick "$SRC/scripts/mpi" 1 true > "$work/log" 2>&1
    [ $? = 3 ] || { fail "exit code of a command that ends at once"; break; }
done

# a request that comes before there are ranks: this launcher listens, and drops what comes before them, as mpirun does
cat > "$work/late" <<'END'
#!/bin/bash
[ "$1" = --version ] && exit
trap : USR1
: > "$LATE/ready-$$"
for ((i = 0; i < 20; i++)); do sleep 0.05; done
trap 'exit 75' USR1
for ((i = 0; i < 1200; i++)); do sleep 0.05; done
END
chmod +x "$work/late"
rm -f "$work"/ready-*
LATE=$work MPIRUN=$work/late "$SRC/scripts/mpi" 1 true > "$work/log" 2>&1 &
mpi=$!
until_so n_files 'ready-*' 1
kill $mpi
ends 75 "asked before there are ranks"
exit $failed
