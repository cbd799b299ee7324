#!/bin/sh
# inspect on a small GPT-2 directory, on an HDF5 file of other origin, and on what it must refuse.
inspect=$BUILD/bin/inspect
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=1
failed=0

# expect CODE TEXT COMMAND...: exit code, and a text in the output
expect() {
    code=$1 text=$2
    shift 2
    output=$({ timeout -k 5 60 "$@" 2>&1; echo $? > "$folder/code"; } | head -n 100)
    got=$(cat "$folder/code")
    if [ $got -ne "$code" ] || ! printf '%s\n' "$output" | grep -qF -- "$text"; then
        printf '%s: exit code %s (wanted %s), wanted "%s" in:\n%s\n' "$*" $got "$code" "$text" "$output"
        failed=1
    fi
}

mkdir "$folder/model"
python3 - "$folder/model" <<'PYTHON' || exit 1
import json, struct, sys
d, ff, vocab = 8, 32, 16
shapes = {"wte.weight": [vocab, d], "wpe.weight": [4, d], "ln_f.weight": [d], "ln_f.bias": [d]}
for name, shape in {"ln_1.weight": [d], "ln_1.bias": [d], "ln_2.weight": [d], "ln_2.bias": [d],
                    "attn.c_attn.weight": [d, 3 * d], "attn.c_attn.bias": [3 * d],
                    "attn.c_proj.weight": [d, d], "attn.c_proj.bias": [d],
                    "mlp.c_fc.weight": [d, ff], "mlp.c_fc.bias": [ff],
                    "mlp.c_proj.weight": [ff, d], "mlp.c_proj.bias": [d]}.items():
    shapes["h.0." + name] = shape
header, at = {}, 0
for name, shape in shapes.items():
    n = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
    at += n
text = json.dumps(header).encode()
with open(sys.argv[1] + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + bytes(at))
with open(sys.argv[1] + "/config.json", "w") as f:
    json.dump({"model_type": "gpt2", "n_embd": d, "n_head": 2, "n_layer": 1, "n_positions": 4, "vocab_size": vocab,
               "layer_norm_epsilon": 1e-5}, f)
PYTHON

