#!/bin/sh
# Models whose config.json and weights do not quite agree, but that can be run: what is taken, and what is said.
. "$(dirname "$0")/lib.sh"

# fit MODEL WARNING...: factors in $work/MODEL; the warnings are all that is said, or nothing is
fit() {
    model=$1
    shift
    cases=$((cases + 1))
    timeout 60 "$BUILD/bin/fit_factors" --model "$in/$model" --tokens "$in/tokens.h5" --output "$work/$model" \
        2> "$work/err" || fail "fit_factors --model $model: $(cat "$work/err")"
    said=$(grep -c 'warning: .*/in/' "$work/err")
    [ "$said" -eq $# ] || fail "$model: not $# warnings: $(cat "$work/err")"
    for text in "$@"; do
        grep 'warning: ' "$work/err" | grep -qF -- "$text" || fail "$model: '$text' is not said: $(cat "$work/err")"
    done
}

same() { "$python" "$SRC/tests/python/make_inputs.py" same "$work/$1/index.h5" "$work/$2/index.h5"; }
# alike MODEL MODEL: the same factors
alike() { same "$1" "$2" || fail "$1 and $2 have other factors"; }

# a head of its own beside the embedding, or one of the two
fit model
fit untied
fit tied-and-other "ties the head to the embedding, but \"lm_head.weight\" differs from \"wte.weight\": not tied"
alike tied-and-other untied
same model untied > "$work/stdout" 2>&1 && fail "the head has no effect on the factors"
fit tied-and-equal
alike tied-and-equal model
fit head-alone
alike head-alone model

# weights that are not used
fit fewer-blocks "12 of 28 tensors are not used, for example \"h.1.attn.c_attn.bias\": config.json asks for 1 blocks"
fit buffers
alike buffers model
parameters() { "$BUILD/bin/inspect" --quiet "$in/$1" 2> "$work/err" | sed -n 's/^ *parameters *//p'; }
for case in model:2144 buffers:2144 tied-and-equal:2144 untied:2400 tied-and-other:2400 fewer-blocks:1272; do
    [ "$(parameters "${case%:*}")" = "${case#*:}" ] || fail "$case: $(parameters "${case%:*}") parameters: $(cat "$work/err")"
done
fit double "28 of 28 tensors are F64, for example \"h.0.attn.c_attn.bias\": narrowed to float32"
alike double model
fit odd-numbers
alike odd-numbers model

# a module whose gradients are all zero scores zero, whatever its damping is a multiple of
fit zero-projection
for options in "" "--damping-factor 10" "--rank 2" "--preconditioner kfac" "--preconditioner diagonal"; do
    rm -f "$out"
    cases=$((cases + 1))
    # shellcheck disable=SC2086
    timeout 60 "$BUILD/bin/compress_queries" --model "$in/zero-projection" --factors "$work/zero-projection" \
        --queries "$in/queries.h5" --output "$out" $options 2> "$work/err" ||
        fail "compress_queries $options: $(cat "$work/err")"
    grep -qF "warning: 1 of 4 modules score 0, for example transformer.h.1.mlp.c_fc" "$work/err" ||
        fail "compress_queries $options: the zero is not said: $(cat "$work/err")"
    "$python" - "$out" <<'END' || fail "compress_queries $options: what it wrote"
import sys, h5py, numpy
with h5py.File(sys.argv[1]) as f:
    for name in ("transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj"):
        product = f[name]["left"][:] @ f[name]["right"][:].transpose(0, 2, 1)
        assert numpy.isfinite(product).all() and (product != 0).any() == name.endswith("c_proj"), name
END
done

# a checkpoint of a training run, as train_models and as Hugging Face's trainer name them
mkdir "$in/run"
cp -r "$in/model" "$in/run/step-00000100"
cp -r "$in/other-weights" "$in/run/checkpoint-1250"
touch "$in/run/step-last" "$in/run/checkpoint-"
fit run@100
alike run@100 model
refused "$in/run" "no checkpoint of step 7: it has steps 100, 1250" \
    fit_factors --model "$in/run@7" --tokens "$in/tokens.h5" --output "$out"
refused "$in/model" "no checkpoint of step 100: it has no checkpoint" inspect "$in/model@100"
PYTHONPATH=$SRC/scripts "$python" - "$in" <<'END' || fail "the hash of a checkpoint"
import sys
from bregman.errors import UserError
from bregman.hashes import checkpoint_folder, hash_model
folder = sys.argv[1]
assert hash_model(f"{folder}/run@1250") == hash_model(f"{folder}/other-weights") != hash_model(f"{folder}/run@100") is not None
assert checkpoint_folder(f"{folder}/nowhere@3") == f"{folder}/nowhere@3"
try:
    sys.exit("found " + checkpoint_folder(f"{folder}/run@7"))
except UserError as error:
    assert "has no checkpoint of step 7: it has steps 100, 1250" in str(error), error
END
finish
