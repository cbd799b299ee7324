#!/usr/bin/env python3
"""Predictions of the plan stage against measured runs: time, FLOPs, memory and disk of six small configurations.

Each is planned with a profile that calibrate has just measured with its own ranks and threads. --check runs smaller
models on more grids and exits 1 if memory or disk is off by more than 10 % or FLOPs by more than 1 %; times, which
depend on who else uses the machine, are never checked.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import tempfile

import numpy as np

import random_inputs
from bregman import ROOT
from bregman.errors import UserError, run_main

TIME, SIZE, FLOPS = 0.25, 0.10, 0.01
RANK = 16

# name: (kind of model, its sizes, tokens of a sequence, sequences, queries, ranks, threads, pipeline, options of the fit, and of a
# refined solve with the first sequences, if there is one)
BENCH = {
    "gpt2-1x1": ("gpt2", (384, 6, 8192), 257, 32, 8, 1, 1, 1, {}),
    "gpt2-2x1": ("gpt2", (384, 6, 8192), 257, 64, 16, 2, 1, 1, {}),
    "gpt2-1x2": ("gpt2", (384, 6, 8192), 257, 48, 8, 2, 1, 2, {"no-diagonal": True}),
    "gpt2-2threads": ("gpt2", (256, 6, 8192), 129, 96, 8, 1, 2, 1, {"modules": "all"}),
    "llama-1x1": ("llama", (320, 8, 4096), 129, 64, 8, 1, 1, 1, {"blocks": "2"}),
    "llama-1x2": ("llama", (320, 8, 4096), 193, 64, 16, 2, 1, 2, {"no-diagonal": True}),
}
CHECK = {
    "gpt2-1x1": ("gpt2", (192, 3, 1024), 65, 48, 8, 1, 1, 1, {}),
    "gpt2-1x3": ("gpt2", (192, 5, 1024), 129, 48, 8, 3, 1, 3, {"modules": "all", "blocks": "2"}),
    "llama-2x2": ("llama", (192, 4, 1024), 65, 48, 16, 4, 1, 2, {"no-diagonal": True}),
    "llama-1x1": ("llama", (256, 4, 2048), 129, 40, 9, 1, 2, 1, {"modules": "attention", "blocks": "2"}),
    "shampoo-2x1": ("gpt2", (128, 3, 1024), 257, 24, 8, 2, 1, 1, {"preconditioner": "shampoo", "blocks": "2"}),
    "cg-2x1": ("gpt2", (128, 2, 512), 65, 40, 8, 2, 1, 1, {"blocks": "2"}, ("cg", 21, 2)),
    "lissa-1x1": ("llama", (128, 2, 512), 65, 40, 8, 1, 1, 1, {"modules": "all"}, ("lissa", 12, 1)),
}
PHASES = {
    "train_models": ("training",),
    "fit_factors": ("covariance", "eigendecomposition", "eigenvalues"),
    "compress_queries": ("queries",),
    "score_shards": ("scores",),
    "merge_scores": (),
}


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="build folder: programs in BUILD/bin")
    p.add_argument("--check", action="store_true", help="smaller models; exit 1 if memory, disk or FLOPs are off")
    p.add_argument("--only", help="configurations to run, NAME,...")
    p.add_argument("--repeat", type=int, default=1, help="runs of each; medians are compared")
    p.add_argument("--json", help="write all figures to this file")
    return p.parse_args()


# ---------------------------------------------------------------- inputs


def write_llama(folder, d, n_layers, vocab):
    """A Llama-type model with grouped heads, random float32 weights."""
    heads, kv, hd, ff = d // 32, d // 64, 32, 8 * d // 3 // 16 * 16
    random = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,), "lm_head.weight": (vocab, d)}
    for i in range(n_layers):
        at = f"model.layers.{i}."
        for name, shape in {
            "self_attn.q_proj": (heads * hd, d),
            "self_attn.k_proj": (kv * hd, d),
            "self_attn.v_proj": (kv * hd, d),
            "self_attn.o_proj": (d, heads * hd),
            "mlp.gate_proj": (ff, d),
            "mlp.up_proj": (ff, d),
            "mlp.down_proj": (d, ff),
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
        }.items():
            shapes[f"{at}{name}.weight"] = shape
    tensors = {
        name: np.ones(s, np.float32) if len(s) == 1 else (0.02 * random.standard_normal(s)).astype(np.float32)
        for name, s in shapes.items()
    }
    os.makedirs(folder)
    random_inputs.write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    config = {
        "model_type": "llama",
        "hidden_size": d,
        "num_hidden_layers": n_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": hd,
        "intermediate_size": ff,
        "vocab_size": vocab,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def write_inputs(case, folder):
    kind, sizes, length, sequences, queries = case[:5]
    model = os.path.join(folder, "model")
    if kind == "gpt2":
        random_inputs.write_gpt2(model, *sizes)
    else:
        write_llama(model, *sizes)
    for name, n, seed in (("tokens", sequences, 3), ("queries", queries, 4), ("heldout", queries, 5)):
        ids = random_inputs.random_tokens(n, length, sizes[2], seed)
        random_inputs.write_token_file(os.path.join(folder, name + ".h5"), ids, name == "queries")


def training_options(case):
    """Of plan and of the stage: steps of 8 sequences, into a second epoch; measurements and a model on the way."""
    return [str(x) for x in ("--batch-tokens", 8 * case[2] + 5, "--steps", 9, "--eval-steps", 4, "--save-steps", 6)]


# ---------------------------------------------------------------- prediction


def run(args, ranks, stage, options, threads, may_fail=False):
    command = [
        os.path.join(ROOT, "scripts", "mpi"),
        str(ranks),
        os.path.join(args.build, "bin", stage),
        *options,
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    if done.returncode != 0 and not may_fail:
        raise UserError(f"{stage} failed: {done.stderr.strip() or '(no message)'}")
    return done.stdout


def listed(options):
    """{"blocks": "2", "no-diagonal": True} as arguments."""
    return [x for key, value in options.items() for x in ([f"--{key}"] if value is True else [f"--{key}", value])]


def refined(case, of_plan):
    """Options of compress_queries, or of its plan."""
    if len(case) < 10:
        return []
    kind, sequences, steps = case[9]
    return [
        "--refine",
        kind,
        "--refine-sequences",
        sequences if of_plan else f"0:{sequences}",
        "--refine-steps",
        str(steps),
    ]


def predict(args, case, folder, cluster):
    _, _, length, sequences, queries, _, threads, pipeline, fit = case[:9]
    options = [
        "--config",
        os.path.join(folder, "model"),
        "--weights",
        "float32",
        "--cluster",
        cluster,
        "--json",
        "--quiet",
        "--sequences",
        sequences,
        "--sequence-tokens",
        length,
        "--fit-sequences",
        sequences,
        "--lambda-sequences",
        sequences,
        "--queries",
        queries,
        "--query-tokens",
        length,
        "--rank",
        RANK,
        "--pipeline",
        pipeline,
        *listed({"blocks": "1", **fit}),
        *refined(case, True),
        "--stages",
        *PHASES,
        "--train-sequences",
        sequences,
        "--heldout-sequences",
        queries,
        *training_options(case),
    ]
    return json.loads(run(args, 1, "plan", [str(x) for x in options], threads))


def calibrate(args, ranks, threads, work):
    """A cluster file of this machine with so many ranks, measured now: other users of the machine come and go."""
    path, small = os.path.join(work, f"cluster-{ranks}-{threads}.json"), os.path.join(work, "cluster-1-1.json")
    if args.check and os.path.exists(small):  # sizes depend on the profile through process_bytes only
        with open(small, encoding="utf-8") as file:
            cluster = json.load(file)
        cluster.update(cores_per_node=ranks * threads, ranks_per_node=ranks)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(cluster, file)
    else:
        run(args, ranks, "calibrate", ["--output", path, "--quiet"], threads)
    return path


# ---------------------------------------------------------------- measurement


def size_of(path):
    """Bytes of a file or of all files under a folder."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(path) for name in names)


