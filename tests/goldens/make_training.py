#!/usr/bin/env python3
"""Adds to tests/goldens what training must compute: gradients of every parameter, and whole runs, in float64.

    make_training.py [--output tests/goldens] [--cases gpt2,llama,...]

Needs torch, transformers and safetensors.  It reads the models and the training sequences that make_goldens.py wrote
and writes training.safetensors beside them (float32).  Names are the checkpoint's, and so are the axes: GPT-2's
matrices are [in, out].  Where the head is tied to the embedding, the one parameter takes part in both uses, unlike in
make_goldens.py.

  gradient/TENSOR               of the summed loss of all training sequences' predicted tokens
  losses/adamw, losses/sgd      [200], mean loss of a predicted token of each step's batch, before the step
  grad_norm/adamw               [200], norm of all parameters' gradient of that mean, before clipping
  final/adamw/TENSOR            weights after 200 steps
Losses are of the cases in RUNS only, final weights of those in FINAL.

A run: step k = 0, 1, ... takes the sequences (4k .. 4k + 3) mod 12, in order; the loss is the sum over all predicted
tokens of the batch, divided by their number; the norm of all gradients is clipped to 1.  The rate is RATE[optimizer]
times (k + 1) / 20 in the first 20 steps, then times 0.1 + 0.45 (1 + cos(pi (k - 20) / 180)).  AdamW: betas 0.9 and
0.95, epsilon 1e-8, weight decay 0.1.  SGD: momentum 0.9, weight decay 0.01, which is added to the clipped gradient.
Only parameters of two axes decay.

The embedding's row of config.json's pad_token_id gets no gradient from its use at the input, in families that give
the embedding that padding_idx (all but GPT-2 and GPT-NeoX): so does PyTorch.  Where the head is tied to it, the row
gets the head's gradient.
"""

import argparse
import logging
import math
import os
import sys

import torch
import torch.nn.functional as F
import transformers
from make_goldens import CASES, to_float64
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

# without goldens of training and of tangents; UNTRAINED, which cannot be trained or say nothing new, have the latter
SKIPPED = ("tiny", "llama_half")
UNTRAINED = ("gemma2", "gemma3", "apertus", "llama_yarn")
RUNS, FINAL = ("gpt2", "neox", "qwen2"), ("gpt2",)
STEPS, WARMUP, BATCH = 200, 20, 4
RATE = {"adamw": 1e-3, "sgd": 0.01}
PROBES, PROBE_STEP = 5, 1e-5


class Case:
    """A case's model in float64 and its training sequences."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        # to_float64 makes ordinary linear layers of these, with the axes the other way round
        self.turned = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Conv1D)}
        self.model = to_float64(model)
        with safe_open(f"{folder}/golden.safetensors", "pt") as file:
            self.sequences = file.get_tensor("train_token").split(file.get_tensor("train_count").tolist())
        with safe_open(f"{folder}/model.safetensors", "pt") as file:
            buffers = {name for name, _ in model.named_buffers()}
            stored = {name: file.get_slice(name).get_shape() for name in file.keys() if name not in buffers}
        self.head = "embed_out" if "embed_out.weight" in stored else "lm_head"
        have = {name: list(tensor.shape) for name, tensor in self.as_stored().items()}
        if have != stored:
            sys.exit(f"{folder}/model.safetensors: the model that transformers makes of it has other parameters")

    def loss(self, sequences):
        """Summed over the predicted tokens."""
        return sum(
            F.cross_entropy(self.model(input_ids=ids[None], use_cache=False).logits[0, :-1], ids[1:], reduction="sum")
            for ids in sequences
        )

    def as_stored(self, of=lambda parameter: parameter):
        """{the checkpoint's name: of(parameter) with the checkpoint's axes}"""
        out = {}
        for name, parameter in self.model.named_parameters():
            tensor = of(parameter).detach()
            # transformers calls GPT-NeoX's head lm_head, but for the file
            out[name.replace("lm_head", self.head)] = tensor.t() if name in self.turned else tensor
        return out


def gradients(case):
    case.model.zero_grad()
    for ids in case.sequences:
        case.loss([ids]).backward()
    return {f"gradient/{name}": g.clone() for name, g in case.as_stored(lambda parameter: parameter.grad).items()}


def padding_row(model, parameter):
    """The embedding's row that gets no gradient at the input: finite differences are of another function there."""
    embedding = model.get_input_embeddings()
    return embedding.padding_idx if parameter is embedding.weight else None


@torch.no_grad()
def check_gradients(case):
    """Against central differences, at a few entries of every parameter."""
    generator, worst = torch.Generator().manual_seed(3), 0.0
    for parameter in case.model.parameters():
        skipped, flat = padding_row(case.model, parameter), parameter.view(-1)
        largest = parameter.grad.abs().max()
        for at in torch.randint(flat.numel(), (PROBES,), generator=generator).tolist():
            if skipped is not None and at // parameter.shape[1] == skipped:
                continue
            losses, was = [], flat[at].item()
            for step in (PROBE_STEP, -PROBE_STEP):
                flat[at] = was + step
                losses.append(case.loss(case.sequences))
            flat[at] = was
            difference = (losses[0] - losses[1]) / (2 * PROBE_STEP)
            worst = max(worst, float((difference - parameter.grad.view(-1)[at]).abs() / largest))
    print(f"{case.name}: gradients against differences {worst:.1e}", flush=True)
    if not worst < 1e-6:
        sys.exit(f"{case.name}: the gradients are not those of the loss")


def rate_factor(step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def make_optimizer(kind, model):
    decay = {"adamw": 0.1, "sgd": 0.01}[kind]
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=RATE[kind], betas=(0.9, 0.95), eps=1e-8)
    return torch.optim.SGD(groups, lr=RATE[kind], momentum=0.9)


def train(case, kind):
    """(losses, norms of the gradients) of a run; the case's model is the trained one then."""
    optimizer, losses, norms = make_optimizer(kind, case.model), [], []
    for step in range(STEPS):
        batch = [case.sequences[(BATCH * step + i) % len(case.sequences)] for i in range(BATCH)]
        loss = case.loss(batch) / sum(len(ids) - 1 for ids in batch)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(case.model.parameters(), 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = RATE[kind] * rate_factor(step)
        optimizer.step()
    print(f"{case.name}: {kind} {losses[0]:.4f} to {losses[-1]:.4f} nats", flush=True)
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)


def make_case(name, folder):
    if name in UNTRAINED:
        return
    case = Case(name, folder)
    if "experts" in case.model.config.to_json_string():
        print(f"{name}: models with experts are not trained")
        return
    out = gradients(case)
    check_gradients(case)
    if name in RUNS:
        out["losses/adamw"], out["grad_norm/adamw"] = train(case, "adamw")
        if name in FINAL:
            out |= {f"final/adamw/{n}": weights.clone() for n, weights in case.as_stored().items()}
        out["losses/sgd"], _ = train(Case(name, folder), "sgd")
    path = f"{folder}/training.safetensors"
    save_file({k: v.float().contiguous() for k, v in out.items()}, path, metadata={"case": name})
    print(f"{path}: {os.path.getsize(path) / 1e3:.0f} kB", flush=True)


def main(make, description):
    """make(case, folder) of those that the command line names; other scripts of goldens come here too."""
    here = os.path.dirname(os.path.realpath(__file__))
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--output", default=here, help="the folder of the cases (%(default)s)")
    parser.add_argument("--cases", default=",".join(name for name in CASES if name not in SKIPPED))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in options.cases.split(","):
        make(name, os.path.join(options.output, name))


if __name__ == "__main__":
    main(make_case, __doc__)
