#!/bin/sh
# PEFT adapters: the scores of the merged model, A and B as the only modules, and what must be refused.
. "$(dirname "$0")/lib.sh"

# score MODEL MODULES: $work/MODEL.scores/shard-00000-of-00001.h5
score() {
    name=$1-$2
    works fit_factors --model "$in/$1" --tokens "$in/tokens.h5" --output "$work/$name.f" --modules "$2"
    works compress_queries --model "$in/$1" --factors "$work/$name.f" --queries "$in/queries.h5" --rank full \
        --output "$work/$name.c.h5"
    works score_shards --model "$in/$1" --queries "$work/$name.c.h5" --tokens "$in/tokens.h5" --output "$work/$name.s"
}
# close_to NAME NAME: their scores agree but for rounding
close_to() {
    cases=$((cases + 1))
    "$python" - "$work/$1.s/shard-00000-of-00001.h5" "$work/$2.s/shard-00000-of-00001.h5" <<'END' || fail "$1 and $2 score differently"
import sys, h5py, numpy
a, b = (h5py.File(path)["score"][...] for path in sys.argv[1:])
assert a.shape == b.shape and numpy.abs(a).max() > 0
off = numpy.abs(a - b).max() / numpy.abs(b).max()
sys.exit(0 if off < 2e-4 else f"off by {off:.1e}")
END
}
apart() { (failed=0 && close_to "$@" && exit $failed) > "$work/stdout" 2>&1 && fail "$1 and $2 score alike"; }

for case in adapter:merged adapter-scaled:merged-scaled adapter-both-ends:merged-both-ends; do
    score "${case%:*}" all
    score "${case#*:}" all
    close_to "${case%:*}-all" "${case#*:}-all"
done
apart adapter-all adapter-scaled-all

# A and B alone: their gradients are c B' G and c G A', G being that of the merged model's weight (c = alpha / r = 2)
score adapter adapter
for name in adapter-adapter merged-all; do
    works compress_queries --model "$in/${name%-*}" --factors "$work/$name.f" --queries "$in/queries.h5" --rank full \
        --preconditioner identity --output "$work/$name.plain.h5"
done
cases=$((cases + 1))
"$python" - "$SRC/tests/python" "$work/merged-all.plain.h5" "$work/adapter-adapter.plain.h5" <<'END' || fail "gradients of A and B"
import sys
sys.path.insert(0, sys.argv[1])
import h5py, numpy, make_inputs

def gradient(file, name):
    return file[name]["left"][:].astype("f8") @ file[name]["right"][:].astype("f8").transpose(0, 2, 1)

adapter, n = make_inputs.lora(5), 0
with h5py.File(sys.argv[2]) as merged, h5py.File(sys.argv[3]) as found:
    for key, a in adapter.items():
        module = key[len("base_model.model."):-len(".lora_A.weight")]
        if not key.endswith(".lora_A.weight"):
            continue
        b, g = adapter[key.replace("lora_A", "lora_B")], gradient(merged, module)[:, :, : a.shape[1]]
        for part, want in (("A", 2 * b.T @ g), ("B", 2 * g @ a.T)):
            got = gradient(found, f"{module}.lora_{part}")
            assert got.shape == want.shape and numpy.abs(got - want).max() < 1e-4 * numpy.abs(want).max(), (module, part)
            n += 1
    assert n == 12 and len([name for name in found if "lora" in name]) == 12, n
END

# the model that a file was made from is the base and the adapter
refused "$in/adapter-other" "another model" compress_queries --model "$in/adapter-other" --factors "$work/adapter-all.f" \
    --queries "$in/queries.h5" --output "$out"
refused "$in/model" "another model" compress_queries --model "$in/model" --factors "$work/adapter-all.f" \
    --queries "$in/queries.h5" --output "$out"
works fit_factors --model "$in/adapter-by-path" --tokens "$in/tokens.h5" --output "$work/by-path"
cp -r "$in/adapter" "$in/adapter-moved"
works compress_queries --model "$in/adapter-moved" --factors "$work/adapter-all.f" --queries "$in/queries.h5" --output "$out"
cases=$((cases + 1))
c_hash=$("$BUILD/bin/inspect" --quiet "$in/adapter" | sed -n 's/^ *content *//p')
python_hash=$(PYTHONPATH=$SRC/scripts "$python" -c 'import sys; from bregman.hashes import hash_model; print(hash_model(sys.argv[1]))' "$in/adapter")
[ -n "$c_hash" ] && [ "$c_hash" = "$python_hash" ] || fail "hashes of the adapter: $c_hash and $python_hash"

"$BUILD/bin/inspect" --quiet --modules adapter "$in/adapter" > "$work/stdout" 2>&1
for text in "LoRA on 6 modules of $in/adapter/base" "12 of 22 modules are tracked" "parameters    2144"; do
    grep -qF "$text" "$work/stdout" || fail "inspect does not say '$text': $(cat "$work/stdout")"
done
"$BUILD/bin/plan" --quiet --config "$in/adapter" > "$work/stdout" 2>&1 || fail "plan: $(cat "$work/stdout")"
PYTHONPATH=$SRC/scripts "$python" - "$in/adapter" <<'END' || fail "where the tokenizer of an adapter is"
import os, sys
from bregman.hashes import model_file
assert model_file(sys.argv[1], "tokenizer.json") == os.path.join(sys.argv[1], "base", "tokenizer.json")
open(os.path.join(sys.argv[1], "tokenizer.json"), "w").close()
assert model_file(sys.argv[1], "tokenizer.json") == os.path.join(sys.argv[1], "tokenizer.json")
os.remove(os.path.join(sys.argv[1], "tokenizer.json"))
END

# bad CASE FILE REASON
bad() { refused "$in/adapter-$1${2:+/}$2" "$3" fit_factors --model "$in/adapter-$1" --tokens "$in/tokens.h5" --output "$out"; }
bad dora adapter_config.json "use_dora is not supported"
bad bias adapter_config.json "bias \"all\" is not supported"
bad type adapter_config.json "peft_type \"LOHA\" is not supported"
bad no-type adapter_config.json "\"peft_type\" is missing"
bad pissa adapter_config.json "init_lora_weights \"pissa_niter_4\" is not supported"
bad future adapter_config.json "use_what_is_not_known_yet is not supported"
bad rank adapter_model.safetensors "has rank 3, but"
bad no-alpha adapter_config.json "\"lora_alpha\" is missing"
bad alpha-text adapter_config.json "\"lora_alpha\" is not a number"
bad pattern adapter_config.json "an expression of Python's"
bad no-base adapter_config.json "ln -s FOLDER"
bad of-adapter base "is an adapter itself"
bad of-wider adapter_model.safetensors "an adapter of another base?"
bad no-B adapter_config.json "transformer.h.0.mlp.c_fc has no lora_B"
bad no-A adapter_config.json "transformer.h.0.mlp.c_fc has no lora_A"
bad strange adapter_model.safetensors "belongs to no linear module"
bad embedding "" "one of embedding and head"
bad none adapter_model.safetensors "holds no tensor"
bad nan adapter_model.safetensors "holds a NaN or infinity"
bad pickled "" "bregman-bin-to-hf"
bad cut adapter_model.safetensors "truncated?"
refused "$in/adapter" "cannot be trained" train_models --model "$in/adapter" --tokens "$in/tokens.h5" --output "$out"
misused "matches no module" fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out" --modules adapter
finish
