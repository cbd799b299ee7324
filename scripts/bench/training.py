#!/usr/bin/env python3
"""Speed and memory of train_models, against this machine's own SGEMM rate and, where it is installed, a plain PyTorch loop.

    training.py [--build build] [--peer-python PYTHON] [--native-blas] [--steps 8] [--runs 1x2,2x1]

Both sides train the random 14M GPT-2 of run.py, float32, AdamW, the same number of sequences a step and a micro-batch,
in the same batches and on the same cores, in turns. A step's time is that of the steps after the first two. The losses
of the last run of each are left in BUILD/bench-training.csv and BUILD/bench-training-pytorch.csv, for training_figure.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import csv
import json
import shutil
import statistics
import subprocess
import tempfile

import numpy as np

import random_inputs
import run
from bregman.errors import UserError, run_main
from bregman.order import batches

GOAL_SGEMM, GOAL_SPEED, GOAL_MEMORY = 0.65, 1.3, 0.5
WARM_UP = 2  # as in train_peer.py
SEQUENCES, LENGTH, MICRO, RATE = 32, 256, 6, 1e-4  # of a step; tokens; sequences of a micro-batch


def parse_arguments():
    p = run.parser_of(__doc__, "torch and transformers")
    p.add_argument("--steps", type=int, default=8, help="of each side, from 4")
    p.add_argument("--repeat", type=int, default=2, help="times that every side runs")
    p.add_argument("--runs", default="1x2,2x1", help="RANKSxTHREADS,... of Bregman; PyTorch gets as many threads")
    args = p.parse_args()
    if args.steps < 4:
        p.error("--steps takes 4 or more: the first two are not counted")
    return args


def products(config, rows):
    """All products of a training's micro-batch: forward, backward, and the weights' gradients."""
    layers, n_layers, d = run.linear_layers(config)
    vocab, count = config["vocab_size"], {}

    def add(ops, m, n, k, times):
        key = f"{ops}:{m}:{n}:{k}"
        count[key] = count.get(key, 0) + times

    for n_out, n_in, _ in layers:  # a GPT-2's matrices are stored with inputs first
        add("NN", rows, n_out, n_in, n_layers)
        add("NT", rows, n_in, n_out, n_layers)
        add("TN", n_in, n_out, rows, n_layers)
    head_rows = max(1, min(rows, run.LOGITS_BYTES // (4 * vocab)))
    for ops, m, n, k in (("NT", head_rows, vocab, d), ("NN", head_rows, d, vocab), ("TN", vocab, d, head_rows)):
        add(ops, m, n, k, rows / head_rows)
    return count


def run_bregman(args, work, ranks, threads):
    """Seconds of a step, its GFLOP, peak bytes of all ranks together."""
    out = tempfile.mkdtemp(prefix="run-", dir=work)
    options = ["--model", f"{work}/gpt2", "--tokens", f"{work}/tokens.h5", "--output", out]
    options += ["--batch-tokens", str(SEQUENCES * LENGTH), "--slices", str(ranks), "--schedule", "constant"]
    options += ["--learning-rate", str(RATE), "--micro-batch-tokens", str(MICRO * (LENGTH - 1))]
    result = run.run_stage(args, work, ranks, threads, "train_models", options)
    with open(f"{out}/log.csv", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    shutil.copy(f"{out}/log.csv", os.path.join(args.build, "bench-training.csv"))
    shutil.rmtree(out)
    seconds = [int(s["tokens"]) / float(s["tokens_per_second"]) for s in steps]
    return {
        "seconds": statistics.mean(seconds[WARM_UP:]),
        "gflop": result["flops"] * 1e-9 / len(steps),
        "peak_bytes": sum(result["peak_rss_bytes"]),
        "blas": result["blas"],
        "losses": [float(s["loss"]) for s in steps],
    }


def run_peer(args, work, threads, kernel):
    command = [args.peer_python, os.path.join(run.HERE, "train_peer.py"), "--model", f"{work}/gpt2"]
    command += ["--tokens", f"{work}/tokens.npy", "--threads", str(threads), "--rate", str(RATE)]
    command += ["--sequences", str(SEQUENCES), "--micro", str(MICRO)]
    done = subprocess.run(command, capture_output=True, text=True, env=run.peer_environment(kernel))
    if done.returncode != 0:
        raise UserError(f"PyTorch failed: {(done.stderr.strip() or '(no message)').splitlines()[-1]}")
    result = json.loads(done.stdout.splitlines()[-1])
    with open(os.path.join(args.build, "bench-training-pytorch.csv"), "w", encoding="utf-8") as file:
        file.write("step,loss,tokens,heldout_loss\n")
        for step, loss in enumerate(result["losses"], 1):
            file.write(f"{step},{loss:.9g},{SEQUENCES * (LENGTH - 1)},\n")
    return result


def parameters(config):
    """N of 6 N FLOPs a token: the matrices that a token goes through."""
    layers, n_layers, d = run.linear_layers(config)
    return n_layers * sum(n_out * n_in for n_out, n_in, _ in layers) + config["vocab_size"] * d


def print_result(config, pair, ours, peer, sgemm):
    tokens = SEQUENCES * (LENGTH - 1)
    rate = 6e-9 * parameters(config) * tokens / ours["seconds"]
    print(f"\n{pair[0]} rank(s) x {pair[1]} thread(s): {ours['blas']}, SGEMM {sgemm:.1f} GFLOP/s at the model's shapes")
    print(f"{'':10} {'s/step':>8} {'tokens/s':>9} {'peak MiB':>9}")
    for name, side in (("Bregman", ours), ("PyTorch", peer)):
        if side:
            seconds, mib = side["seconds"], side["peak_bytes"] / run.MIB
            print(f"{name:10} {seconds:8.2f} {tokens / seconds:9.0f} {mib:9.0f}")
    if peer:
        apart = max(abs(a - b) / b for a, b in zip(ours["losses"], peer["losses"]))
        print(f"losses of {len(peer['losses'])} steps apart by {apart:.1e} at most")
    found = [("6 N FLOPs a token, fraction of the SGEMM rate", ">=", GOAL_SGEMM, rate / sgemm)]
    if peer:
        found.append(("speed over PyTorch's", ">=", GOAL_SPEED, peer["seconds"] / ours["seconds"]))
        found.append(("peak memory over PyTorch's", "<=", GOAL_MEMORY, ours["peak_bytes"] / peer["peak_bytes"]))
    for what, relation, goal, value in found:
        passed = value >= goal if relation == ">=" else value <= goal
        print(f"  {'pass ' if passed else 'SHORT'} {what}: {value:.2f} (goal {relation} {goal:.2f})")


def measure(args, work, pair, with_peer):
    with open(f"{work}/gpt2/config.json", encoding="utf-8") as file:
        config = json.load(file)
    ours, peers, rates = [], [], []  # losses are lists, the same in each repetition
    for _ in range(args.repeat):
        ours.append(run_bregman(args, work, *pair))
        rates.append(run.sgemm_rate(args, products(config, MICRO * (LENGTH - 1)), *pair))
        if with_peer:
            peers.append(run_peer(args, work, pair[0] * pair[1], run.kernel_of(ours[0]["blas"])))
    print_result(config, pair, run.medians(ours), run.medians(peers) if peers else None, statistics.median(rates))


def main():
    args = parse_arguments()
    run.apply_blas(args)
    print("training: the random 14M GPT-2 of the stages' bench")
    run.print_machine(run.machine())
    with_peer = run.peer_is_there(args.peer_python, "torch, transformers")
    if not with_peer:
        print(f"{args.peer_python} cannot import torch and transformers: Bregman alone is measured")
    work = tempfile.mkdtemp(prefix="bench-", dir=args.build)
    try:
        random_inputs.write_gpt2(f"{work}/gpt2")
        with open(f"{work}/gpt2/config.json", encoding="utf-8") as file:
            vocab = json.load(file)["vocab_size"]
        ids = random_inputs.random_tokens(args.steps * SEQUENCES, LENGTH, vocab, 3)
        steps = batches([LENGTH] * len(ids), SEQUENCES * LENGTH, 0, 1)
        np.save(f"{work}/tokens.npy", ids[[z for step in steps for z in step]])
        random_inputs.write_token_file(f"{work}/tokens.h5", ids)
        for pair in args.runs.split(","):
            measure(args, work, tuple(int(n) for n in pair.split("x")), with_peer)
    finally:
        shutil.rmtree(work, ignore_errors=True)


run_main(main)
