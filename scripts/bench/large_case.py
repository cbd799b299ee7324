#!/usr/bin/env python3
"""A synthetic Llama of wide layers (d 8192, ff 28672, bfloat16, random weights) through fit, compress and score on this machine.

    large_case.py [--build build] [--folder build/large] [--layers 2] [--ranks 4] [--pipeline 2] [--blocks 8]
                  [--memory-limit 3600M] [--subgrid-side 3000] [--sequences 4] [--keep]

It shows that nothing on the way is quadratic where it must not be: the matrices of this model are 28672 wide, and a rank
holds one diagonal block of one of them, its own block of the model's sums or less (the rest lies on scratch), and a
micro-batch. Prints a table of seconds and peak memory for every phase (each rank's, with the mapped weights it touches)
and of the files' sizes. Needs about 45 GB of disk and half an hour on two cores.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import json
import shutil
import subprocess
import time

import numpy as np

from bregman import ROOT
from random_inputs import random_tokens, write_token_file

D, FF, HEADS, KV_HEADS, VOCAB = 8192, 28672, 64, 8, 32000
TOKENS_A_SEQUENCE, QUERIES = 129, 2


def tensors(layers):
    """{name: shape}, as transformers names them."""
    kv = D // HEADS * KV_HEADS
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,), "lm_head.weight": (VOCAB, D)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": (D,),
            at + "post_attention_layernorm.weight": (D,),
            at + "self_attn.q_proj.weight": (D, D),
            at + "self_attn.k_proj.weight": (kv, D),
            at + "self_attn.v_proj.weight": (kv, D),
            at + "self_attn.o_proj.weight": (D, D),
            at + "mlp.gate_proj.weight": (FF, D),
            at + "mlp.up_proj.weight": (FF, D),
            at + "mlp.down_proj.weight": (D, FF),
        }
    return shapes


def bfloat16(x):
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_model(folder, layers):
    """Weights drawn from a pool of normal numbers at random offsets: billions of them take a minute. Returns how many."""
    os.makedirs(folder, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": D,
        "intermediate_size": FF,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    shapes, header, at = tensors(layers), {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(1)
    pool = bfloat16(0.02 * random.standard_normal(1 << 24))
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            left = int(np.prod(shape))
            if len(shape) == 1:
                file.write(bfloat16(np.ones(left)).tobytes())
                continue
            while left > 0:
                start, n = int(random.integers(0, len(pool) // 2)), min(left, len(pool) // 2)
                file.write(pool[start : start + n].tobytes())
                left -= n
    return at // 2


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, f)) for folder, _, files in os.walk(path) for f in files)


class Runner:
    def __init__(self, a, model):
        self.a, self.model, self.rows = a, model, []
        self.launch = [os.path.join(ROOT, "scripts", "mpi"), str(a.ranks)]

    def stage(self, name, output, *arguments):
        timings = f"{self.a.folder}/{name}.json"
        command = [
            *self.launch,
            f"{self.a.build}/bin/{name}",
            "--model",
            self.model,
            "--output",
            output,
            *map(str, arguments),
            "--pipeline",
            str(self.a.pipeline),
            "--memory-limit",
            self.a.memory_limit,
            "--timings",
            timings,
        ]
        print("+", " ".join(command), flush=True)
        start = time.monotonic()
        subprocess.run(command, check=True)
        with open(timings, encoding="utf-8") as file:
            record = json.load(file)
        for phase in record["phases"]:
            self.rows.append((f"{name}: {phase['name']}", phase["seconds"], phase["peak_rss_bytes"]))
        self.rows.append((f"{name}, whole", time.monotonic() - start, record["peak_rss_bytes"]))
        return output

    def table(self):
        print("\n| stage and phase | seconds | peak memory of the ranks, GB | all ranks, GB |\n|---|---|---|---|")
        for name, seconds, peak in self.rows:
            print(f"| {name} | {seconds:.0f} | {', '.join(f'{x / 1e9:.1f}' for x in peak)} | {sum(peak) / 1e9:.1f} |")
        return max(sum(peak) for _, _, peak in self.rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("--folder", default="build/large")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--ranks", type=int, default=4)
    p.add_argument("--pipeline", type=int, default=2)
    p.add_argument("--blocks", type=int, default=8)
    p.add_argument("--memory-limit", default="3600M")
    p.add_argument("--subgrid-side", type=int, default=3000)
    p.add_argument("--sequences", type=int, default=4)
    p.add_argument("--keep", action="store_true", help="leave the files")
    a = p.parse_args()
    a.build, a.folder = os.path.abspath(a.build), os.path.abspath(a.folder)
    scratch, model = f"{a.folder}/scratch", f"{a.folder}/model"
    os.makedirs(scratch, exist_ok=True)
    parameters = write_model(model, a.layers)
    print(f"{parameters / 1e9:.2f} billion parameters, {size_of(model) / 1e9:.1f} GB in bfloat16", flush=True)
    tokens, queries = f"{a.folder}/tokens.h5", f"{a.folder}/queries.h5"
    if not os.path.exists(queries):  # else a run that was cut short goes on
        write_token_file(tokens, random_tokens(a.sequences, TOKENS_A_SEQUENCE, VOCAB, 1))
        write_token_file(queries, random_tokens(QUERIES, 33, VOCAB, 2), are_queries=True)

    run = Runner(a, model)
    factors = run.stage(
        "fit_factors",
        f"{a.folder}/factors",
        "--tokens",
        tokens,
        "--blocks",
        a.blocks,
        "--subgrid-side",
        a.subgrid_side,
        "--no-diagonal",
        "--unit-sequences",
        max(1, a.sequences // 2),
        "--scratch",
        scratch,
    )
    compressed = run.stage(
        "compress_queries", f"{a.folder}/compressed.h5", "--factors", factors, "--queries", queries, "--rank", 32
    )
    scores = run.stage(
        "score_shards", f"{a.folder}/scores", "--queries", compressed, "--tokens", tokens, "--unit-sequences", 2
    )
    most = run.table()
    for name, path in (("factors", factors), ("compressed queries", compressed), ("scores", scores)):
        print(f"{name}: {size_of(path) / 1e9:.2f} GB")
    print(f"most memory of all {a.ranks} ranks together, mapped weights counted in each: {most / 1e9:.1f} GB")
    if not a.keep:
        shutil.rmtree(a.folder)
    return 0 if most < 20e9 else 1


if __name__ == "__main__":
    sys.exit(main())
