#!/usr/bin/env python3
"""The work of run.py in Kronfluence: factors, then pairwise scores, on a Hugging Face causal language model.

Needs torch, transformers and kronfluence, which Bregman itself does not: run.py starts it with --peer-python.
Prints one JSON object: seconds and peak memory of each phase.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True, help="Hugging Face directory")
parser.add_argument("--tokens", required=True, help=".npy of token ids [sequence, position]")
parser.add_argument("--queries", required=True, help=".npy of token ids [query, position]")
parser.add_argument("--scores", required=True, help=".npy to write: scores [query, sequence]")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--batch", type=int, default=8, help="sequences of a batch")
parser.add_argument("--rank", type=int, default=32, help="of the query gradients")
args = parser.parse_args()

# before torch is imported, which reads them once
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(args.threads)
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")
# Kronfluence and transformers import torchvision if it is there; one that does not fit torch would break them.
sys.modules.setdefault("torchvision", None)
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "peers"))

import kronfluence.score.pairwise as pairwise  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402,F401  (Kronfluence would import it inside the first timed phase)
from kronfluence.analyzer import Analyzer, prepare_model  # noqa: E402
from kronfluence.arguments import FactorArguments, ScoreArguments  # noqa: E402
from kronfluence_task import NextToken, replace_conv1d  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

MLP_SUFFIX = ("mlp.c_fc", "mlp.c_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


class Sequences(Dataset):
    def __init__(self, path):
        self.ids = torch.as_tensor(np.load(path).astype(np.int64))

    def __len__(self):
        return self.ids.shape[0]

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def peak_bytes():
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])


class Meter:
    """Seconds and peak resident set of phases; the peak is reset before each."""

    def __init__(self):
        self.phases, self.peak = {}, peak_bytes()

    def start(self):
        self.peak = max(self.peak, peak_bytes())
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return time.perf_counter()

    def stop(self, name, start_s):
        self.phases[name] = {"seconds": time.perf_counter() - start_s, "peak_rss_bytes": peak_bytes()}
        self.peak = max(self.peak, peak_bytes())

    def run(self, name, function):
        start_s = self.start()
        result = function()
        self.stop(name, start_s)
        return result


def load_model():
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    replace_conv1d(model)
    return model


def pairwise_scores(analyzer, queries, tokens, meter):
    """Phases "queries" (gradients, preconditioning, SVD) and "scores" (the pass over the sequences)."""
    pass_over_sequences = pairwise.compute_dot_products_with_loader
    started = {"queries": 0.0}

    def timed_pass(**kwargs):
        meter.stop("queries", started["queries"])
        return meter.run("scores", lambda: pass_over_sequences(**kwargs))

    pairwise.compute_dot_products_with_loader = timed_pass
    arguments = ScoreArguments(
        damping_factor=None,
        query_gradient_low_rank=args.rank,  # None: 0.1 of the mean
        query_gradient_svd_dtype=torch.float32,
    )
    started["queries"] = meter.start()
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        queries,
        tokens,
        per_device_query_batch_size=len(queries),
        per_device_train_batch_size=args.batch,
        score_args=arguments,
        overwrite_output_dir=True,
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"]


def main():
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    imports_bytes, meter = peak_bytes(), Meter()
    model = meter.run("load", load_model)
    task = NextToken(
        [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.endswith(MLP_SUFFIX)]
    )
    model = prepare_model(model, task)
    tokens, queries = Sequences(args.tokens), Sequences(args.queries)
    work = tempfile.mkdtemp(prefix="peer-", dir=os.path.dirname(os.path.abspath(args.scores)))
    analyzer = Analyzer(
        analysis_name="bench",
        model=model,
        task=task,
        cpu=True,
        output_dir=work,
        disable_tqdm=True,
        log_level=logging.ERROR,
    )
    factors = FactorArguments(use_empirical_fisher=False)
    fit = {"factor_args": factors, "overwrite_output_dir": True}
    meter.run(
        "covariance",
        lambda: analyzer.fit_covariance_matrices("factors", tokens, per_device_batch_size=args.batch, **fit),
    )
    meter.run("eigendecomposition", lambda: analyzer.perform_eigendecomposition("factors", **fit))
    meter.run(
        "eigenvalues", lambda: analyzer.fit_lambda_matrices("factors", tokens, per_device_batch_size=args.batch, **fit)
    )
    scores = pairwise_scores(analyzer, queries, tokens, meter)
    np.save(args.scores, scores.numpy())
    shutil.rmtree(work)
    import kronfluence

    print(
        json.dumps(
            {
                "version": kronfluence.__version__,
                "torch": torch.__version__,
                "peak_rss_bytes": meter.peak,
                "imports_rss_bytes": imports_bytes,
                "phases": meter.phases,
            }
        )
    )


main()
