#!/bin/sh
# plan: what it says, refuses and names.
plan=$BUILD/bin/plan
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=1
failed=0

# expect CODE TEXT ARGUMENTS...: exit code, and a text in what plan says
expect() {
    code=$1 text=$2
    shift 2
    output=$("$plan" --quiet "$@" 2>&1)
    got=$?
    if [ $got -ne "$code" ] || ! printf '%s\n' "$output" | grep -qF -- "$text"; then
        printf 'plan %s: exit code %s (wanted %s), wanted "%s" in:\n%s\n' "$*" $got "$code" "$text" "$output"
        failed=1
    fi
}

# cluster NAME SED: the reference cluster's file, changed
cluster() {
    sed "$2" "$folder/good.json" > "$folder/$1.json"
}

cat > "$folder/good.json" <<'EOF'
{ "name": "two", "nodes": 2, "cores_per_node": 16, "ranks_per_node": 4, "memory_gb_per_node": 64, "network_gb_s": 10,
  "disk_gb_s": 2, "scratch": false, "profile": {
  "threads": 4, "flop_s": 6e-12, "operand_s": 1e-10, "result_s": 1e-10, "call_s": 1e-6, "attention_flop_s": 1e-11,
  "attention_pair_s": 2e-10, "element_s": 1e-10, "activation_s": 3e-10, "logit_s": 3e-10, "sampled_s": 1e-10,
  "widened_s": 1e-10, "squared_s": 2e-10, "dot_s": 2e-10, "serial_s": 5e-10, "ranked_s": 5e-9, "eigen_cube_s": 1e-10,
  "eigen_square_s": 1e-8, "subgrid_efficiency": 0.4, "publish_s": 0.01, "row_write_s": 3e-6, "write_byte_s": 1e-9,
  "read_byte_s": 5e-10, "hash_byte_s": 1e-10, "message_s": 5e-6, "message_byte_s": 3e-10, "process_bytes": 5e7 } }
EOF

