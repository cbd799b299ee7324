#!/bin/bash
# A sweep of two models, end to end: submitted twice, some of it cancelled, submitted again; its rankings have the bytes
# of --local's. Then a stage that fails: what needs it does not run, and the table and the log say why.
. "$SRC/tests/slurm/lib.sh"
write_sweep() {     # FILE OUTPUT
    cat > "$1" << EOF
output = "$2"
[cluster]
ranks_per_node = 2
time = "10"
[fit]
nodes = 2
[score]
shards = 3
unit_sequences = 4
layer_scores = true
[merge]
top = 7
[report]
enabled = false
[[model]]
name = "good"
path = "$in/model"
[[model]]
name = "other"
path = "$in/other-weights"
cluster = { pipeline = 2, checkpoint_minutes = 0.0001 }
score = { shards = 2, nodes = 2 }
[[corpus]]
name = "words"
tokens = "$in/tokens.h5"
[[queries]]
name = "three"
file = "$in/queries.h5"
[[queries]]
name = "two"
file = "$in/queries-two.h5"
EOF
}
jobs_of_sweep() { squeue -h -r -o %k | grep -c '^bregman:'; }
queue_empty() { [ "$(squeue -h | wc -l)" = 0 ]; }

write_sweep sweep.toml out
# nothing starts yet: the queue can be looked at
for node in $nodes; do scontrol update nodename=$node state=drain reason=test; done
"$sweep" sweep.toml > first.out || quit "submit: $(cat first.out)"
n=$(jobs_of_sweep)
[ "$n" = 24 ] || fail "$n elements in the queue, not 24: $(squeue -r)"      # fit, 2 x (compress, shards, merge, explain)
"$sweep" sweep.toml > second.out || quit "submit again: $(cat second.out)"
[ "$(jobs_of_sweep)" = 24 ] || fail "submitting again doubled jobs: $(cat second.out)"
has_line second.out '^0 submitted, 24 in the queue before' 'submit again'
"$sweep" sweep.toml --dry-run > dry.out
grep -q sbatch dry.out && fail "the dry run would submit: $(cat dry.out)"
"$sweep" sweep.toml --status > status.out || fail "status: $(cat status.out)"
has_line status.out '^fit  *good .*queued' 'status'
has_line status.out '^score  *other .*waiting  *0/2' 'status'

# other options while jobs are in the queue: refused, not doubled
sed 's/top = 7/top = 8/' sweep.toml > changed.toml
"$sweep" changed.toml > changed.out 2>&1 && fail "a changed sweep was submitted beside the old one"
has_line changed.out 'with other options than this sweep file says: scancel' 'changed sweep'

# some of it is cancelled: what needs it is taken out of the queue by Slurm, and comes back with the next submission
scancel --name=compress--good--three
for node in $nodes; do scontrol update nodename=$node state=resume; done
wait_until 90 queue_empty || quit "the queue does not empty: $(squeue)"
[ -e out/good/three ] && [ -e out/good/three/words/ranking.h5 ] && fail "what needed the cancelled job ran"
[ -e out/other/three/words/ranking.h5 ] || fail "what did not need the cancelled job did not run"
"$sweep" sweep.toml > third.out || quit "after scancel: $(cat third.out)"
has_line third.out '^6 submitted, 0 in the queue before' 'after scancel'
wait_until 60 queue_empty || quit "the queue does not empty: $(squeue)"
"$sweep" sweep.toml --status > status.out || fail "status: $(cat status.out)"
[ "$(grep -c '100 %' status.out)" = 18 ] || fail "not all is done: $(cat status.out)"
"$sweep" sweep.toml > fourth.out
has_line fourth.out '^all done' 'when all is done'

write_sweep here.toml here
"$sweep" here.toml --local --ranks 3 > here.out || quit "--local: $(cat here.out)"
for model in good other; do
    same "$model: factors" out/$model/factors/index.h5 here/$model/factors/index.h5
    for queries in three two; do
        same "$model, $queries" out/$model/$queries/words/ranking.h5 here/$model/$queries/words/ranking.h5
    done
done

# a failing stage: a value of the weights is infinite
cp -r "$in/model" spoiled
cp "$in"/infinite-weight/*.safetensors spoiled/ || quit "no model with an infinite weight"
sed -e "s|$in/model|spoiled|" -e 's|"out"|"broken"|' sweep.toml > broken.toml
"$sweep" broken.toml > broken.out || quit "submit: $(cat broken.out)"
wait_until 90 queue_empty || quit "the queue does not empty: $(squeue)"
[ -e broken/good/three/compressed.h5 ] && fail "what needs the failed stage ran"
[ -e broken/other/three/words/ranking.h5 ] || fail "what does not need the failed stage did not run"
"$sweep" broken.toml --status > broken.status && fail "status: exit 0 though a stage failed"
has_line broken.status '^fit  *good .*failed .*fit_factors: error: ' 'status'
has_line broken.status '^compress  *good .*blocked .*by fit--good' 'status'
has_line broken.status '^explain  *other .*done' 'status'
has_line broken/log/fit--good.log 'exit 1: fit_factors failed' 'log'
ls broken/log | grep -q -- '--good--' && fail "there are logs of jobs that must not run: $(ls broken/log)"

# put right and submitted again, only what is missing runs
cp "$in"/model/*.safetensors spoiled/
"$sweep" broken.toml > mended.out || quit "submit: $(cat mended.out)"
has_line mended.out '^13 submitted' 'after a failure'
wait_until 90 queue_empty || quit "the queue does not empty: $(squeue)"
same 'mended' broken/good/three/words/ranking.h5 here/good/three/words/ranking.h5
finish
