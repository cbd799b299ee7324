#!/bin/bash
# A bank as a Slurm array, whose elements share the trainings out among them; and a training that is requeued half-way, on two
# nodes: both leave what one undisturbed process does.
. "$SRC/tests/slurm/lib.sh"
training="--config $in/model --tokens $in/tokens.h5 --batch-tokens 64 --slices 4 --threads 1"
for i in 0 1 2 3; do seq $i 1 $((i + 30)) > subset-$i.txt; done
bank="$training --queries $in/queries.h5 --subset subset-0.txt subset-1.txt subset-2.txt subset-3.txt --seeds 1:3 --epochs 2"

array=$(submit train_models.sbatch --array=0-2 -- $bank --bank bank)
wait_until 120 gone $array || quit "the bank has not ended: $(squeue)"
for i in 0 1 2; do expect_state ${array}_$i COMPLETED "bank"; done
engine train_models $bank --bank here
"$python" - bank/bank.h5 here/bank.h5 <<'END' || fail "the array's bank is another"
import sys, h5py
one, other = (h5py.File(path) for path in sys.argv[1:])
assert one["query_loss"].shape == (4, 2, one["query"].shape[0])
for name in ("query_loss", "training_loss", "member/sequence", "seed"):
    assert (one[name][()] == other[name][()]).all(), name
END

long="$training --steps 6000 --learning-rate 1e-3 --checkpoint-minutes 0.001"
job=$(submit train_models.sbatch --nodes=2 -- $long --output trained)
wait_until 60 sh -c "ls trained/training.work/*.h5 > /dev/null 2>&1" || quit "nothing is kept: $(tail -n 5 $job.log)"
scontrol requeue $job
wait_until 30 restarted $job || quit "not requeued"
wait_until 300 is_state $job COMPLETED || quit "requeued: $(state $job): $(tail -n 5 $job.log)"
has_line $job.log 'goes on after step' 'the training goes on from its checkpoint'
engine train_models $long --output whole
cmp -s trained/model.safetensors whole/model.safetensors || fail "the requeued training's model is another"
same 'optimizer' trained/optimizer.h5 whole/optimizer.h5
finish
