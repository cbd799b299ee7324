#!/bin/bash
# What all jobs share, without Slurm: folders of the machine that a job was submitted on need not be there on its node.
set -u
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "not ok: $*"; failed=1; }
for name in $(env | grep -oE '^(SLURM|PMI|PMIX)_[A-Z_0-9]*'); do unset "$name"; done
export BREGMAN=$SRC BREGMAN_BIN=$work SLURM_JOB_ID=7$$ SLURM_SUBMIT_DIR=$work BREGMAN_LAUNCH=env
printf '#!/bin/sh\necho "at work: TMPDIR=${TMPDIR-none}, XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR-none}"\nexit "${ENDS:-0}"\n' > "$work/stub"
chmod +x "$work/stub"
touch "$work/file"

# job CODE TMPDIR SAYS VARIABLES...: a stage's exit code and log; nothing is left behind
job() {
    local code=$1 folder=$2 says=$3
    shift 3
    env TMPDIR="$folder" XDG_RUNTIME_DIR=/nowhere/run "$@" bash -c '. "$BREGMAN/jobs/stage.sh"; run_stage stub --output x' > "$work/log" 2>&1
    [ $? = "$code" ] || fail "TMPDIR=$folder $*: not exit code $code: $(cat "$work/log")"
    grep -q "$says" "$work/log" || fail "TMPDIR=$folder $*: no '$says' in $(cat "$work/log")"
    grep -q "run 0 exit $code" "$work/log" || fail "TMPDIR=$folder $*: no exit code in $(cat "$work/log")"
    [ -z "$(find "$work" /tmp -maxdepth 1 -name "bregman-$SLURM_JOB_ID-*")" ] || fail "TMPDIR=$folder $*: a status is left behind"
}
job 0 /nowhere/of/the/login/node 'at work: TMPDIR=/tmp, XDG_RUNTIME_DIR=none'
grep -q '^== TMPDIR=/nowhere/of/the/login/node: no folder' "$work/log" || fail "nothing is said of it: $(cat "$work/log")"
job 3 /nowhere 'stub failed' ENDS=3
job 0 "$work/file" 'at work: TMPDIR=/tmp'
job 0 "$work" "at work: TMPDIR=$work,"
grep -q '^== TMPDIR' "$work/log" && fail "said of a good folder: $(cat "$work/log")"
job 0 "$work" 'at work: TMPDIR=/tmp' BREGMAN_SETUP='export TMPDIR=/nowhere'

# a rank on another node than the job's shell
job 0 "$work" 'at work: TMPDIR=/tmp' BREGMAN_LAUNCH='env TMPDIR=/nowhere'

# what the shell of a job is sent comes to its ranks as SIGUSR1, whatever launches them
printf '#!/bin/bash\ntrap "exit 75" USR1\n: > "$READY"\nfor ((i = 0; i < 600; i++)); do sleep 0.1; done\n' > "$work/stub"
for signal in TERM USR1; do
    rm -f "$work/ready"
    READY=$work/ready BREGMAN_REQUEUES=0 BREGMAN_LAUNCH="$SRC/scripts/mpi 1" bash -c '. "$BREGMAN/jobs/stage.sh"; run_stage stub --output x' > "$work/log" 2>&1 &
    shell=$!
    for ((i = 0; i < 600; i++)); do [ -e "$work/ready" ] && break; sleep 0.1; done
    kill -s "$signal" "$shell"
    wait "$shell"
    [ $? = 75 ] || fail "SIG$signal: not exit code 75: $(cat "$work/log")"
done

# a script that keeps what it has done goes back into the queue as a stage does; one that fails, or is told to end, does not
mkdir "$work/scripts" "$work/out"
script() { bash -c '. "$BREGMAN/jobs/stage.sh"; bregman=$BREGMAN_BIN; run_script stub CONFIG --output '"$work/out" > "$work/log" 2>&1; }
printf '#!/bin/sh\nexit "$ENDS"\n' > "$work/scripts/stub"
printf '#!/bin/sh\necho "scontrol $*"\nexit 1\n' > "$work/scontrol"
chmod +x "$work/scripts/stub" "$work/scontrol"
ended() { ENDS=$1 PATH=$work:$PATH script; [ $? = "$1" ] && grep -q "$2" "$work/log" || fail "a script that ends with $1: $(cat "$work/log")"; }
ended 0 'run 0 exit 0'
ended 1 'exit 1: stub failed'
ended 75 "scontrol requeue $SLURM_JOB_ID"
touch "$work/out/stop"
ended 75 "scontrol requeuehold $SLURM_JOB_ID"
rm "$work/out/stop"
BREGMAN_REQUEUES=0 ended 75 'is the time limit too short'

TMPDIR=/proc/nowhere "$SRC/scripts/mpi" 2 sh -c 'echo "TMPDIR=$TMPDIR"' > "$work/log" 2> "$work/err" || fail "mpi: $(cat "$work/err")"
[ "$(grep -c '^TMPDIR=/tmp$' "$work/log")" = 2 ] || fail "mpi: ranks got $(cat "$work/log")"
grep -q '^mpi: TMPDIR=/proc/nowhere: no folder' "$work/err" || fail "mpi says nothing: $(cat "$work/err")"
exit $failed
