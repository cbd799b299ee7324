#!/usr/bin/env python3
"""What the start of a scoring job costs: 1,000 token files and a model of 4 GB, first and second start, 1 and 2 ranks.

    start_time.py BUILD [FOLDER]    BUILD: with bin/score_shards; FOLDER: for the inputs, 4 GB of them sparse

A file named stop ends each job where the scoring would begin.  Bytes are those of read calls, not of mapped files."""

from project import SCRIPTS  # first: it may start another interpreter

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
from bregman.files import TEXT, OutputFile, Run, append
from bregman.hashes import hash_model

FILES, D, LAYERS, VOCABULARY, STOPPED = 1000, 4096, 10, 256, 75


def write_model(folder):
    os.makedirs(folder)
    shapes = {"wte.weight": (VOCABULARY, D), "wpe.weight": (64, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for layer in range(LAYERS):
        for name, *shape in (
            ("ln_1", D),
            ("ln_2", D),
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, 4 * D),
            ("mlp.c_proj", 4 * D, D),
        ):
            shapes[f"h.{layer}.{name}.weight"] = tuple(shape)
            shapes[f"h.{layer}.{name}.bias"] = (shape[-1],)
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * int(np.prod(shape))]}
        at = header[name]["data_offsets"][1]
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(
            {
                "model_type": "gpt2",
                "n_embd": D,
                "n_head": 32,
                "n_layer": LAYERS,
                "n_positions": 64,
                "vocab_size": VOCABULARY,
                "layer_norm_epsilon": 1e-5,
            },
            file,
        )


def write_tokens(folder):
    os.makedirs(folder)
    paths = [f"{folder}/{i:04d}.h5" for i in range(FILES)]
    for i, path in enumerate(paths):
        with OutputFile(path, "bregman/tokens", Run("tokenize_corpus", {}, [("text", f"{i:032d}")])) as out:
            append(out.dataset("token"), np.arange(1280) % VOCABULARY)
            append(out.dataset("count"), np.full(40, 32))
    return paths


def write_compressed(path, model):
    with OutputFile(path, "bregman/compressed", Run("compress_queries", {}, [])) as out:
        file = out.file
        file.create_dataset("id", data=["q"], dtype=TEXT)
        for layer in range(LAYERS):
            for name, n_in, n_out in (("c_fc", D, 4 * D), ("c_proj", 4 * D, D)):
                at = f"transformer.h.{layer}.mlp.{name}"
                file[f"{at}/left"], file[f"{at}/right"] = np.ones((1, n_out, 1), "f4"), np.ones((1, n_in + 1, 1), "f4")
                file[f"{at}/kept"] = np.ones(1, "f4")
        file.attrs.update(
            model_hash=hash_model(model),
            queries_hash="0" * 32,
            tokenizer_hash="",
            factors_fingerprint="0" * 32,
            modules="mlp",
            preconditioner="ekfac",
            damping_factor=0.1,
        )


# Runs one rank and notes what it has read: a process has the bytes of its children that ended.
COUNTED = ["sh", "-c", '"$@"; code=$?; head -n 1 /proc/$$/io >> "$0"; exit $code']


def start(ranks, build, inputs, folder):
    model, compressed, tokens = inputs
    output = f"{folder}/scores"
    os.makedirs(output, exist_ok=True)
    open(f"{output}/stop", "w", encoding="utf-8").close()
    launcher = [] if ranks == 1 else [os.path.join(SCRIPTS, "mpi"), str(ranks)]
    log, began = f"{folder}/io", time.monotonic()
    done = subprocess.run(
        [
            *launcher,
            *COUNTED,
            log,
            f"{build}/bin/score_shards",
            "--quiet",
            "--model",
            model,
            "--queries",
            compressed,
            "--tokens",
            *tokens,
            "--output",
            output,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != STOPPED:
        sys.exit(f"exit code {done.returncode}: {done.stderr}")
    seconds = time.monotonic() - began
    with open(log, encoding="utf-8") as file:
        n_bytes = sum(int(line.split()[1]) for line in file)
    os.unlink(log)
    return seconds, n_bytes


def main():
    build, folder = sys.argv[1], tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None)
    os.environ.update(BREGMAN_HASH_CACHE=f"{folder}/hashes", OMP_NUM_THREADS="1")
    try:
        inputs = f"{folder}/model", f"{folder}/compressed.h5", write_tokens(f"{folder}/tokens")
        write_model(inputs[0])
        write_compressed(inputs[1], inputs[0])
        time.sleep(4)  # what has just been written is not remembered
        shutil.rmtree(f"{folder}/hashes", ignore_errors=True)
        for ranks in 1, 2:
            for name in "first", "second":
                seconds, n_bytes = start(ranks, build, inputs, folder)
                print(f"{ranks} ranks, {name} start: {seconds:.2f} s, {n_bytes / 1e6:.1f} MB read", flush=True)
            shutil.rmtree(f"{folder}/hashes", ignore_errors=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
