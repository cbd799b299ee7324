#!/bin/bash
# The first hour on a cluster: srun that does not speak this MPI's language, programs by hand in a job, a sweep from inside
# a job, and more shards than an array may have (11 here).
. "$SRC/tests/slurm/lib.sh"
inspect=$BUILD/bin/inspect

# every task is rank 0 of 1: all refuse. (Without a list of nodes Open MPI 4 does not look for srun itself; 5 never does.)
srun --mpi=none -n 3 --output=alone-%t.out --error=alone-%t.err env -u SLURM_NODELIST "$inspect" "$in/model" && fail "srun without PMIx: exit code 0"
for i in 0 1 2; do
    has_line alone-$i.err "error: started as task $i of 3 (says SLURM_PROCID), but alone" "task $i"
    [ -s alone-$i.out ] && fail "task $i worked before it refused: $(cat alone-$i.out)"
done
srun -n 3 "$inspect" "$in/model" > together.out 2> together.err || fail "srun with PMIx: $(cat together.err)"
has_line together.err '3 ranks x' 'srun with PMIx'

# by hand: in a batch script for 4 tasks, in the shell of salloc, as a step of one
cat > by_hand.sh << 'END'
#!/bin/bash
"$0" "$@" && mpirun -n 1 "$0" "$@" && srun --mpi=none -n 1 env -u SLURM_NODELIST "$0" "$@"
END
sed -i '2s/"$0"/"$inspect"/g; 2s/"$@"/"$in\/model"/g' by_hand.sh
inspect=$inspect in=$in sbatch --wait --ntasks=4 --output=batch.log by_hand.sh > batch.id
[ "$(grep -c '1 rank x' batch.log)" = 3 ] || fail "by hand in a batch script: $(cat batch.log)"
salloc -n 4 "$inspect" "$in/model" > salloc.log 2>&1 || fail "by hand in the shell of salloc: $(cat salloc.log)"

# a sweep from inside a job, which would bind its jobs to one CPU and more
cat > sweep.toml << END
output = "out"
[cluster]
ranks_per_node = 2
time = "10"
[score]
shards = 13
unit_sequences = 4
[merge]
top = 7
[report]
enabled = false
[[model]]
name = "m"
path = "$in/model"
[[corpus]]
name = "words"
tokens = "$in/tokens.h5"
[[queries]]
name = "q"
file = "$in/queries-two.h5"
END
SLURM_CPU_BIND=mask_cpu:0x1 SLURM_TRES_PER_TASK=cpu=1 SLURM_STEP_NUM_TASKS=8 SBATCH_NO_REQUEUE=1 \
    SQUEUE_STATES=RUNNING "$sweep" sweep.toml > first.out || quit "submit: $(cat first.out)"
has_line first.out 'score--m--q--words: submitted as [0-9]*, shards 0-9$' 'first array'
has_line first.out 'score--m--q--words: submitted as [0-9]*, shards 10-12$' 'second array'
SQUEUE_STATES=COMPLETED "$sweep" sweep.toml > second.out || quit "submit again: $(cat second.out)"
has_line second.out '^[01] submitted' 'submit again'    # one more if the fit ends just between two looks
wait_until 120 sh -c '! squeue -h | grep -q .' || quit "the queue does not empty: $(squeue)"
"$sweep" sweep.toml --status > status.out || fail "status: $(cat status.out)"
[ "$(grep -c '100 %' status.out)" = 5 ] || fail "not all is done: $(cat status.out)"
for i in 0 9 10 12; do has_line "out/log/score--m--q--words-$i.log" "wrote .*/shard-000$(printf %02d $i)-of-00013.h5" "log of shard $i"; done
[ "$(ls out/log | grep -c score)" = 13 ] || fail "logs of 13 shards: $(ls out/log)"
finish
