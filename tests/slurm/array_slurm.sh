#!/bin/bash
# The jobs by hand: a chain with afterok, scores as arrays, a second query set's shards after the first one's (aftercorr).
. "$SRC/tests/slurm/lib.sh"
common="--model $in/model"
scoring="$common --tokens $in/tokens.h5 --output"
fit=$(submit fit_factors.sbatch -- $common --tokens "$in/tokens.h5" --output factors --threads 1)
compress=$(submit compress_queries.sbatch --nodes=2 --dependency=afterok:$fit -- $common --factors factors \
    --queries "$in/queries.h5" --output compressed.h5 --threads 1)
second=$(submit compress_queries.sbatch --dependency=afterok:$fit -- $common --factors factors \
    --queries "$in/queries-two.h5" --output second.h5 --threads 1)
score=$(submit score_shards.sbatch --array=0-5%2 --dependency=afterok:$compress -- $scoring scores --queries compressed.h5 --threads 1)
after=$(SHARDS=6 submit score_shards.sbatch --array=0-5 --dependency=afterok:$second,aftercorr:$score -- $scoring second --queries second.h5 --threads 1)
merge=$(submit merge_scores.sbatch --dependency=afterok:$score --ntasks-per-node=1 -- --scores scores --output ranking.h5 --threads 1)
explain=$(submit explain.sbatch --dependency=afterok:$merge -- $scoring scores --queries compressed.h5 --explain ranking.h5 --threads 1)

most=0
while ! gone $score; do
    now=$(squeue -h -r -t R,CG -j $score | wc -l)
    [ "$now" -le $most ] || most=$now
    sleep 0.1
done
[ $most -le 2 ] || fail "$most shards at a time, not 2"
wait_until 60 gone $explain,$after || quit "the chain has not ended: $(squeue)"
for job in $fit $compress $second $merge $explain; do expect_state $job COMPLETED "chain"; done
for i in 0 1 2 3 4 5; do
    expect_state ${score}_$i COMPLETED "array"
    expect_state ${after}_$i COMPLETED "aftercorr"
    [ -f second/shard-0000$i-of-00006.h5 ] || fail "no shard $i of the second set"
    [ "$(field ${after}_$i StartTime)" \< "$(field ${score}_$i EndTime)" ] && fail "element $i of aftercorr started too early"
done
has_line $fit.log 'exit 0' "status in the log"

engine fit_factors $common --tokens "$in/tokens.h5" --output here/factors
engine compress_queries $common --factors here/factors --queries "$in/queries.h5" --output here/compressed.h5
for i in 0 1 2 3 4 5; do engine score_shards $scoring here/scores --queries here/compressed.h5 --shard $i/6; done
engine merge_scores --scores here/scores --output here/ranking.h5
engine score_shards $scoring here/scores --queries here/compressed.h5 --explain here/ranking.h5
same 'factors' factors/index.h5 here/factors/index.h5
same 'explained ranking' ranking.h5 here/ranking.h5

# one element fails: only its partner is cancelled, and the log says why
score=$(SHARDS=3 submit score_shards.sbatch --array=1-3 -- $scoring third --queries compressed.h5 --threads 1)
after=$(submit score_shards.sbatch --array=1-3 --dependency=aftercorr:$score -- $scoring fourth --queries second.h5 --shard 0/1 --threads 1)
wait_until 60 gone $score,$after || quit "elements have not ended: $(squeue)"
expect_state ${score}_3 FAILED "shard 3 of 3"
has_line ${score}_3.log 'error: --shard' "shard 3 of 3"
has_line ${score}_3.log 'exit 2: score_shards failed' "own status"
expect_state ${score}_1 COMPLETED "the others"
expect_state ${after}_3 CANCELLED "partner of the failed one"
[ -e ${after}_3.log ] && fail "the partner of the failed element ran"
for i in 1 2; do [ -e ${after}_$i.log ] || fail "partner $i did not run"; done
finish
