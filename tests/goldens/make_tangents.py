#!/usr/bin/env python3
"""Adds to tests/goldens how a model moves along a direction, in float64, by PyTorch's forward-mode differentiation.

    make_tangents.py [--output tests/goldens] [--cases gpt2,llama,...]

Needs torch, transformers and safetensors.  It reads the models and training sequences that make_goldens.py wrote and
writes tangents.safetensors beside them (float32).  The direction of a linear module (of the blocks, the embedding, the
head; of a tied head its own), [P, M] with the bias as last column, is V_ij = 0.1 sin(0.9 i + 0.31 j + k), k the sum of
the bytes of its name modulo 97: of rank 2.

  hidden [rows, d]        of the residual stream before the final norm, of all sequences' predicted positions
  loss [rows]             of each row's loss
  gauss_newton/MODULE     [P, M], of the sum over all rows of J_t' H_t J_t V
"""

import math
import os

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from make_goldens import all_modules, embedding_scale, is_embedding, is_head
from make_training import Case, main
from safetensors.torch import save_file

STEP = 1e-5


def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Causal, in operations that have a forward mode."""
    groups, rows = query.shape[1] // key.shape[1], query.shape[2]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
    mask = torch.ones(rows, rows, dtype=torch.bool).tril() if attn_mask is None else attn_mask[0, 0]
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ value


def homogeneous(name, module, a):
    """The input ā of a module's first sequence."""
    if is_embedding(name):
        return F.one_hot(a[0], module.num_embeddings).double()
    return a[0] if module.bias is None else torch.cat((a[0], torch.ones_like(a[0, :, :1])), 1)


class Moved:
    """A case's model at weights + epsilon V."""

    def __init__(self, case):
        self.model, self.epsilon, self.caught = case.model, torch.zeros((), dtype=torch.float64), {}
        self.names = {n: case.head if is_head(n) else n for n in all_modules(self.model)}
        self.final_norm = next(
            m
            for n, m in self.model.named_modules()
            if n in ("transformer.ln_f", "gpt_neox.final_layer_norm", "model.norm")
        )
        self.final_norm.register_forward_pre_hook(lambda module, inputs: setattr(self, "hidden", inputs[0]))
        for name, module in all_modules(self.model).items():
            module.register_forward_hook(lambda m, inputs, output, name=name: self.move(name, m, inputs[0], output))

    def direction(self, name, module, width):
        rows = module.embedding_dim if is_embedding(name) else module.out_features
        i, j = torch.arange(rows, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
        return 0.1 * torch.sin(0.9 * i[:, None] + 0.31 * j + sum(self.names[name].encode()) % 97)

    def move(self, name, module, a, output):
        a = homogeneous(name, module, a)
        scale = embedding_scale(module)
        output = output + self.epsilon * scale * (a @ self.direction(name, module, a.shape[1]).T)
        if output.requires_grad:
            output.register_hook(lambda g: self.caught.__setitem__(name, (a.detach(), g[0] * scale)))
        return output

    def run(self, ids):
        logits = self.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        return logits, self.hidden[0, :-1], F.cross_entropy(logits, ids[1:], reduction="none")

    def loss_at(self, ids, epsilon):
        self.epsilon = torch.tensor(epsilon, dtype=torch.float64)
        with torch.no_grad():
            return self.run(ids)[2]


def along(moved, ids):
    """How logits, hidden states and losses of a sequence move."""
    with torch.no_grad(), forward_ad.dual_level():
        moved.epsilon = forward_ad.make_dual(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
        return [forward_ad.unpack_dual(x).tangent for x in moved.run(ids)]


def make_case(name, folder):
    moved = Moved(Case(name, folder))
    sequences = Case(name, folder).sequences
    hidden, losses, products, worst = [], [], {}, 0.0
    for ids in sequences:
        of_logits, of_hidden, of_loss = along(moved, ids)
        difference = (moved.loss_at(ids, STEP) - moved.loss_at(ids, -STEP)) / (2 * STEP)
        worst = max(worst, float((difference - of_loss).abs().max() / of_loss.abs().max()))
        moved.epsilon = torch.zeros((), dtype=torch.float64)
        logits = moved.run(ids)[0]
        p = logits.detach().softmax(-1)
        (logits * (p * (of_logits - (p * of_logits).sum(-1, keepdim=True)))).sum().backward()
        for module, (a, delta) in moved.caught.items():
            products[module] = products.get(module, 0) + delta.T @ a
        hidden.append(of_hidden)
        losses.append(of_loss)
    print(f"{name}: tangents against differences {worst:.1e}", flush=True)
    if not worst < 1e-6:
        raise SystemExit(f"{name}: the tangents are not those of the loss")
    out = {"hidden": torch.cat(hidden), "loss": torch.cat(losses)}
    out |= {f"gauss_newton/{moved.names[module]}": product for module, product in products.items()}
    path = f"{folder}/tangents.safetensors"
    save_file({k: v.float().contiguous() for k, v in out.items()}, path, metadata={"case": name})
    print(f"{path}: {os.path.getsize(path) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    F.scaled_dot_product_attention = attend
    main(make_case, __doc__)
