"""Inputs of the benches: a random GPT-2-type model, and random token and query files."""

import json
import os

import h5py
import numpy as np

TEXT = h5py.string_dtype("utf-8")


def gpt2_tensors(rng, d, n_layers, vocab, positions):
    """Name -> float32 array, initialised as GPT-2 is: normal with sd 0.02, residual outputs scaled down."""

    def normal(*shape, sd=0.02):
        return (sd * rng.standard_normal(shape)).astype(np.float32)

    tensors = {"transformer.wte.weight": normal(vocab, d), "transformer.wpe.weight": normal(positions, d)}
    residual_sd = 0.02 / np.sqrt(2 * n_layers)
    for layer in range(n_layers):
        at = f"transformer.h.{layer}."
        linear = {
            "attn.c_attn": (d, 3 * d, 0.02),
            "attn.c_proj": (d, d, residual_sd),
            "mlp.c_fc": (d, 4 * d, 0.02),
            "mlp.c_proj": (4 * d, d, residual_sd),
        }
        for name, (n_in, n_out, sd) in linear.items():
            tensors[at + name + ".weight"] = normal(n_in, n_out, sd=sd)
            tensors[at + name + ".bias"] = np.zeros(n_out, np.float32)
        for name in ("ln_1", "ln_2"):
            tensors[at + name + ".weight"] = np.ones(d, np.float32)
            tensors[at + name + ".bias"] = np.zeros(d, np.float32)
    tensors["transformer.ln_f.weight"] = np.ones(d, np.float32)
    tensors["transformer.ln_f.bias"] = np.zeros(d, np.float32)
    return tensors


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [offset, offset + x.nbytes]}
        offset += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for x in tensors.values():
            file.write(x.tobytes())


def write_gpt2(folder, d=384, n_layers=6, vocab=8192, positions=1024, seed=1):
    """A Hugging Face directory of about 14M parameters by default."""
    os.makedirs(folder, exist_ok=True)
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": d,
        "n_layer": n_layers,
        "n_head": d // 64,
        "n_positions": positions,
        "n_inner": 4 * d,
        "vocab_size": vocab,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    tensors = gpt2_tensors(np.random.default_rng(seed), d, n_layers, vocab, positions)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)


def random_tokens(n_sequences, length, vocab, seed):
    """Ids [n_sequences, length] with Zipf's frequencies."""
    p = 1.0 / np.arange(1, vocab + 1)
    return np.random.default_rng(seed).choice(vocab, (n_sequences, length), p=p / p.sum()).astype(np.uint32)


def write_token_file(path, ids, are_queries=False):
    """Ids as a token file, or as a query file whose completion is all but the first token."""
    n, length = ids.shape
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "bregman/queries" if are_queries else "bregman/tokens"
        file.attrs["format_version"] = np.uint64(1)
        file.attrs["tokenizer_hash"] = ""
        file["token"] = ids.reshape(-1)
        file["count"] = np.full(n, length, np.uint32)
        if are_queries:
            file["completion_start"] = np.ones(n, np.uint32)
            file.create_dataset("id", data=[f"query-{q}" for q in range(n)], dtype=TEXT)
