#!/usr/bin/env python3
"""Runs every stage on the models of tests/goldens and compares factors and scores with what make_goldens.py there stored.

    check_goldens.py --build build [--goldens tests/goldens] [--cases gpt2,llama] [--jobs 2] [--verbose]

All differences are relative to the reference's largest entry. The limits are those of float32 arithmetic: a
covariance 2e-6, corrected eigenvalues and scores 3e-5, truncated ones 1e-4. Weaker damping than the default (0.006 to
0.06 for these models) divides rounding errors by smaller numbers: 1e-4 with a damping of 1e-3, 2e-3 with one of 1e-8.
Exits 1 if any is exceeded. Other tests take Engine and the readers from here.
"""

from project import ROOT, SCRIPTS  # first: it may start another interpreter

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

COVARIANCE, SCORE = 2e-6, 3e-5
SCORE_VARIANT = {"_damping_1e-3": 1e-4, "_damping_1e-8": 2e-3, "_rank32": 1e-4, "_rank8": 1e-4}
# of the score variants a case has, those that its --rank and preconditioner options make differ
VARIANTS = {
    "": ["--rank", "full"],
    "_damping_1e-8": ["--rank", "full", "--damping", "1e-8"],
    "_damping_1e-3": ["--rank", "full", "--damping", "1e-3"],
    "_rank32": ["--rank", "32"],
    "_rank8": ["--rank", "8"],
    "_identity": ["--rank", "full", "--preconditioner", "identity"],
    "_diagonal": ["--rank", "full", "--preconditioner", "diagonal"],
    "_kfac": ["--rank", "full", "--preconditioner", "kfac"],
}
ALL_VARIANTS_OF = ("gpt2", "neox", "llama", "llama_ends", "gpt2_ends")  # the others: the first two
TOO_WEAK = "_damping_1e-8"  # of models with an embedding: most tokens are in no sequence: their curvature is this damping alone


# ---------------------------------------------------------------- files