# what is printed
expect 0 'fit_factors:' --preset 810m
expect 0 'jobs/score_shards.sbatch --model MODEL' --preset 52b --sequences 10000000
expect 0 '[model.cluster]' --preset smollm2-135m --cluster "$folder/good.json"
expect 0 '8 data x 1 pipeline' --preset pythia-70m --pipeline 1 --cluster "$folder/good.json"
expect 0 '2 data x 4 pipeline' --preset pythia-70m --pipeline 4 --cluster "$folder/good.json"
expect 0 '"model": "pythia-1b"' --preset pythia-1b --json
# a prefilter: it is planned, and only its candidates are scored
filtered="--preset 810m --sequences 10000000 --prefilter 1000 --cluster $folder/good.json"
expect 0 '16 data x 1 pipeline' $filtered
expect 0 'jobs/prefilter.sbatch --tokens TOKENS --queries queries.h5 --output candidates.h5 --top 1000' $filtered
expect 0 '--output scores --candidates candidates.h5 ' $filtered
expect 0 '[model.prefilter]' $filtered
expect 2 '--stages prefilter: give --prefilter' --preset 810m --stages prefilter
# a comparison: memory goes with the candidates; of all sequences fewer ranks have room, or none has
compared="--preset 810m --sequences 100000000 --compare 8 --stages compare_scales --cluster $folder/good.json"
expect 0 '1 node x 16 ranks x 1 thread' $compared --prefilter 1000
expect 0 'sbatch --ntasks-per-node=16 jobs/compare_scales.sbatch --rankings RANKINGS' $compared --prefilter 1000
expect 0 '1 node x 2 ranks x 1 thread' $compared
expect 1 'compare_scales: a rank needs 105.7 GB and has 58.8 GB: nodes with more memory, or fewer candidates (--prefilter), will do' $compared --sequences 600000000
expect 2 '--stages compare_scales: give --compare' --preset 810m --stages compare_scales
score_flops() { "$plan" --quiet --json "$@" | python3 -c 'import json, sys
print({s["name"]: s["flops"] for s in json.load(sys.stdin)["stages"]}["score_shards"])'; }
python3 -c 'import sys; sys.exit(abs(100 * float(sys.argv[1]) / float(sys.argv[2]) - 1) > 0.01)' "$(score_flops $filtered)" \
    "$(score_flops --preset 810m --sequences 10000000 --cluster "$folder/good.json")" || { echo "1 % of the scores do not cost 1 %"; failed=1; }
# factors of another kind
expect 0 ' --preconditioner shampoo' --preset pythia-70m --preconditioner shampoo
expect 0 'preconditioner = "shampoo"' --preset pythia-70m --preconditioner shampoo
expect 2 '--preconditioner takes ekfac or shampoo, not "kfac"' --preset pythia-70m --preconditioner kfac
# a refined solve: each rank has its own queries' vectors and no pipeline; its products are counted (below, against runs)
small="--preset pythia-70m --cluster $folder/good.json --stages compress_queries --refine cg"
expect 0 ' --refine cg --refine-tokens TOKENS --refine-sequences 0:64 --refine-steps 5' $small
expect 0 'refine_sequences = "0:32"' $small --refine-sequences 32
expect 0 ' data x 1 pipeline' $small
expect 2 '--refine cg: each query is solved for by one rank' $small --pipeline 2
expect 0 ' data x 2 pipeline' --preset pythia-70m --cluster "$folder/good.json" --stages score_shards --refine cg --pipeline 2
stops() { "$plan" --quiet --json $small "$@" | python3 -c 'import json, sys; print(round(json.load(sys.stdin)["stages"][0]["stop_s"], 6))'; }
[ "$(stops --refine-steps 5)" = "$(stops --refine-steps 500)" ] || { echo "a stop waits for a solve"; failed=1; }
expect 2 '--refine takes none, cg or lissa, not "newton"' --preset pythia-70m --refine newton
# more nodes than an array may have elements
cluster wide 's/"nodes": 2/"nodes": 2500/; s/"hash_byte_s": 1e-10/"hash_byte_s": 1e-16/'
expect 0 'SHARDS=2500 FIRST_SHARD=1000 sbatch --nodes=1' --preset pythia-70m --pipeline 1 --sequences 100000000 --cluster "$folder/wide.json"
expect 0 '--array=0-499 ' --preset pythia-70m --pipeline 1 --sequences 100000000 --cluster "$folder/wide.json"

# training
train="--stages train_models --preset pythia-70m --train-sequences 1000000"
expect 0 '2 nodes x 4 ranks x 32 threads = 8 data x 1 pipeline' $train
expect 0 '31250 units' $train
expect 0 'jobs/train_models.sbatch --config CONFIG --tokens TOKENS --heldout HELDOUT' $train --heldout-sequences 100
expect 0 '[train]' $train --save-steps 100
expect 0 'save_steps = 100' $train --save-steps 100
expect 0 '16 data x 1 pipeline' $train --slices 16 --nodes 4 --ranks-per-node 4 --pipeline 4
expect 0 'restarts  ' $train --time-limit 1
expect 0 '"name": "train_models"' $train --json
expect 0 'fit_factors:' $train --stages fit_factors
expect 0 '--bank BANK --queries queries.h5 --subset SUBSETS' $train --bank 16 --slices 1
expect 0 '16 data x 1 pipeline' $train --bank 16 --slices 1
expect 0 'no checkpoints' $train --bank 16 --slices 1
expect 2 'more than the 2 models of a --bank' $train --bank 2 --ranks-per-node 4
expect 2 'not "train"' $train --stages train
expect 2 'are more than the 8 --slices of a step' $train --ranks-per-node 16
expect 2 '--optimizer takes adamw or sgd' $train --optimizer adam
expect 1 'fewer ranks_per_node may do' --stages train_models --preset 52b
# parts, the warning, restarts
fit="--preset 52b --fit-sequences 100000 --no-diagonal --unit-sequences 1600"
expect 0 'one in 115 min' $fit
expect 0 ' of work files and ' $fit
expect 0 '; no checkpoints' --preset pythia-70m
expect 0 'no checkpoints' $fit --checkpoint-minutes 0
expect 0 '--signal=B:USR1@598' $fit
expect 0 'warning_seconds = 598' $fit
expect 0 'restarts  2, of ' $fit --time-limit 24
expect 0 '--time=1440 ' $fit --time-limit 24
expect 0 '"restarts": 2.0' $fit --time-limit 24 --json
expect 2 '--time-limit 0.1 hours is no more than it takes to begin' $fit --time-limit 0.1
# other nodes than the file's
expect 0 '1 node x 2 ranks x 4 threads = 2 data x 1 pipeline' --preset pythia-70m --pipeline 1 --nodes 1 --ranks-per-node 2 \
    --cores-per-node 8 --cluster "$folder/good.json"
expect 2 '4 ranks on a node of 2 cores' --preset pythia-70m --cores-per-node 2 --cluster "$folder/good.json"
# a model of few positions
expect 0 'fit_factors:' --config "$SRC/tests/goldens/llama"
expect 2 'takes 32 positions' --config "$SRC/tests/goldens/llama" --sequence-tokens 64

# what is refused
expect 2 "did you mean smollm2-135m?" --preset smollm-135m
expect 2 'is required' --sequences 10
expect 2 'not both' --preset 52b --config "$folder"
expect 1 "$folder/absent/config.json" --config "$folder/absent/config.json"
expect 2 '--blocks takes a number' --preset 52b --blocks none
expect 2 '--weights takes bfloat16' --preset 52b --weights int8
expect 2 'has a prompt too' --preset 52b --query-tokens 8 --completion-tokens 8
expect 2 'takes 8192 positions' --preset 52b --sequence-tokens 10000
sed 's/"n_layer": *[0-9]*/"n_layer": 2147483647/' "$SRC/tests/goldens/gpt2/config.json" > "$folder/config.json"
expect 1 "$folder/config.json" --config "$folder/config.json"
sed 's/"n_embd": *[0-9]*/"n_embd": 2147483640/' "$SRC/tests/goldens/gpt2/config.json" > "$folder/config.json"
expect 1 'config.json' --config "$folder/config.json"
expect 2 'matches no module' --preset 52b --modules nothing
expect 2 'cannot be laid out in pipelines of 3: --pipeline' --preset pythia-70m --pipeline 3 --cluster "$folder/good.json"
expect 1 'does not fit 2 nodes: a rank needs' --preset 52b --cluster "$folder/good.json"
cluster small 's/"memory_gb_per_node": 64/"memory_gb_per_node": 10/'
expect 1 'GB: --pipeline' --preset pythia-1b --no-diagonal --blocks 8 \
    --pipeline 1 --cluster "$folder/small.json"
expect 1 'absent.json": No such file' --preset 52b --cluster "$folder/absent.json"
cluster bad 's/"nodes": 2/"nodes": "two"/'
expect 1 "$folder/bad.json: key \"nodes\" is not a whole number" --preset 810m --cluster "$folder/bad.json"
cluster bad 's/"serial_s"/"cereal_s"/'
expect 1 "$folder/bad.json: key \"cereal_s\" is not known" --preset 810m --cluster "$folder/bad.json"
cluster bad 's/"call_s": 1e-6, //'
expect 1 "$folder/bad.json: key \"call_s\" is missing" --preset 810m --cluster "$folder/bad.json"
cluster bad 's/"ranks_per_node": 4/"ranks_per_node": 40/'
expect 1 "key \"ranks_per_node\" is more than cores_per_node" --preset 810m --cluster "$folder/bad.json"
cluster bad 's/} }$/}/'
expect 1 "$folder/bad.json: no JSON object: line" --preset 810m --cluster "$folder/bad.json"
if "$BUILD/bin/calibrate" --output "$folder/good.json/x.json" 2> "$folder/err"; then
    echo "not ok: a cluster file in a file was written"
    failed=1
elif ! grep -q 'good.json' "$folder/err"; then
    echo "not ok: calibrate does not name what is no folder:"
    cat "$folder/err"
    failed=1
fi

exit $failed