def stage_options(case, folder, out, limit=0):
    fit = dict(case[8])
    modules = fit.get("modules", "mlp")
    grid = ["--pipeline", str(case[7])]
    model = ["--model", os.path.join(folder, "model")]
    tokens, queries = os.path.join(folder, "tokens.h5"), os.path.join(folder, "queries.h5")
    return {
        "train_models": [
            "--config",
            os.path.join(folder, "model"),
            "--tokens",
            tokens,
            "--heldout",
            os.path.join(folder, "heldout.h5"),
            "--output",
            f"{out}/trained",
            *training_options(case),
        ],
        "fit_factors": [*model, "--tokens", tokens, "--output", f"{out}/factors", *listed(fit), *grid],
        "compress_queries": [
            *model,
            "--factors",
            f"{out}/factors",
            "--queries",
            queries,
            "--output",
            f"{out}/compressed.h5",
            "--rank",
            str(RANK),
            "--modules",
            modules,
            "--memory-limit",
            str(limit),
            *refined(case, False),
            *(["--refine-tokens", tokens] if refined(case, False) else []),
            *grid,
        ],
        "score_shards": [
            *model,
            "--queries",
            f"{out}/compressed.h5",
            "--tokens",
            tokens,
            "--output",
            f"{out}/scores",
            *grid,
        ],
        "merge_scores": ["--scores", f"{out}/scores", "--output", f"{out}/ranking.h5"],
    }


def work_files(args, case, folder):
    """Bytes of the fit's work files when all are there: a folder in the place of a factor file ends the fit just then."""
    out = tempfile.mkdtemp(prefix="work-", dir=folder)
    os.makedirs(f"{out}/factors/block-000.h5")
    run(
        args,
        case[5],
        "fit_factors",
        stage_options(case, folder, out)["fit_factors"] + ["--quiet"],
        case[6],
        may_fail=True,
    )
    size = size_of(f"{out}/factors/work")
    shutil.rmtree(out)
    return size


