#!/bin/bash
# Lost nodes: a whole one in mid-run, with and without requeue; and slurmd alone, whose job lives on while Slurm starts
# its second run: two attempts write at once, and the bytes are right.
. "$SRC/tests/slurm/lib.sh"
long_scoring

# begin NAME OPTIONS...: a job in $job that has finished some work units
begin() {
    job=$(submit score_shards.sbatch "${@:2}" -- $scoring --output $1 --shard 0/1)
    wait_until 40 units_in $1/$final.work 10 || quit "$1: no work units: $(cat $job.log)"
}

begin lost --nodes=2 --nodelist=n1,n2
kill_node n2
wait_until 40 sh -c "scontrol show job $job | grep -q 'Restarts=1'" || quit "lost node: $(state $job)"
scontrol update jobid=$job reqnodelist=
wait_until 60 is_state $job COMPLETED || quit "lost node: $(state $job) $(field $job Reason): $(tail -n 5 $job.log)"
same 'lost node' lost/$final.h5 reference/$final.h5

begin gone --no-requeue --nodelist=n3
kill_node n3
wait_until 40 is_state $job NODE_FAIL || quit "lost node, no requeue: $(state $job)"
[ "$(field $job ExitCode)" = 0:0 ] || fail "lost node, no requeue: exit code $(field $job ExitCode)"
[ -e gone/$final.h5 ] && fail "lost node, no requeue: it was too late, the scores are there"
start_node n3
start_node n2
wait_until 30 nodes_up || quit "the nodes did not come back: $(sinfo -N)"
job=$(submit score_shards.sbatch -- $scoring --output gone --shard 0/1)
wait_until 60 is_state $job COMPLETED || quit "submitted again: $(state $job): $(tail -n 5 $job.log)"
has_line $job.log 'were finished before; going on' 'submitted again'
same 'submitted again' gone/$final.h5 reference/$final.h5

# The first attempt must outlive the 8 s until Slurm gives its node up and 6 more until the second run: it is held in the
# middle by a stop of its ranks, and goes on when the second is in the middle too.
begin alone --nodelist=n4
kill_slurmd n4
ranks=$(for p in $(job_processes n4); do [ "$(cat "/proc/$p/comm")" = score_shards ] && echo "$p"; done)
[ "$(wc -w <<< "$ranks")" = 2 ] || fail "slurmd alone: the first attempt's ranks are not alive: '$ranks'"
kill -STOP $ranks
before=$(n_units alone/$final.work)
wait_until 40 restarted $job || quit "slurmd alone: $(state $job)"
scontrol update jobid=$job reqnodelist=
wait_until 40 started $job.log 1 || quit "slurmd alone: no second run: $(state $job) $(field $job Reason)"
wait_until 20 units_in alone/$final.work $((before + 5)) || quit "slurmd alone: the second run does not go on"
kill -CONT $ranks
kill -0 $ranks || fail "slurmd alone: the first attempt had ended"
wait_until 60 is_state $job COMPLETED || quit "slurmd alone: $(state $job): $(tail -n 5 $job.log)"
for rank in $ranks; do
    wait_until 30 sh -c "! kill -0 $rank" || quit "slurmd alone: the first attempt does not end"
done
grep -q 'run 0 exit 0' $job.log && fail "slurmd alone: the lost run says exit 0"
same 'slurmd alone' alone/$final.h5 reference/$final.h5
start_node n4
wait_until 30 nodes_up || quit "n4 did not come back: $(sinfo -N)"
finish
