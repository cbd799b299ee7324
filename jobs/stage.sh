# stage.sh - what all jobs/*.sbatch share: sourced by them, not run.
#
# Variables to export before sbatch, all optional:
#   BREGMAN           folder of this repository, or what holds jobs/ and scripts/ (default: where sbatch was called)
#   BREGMAN_BIN       folder of the stages' programs (BREGMAN/build/bin)
#   BREGMAN_SETUP     lines to run first, such as "module load openmpi hdf5"
#   BREGMAN_LAUNCH    what starts the ranks (srun -K1: a rank that fails ends the others, even before MPI_Init)
#   BREGMAN_REQUEUES  how often a job may put itself back into the queue (100)
#
# A job must be warned before its time limit (--signal=B:USR1@SECONDS) as early as its log says that a stop takes: 300 s, as
# in jobs/*.sbatch, may be too few for a large model in a deep pipeline. bregman-plan predicts it.
#
# A job reports its own status: its log has a line "== TIME job ... started" and one "== TIME job ... exit CODE" for each
# run. The code is what rank 0 ended with, as all ranks agree on it: srun's is that of the rank that was killed last, and
# 0 if the node is lost.
# Exit code 75 of a stage: it was asked to stop and keeps what it finished. The job goes back into the queue by itself;
# held there if a file named "stop" in the output's folder asked for it. After scancel it stays where it is.

bregman=${BREGMAN:-$SLURM_SUBMIT_DIR}
bin=${BREGMAN_BIN:-$bregman/build/bin}
this_job="job ${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID} run ${SLURM_RESTART_COUNT:-0}"
# a step does not inherit --cpus-per-task (Slurm 22.05 and newer)
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

say() { echo "== $(date -u +%Y-%m-%dT%H:%M:%SZ) $this_job $*"; }
finish() {     # finish CODE WHY
    say "exit $1${2:+: $2}"
    exit "$1"
}

# The folder that a stage's "stop" file would be in: that of --output.
stop_folder() {
    while [ $# -gt 1 ] && [ "$1" != --output ]; do shift; done
    case ${2:-} in
    *.h5) dirname "$2" ;;
    *) echo "${2:-.}" ;;
    esac
}

# back_to_queue VERB WHY: requeue or requeuehold this job; Slurm then ends this shell.
back_to_queue() {
    say "exit 75: $2"
    scontrol "$1" "$SLURM_JOB_ID" && sleep 120
    finish 75 "could not go back into the queue: submit again, finished work is kept"
}

# run COMMAND...: run it; its exit code in $code. The warning before the time limit reaches only this shell
# (--signal=B:USR1@...) and is passed on. SIGTERM, of scancel, reaches srun's ranks by itself, but not those of another
# launcher; it is passed on as SIGUSR1 too, as srun and mpirun end all ranks on SIGTERM.
run() {
    warned=no ended=no pid=
    trap 'warned=yes; [ -z "$pid" ] || kill -USR1 "$pid" 2> /dev/null' USR1
    trap 'ended=yes; [ -z "$pid" ] || kill -USR1 "$pid" 2> /dev/null' TERM
    "$@" &
    pid=$!
    [ "$warned$ended" = nono ] || kill -USR1 "$pid"
    wait "$pid"
    code=$?
    while kill -0 "$pid" 2> /dev/null; do      # a signal ends wait early
        wait "$pid"
        code=$?
    done
    trap - USR1 TERM
}

# What may be there on the machine that the job was submitted on, and not on this node: TMPDIR, which MPI cannot do
# without, and a user's runtime folder.
own_folders='if [ -n "${TMPDIR:-}" ] && ! { [ -d "$TMPDIR" ] && [ -w "$TMPDIR" ]; }; then
    [ "${SLURM_LOCALID:-0}" != 0 ] || echo "== TMPDIR=$TMPDIR: no folder of $(uname -n) to write into; /tmp instead" >&2
    export TMPDIR=/tmp
fi
[ -d "${XDG_RUNTIME_DIR:-/}" ] || unset XDG_RUNTIME_DIR'

# What every rank runs: the program; rank 0 then writes down its exit code. The traps keep this shell alive when a signal
# is sent to all processes of a step.
as_rank="trap : USR1 TERM
$own_folders"'
"$@"
code=$?
[ "${PMIX_RANK:-${PMI_RANK:-${SLURM_PROCID:-0}}}" != 0 ] || echo "$code" > "$0"
exit "$code"'

# set_up: what the user asks for first, then folders that are there
set_up() {
    eval "${BREGMAN_SETUP:-}" || finish 1 "the lines of BREGMAN_SETUP failed"
    eval "$own_folders"
}

# end_job PROGRAM ARGUMENTS...: with what it ended with, $code; what was asked to stop goes back into the queue
end_job() {
    local name=$1
    shift
    # 138: the request came before the stage could listen for it, and SIGUSR1 ended a rank
    [ "$warned$ended" != nono ] && [ "$code" = 138 ] && code=75
    [ "$code" = 0 ] && finish 0
    [ "$code" = 75 ] || finish "$code" "$name failed"
    [ "$ended" = no ] || finish 75 "told to end (scancel, requeue or preemption); finished work is kept"
    [ ! -e "$(stop_folder "$@")/stop" ] ||
        back_to_queue requeuehold "the file \"$(stop_folder "$@")/stop\" asks for it; remove it and scontrol release $SLURM_JOB_ID"
    [ "${SLURM_RESTART_COUNT:-0}" -lt "${BREGMAN_REQUEUES:-100}" ] ||
        finish 75 "in the queue ${SLURM_RESTART_COUNT} times already: is the time limit too short to get on?"
    back_to_queue requeue "warned of the time limit, finished work is kept; going on in a new allocation"
}

# run_stage PROGRAM ARGUMENTS...: run it on all ranks of this job
run_stage() {
    local stage=$1 program own_status
    shift
    say "started on ${SLURM_JOB_NODELIST:-this node}: $stage"
    set_up
    program=$bin/$stage
    [ -x "$program" ] || program=$bin/bregman-${stage//_/-}       # as installed
    [ -x "$program" ] || finish 1 "no program \"$bin/$stage\": set BREGMAN_BIN"
    own_status=${TMPDIR:-/tmp}/bregman-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}.status
    rm -f "$own_status"
    # shellcheck disable=SC2086
    run ${BREGMAN_LAUNCH:-srun -K1} sh -c "$as_rank" "$own_status" "$program" "$@"
    if [ -s "$own_status" ]; then
        code=$(cat "$own_status")
        rm -f "$own_status"
    elif [ "$code" = 0 ]; then
        finish 1 "$stage ended without a word of rank 0: its node was lost, or it is not on the node of this shell"
    fi
    end_job "$stage" "$@"
}

# run_script NAME ARGUMENTS...: one of scripts/ on this node
run_script() {
    local script=$bregman/scripts/$1 name=$1
    shift
    say "started on ${SLURM_JOB_NODELIST:-this node}: $name"
    set_up
    run "$script" "$@"
    end_job "$name" "$@"
}
