#!/bin/bash
# run.sh BUILD [PATTERN]: brings up a private Slurm of four nodes on this machine and runs *_slurm.sh in it, one after
# another. The last line is "N passed, M failed, K skipped"; exits 1 if any failed, 77 if all were skipped.
# All of it runs in a PID namespace that ends with this script, however that ends: no daemon or job outlives it.
build=${1:?usage: tests/slurm/run.sh BUILD [PATTERN]}
SRC=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=$(cd "$build" && pwd) || exit 1
BREGMAN_VENV=${BREGMAN_VENV:-$BUILD/venv}
BREGMAN_SCHEMA=$BUILD/share/schema.json
export SRC BUILD BREGMAN_VENV BREGMAN_SCHEMA
tests=()
for test in "$SRC"/tests/slurm/*_slurm.sh; do
    case $(basename "$test" _slurm.sh) in ${2:-*}) tests+=("$test") ;; esac
done

skip() {
    echo "tests/slurm: $*"
    echo "0 passed, 0 failed, ${#tests[@]} skipped"
    exit 77
}

if [ "${IN_TESTBED:-}" != yes ]; then
    BED=$(mktemp -d /tmp/slurm-XXXXXX) || exit 1          # short: sockets lie in it
    export BED
    . "$SRC/tests/slurm/testbed.sh"
    trap 'kill -KILL "$inside" 2> /dev/null; wait "$inside" 2> /dev/null; rm -rf "$BED"' EXIT
    trap 'exit 130' INT TERM HUP
    missing=$(bed_missing)
    [ -z "$missing" ] || skip "$missing is missing: install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
    [ "$(id -u)" = 0 ] && user= || user='--user --map-current-user --keep-caps'
    # shellcheck disable=SC2086
    namespaces="unshare $user --pid --fork --kill-child --mount --mount-proc"
    $namespaces unshare --mount --uts mount -t tmpfs tmpfs /dev/shm 2> /dev/null || skip 'this system allows no namespaces'
    IN_TESTBED=yes setpriv --pdeathsig KILL $namespaces "$0" "$@" < /dev/null &
    inside=$!
    wait "$inside"
    exit
fi

. "$SRC/tests/slurm/testbed.sh"
bed_configure
bed_up || { echo "0 passed, ${#tests[@]} failed, 0 skipped"; exit 1; }
"$BREGMAN_VENV/bin/python" "$SRC/tests/python/make_inputs.py" "$BED/in" || {
    echo "0 passed, ${#tests[@]} failed, 0 skipped"
    exit 1
}
passed=0 failed=0 skipped=0
for test in "${tests[@]}"; do
    name=$(basename "$test" _slurm.sh) start=$EPOCHREALTIME
    mkdir "$BED/$name"
    (cd "$BED/$name" && timeout -k 5 200 "$test") > "$BED/$name.output" 2>&1
    code=$?
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
    case $code in
    0) passed=$((passed + 1)) && echo "ok slurm/$name $seconds s" ;;
    77) skipped=$((skipped + 1)) && echo "skipped slurm/$name $seconds s: $(tail -n 1 "$BED/$name.output")" ;;
    *)
        failed=$((failed + 1))
        printf '%s\n' "FAILED slurm/$name $seconds s (exit code $code)" "$(sed 's/^/    /' "$BED/$name.output")"
        ;;
    esac
    scancel --user="$(id -un)"
    wait_until 20 sh -c '! squeue -h | grep -q .'
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
