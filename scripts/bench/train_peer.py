#!/usr/bin/env python3
"""The work of training.py in PyTorch: a plain loop over steps, float32, AdamW, on a Hugging Face causal language model.

Needs torch and transformers, which Bregman itself does not. Prints one JSON object: seconds of the steps after the
first two, tokens of these, losses, and peak memory.
"""

import argparse
import json
import os
import resource
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True, help="Hugging Face directory")
parser.add_argument("--tokens", required=True, help=".npy of token ids [sequence, position]")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--sequences", type=int, required=True, help="of a step")
parser.add_argument("--micro", type=int, required=True, help="sequences of a micro-batch")
parser.add_argument("--rate", type=float, required=True)
args = parser.parse_args()

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(args.threads)
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

WARM_UP = 2  # steps whose time is not counted

torch.set_num_threads(args.threads)
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).train()
ids = torch.as_tensor(np.load(args.tokens).astype(np.int64))
groups = [
    {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
    {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95), eps=1e-8)
losses, seconds = [], []
for first in range(0, len(ids), args.sequences):
    start = time.monotonic()
    step = ids[first : first + args.sequences]
    terms, total = step.shape[0] * (step.shape[1] - 1), 0.0
    for batch in step.split(args.micro):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum") / terms
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(total)
    seconds.append(time.monotonic() - start)
print(
    json.dumps(
        {
            "seconds": sum(seconds[WARM_UP:]) / len(seconds[WARM_UP:]),
            "losses": losses,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "torch": torch.__version__,
        }
    )
)