def measure(args, case, folder, limit):
    """{stage: timings, and bytes of its files}; limit: of compress_queries, which holds factors in what it leaves"""
    out = tempfile.mkdtemp(prefix="run-", dir=folder)
    found = {}
    for stage, options in stage_options(case, folder, out, limit).items():
        run(args, case[5], stage, [*options, "--timings", f"{out}/timings.json", "--quiet"], case[6])
        with open(f"{out}/timings.json", encoding="utf-8") as file:
            found[stage] = json.load(file)
        files = {
            "train_models": "trained",
            "fit_factors": "factors",
            "compress_queries": "compressed.h5",
            "score_shards": "scores",
            "merge_scores": "ranking.h5",
        }[stage]
        found[stage]["final_bytes"] = size_of(f"{out}/{files}")
    shutil.rmtree(out)
    return found


def compare(args, case, folder, plan):
    """Rows (what, kind, predicted, measured)."""
    limit = next(int(s["grid"]["memory_limit"]) for s in plan["stages"] if s["name"] == "compress_queries")
    runs = [measure(args, case, folder, limit) for _ in range(args.repeat)]
    rows = []

    def middle(get):
        return statistics.median(get(r) for r in runs)

    for stage in plan["stages"]:
        name = stage["name"]
        rows.append((name, "s", stage["seconds"], middle(lambda r: r[name]["seconds"])))
        rows.append((name, "final bytes", stage["final_bytes"], runs[0][name]["final_bytes"]))
        for i, phase in enumerate(PHASES[name]):
            mine = stage["phases"][i]
            theirs = [r[name]["phases"][i] for r in runs]
            rows.append((phase, "s", mine["seconds"], statistics.median(t["seconds"] for t in theirs)))
            peaks = [r[name] for r in runs] if name == "train_models" else theirs  # the most is held at its end
            rows.append(
                (
                    phase,
                    "peak bytes",
                    mine["peak_rss_bytes"],
                    statistics.median(max(t["peak_rss_bytes"]) for t in peaks),
                )
            )
            if mine["flops"] > 0:
                rows.append((phase, "FLOPs", mine["flops"], theirs[0]["flops"]))
    if args.check:  # it takes another fit
        fit = next(s for s in plan["stages"] if s["name"] == "fit_factors")
        rows.append(("fit_factors", "work bytes", fit["work_bytes"], work_files(args, case, folder)))
    rows.append(
        (
            "all stages",
            "s",
            sum(s["seconds"] for s in plan["stages"]),
            statistics.median(sum(s["seconds"] for s in r.values()) for r in runs),
        )
    )
    return rows


# ---------------------------------------------------------------- the table


def limit_of(what, kind, measured):
    """Relative error that is accepted, or None: only shown. Files and times next to nothing are not judged."""
    if kind == "s":
        return TIME if what == "all stages" else None
    if kind == "FLOPs":
        return FLOPS
    return SIZE if kind == "peak bytes" or measured > 2e5 else None


def text_of(kind, x):
    return f"{x:11.3f}" if kind == "s" else f"{x:11.4g}" if kind == "FLOPs" else f"{x / 1e6:9.2f}MB"


def print_rows(name, rows, with_times):
    missed = []
    print(f"\n{name}\n{'':<20} {'':<12} {'predicted':>11} {'measured':>11} {'error':>7}")
    for what, kind, predicted, measured in rows:
        error = predicted / measured - 1 if measured > 0 else 0.0
        limit = limit_of(what, kind, measured)
        short = limit is not None and abs(error) > limit
        if short and (with_times or kind != "s"):
            missed.append(f"{name}: {what}, {kind}: predicted {predicted:.4g}, measured {measured:.4g}")
        print(
            f"{what:<20} {kind:<12} {text_of(kind, predicted)} {text_of(kind, measured)} {100 * error:+6.1f}%"
            + (f"  over {100 * limit:.0f} %" if short else "")
        )
    return missed


def main():
    args = parse_arguments()
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files go
    cases = CHECK if args.check else BENCH
    chosen = args.only.split(",") if args.only else list(cases)
    for name in chosen:
        if name not in cases:
            raise UserError(f"--only: no configuration '{name}': there are {', '.join(cases)}")
    work = tempfile.mkdtemp(prefix="bench-plan-")
    report, missed = {}, []
    try:
        for name in chosen:
            folder = os.path.join(work, name)
            os.makedirs(folder)
            write_inputs(cases[name], folder)
            cluster = calibrate(args, cases[name][5], cases[name][6], work)
            rows = compare(args, cases[name], folder, predict(args, cases[name], folder, cluster))
            missed += print_rows(name, rows, not args.check)
            report[name] = rows
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for line in missed:
        print(f"{'not ok' if args.check else 'SHORT'}: {line}")
    print(
        f"\n{len(chosen)} configurations, {len(missed)} figures off: limits are memory and disk {100 * SIZE:.0f} %, "
        f"FLOPs {100 * FLOPS:.0f} %, time {100 * TIME:.0f} %"
    )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    if missed and args.check:
        raise UserError("predictions are off")


run_main(main)