def read_safetensors(path):
    """(tensors by name, metadata) of an F32/F64/I64 file."""
    types = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    return {
        name: np.frombuffer(data[slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
    }, metadata


def write_safetensors(path, tensors):
    """An F32 file."""
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(
            len(text).to_bytes(8, "little") + text + b"".join(x.astype("<f4").tobytes() for x in tensors.values())
        )


def write_tokens(path, sequences, completion_start=None):
    """A token file, or with completion_start a query file, as a user's own program might write it."""
    with h5py.File(path, "w") as file:
        file["token"] = np.concatenate(sequences).astype("u4")
        file["count"] = np.array([len(s) for s in sequences], "u4")
        file.attrs["tokenizer_hash"] = ""
        if completion_start is not None:
            file["completion_start"] = np.broadcast_to(completion_start, len(sequences)).astype("u4")
            file.create_dataset("id", data=[f"q{i}" for i in range(len(sequences))], dtype=h5py.string_dtype())
    return path


def sequences(golden, kind):
    """The golden's "train" or "query" sequences."""
    return np.split(golden[kind + "_token"], np.cumsum(golden[kind + "_count"])[:-1])


def relative(found, wanted):
    """Largest difference over the largest entry; infinite for NaN or another shape."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(wanted).max()
    return float(np.abs(found - wanted).max() / (scale if scale > 0 else 1.0))


# ---------------------------------------------------------------- stages


class Engine:
    """Stages of one build, on one model, writing into one folder."""

    def __init__(self, build, model, folder, ranks=0, threads=1, common=()):
        """common: options of the stages that run the model, --pipeline and the like."""
        self.build, self.model, self.folder = os.path.abspath(build), model, folder
        self.ranks, self.threads, self.common = ranks, threads, list(map(str, common))
        self.launcher = os.path.join(SCRIPTS, "mpi")
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, stage, *arguments):
        """ranks 0: without mpirun"""
        launch = [self.launcher, str(self.ranks)] if self.ranks else []
        common = self.common if stage != "merge_scores" else []
        return [
            *launch,
            os.path.join(self.build, "bin", stage),
            *map(str, arguments),
            "--threads",
            str(self.threads),
            *common,
        ]

    def run(self, stage, *arguments):
        """Run a stage that must succeed; returns what it said."""
        command = self.command(stage, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr.strip()}")
        return done.stderr

    def fit(self, tokens, output, *options):
        self.run(
            "fit_factors", "--model", self.model, "--tokens", tokens, "--output", self.path(output), "--quiet", *options
        )
        return self.path(output)

    def compress(self, factors, queries, output, *options):
        self.run(
            "compress_queries",
            "--model",
            self.model,
            "--factors",
            factors,
            "--queries",
            queries,
            "--output",
            self.path(output),
            "--quiet",
            *options,
        )
        return self.path(output)

    def score(self, queries, tokens, output, *options):
        """One shard; with --shard I/N among the options, that one."""
        self.run(
            "score_shards",
            "--model",
            self.model,
            "--queries",
            queries,
            "--tokens",
            tokens,
            "--output",
            self.path(output),
            "--quiet",
            *options,
        )
        return self.path(output)

    def merge(self, scores, output, *options):
        self.run("merge_scores", "--scores", scores, "--output", self.path(output), "--quiet", *options)
        return self.path(output)


def shard_scores(folder, name="score", shard="00000-of-00001"):
    with h5py.File(f"{folder}/shard-{shard}.h5", "r") as file:
        return file[name][()]


def explained(ranking, side="top"):
    """{(query, sequence): (token scores [rows], layer x token scores [rows, L])} of one end of an explained ranking."""
    found = {}
    with h5py.File(ranking, "r") as file:
        group = {k: file[side][k][()] for k in ("sequence", "count", "token_score", "layer_token_score")}
    at = 0
    for q, i in np.ndindex(group["sequence"].shape):
        n = int(group["count"][q, i])
        found[q, int(group["sequence"][q, i])] = (
            group["token_score"][at : at + n],
            group["layer_token_score"][at : at + n],
        )
        at += n
    return found


# ---------------------------------------------------------------- comparison


class Report:
    def __init__(self, name):
        self.name, self.lines, self.failed = name, [], 0

    def check(self, what, difference, limit):
        good = difference <= limit
        self.failed += not good
        self.lines.append(f"{'ok' if good else 'FAILED'} {self.name} {what}: {difference:.1e} (limit {limit:.0e})")


def check_factors(report, golden, fisher, folder):
    worst = {"A": 0.0, "S": 0.0, "lambda": 0.0}
    names = [k.split("/")[2] for k in golden if k.startswith(f"{fisher}/lambda/")]
    with h5py.File(f"{folder}/index.h5", "r") as file:
        for name in names:
            found = {
                "S": file[name]["gradient_covariance"][()],
                "A": file[name]["activation_covariance"][()],
                "lambda": file[name]["lambda"][()],
            }
            for kind, x in found.items():
                wanted = golden.get(f"{fisher}/{kind}/{name}")
                if wanted is None:  # A of a module that shares its input: same as the first one's
                    continue
                if kind != "lambda" and x.shape[1] == 1:  # a diagonal
                    x = x[:, 0]
                elif kind != "lambda":
                    worst[kind] = max(worst[kind], relative(x, x.T))
                    x = x[np.tril_indices(len(x))]
                worst[kind] = max(worst[kind], relative(x, wanted))
    report.check(f"{fisher} activation covariance", worst["A"], COVARIANCE)
    report.check(f"{fisher} gradient covariance", worst["S"], COVARIANCE)
    report.check(f"{fisher} lambda", worst["lambda"], SCORE)


def layer_names(modules, n_blocks):
    words = modules.split(",")
    blocks = [str(i) for i in range(n_blocks)]
    return ["embedding"] * ("embedding" in words) + blocks + ["head"] * ("head" in words)


def check_parts(report, engine, golden, compressed, tokens, folder):
    """Layer and token scores against the golden, and their sums against the score."""
    score, layers = shard_scores(folder), shard_scores(folder, "layer_score")
    wanted = golden["empirical/layer_token_score"].astype(np.float64)  # [Q, N, T - 1, L]
    report.check("layer scores", relative(layers, wanted.sum(2).transpose(1, 0, 2)), SCORE)
    report.check("sum of layer scores", relative(layers.astype(np.float64).sum(2), score), 1e-6)
    ranking = engine.merge(folder, "ranking.h5", "--top", len(score))
    engine.score(compressed, tokens, os.path.basename(folder), "--explain", ranking)
    with h5py.File(ranking) as file:
        names, modules = [x.decode() for x in file["layer_name"][()]], h5py.File(compressed).attrs["modules"]
    n_blocks = wanted.shape[3] - sum(word in modules.split(",") for word in ("embedding", "head"))
    report.check("names of layers", names != layer_names(modules, n_blocks), 0)
    found, sums = np.zeros_like(wanted), np.zeros_like(score, np.float64)
    token_sums_differ = 0.0
    parts = explained(ranking)
    for (q, z), (token, layer_token) in parts.items():
        found[q, z, : len(token)] = layer_token
        sums[z, q] = token.astype(np.float64).sum()
        token_sums_differ = max(token_sums_differ, relative(token, layer_token.astype(np.float64).sum(1)))
    report.check("every sequence explained", abs(len(parts) - score.size), 0)
    report.check("layer and token scores", relative(found, wanted), SCORE)
    report.check("token scores", relative(found.sum(3), wanted.sum(3)), SCORE)
    report.check("token scores, sum over layers", token_sums_differ, 1e-6)
    report.check("sum of token scores", relative(sums, score), 2e-6)


def check_scores(report, engine, golden, case, fisher, factors, tokens, queries, modules):
    for variant, options in VARIANTS.items():
        wanted = golden.get(f"{fisher}/score{variant}")
        if wanted is None or (case not in ALL_VARIANTS_OF and variant not in ("", "_damping_1e-8")):
            continue
        if variant == TOO_WEAK and case.endswith("_ends"):
            continue
        compressed = engine.compress(factors, queries, f"{fisher}{variant}.h5", "--modules", modules, *options)
        folder = engine.score(compressed, tokens, f"{fisher}{variant}", "--layer-scores")
        limit = SCORE_VARIANT.get(variant, SCORE)
        report.check(f"{fisher} score{variant}", relative(shard_scores(folder).T, wanted), limit)
        if (fisher, variant) == ("empirical", ""):
            check_parts(report, engine, golden, compressed, tokens, folder)


def check_case(case, goldens, build, folder):
    report, model = Report(case), os.path.join(goldens, case)
    engine = Engine(build, model, os.path.join(folder, case))
    golden, metadata = read_safetensors(f"{model}/golden.safetensors")
    tokens = write_tokens(engine.path("tokens.h5"), sequences(golden, "train"))
    queries = write_tokens(engine.path("queries.h5"), sequences(golden, "query"), golden["completion_start"])
    modules = metadata["modules"]
    for fisher, option in (
        ("empirical", ["--empirical-fisher"]),
        ("true", ["--labels", f"{model}/golden.safetensors"]),
    ):
        factors = engine.fit(tokens, f"factors-{fisher}", "--modules", modules, *option)
        check_factors(report, golden, fisher, factors)
        check_scores(report, engine, golden, case, fisher, factors, tokens, queries, modules)
    return report


def with_factors(goldens):
    """The cases that have factors and scores."""
    cases = sorted(c for c in os.listdir(goldens) if os.path.isdir(os.path.join(goldens, c)))
    return [c for c in cases if read_safetensors(f"{goldens}/{c}/golden.safetensors")[1]["modules"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--goldens", default=os.path.join(ROOT, "tests", "goldens"))
    parser.add_argument("--cases", help="comma-separated; default: all that have factors")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="cases at a time")
    parser.add_argument("--verbose", action="store_true", help="print what is within its limit, too")
    options = parser.parse_args()
    cases = options.cases.split(",") if options.cases else with_factors(options.goldens)
    folder = tempfile.mkdtemp(prefix="bregman-goldens-")
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            reports = list(pool.map(lambda c: check_case(c, options.goldens, options.build, folder), cases))
    finally:
        shutil.rmtree(folder)
    for line in (line for report in reports for line in report.lines):
        if options.verbose or not line.startswith("ok"):
            print(line)
    failed, total = sum(r.failed for r in reports), sum(len(r.lines) for r in reports)
    print(f"{len(cases)} models, {total - failed} comparisons within their limits, {failed} not")
    sys.exit(failed > 0 or total == 0)


if __name__ == "__main__":
    main()