expect 0 'gpt2: layer norm, GELU (tanh) MLP, tied head' "$inspect" --quiet "$folder/model"
expect 0 'parameters    1048' "$inspect" --quiet "$folder/model"
expect 0 '2 of 6 modules are tracked (mlp)' "$inspect" --quiet "$folder/model"
expect 0 '32 x 9' "$inspect" --quiet "$folder/model"
expect 0 '4 of 6 modules are tracked (all)' "$inspect" --quiet --modules all "$folder/model"
expect 1 "\"$folder/absent\": No such file" "$inspect" --quiet "$folder/absent"
expect 1 "$folder/config.json" "$inspect" --quiet "$folder"
expect 1 "\"$folder/model/config.json\" is not an HDF5 file" "$inspect" --quiet "$folder/model/config.json"
expect 2 '--path is required' "$inspect" --quiet
goldens=$(cd "$(dirname "$0")/../goldens" && pwd)
expect 0 'gemma2: RMS norm before and after each layer, GELU (tanh) MLP (gated), tied head' "$inspect" --quiet "$goldens/gemma2"
expect 0 'window        9 positions, in 1 of 2 blocks, which rotate with theta 200' "$inspect" --quiet "$goldens/gemma3"
expect 0 'no rotation   in 1 of 2 blocks' "$inspect" --quiet "$goldens/smollm3"
mkdir "$folder/apertus"
cp "$goldens/apertus/config.json" "$folder/apertus"
sed 's/layers\.1\.mlp\.act_fn\.alpha_p/layers.1.mlp.act_fn.alpha_q/' "$goldens/apertus/model.safetensors" > "$folder/apertus/model.safetensors"
expect 1 'tensor "model.layers.1.mlp.act_fn.alpha_p" is missing' "$inspect" --quiet "$folder/apertus"
expect 0 'apertus      not trained apertus' "$inspect" --quiet --families
# each family has the models that it is said to be checked by, in the tests' own lists
"$inspect" --quiet --families | tail -n +3 | while read -r family trained cases; do
    [ "$trained" = not ] && cases=${cases#trained }
    for case in $(printf '%s' "$cases" | tr -d ,); do
        grep -q "\"model_type\": \"$family\"" "$goldens/$case/config.json" &&
            cat "$goldens"/../numeric/*_test.c | grep -q "\"$case\"" || printf '%s: %s is no test of it\n' "$family" "$case"
    done
done > "$folder/untested"
[ -s "$folder/untested" ] && cat "$folder/untested" && failed=1

if "$BREGMAN_VENV/bin/python" -c 'import h5py' 2>/dev/null; then
    "$BREGMAN_VENV/bin/python" - "$folder" <<'PYTHON' || exit 1
import sys, h5py, numpy
with h5py.File(sys.argv[1] + "/a.h5", "w") as f:
    f.attrs["format"] = "bregman/scores"
    f.attrs["format_version"] = 1
    f.create_group("run").attrs["stage"] = "score_shards"
    f["run/input_name"] = ["tokens.h5"]
    f["run/input_hash"] = ["0123"]
    score = f.create_dataset("g/score", data=numpy.zeros((3, 2), "f4"))
    score.attrs["units"] = "nats"
    score.attrs["description"] = "influence"
    f["g/loop"] = f["g"]
    f["lost"] = h5py.ExternalLink("gone.h5", "/x")
with h5py.File(sys.argv[1] + "/block-000.h5", "w") as f:
    f["m/lambda"] = numpy.zeros((3, 2), "f4")
    f["m/round"] = f["m"]
    f["m/out"] = h5py.ExternalLink("a.h5", "/g")
with h5py.File(sys.argv[1] + "/index.h5", "w") as f:
    f.attrs["format"] = "bregman/factors"
    f["m"] = h5py.ExternalLink("block-000.h5", "/m")
    f["n"] = h5py.ExternalLink("block-000.h5", "/m")
    f["gone"] = h5py.ExternalLink("block-001.h5", "/m")
    f["other"] = h5py.ExternalLink("a.h5", "/g")
# four links of every kind in a group that lead back to the root; groups as deep as they go
with h5py.File(sys.argv[1] + "/loops.h5", "w") as f:
    for name in "abcd":
        f["soft/" + name] = h5py.SoftLink("/")
        f["external/" + name] = h5py.ExternalLink("loops.h5", "/")
        f["hard/" + name] = f["/"]
    f["end"] = [1.0]
with h5py.File(sys.argv[1] + "/deep.h5", "w") as f:
    f["/".join("d" * 200)] = [1.0]
    f["end"] = [1.0]
# free space of size 0 in the heap where texts are
with open(sys.argv[1] + "/a.h5", "rb") as f:
    content = bytearray(f.read())
place = content.index(b"GCOL")
content[place + 16:place + 32] = bytes(16)
with open(sys.argv[1] + "/heap.h5", "wb") as f:
    f.write(content)
PYTHON
    expect 0 'g/score  float32 [3, 2] nats: influence' "$inspect" --quiet "$folder/a.h5"
    expect 0 'input            0123  tokens.h5' "$inspect" --quiet "$folder/a.h5"
    expect 0 'stage            score_shards' "$inspect" --quiet "$folder/a.h5"
    expect 0 'lost  -> /x of gone.h5' "$inspect" --quiet "$folder/a.h5"
    expect 0 'm/lambda  float32 [3, 2]' "$inspect" --quiet "$folder"    # a folder of factors: its index
    expect 0 'm/out  -> /g of a.h5' "$inspect" --quiet "$folder"
    expect 0 'm/round  is another name of a group above' "$inspect" --quiet "$folder"
    expect 0 'n  -> /m of block-000.h5' "$inspect" --quiet "$folder"
    expect 0 'gone  is missing or damaged' "$inspect" --quiet "$folder"
    expect 0 'other  -> /g of a.h5' "$inspect" --quiet "$folder"
    for text in 'soft/d  -> /' 'external/d  -> / of loops.h5' 'hard/d  is another name of a group above' 'end  float64 [1]'; do
        expect 0 "$text" "$inspect" --quiet "$folder/loops.h5"
    done
    expect 0 'd  is missing, damaged or nested too deep' "$inspect" --quiet "$folder/deep.h5"
    expect 0 'end  float64 [1]' "$inspect" --quiet "$folder/deep.h5"
    expect 1 "\"$folder/heap.h5\" is damaged: a heap of strings" "$inspect" --quiet "$folder/heap.h5"
    mkfifo "$folder/pipe"
    expect 1 "\"$folder/pipe\": it is a named pipe" "$inspect" --quiet "$folder/pipe"
    # where files cannot be locked: others keep theirs locked
    flock "$folder/a.h5" "$inspect" --quiet "$folder/a.h5" > /dev/null || { echo "inspect waits for or needs a lock"; failed=1; }
    head -c 1500 "$folder/a.h5" > "$folder/torn.h5"
    expect 1 "cannot read \"$folder/torn.h5\": truncated" "$inspect" --quiet "$folder/torn.h5"
fi
exit $failed
