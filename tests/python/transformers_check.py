#!/usr/bin/env python3
"""What train_models leaves, opened by transformers: of every family a model is trained a little from random values, saved in
both types, and must load whole and lose on held-out sequences what the log says; its random values must be spread as
transformers' own.

    transformers_check.py BUILD        with a Python that has torch, transformers and h5py: make check-torch

Prints a line for each family; exits with 1 if any differs."""

import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import torch
import transformers

VOCAB, LENGTH, SEQUENCES = 64, 48, 64
LLAMA = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": VOCAB,
    "max_position_embeddings": LENGTH,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
}
SPECIAL = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "n_inner": 96, "layer_norm_epsilon": 1e-5}
NEO = {
    "hidden_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": LENGTH,
    "layer_norm_epsilon": 1e-5,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 9,
}
NEOX = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "rotary_pct": 0.5,
    "max_position_embeddings": LENGTH,
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
FAMILIES = {
    "gpt2": {**GPT2, **SPECIAL},
    "gpt_neox": {**NEOX, **SPECIAL},
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 9},
    "qwen2": {**LLAMA, "tie_word_embeddings": True, "pad_token_id": 3},
    "qwen3": {**LLAMA, "head_dim": 16},
    "olmo2": LLAMA,
    "starcoder2": {**LLAMA, "norm_epsilon": 1e-5, "tie_word_embeddings": True},
    "gpt_neo": {**NEO, **SPECIAL},
    "olmo": {**LLAMA, "clip_qkv": 1.0},
    "olmo3": {**LLAMA, "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]},
    "smollm3": {**LLAMA, "no_rope_layers": [1, 0], "pad_token_id": 3},
}
LIMIT = 1e-6  # of float32 losses
wrong = 0


def write_tokens(path, seed):
    """Sequences of a sparse Markov chain, which can be learnt."""
    chain = np.random.default_rng(1).dirichlet(np.full(VOCAB, 0.05), size=VOCAB)
    random = np.random.default_rng(seed)
    ids = np.zeros((SEQUENCES, LENGTH), np.uint32)
    for z in range(SEQUENCES):
        ids[z, 0] = random.integers(VOCAB)
        for t in range(1, LENGTH):
            ids[z, t] = random.choice(VOCAB, p=chain[ids[z, t - 1]])
    with h5py.File(path, "w") as file:
        file["token"] = ids.reshape(-1)
        file["count"] = np.full(SEQUENCES, LENGTH, np.uint32)
        file.attrs["tokenizer_hash"] = ""
    return ids.astype(np.int64)


def train(build, begin, work, output, *options):
    subprocess.run(
        [f"{build}/bin/train_models", *begin, "--tokens", f"{work}/tokens.h5", "--heldout", f"{work}/heldout.h5"]
        + ["--output", output, "--batch-tokens", "480", "--quiet", *options],
        check=True,
    )
    with h5py.File(f"{output}/log.h5") as file:
        return file["step/heldout_loss"][-1]


def load(folder):
    model, about = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    missing = [name for kind in about.values() for name in kind]
    return model.float().double().eval() if not missing else None, missing


def loss_of(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids[:, 1:]).flatten()).item()


def check(family, what, good, detail):
    global wrong
    wrong += not good
    print(f"{'ok    ' if good else 'not ok'} {family:10} {what}: {detail}")


def check_spread(build, family, config, work):
    """Mean squares of the random values, tensor by tensor, as those that transformers draws."""
    fresh = f"{work}/fresh"
    train(build, ["--config", f"{work}/config"], work, fresh, "--steps", "1", "--learning-rate", "0")
    mine = dict(load(fresh)[0].named_parameters())
    made = transformers.AutoConfig.for_model(**config)
    worst = 0.0
    for name, theirs in transformers.AutoModelForCausalLM.from_config(made).named_parameters():
        a, b = (x.detach().double().square().sum(-1).mean().item() for x in (mine[name], theirs))
        worst = max(worst, abs(a - b) / max(b, 1e-12) * theirs.numel() ** 0.5 if theirs.dim() > 1 else abs(a - b))
    check(family, "random values", worst < 8, f"deviations of mean squares up to {worst:.1f} of their own")
    if family not in ("gpt2", "gpt_neox") and made.pad_token_id is not None:
        row = mine["model.embed_tokens.weight"][made.pad_token_id]
        check(family, "padding row", not row.any(), "zeros")


def main():
    build = os.path.abspath(sys.argv[1])
    transformers.logging.set_verbosity_error()
    for family, config in FAMILIES.items():
        with tempfile.TemporaryDirectory() as work:
            write_tokens(f"{work}/tokens.h5", 2)
            ids = write_tokens(f"{work}/heldout.h5", 3)
            config = {"model_type": family, **config}
            os.makedirs(f"{work}/config")
            with open(f"{work}/config/config.json", "w", encoding="utf-8") as file:
                json.dump(config, file)
            for dtype in ("float32", "bfloat16"):
                said = train(build, ["--config", f"{work}/config"], work, f"{work}/{dtype}", "--save-dtype", dtype)
                model, missing = load(f"{work}/{dtype}")
                if missing:
                    check(family, dtype, False, f"does not load whole: {missing[:5]}")
                    continue
                if dtype == "bfloat16":  # rounded: measured again, by a step that changes nothing
                    again = ("--steps", "1", "--learning-rate", "0", "--weight-decay", "0")
                    said = train(build, ["--model", f"{work}/{dtype}"], work, f"{work}/again", *again)
                found = loss_of(model, ids)
                check(
                    family,
                    dtype,
                    abs(found - said) < LIMIT * said,
                    f"held-out loss {said:.6f}, by {abs(found - said):.0e}",
                )
            check_spread(build, family, config, work)
    sys.exit(wrong > 0)


main()
