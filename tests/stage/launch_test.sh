#!/bin/sh
# What the launcher says and does: tasks that MPI knows nothing of are refused, and too few CPUs are told.
. "$SRC/tests/fault/lib.sh"
for name in $(env | grep -oE '^(SLURM|PMI|PMIX|OMPI_COMM)_[A-Z_0-9]*'); do unset "$name"; done
unset OMP_NUM_THREADS

# alone TEXT VARIABLES...: every stage refuses to be a task that is alone in its MPI, before any work
alone() {
    text=$1
    shift
    for stage in "inspect $in/model" "verify $in" "plan --preset 810m" "merge_scores --scores $in --output $out" \
        "fit_factors --model $in/model --tokens $in/tokens.h5 --output $out"; do
        cases=$((cases + 1))
        rm -rf "$out"
        # shellcheck disable=SC2086
        env "$@" "$BUILD/bin/"$stage > "$work/stdout" 2> "$work/err"
        one_error 2 $? "${stage%% *}" "" "$text" "$* $stage"
        [ ! -s "$work/stdout" ] && [ ! -e "$out" ] || fail "$* $stage: worked before it refused"
    done
}
# goes VARIABLES...: a program started by hand is not such a task
goes() {
    cases=$((cases + 1))
    env "$@" "$BUILD/bin/inspect" "$in/model" > "$work/stdout" 2> "$work/err" || fail "$*: $(cat "$work/err")"
}
alone "started as task 0 of 3 (says SLURM_PROCID)" SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=3 SLURM_NTASKS=3 SLURM_PROCID=0
alone "started as task 2 of 3 (says SLURM_PROCID)" SLURM_NTASKS=3 SLURM_PROCID=2
alone "started as task 0 of 3 (says SLURM_PROCID)" SLURM_NTASKS=3 SLURM_PROCID=0
goes SLURM_JOB_ID=7 SLURM_NTASKS=8 SLURM_PROCID=0                                                  # in a batch script
goes SLURM_JOB_ID=7 SLURM_NTASKS=8                                                                 # in the shell of salloc
goes SLURM_JOB_ID=7 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=8 SLURM_NTASKS=8 SLURM_PROCID=0  # the same, on the node
goes SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=1 SLURM_PROCID=0           # srun -n 1
cases=$((cases + 1))
SLURM_NTASKS=8 SLURM_PROCID=0 "$SRC/scripts/mpi" 1 "$BUILD/bin/inspect" "$in/model" > "$work/stdout" 2> "$work/err" ||
    fail "mpirun -n 1 in a step of srun: $(cat "$work/err")"
if "${MPIRUN:-mpirun}" --version 2>&1 | grep -q 'Open MPI' && ldd "$BUILD/bin/inspect" | grep -q libmpi.so; then
    alone "started as task 0 of 4 (says PMI_RANK)" PMI_SIZE=4 PMI_RANK=0
    alone "started as task 1 (says PMIX_RANK)" PMIX_RANK=1
fi

# says TEXT COMMAND...: on stderr; nowhere where there is no taskset
says() {
    text=$1
    shift
    cases=$((cases + 1))
    "$@" > "$work/stdout" 2> "$work/err" || fail "$*: $(cat "$work/err")"
    grep -q -- "$text" "$work/err" || fail "$*: no '$text' in: $(cat "$work/err")"
}
if command -v taskset > /dev/null; then
    cpu=$(taskset -cp $$ | grep -oE '[0-9]+' | tail -n 1)
    says "warning: 2 threads on 1 CPU" taskset -c "$cpu" "$BUILD/bin/inspect" "$in/model" --threads 2
    says "1 rank x 1 thread," taskset -c "$cpu" "$BUILD/bin/inspect" "$in/model"
    grep -q "the launcher bound" "$work/err" && fail "a word of the launcher without one: $(cat "$work/err")"
    [ "$(nproc)" = 1 ] || says "warning: the launcher bound the 1 rank of this node to 1 of [0-9]* CPUs" env SLURM_NTASKS=1 SLURM_PROCID=0 \
        taskset -c "$cpu" "$BUILD/bin/inspect" "$in/model"
fi
# OpenMP binds the first thread to the first place: the others are the process's as well
says "1 rank x $(nproc) thread" env OMP_PROC_BIND=true OMP_PLACES=cores "$BUILD/bin/inspect" "$in/model"
finish
