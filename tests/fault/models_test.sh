#!/bin/sh
# Models that must be refused: damaged weights, a config.json that contradicts them, what is not supported.
. "$(dirname "$0")/lib.sh"

# bad MODEL FILE REASON
bad() {
    refused "$in/$1${2:+/}$2" "$3" fit_factors --model "$in/$1" --tokens "$in/tokens.h5" --output "$out"
}

bad truncated model.safetensors "truncated?"
bad oversized-header model.safetensors "header length"
bad overlap model.safetensors "tensor \"wpe.weight\" overlaps"
bad dtype model.safetensors "unknown dtype \"Q4\""
bad whole-numbers model.safetensors "tensor \"transformer.wte.weight\" is none of F64, F32, BF16 and F16"
bad empty-weights model.safetensors "too short"
bad no-weights "" "no model.safetensors"
bad pickled "" "bregman-bin-to-hf"
bad pickled-parts "" "bregman-bin-to-hf"
bad nan-weight model.safetensors "tensor \"h.1.mlp.c_fc.weight\" holds a NaN or infinity"
bad infinite-weight model.safetensors "tensor \"h.0.attn.c_attn.weight\" holds a NaN or infinity"
bad nan-bias model.safetensors "tensor \"transformer.h.0.ln_1.bias\" holds nan"

bad wider model.safetensors "tensor \"transformer.wte.weight\" is [32, 8], but config.json makes it [32, 16]"
bad larger-vocabulary model.safetensors "is [32, 8], but config.json makes it [33, 8]"
bad deeper "" "tensor \"transformer.h.2.ln_1.weight\" is missing"
bad odd-heads config.json "n_head"
bad no-heads config.json "n_head"
bad config-cut config.json "JSON"
bad no-config config.json "No such file"
bad activation config.json "quick_gelu"
bad family config.json "mamba"
bad rope config.json "yarn"
bad absent config.json "No such file"
bad many-blocks config.json "n_layer"
bad large-epsilon config.json "layer_norm_epsilon"
bad tied-and-wider model.safetensors "tensor \"lm_head.weight\" is [33, 8], but config.json makes it [32, 8]"
bad pointer-config.json config.json "is a Git LFS pointer"
bad pointer-model.safetensors model.safetensors "is a Git LFS pointer"

# the same check at the other stages
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
refused "$in/truncated/model.safetensors" "truncated?" \
    compress_queries --model "$in/truncated" --factors "$in/f" --queries "$in/queries.h5" --output "$out"
refused "$in/truncated/model.safetensors" "truncated?" inspect "$in/truncated"
finish
