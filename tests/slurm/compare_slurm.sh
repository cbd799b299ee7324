#!/bin/bash
# A sweep of two scales from text to the page that compares them; a node is lost while one of the models is trained. The comparison
# has the bytes of --local's.
. "$SRC/tests/slurm/lib.sh"
PYTHONPATH=$SRC/tests/python "$python" - <<'END' || quit "no inputs"
import json, os, shutil, text_checks
text_checks.tiny_model("tokenizer")
shutil.copytree(text_checks.path("tokenizer"), "tokenizer")
shutil.rmtree(text_checks.FOLDER)
os.unlink("tokenizer/config.json")
with open("tokenizer/tokenizer_config.json", "w") as file:
    json.dump({"eos_token": "<eos>", "bos_token": "<eos>"}, file)
with open("corpus.jsonl", "w") as file:
    for i in range(24):
        file.write(json.dumps({"id": f"d{i}", "text": f"the band and hand number {i % 7} in the {'band' if i % 2 else 'hand'}"}) + "\n")
with open("queries.jsonl", "w") as file:
    for i, end in enumerate(("band", "hand")):
        related = {"other": ["d1", "d3"]}
        file.write(json.dumps({"id": f"q{i}", "prompt": "the ", "completion": end, "kind": "words", "related": related}) + "\n")
END
write_sweep() {     # FILE OUTPUT
    cat > "$1" << EOF
output = "$2"
[cluster]
ranks_per_node = 2
time = "10"
checkpoint_minutes = 0.001
[tokenize]
max_length = 32
[train]
tokenizer = "tokenizer"
batch_tokens = 64
slices = 4
[train.base]
model_type = "gpt2"
n_head = 2
n_positions = 32
layer_norm_epsilon = 1e-5
[train.sizes.small]
n_embd = 8
n_layer = 1
[train.sizes.large]
n_embd = 16
n_layer = 2
[train.sizes.large.train]
steps = 2500
[score]
layer_scores = true
[report]
show = 2
[compare]
top = 3
[compare.methods.dot]
preconditioner = "identity"
[[corpus]]
name = "words"
text = "corpus.jsonl"
[[queries]]
name = "two"
file = "queries.jsonl"
EOF
}
queue_empty() { [ "$(squeue -h | wc -l)" = 0 ]; }
write_sweep sweep.toml out
"$sweep" sweep.toml > first.out 2>&1 || quit "submit: $(cat first.out)"
wait_until 90 sh -c 'ls out/large/model/training.work/*.h5 > /dev/null 2>&1' || quit "no training: $(squeue; cat out/log/train--large.log)"
job=$(squeue -h -n train--large -o %A) node=$(squeue -h -n train--large -o %N)
[ -n "$node" ] || quit "the training has ended before its node was lost"
kill_node "$node"
wait_until 60 restarted "$job" || quit "the training does not begin again: $(state "$job")"
wait_until 150 queue_empty || quit "the queue does not empty: $(squeue; tail -n 5 out/log/*.log)"
start_node "$node"
wait_until 30 nodes_up || quit "$node did not come back: $(sinfo -N)"
"$sweep" sweep.toml --status > status.out || fail "status: $(cat status.out)"
[ "$(grep -c '100 %' status.out)" = "$(tail -n +2 status.out | wc -l)" ] || fail "not all is done: $(cat status.out)"
has_line status.out '^compare  *all  *two  *words  *done' 'status'
has_line out/log/train--large.log 'goes on after step' 'the training went on from what was kept'
[ -s out/compare/two/words/compare.html ] || fail "no page: $(tail -n 5 out/log/compare-report*.log)"
write_sweep here.toml here
"$sweep" here.toml --local --ranks 2 > local.out 2>&1 || quit "here: $(tail -n 3 local.out)"
same 'a comparison by Slurm and here' out/compare/two/words/compare.h5 here/compare/two/words/compare.h5
finish
