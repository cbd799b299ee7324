#!/usr/bin/env python3
"""The sweep files of jobs/ that are about models of others' sizes: with folders of such models, token files and queries they are
planned as they are, and their models have as many parameters as they say."""

import json
import os
import shutil
import subprocess
import tomllib

from engine_checks import BUILD, ROOT, check, finish
from sweep_checks import path, sweep, write, write_squeue
import text_checks

PYTHIA = {  # blocks, width, heads, width of the MLP, vocabulary, millions of parameters
    "70m": (6, 512, 8, 2048, 50304, 70),
    "160m": (12, 768, 12, 3072, 50304, 162),
    "410m": (24, 1024, 16, 4096, 50304, 405),
    "1b": (16, 2048, 8, 8192, 50304, 1012),
    "1.4b": (24, 2048, 16, 8192, 50304, 1415),
    "2.8b": (32, 2560, 32, 10240, 50304, 2775),
    "6.9b": (32, 4096, 32, 16384, 50432, 6857),
    "12b": (36, 5120, 40, 20480, 50688, 11846),
}
SCALES = {"810m": 810, "6b": 6400, "22b": 22000, "52b": 52000}  # millions of weights in the blocks, of the names


def copy(name):
    """The sweep file in the test's folder."""
    shutil.copy(os.path.join(ROOT, "jobs", name), path(name))


def prepare():
    write_squeue("exit 0\n")
    _, _, eos = text_checks.tiny_model("tokenizer", config={"vocab_size": 50304, "eos_token_id": 260})
    text_checks.write("document.jsonl", '{"text": "the band and the hand"}\n' * 8)
    folder = text_checks.path("tokenizer")
    done = text_checks.run(
        "tokenize_corpus", "document.jsonl", "--model", folder, "--output", text_checks.path("tokens")
    )
    check(done.returncode == 0 and eos == 260, "a token file", done.stderr)
    os.unlink(text_checks.path("tokenizer/config.json"))
    shutil.copytree(folder, path("tokenizer"))
    shutil.copytree(text_checks.path("tokens"), path("tokens"))
    write("queries/questions.jsonl", '{"id": "q", "prompt": "the", "completion": " band"}\n')


def write_pythia(name, shape):
    blocks, width, heads, mlp, vocabulary, _ = shape
    config = {"model_type": "gpt_neox", "num_hidden_layers": blocks, "hidden_size": width, "num_attention_heads": heads}
    config.update(intermediate_size=mlp, vocab_size=vocabulary, max_position_embeddings=2048, rotary_pct=0.25)
    config.update(layer_norm_eps=1e-5, tie_word_embeddings=False, use_parallel_residual=True)
    write(f"models/pythia-{name}/config.json", json.dumps(config))
    write(f"models/pythia-{name}/model.safetensors", "")
    shutil.copy(path("tokenizer/tokenizer.json"), path(f"models/pythia-{name}"))


def parameters(folder):
    command = [os.path.join(BUILD, "bin", "plan"), "--config", folder, "--json", "--quiet", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return json.loads(done.stdout)["parameters"] / 1e6 if done.returncode == 0 else done.stderr


def jobs(done):
    return [line.split("--job-name=")[1].split()[0] for line in done.stdout.splitlines() if "--job-name=" in line]


def planned(name, sizes, stages, losses):
    """Stages of each size, and at the end the comparison, which waits for all rankings."""
    done = sweep(name, "--dry-run")
    check(done.returncode == 0 and not done.stderr, f"{name}: planned, and warned early enough", done.stderr)
    for stage in stages:
        found = [job for job in jobs(done) if job.startswith(f"{stage}--")]
        check(len(found) == len(sizes), f"{name}: {stage} of each size", found)
    check(
        [job.split("--")[0] for job in jobs(done)[-2:]] == ["compare", "compare-report"],
        f"{name}: compared",
        jobs(done),
    )
    found = [job for job in jobs(done) if job.startswith("losses--")]
    check(len(found) == (len(sizes) if losses else 0), f"{name}: losses", found)
    compared = next(line for line in done.stdout.splitlines() if "--job-name=compare--" in line)
    check(all(f"/{size}/questions/" in compared for size in sizes), f"{name}: all sizes are compared", compared)
    said = "# compare--all--questions--"
    foretold = [line for line in done.stdout.splitlines() if line.startswith(said) and " predicted " in line]
    check(len(foretold) == 1 and ": 16 ranks of a node are predicted to take 0.2 GB each, and 1 min" in foretold[0],
          f"{name}: what the comparison takes", done.stdout)  # fmt: skip


def test_pythia():
    copy("pythia.toml")
    for name, shape in PYTHIA.items():
        write_pythia(name, shape)
        found = parameters(path(f"models/pythia-{name}"))
        check(abs(found - shape[-1]) < 0.01 * shape[-1], f"pythia-{name}: {shape[-1]} million parameters", found)
    planned("pythia.toml", PYTHIA, ("fit", "compress", "prefilter", "score", "merge", "explain", "report"), True)


def test_scales():
    copy("scales.toml")
    planned("scales.toml", SCALES, ("train", "fit", "compress", "score", "merge", "explain"), False)
    with open(path("scales.toml"), "rb") as file:
        train = tomllib.load(file)["train"]
    for name, size in SCALES.items():
        config = {**train["base"], **{k: v for k, v in train["sizes"][name].items() if not isinstance(v, dict)}}
        write(f"scales/{name}/config.json", json.dumps(config))
        found = parameters(path(f"scales/{name}"))
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        blocks = 12 * layers * width**2 / 1e6
        check(abs(blocks - size) < 0.02 * size, f"{name}: {size} million weights in the blocks", blocks)
        rest = config["vocab_size"] * width / 1e6
        check(abs(found - blocks - rest) < 0.01 * found, f"{name}: and the embedding", (found, blocks, rest))


prepare()
test_pythia()
test_scales()
finish(38)
