#!/bin/bash
# A real time limit, which Slurm looks at every 30 s: the job is warned, goes back into the queue and goes on.
. "$SRC/tests/slurm/lib.sh"
long_tokens long.h5 40000     # more than any machine scores in the minute
engine fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output factors
engine compress_queries --model "$in/model" --factors factors --queries "$in/queries.h5" --output compressed.h5
job=$(submit score_shards.sbatch --time=1 --signal=B:USR1@50 -- --model "$in/model" --queries compressed.h5 --tokens long.h5 \
    --unit-sequences 1 --threads 1 --output scores --shard 0/1)
wait_until 90 restarted $job || quit "not requeued: $(state $job): $(cat $job.log)"
has_line $job.log 'run 0 exit 75: warned of the time limit' 'first run'
wait_until 30 grep -q 'were finished before; going on' $job.log || quit "second run: $(tail -n 3 $job.log)"
scancel $job
finish
