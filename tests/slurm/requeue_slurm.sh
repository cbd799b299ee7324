#!/bin/bash
# In mid-run: the warning before the time limit, scontrol requeue, scancel and submit again, the stop file. Each time the
# job goes on from its work units, and the scores have the bytes of a run that nothing disturbed.
. "$SRC/tests/slurm/lib.sh"
long_scoring

# begin NAME: a job in $job that has finished some work units
begin() {
    job=$(submit score_shards.sbatch -- $scoring --output $1 --shard 0/1)
    wait_until 40 units_in $1/$final.work 30 || quit "$1: no work units: $(cat $job.log)"
}
# ends_well NAME: it completes, going on with what was there
ends_well() {
    wait_until 60 is_state $job COMPLETED || quit "$1: $(state $job): $(tail -n 5 $job.log)"
    has_line $job.log 'were finished before; going on' "$1"
    same "$1" $1/$final.h5 reference/$final.h5
}

begin warned
scancel --batch --signal=USR1 $job
wait_until 20 restarted $job || quit "warned: not requeued"
ends_well warned
has_line $job.log 'exit 75: warned of the time limit' 'warned'
has_line $job.log 'run 1 exit 0' 'warned'

begin requeued
scontrol requeue $job
wait_until 20 restarted $job || quit "requeued: not restarted"
ends_well requeued

begin cancelled
scancel $job
wait_until 30 gone $job
expect_state $job CANCELLED 'cancelled'
[ -e cancelled/$final.h5 ] && fail "cancelled: it was too late, the scores are there"
begin cancelled
ends_well cancelled

begin stopped
touch stopped/stop
wait_until 30 grep -q 'run 0 exit 75: the file' $job.log || quit "stopped: $(tail -n 3 $job.log)"
wait_until 20 sh -c "scontrol show job $job | grep -qi held" || quit "stopped: $(state $job) $(field $job Reason)"
rm stopped/stop
scontrol release $job
ends_well stopped
finish
