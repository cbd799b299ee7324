# lib.sh - sourced by the tests of stages: inputs in $in, an output path $out, `works` and `refused`.
set -u
here=$SRC/tests/fault
python=$BREGMAN_VENV/bin/python
"$python" -c 'import h5py, numpy, xxhash' 2>/dev/null || { echo "no Python with h5py in $BREGMAN_VENV"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
in=$work/in out=$work/out
mkdir "$in"
"$python" "$SRC/tests/python/make_inputs.py" "$in" || exit 1
export OMP_NUM_THREADS=1
failed=0 cases=0
fail() { echo "not ok: $*"; failed=1; }

# run RANKS STAGE ARGS...: one rank without mpirun
run() {
    run_on=$1 executable=$BUILD/bin/$2
    shift 2
    if [ "$run_on" -eq 1 ]; then
        timeout -k 5 600 "$executable" --quiet "$@"
    else
        timeout -k 5 600 "$SRC/scripts/mpi" "$run_on" "$executable" --quiet "$@"
    fi
}

# relist FILE: its folder's MANIFEST lists it as it is now, as somebody does who keeps the manifest right
relist() {
    "$python" -c 'import os, sys, xxhash
content = open(sys.argv[1], "rb").read()
with open(os.path.join(os.path.dirname(sys.argv[1]), "MANIFEST"), "a") as manifest:
    manifest.write(f"{xxhash.xxh3_128_hexdigest(content)} {len(content)} {os.path.basename(sys.argv[1])}\n")' "$1" || exit 1
}

# works STAGE ARGS...: on one rank; what comes after needs it
works() {
    run 1 "$@" || { echo "not ok: exit code $?: $*"; exit 1; }
}

# no_remains FOLDER WHAT: nothing half done is left under it
no_remains() {
    remains=$(find "$1" -name '*.tmp-*' 2>/dev/null)
    [ -z "$remains" ] || fail "$2: left behind: $remains"
}

# one_error CODE GOT STAGE FILE REASON WHAT: what was said on $work/err
one_error() {
    line=$(grep "^$3: error: " "$work/err")
    if [ "$2" -ne "$1" ]; then
        fail "$6: exit code $2, not $1: $(head -c 600 "$work/err")"
    elif [ "$(grep -c "^$3: " "$work/err")" -ne 1 ] || [ -z "$line" ]; then
        fail "$6: not one line of error: $(cat "$work/err")"
    else
        case $line in *"$4"*) ;; *) fail "$6: does not name $4: $line" ;; esac
        case $line in *"$5"*) ;; *) fail "$6: does not say '$5': $line" ;; esac
    fi
}

# refused FILE REASON STAGE ARGS...: on one rank, and every third case on three, exit code 1, one line that names FILE and
# says REASON, and no output.  $out is removed before each.
refused() { refused_with 1 "$@"; }
# misused TEXT STAGE ARGS...: the same with exit code 2
misused() { refused_with 2 "" "$@"; }
refused_with() {
    code=$1 file=$2 reason=$3 stage=$4
    shift 4
    cases=$((cases + 1))
    for ranks in 1 $([ $((cases % 3)) -ne 1 ] || echo 3); do
        rm -rf "$out"
        run $ranks "$stage" "$@" > "$work/stdout" 2> "$work/err"
        one_error "$code" $? "$stage" "$file" "$reason" "$stage $* ($ranks ranks)"
        [ $ranks -ne 1 ] || [ "$(wc -l < "$work/err")" -le 1 ] || fail "$stage $*: more is said: $(cat "$work/err")"
        no_remains "$work" "$stage $*"
        final=$(find "$out" -name '*.h5' -not -path '*work/*' 2>/dev/null)
        [ -z "$final" ] || fail "$stage $*: wrote $final"
    done
}

# make_faults: what held needs
make_faults() { ${CC:-cc} -D_GNU_SOURCE -shared -fPIC -o "$work/fault.so" "$here/inject_fault.c" -ldl || exit 1; }

# held CALL PATTERN STAGE ARGS...: starts an attempt and waits until it is stopped before such a call; its process is $pid then
held() {
    call=$1 pattern=$2 executable=$BUILD/bin/$3
    shift 3
    rm -f "$work/log"
    FAULT_CALL=$call FAULT_PATH=$pattern FAULT_ACTION=SIGSTOP FAULT_LOG=$work/log LD_PRELOAD=$work/fault.so \
        "$executable" --quiet "$@" > "$work/held" 2>&1 &
    pid=$!
    for i in $(seq 1200); do
        grep -q '^State:[[:space:]]*T' "/proc/$pid/status" 2> /dev/null && return
        kill -0 $pid 2> /dev/null || break
        sleep 0.05
    done
    fail "$what: not stopped: $(cat "$work/held")"
}

ends_well() { [ "$1" -eq 0 ] || fail "$what: exit code $1: $(head -c 600 "$2")"; }

# goes_on: the held attempt, to its end
goes_on() {
    kill -CONT $pid
    wait $pid
    ends_well $? "$work/held"
}

# stopped STAGE ARGS...: asked to stop once its inputs are read, so that it does after its first units or micro-batches
stopped() {
    executable=$BUILD/bin/$1
    shift
    [ -e "$work/fault.so" ] || make_faults
    FAULT_CALL=rename FAULT_PATH='*/UNITS' FAULT_ACTION=SIGTERM LD_PRELOAD=$work/fault.so "$executable" --quiet "$@" 2> /dev/null
    code=$?
    [ $code -eq 75 ] || fail "not stopped but exit code $code: $executable $*"
}

# finish: the last line of a test
finish() {
    echo "$cases cases"
    exit $failed
}
