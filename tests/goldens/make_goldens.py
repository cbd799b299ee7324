#!/usr/bin/env python3
"""Makes tests/goldens: tiny random models of every family and what must be computed from them, in float64.

    make_goldens.py [--output tests/goldens] [--cases gpt2,llama,...] [--smollm2 MODEL_DIR]

Needs torch, transformers, safetensors and, but for the cases with embedding and head or experts, kronfluence 1.0.1. A case is a model directory (config.json, weights)
with golden.safetensors beside it. Factors and scores follow docs' definitions in numpy, from PyTorch's inputs and
output gradients of every linear layer; Kronfluence computes the same on its own, and both must agree to 1e-7.
A case's folder is made anew: make_training.py adds what training must compute.
--smollm2 writes smollm2.json only: the highest logits of a few positions of a short prompt.

In golden.safetensors (float32 where not said; L blocks, N sequences, Q queries, T longest sequence)
  train_token, train_count, query_token, query_count, completion_start   int64, sequences back to back
  pseudo_cov, pseudo_lambda [N, T-1]    int64, labels drawn from the model
  logits [rows, vocab], a/MODULE, delta/MODULE [rows, ...]   of the first two sequences' predicted positions;
                                        modules that read the same input have one a, under the first one's name
  row/MODULE [n] int64                  of an expert's modules, which a, delta and factors have the rows of alone: which
  loss [rows of all sequences]
  FISHER/A/MODULE, FISHER/S/MODULE      lower triangles, row by row, or diagonals (the embedding's A, the head's S);
                                        FISHER/lambda/MODULE
  FISHER/score..., [Q, N]               default damping; _damping_1e-8; _damping_1e-3; _rank32; _identity; _diagonal; _kfac
  FISHER/layer_token_score [Q, N, T-1, L]
FISHER: empirical (labels of the data) or true (the pseudo labels). Metadata: modules (the --modules option), case.
"""

import argparse
import copy
import json
import logging
import os
import shutil
import sys
import tempfile

sys.modules.setdefault("torchvision", None)  # Kronfluence asks for it; a mismatched one would not import
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import nn

VOCAB, T, N, Q, PROMPT = 64, 32, 12, 3, 12
MLP = ("mlp.c_fc", "mlp.c_proj", "dense_h_to_4h", "dense_4h_to_h", "gate_proj", "up_proj", "down_proj")
# No router's choice hangs on rounding: the k-th highest logit and the next differ by this at least.
STEEP, LEAST_GAP = 3.0, 1e-4
SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=50.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = dict(
    rope_type="yarn",
    rope_theta=50.0,
    factor=4.0,
    beta_fast=2.0,
    beta_slow=0.25,
    original_max_position_embeddings=16,
)
THETA = dict(rope_type="default", rope_theta=200.0)
SMALL = dict(d=24, vocab=48, modules=None)
# "seed" where a case's place does not give it
CASES = {
    "gpt2": dict(family="gpt2", d=40, modules="mlp"),
    "neox": dict(family="neox", modules="all"),
    "neox_serial": dict(family="neox", modules=None, options=dict(use_parallel_residual=False)),
    "llama": dict(family="llama", d=40, modules="mlp"),
    "llama_pad": dict(family="llama", modules="mlp", ragged=True, options=dict(attention_bias=True, mlp_bias=True)),
    "llama_llama3": dict(family="llama", modules=None, options=dict(rope_parameters=LLAMA3)),
    "llama_linear": dict(
        family="llama",
        modules=None,
        options=dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=3.0)),
    ),
    "llama_half": dict(family="llama", modules=None, half=True, options=dict(tie_word_embeddings=True)),
    "qwen2": dict(family="qwen2", modules="all", ragged=True, options=dict(tie_word_embeddings=True)),
    "qwen3": dict(family="qwen3", modules="attention", options=dict(head_dim=16)),
    "olmo2": dict(family="olmo2", modules="all"),
    # one block and eight tokens: the exact Fisher of its MLP is a sum over labels
    "tiny": dict(family="llama", modules=None, vocab=8, blocks=1, forward_only=True),
    # embedding and head as well; where they are tied, each use as if it had a matrix of its own
    "gpt2_ends": dict(family="gpt2", modules="embedding,head"),
    "llama_ends": dict(family="llama", modules="all,embedding,head", ragged=True),
    "starcoder2": dict(family="starcoder2", modules=None, ragged=True),
    # experts: with and without renormalisation, and with a plain MLP between them
    "qwen3_moe": dict(
        family="qwen3_moe",
        modules="mlp",
        blocks=3,
        options=dict(
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            norm_topk_prob=True,
            mlp_only_layers=[1],
        ),
    ),
    "qwen3_moe_raw": dict(
        family="qwen3_moe",
        modules=None,
        ragged=True,
        options=dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=40, decoder_sparse_step=2),
    ),
    "olmoe": dict(
        family="olmoe",
        modules="all,router",
        ragged=True,
        options=dict(num_experts=4, num_experts_per_tok=2, intermediate_size=16),
    ),
    "olmoe_renormalised": dict(
        family="olmoe",
        modules=None,
        options=dict(num_experts=5, num_experts_per_tok=3, intermediate_size=16, norm_topk_prob=True),
    ),
    "mistral": dict(SMALL, family="mistral", seed=31, ragged=True, options=dict(sliding_window=9)),
    "qwen2_window": dict(
        SMALL,
        family="qwen2",
        seed=32,
        options=dict(use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=True),
    ),
    "gpt_neo": dict(SMALL, family="gpt_neo", seed=33),
    "olmo": dict(SMALL, family="olmo", seed=34, options=dict(clip_qkv=0.7, rope_parameters=THETA)),
    "llama_yarn": dict(SMALL, family="llama", seed=35, options=dict(head_dim=16, rope_parameters=YARN)),
    "olmo3": dict(
        SMALL,
        family="olmo3",
        seed=36,
        options=dict(
            head_dim=16,
            sliding_window=9,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters=dict(sliding_attention=THETA, full_attention=YARN),
        ),
    ),
    "smollm3": dict(
        SMALL,
        family="smollm3",
        seed=37,
        options=dict(
            no_rope_layers=[1, 0],
            use_sliding_window=True,
            sliding_window=11,
            rope_parameters=THETA,
        ),
    ),
    "gemma2": dict(
        SMALL,
        family="gemma2",
        seed=38,
        ends=True,
        options=dict(
            head_dim=8,
            query_pre_attn_scalar=5,
            sliding_window=9,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
            rope_parameters=THETA,
        ),
    ),
    "gemma3": dict(
        SMALL,
        family="gemma3_text",
        seed=39,
        options=dict(
            head_dim=8,
            query_pre_attn_scalar=5,
            sliding_window=9,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters=dict(
                sliding_attention=THETA, full_attention=dict(rope_type="linear", rope_theta=1e4, factor=3.0)
            ),
        ),
    ),
    "apertus": dict(SMALL, family="apertus", seed=40, options=dict(rope_parameters=LLAMA3)),
}
# families' classes in transformers where they are not the capitalised model_type: of the configuration, of the model
CLASSES = {
    "gpt_neo": ("GPTNeoConfig", "GPTNeoForCausalLM"),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM"),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
}


# ---------------------------------------------------------------- models and data


def make_model(index, case):
    torch.manual_seed(100 + index)
    d, blocks, vocab = case.get("d", 32), case.get("blocks", 2), case.get("vocab", VOCAB)
    options = case.get("options", {})
    special = dict(vocab_size=vocab, bos_token_id=0, eos_token_id=0)
    if case["family"] == "gpt2":
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_embd=d,
                n_layer=blocks,
                n_head=4,
                n_positions=T,
                n_inner=2 * d,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **special,
                **options,
            )
        )
    elif case["family"] == "neox":
        model = transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                hidden_size=d,
                num_hidden_layers=blocks,
                num_attention_heads=2,
                intermediate_size=2 * d,
                max_position_embeddings=T,
                **special,
                **options,
            )
        )
    elif case["family"] == "gpt_neo":
        model = transformers.GPTNeoForCausalLM(
            transformers.GPTNeoConfig(
                hidden_size=d,
                num_layers=blocks,
                num_heads=4,
                intermediate_size=2 * d - 8,
                max_position_embeddings=T,
                attention_types=[[["global", "local"], blocks // 2]],
                window_size=9,
                **special,
                **options,
            )
        )
    else:
        name = case["family"].capitalize()
        classes = CLASSES.get(case["family"], (name + "Config", name + "ForCausalLM"))
        sizes = dict(
            hidden_size=d,
            num_hidden_layers=blocks,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=2 * d - 8,
            max_position_embeddings=T,
            pad_token_id=0,
        )
        config = getattr(transformers, classes[0])(**sizes | special | options)
        model = getattr(transformers, classes[1])(config)
    generator = torch.Generator().manual_seed(200 + index)
    with torch.no_grad():  # biases and gains that are not 0 and 1; activations large enough to be non-linear
        for parameter in model.parameters():
            parameter.add_((0.1 if parameter.dim() == 1 else 0.12) * torch.randn(parameter.shape, generator=generator))
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.mul_(STEEP)
    return model


class Expert(nn.Module):
    def __init__(self, weights, act):
        super().__init__()
        self.act, self.chosen = act, None
        for name, weight in zip(("gate_proj", "up_proj", "down_proj"), weights):
            linear = nn.Linear(*weight.shape[::-1], bias=False, dtype=torch.float64)
            linear.weight.data = weight.clone()
            setattr(self, name, linear)

    def forward(self, x):
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class SparseMlp(nn.Module):
    """transformers' block with experts from its definition: every expert reads all rows, and has a part of 0 in those
    that it was not chosen for.  Modules have the checkpoint's names."""

    def __init__(self, block):
        super().__init__()
        router, experts = block.gate, block.experts
        self.k, self.renormalised = router.top_k, router.norm_topk_prob
        self.gate = nn.Linear(*router.weight.shape[::-1], bias=False, dtype=torch.float64)
        self.gate.weight.data = router.weight.data.clone()
        self.experts = nn.ModuleList(
            Expert((*inner.chunk(2), down), experts.act_fn)
            for inner, down in zip(experts.gate_up_proj.data, experts.down_proj.data)
        )

    def forward(self, x):
        logits = self.gate(x)
        best = logits.detach().sort(-1, descending=True)
        gap = float((best.values[..., self.k - 1] - best.values[..., self.k]).min())
        if gap < LEAST_GAP:
            sys.exit(f"a router's choice hangs on {gap:.1e}")
        chosen = torch.zeros_like(logits.detach()).scatter(-1, best.indices[..., : self.k], 1.0)
        part = logits.softmax(-1) * chosen
        if self.renormalised:
            part = part / part.sum(-1, keepdim=True)
        for e, expert in enumerate(self.experts):
            expert.chosen = chosen[0, :, e] > 0
        return sum(part[..., e, None] * expert(x) for e, expert in enumerate(self.experts))


def half_dtype(name):
    if "mlp" in name or "embed" in name:
        return torch.float16
    return torch.float32 if "o_proj" in name else torch.bfloat16


def save_half(model, folder):
    """Two shards of mixed precision; the model keeps the rounded weights."""
    shards, where = ({}, {}), {}
    for i, (name, parameter) in enumerate(model.named_parameters()):
        rounded = parameter.detach().to(half_dtype(name))
        parameter.data.copy_(rounded.float())
        where[name] = f"model-{i % 2 + 1:05d}-of-00002.safetensors"
        shards[i % 2][name] = rounded.contiguous()
    for i, shard in enumerate(shards):
        save_file(shard, f"{folder}/model-{i + 1:05d}-of-00002.safetensors", metadata={"format": "pt"})
    with open(f"{folder}/model.safetensors.index.json", "w", encoding="utf-8") as file:
        json.dump({"metadata": {}, "weight_map": where}, file, indent=1)
    model.config.save_pretrained(folder)


def rms_norm(module):
    """Llama's, or Gemma's, whose gain is 1 + weight."""
    gemma = type(module).__name__.startswith("Gemma")
    epsilon = module.eps if gemma else module.variance_epsilon

    def norm(x):
        gain = 1 + module.weight if gemma else module.weight
        return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon))

    return norm


def rotary(module, frequencies):
    def forward(x, position_ids, layer_type=None):
        prefix = "" if layer_type is None else layer_type + "_"
        angle = position_ids[..., None].double() * frequencies[prefix + "inv_freq"]
        angle = torch.cat((angle, angle), -1)
        scale = getattr(module, prefix + "attention_scaling")
        return angle.cos() * scale, angle.sin() * scale

    return forward


def neo_attention(module):
    """GPT-Neo's, which transformers computes in float32."""

    def attend(query, key, value, attention_mask=None):
        rows = query.shape[-2]
        scores = (query @ key.transpose(-1, -2)).masked_fill(~module.bias[:, :, :rows, :rows], -torch.inf)
        weights = scores.softmax(-1)
        return weights @ value, weights

    return attend


def softmax(x, dim=None, dtype=None, **options):
    """Where float32 is asked for, of float64: as x is."""
    return torch.softmax(x, dim)


def to_float64(model):
    """Double throughout: transformers computes norms, rotary tables and some softmaxes in float32.  Rotary frequencies
    stay the float32 ones that a model is trained with; GPT-2's Conv1D becomes an ordinary linear layer."""
    from transformers.pytorch_utils import Conv1D

    frequencies = {
        name: {n: f.clone().double() for n, f in module.named_buffers(recurse=False) if n.endswith("inv_freq")}
        for name, module in model.named_modules()
    }
    model = model.double().eval()
    # the eager path is for those whose scores have a cap, or that have no other
    eager = model.config.model_type in ("gemma2", "gpt_neo")
    model.config._attn_implementation = "eager" if eager else "sdpa"
    F.softmax = softmax
    for name, module in list(model.named_modules()):
        for child_name, child in module.named_children():
            if type(child).__name__.endswith("SparseMoeBlock"):
                setattr(module, child_name, SparseMlp(child))
            if isinstance(child, Conv1D):
                linear = nn.Linear(*child.weight.shape, dtype=torch.float64)
                linear.weight.data, linear.bias.data = child.weight.data.t().contiguous(), child.bias.data
                setattr(module, child_name, linear)
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = rms_norm(module)
        elif type(module).__name__ == "OlmoLayerNorm":
            module.forward = lambda x, shape=module.normalized_shape: F.layer_norm(x, shape, None, None, eps=1e-5)
        elif type(module).__name__ == "GPTNeoSelfAttention":
            module._attn = neo_attention(module)
        elif frequencies[name]:
            module.forward = rotary(module, frequencies[name])
    return model


def make_data(case):
    """Sequences of a sparse Markov chain: lists of id arrays."""
    random = np.random.default_rng(7)
    vocab = case.get("vocab", VOCAB)
    chain = random.dirichlet(np.full(vocab, 0.1), size=vocab)

    def draw(lengths):
        out = []
        for length in lengths:
            ids = [int(random.integers(vocab))]
            while len(ids) < length:
                ids.append(int(random.choice(vocab, p=chain[ids[-1]])))
            out.append(np.array(ids))
        return out

    if case.get("ragged"):
        return draw([T, 2, *random.integers(T // 3, T + 1, N - 2)]), draw(random.integers(PROMPT + 4, T + 1, Q))
    return draw([T] * N), draw([T] * Q)


# ---------------------------------------------------------------- what PyTorch says


def linear_modules(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in ("lm_head", "embed_out")}


def is_embedding(name):
    return name.endswith(("embed_tokens", "wte", "embed_in"))


def embedding_scale(module):
    """What the rows of an embedding are multiplied by when they are looked up."""
    return float(getattr(module, "embed_scale", 1.0))


def is_head(name):
    return name in ("lm_head", "embed_out")


def all_modules(model):
    """The linear modules of the blocks, the embedding and the head."""
    return {n: m for n, m in model.named_modules() if n in linear_modules(model) or is_embedding(n) or is_head(n)}


def owner(name):
    head, _, last = name.rpartition(".")
    return f"{head}.{SAME_INPUT.get(last, last)}" if head else name


def chosen_rows(model, name):
    """Of an expert's module the rows that it has read, of any other None."""
    expert = model.get_submodule(name.rpartition(".")[0])
    return np.flatnonzero(expert.chosen[:-1].numpy()) if isinstance(expert, Expert) else None


def pairs(model, ids, labels, start=0):
    """One sequence's loss rows, logits and {module: (a with its 1, delta, its rows)}; positions before start have no
    loss."""
    caught, hooks = {}, []
    for name, module in all_modules(model).items():

        def catch(module, inputs, output, name=name):
            a = inputs[0].detach()[0, :-1]
            if is_embedding(name):
                a = F.one_hot(a, module.num_embeddings).double()
            elif module.bias is not None:
                a = torch.cat((a, torch.ones_like(a[:, :1])), 1)
            caught[name] = [a.numpy()]
            scale = embedding_scale(module)
            output.register_hook(lambda g, name=name, scale=scale: caught[name].append(g[0, :-1].numpy() * scale))

        hooks.append(module.register_forward_hook(catch))
    logits = model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0, :-1]
    loss = F.cross_entropy(logits, torch.tensor(labels), reduction="none")
    loss = torch.where(torch.arange(len(labels)) >= start, loss, 0.0)
    loss.sum().backward()
    model.zero_grad(set_to_none=True)
    for hook in hooks:
        hook.remove()
    for name, pair in caught.items():
        rows = chosen_rows(model, name)
        caught[name] = [*pair, np.arange(len(pair[0]))] if rows is None else [x[rows] for x in pair] + [rows]
        if rows is not None and np.delete(pair[1], rows, 0).any():
            sys.exit(f"{name} has a gradient in rows that it has not read")
    return loss.detach().numpy(), logits.detach().numpy(), caught


# ---------------------------------------------------------------- the definitions, in numpy


def is_diagonal(x):
    return np.array_equal(x, np.diag(np.diag(x)))


def eigen(x):
    return (np.diag(x), np.eye(len(x))) if is_diagonal(x) else np.linalg.eigh(x)


class Factors:
    """A, S, their bases and the corrected eigenvalues of one module."""

    def __init__(self, name, covariance, lambda_pairs):
        a, d = (np.concatenate([p[i] for p in covariance]) for i in (0, 1))
        self.A, self.S = a.T @ a / len(a), d.T @ d / len(d)
        if is_head(name):
            self.S = np.diag(np.diag(self.S))
        self.alpha, self.q_a = eigen(self.A)
        self.sigma, self.q_s = eigen(self.S)
        gradients = [p[1].T @ p[0] for p in lambda_pairs]
        self.Lambda = np.mean([(self.q_s.T @ g @ self.q_a) ** 2 for g in gradients], axis=0)
        self.diagonal = np.mean([g**2 for g in gradients], axis=0)
        self.kfac = np.outer(self.sigma, self.alpha) * len(a) / len(covariance)

    def precondition(self, gradient, kind="ekfac", damping=None):
        if kind == "identity":
            return gradient
        curvature = {"ekfac": self.Lambda, "kfac": self.kfac, "diagonal": self.diagonal}[kind]
        damped = curvature + (0.1 * curvature.mean() if damping is None else damping)
        if kind == "diagonal":
            return gradient / damped
        return self.q_s @ ((self.q_s.T @ gradient @ self.q_a) / damped) @ self.q_a.T


def truncate(x, rank):
    u, s, v = np.linalg.svd(x, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def scores(queries, train, factors, rank=None, **options):
    """[Q, N] over all modules of factors; queries and train are lists of pairs() results."""
    out = np.zeros((len(queries), len(train)))
    for name, factor in factors.items():
        for q, query in enumerate(queries):
            a, d = query[name][:2]
            x = factor.precondition(d.T @ a, **options)
            x = truncate(x, rank) if rank else x
            out[q] += [np.einsum("tp,pm,tm->", z[name][1], x, z[name][0]) for z in train]
    return out


def layer_of(name, first, n_layers):
    """Layers are the blocks, before them the embedding where it is tracked, behind them the head."""
    if is_embedding(name) or is_head(name):
        return 0 if is_embedding(name) else n_layers - 1
    return first + int(next(part for part in name.split(".") if part.isdigit()))


def layer_token_scores(queries, train, factors, n_blocks):
    first = any(map(is_embedding, factors))
    n_layers = n_blocks + first + any(map(is_head, factors))
    out = np.zeros((len(queries), len(train), T - 1, n_layers))
    for name, factor in factors.items():
        layer = layer_of(name, first, n_layers)
        for q, query in enumerate(queries):
            x = factor.precondition(query[name][1].T @ query[name][0])
            for i, z in enumerate(train):
                value = np.einsum("tp,pm,tm->t", z[name][1], x, z[name][0])
                out[q, i, z[name][2], layer] += value
    return out


# ---------------------------------------------------------------- Kronfluence's word on the same


def pad(rows, fill):
    return torch.tensor(np.array([np.pad(r, (0, T - len(r)), constant_values=fill) for r in rows]))


def kronfluence(model, names, train, query, pseudo):
    """(factors of Kronfluence by module, score [Q, N]) with data labels, or with pseudo = (covariance's, lambda's)."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class LanguageModel(Task):
        phase = 0

        def loss(self, batch, model, sample):
            logits = model(input_ids=batch["ids"], attention_mask=batch["mask"], use_cache=False).logits[:, :-1]
            labels = pseudo[self.phase][batch["index"]] if sample else batch["labels"]
            return F.cross_entropy(
                logits.reshape(-1, logits.size(-1)), labels.reshape(-1), reduction="sum", ignore_index=-100
            )

        def compute_train_loss(self, batch, model, sample=False):
            return self.loss(batch, model, sample)

        def compute_measurement(self, batch, model):
            return self.loss(batch, model, False)

        def get_influence_tracked_modules(self):
            return names

        def get_attention_mask(self, batch):
            mask = batch["mask"].clone()  # counted are the positions that predict a token
            mask[torch.arange(len(mask)), mask.sum(1) - 1] = 0
            return mask

    class Sequences(torch.utils.data.Dataset):
        def __init__(self, ids, start):
            self.ids = pad(ids, 0)
            self.mask = pad([np.ones(len(x), int) for x in ids], 0)
            self.labels = pad([np.where(np.arange(1, len(x)) >= start, x[1:], -100) for x in ids], -100)[:, : T - 1]

        def __len__(self):
            return len(self.ids)

        def __getitem__(self, i):
            return {"ids": self.ids[i], "mask": self.mask[i], "labels": self.labels[i], "index": torch.tensor(i)}

    f64 = torch.float64
    task = LanguageModel()
    factor_arguments = FactorArguments(
        strategy="ekfac",
        use_empirical_fisher=pseudo is None,
        activation_covariance_dtype=f64,
        gradient_covariance_dtype=f64,
        per_sample_gradient_dtype=f64,
        lambda_dtype=f64,
        eigendecomposition_dtype=f64,
    )
    score_arguments = ScoreArguments(
        damping_factor=None,
        query_gradient_svd_dtype=f64,
        score_dtype=f64,
        per_sample_gradient_dtype=f64,
        precondition_dtype=f64,
    )
    model = prepare_model(copy.deepcopy(model), task)  # it wraps the tracked modules in place
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer(
            "golden", model, task, cpu=True, output_dir=folder, disable_tqdm=True, log_level=logging.ERROR
        )
        data, queries = Sequences(train, 0), Sequences(query, PROMPT)
        analyzer.fit_covariance_matrices("f", data, per_device_batch_size=N, factor_args=factor_arguments)
        analyzer.perform_eigendecomposition("f", factor_args=factor_arguments)
        task.phase = 1
        analyzer.fit_lambda_matrices("f", data, per_device_batch_size=N, factor_args=factor_arguments)
        analyzer.compute_pairwise_scores(
            "s",
            "f",
            queries,
            data,
            per_device_query_batch_size=Q,
            per_device_train_batch_size=N,
            score_args=score_arguments,
        )
        c, lam = analyzer.load_covariance_matrices("f"), analyzer.load_lambda_matrices("f")
        factors = {
            n: (
                c["activation_covariance"][n] / c["num_activation_covariance_processed"][n],
                c["gradient_covariance"][n] / c["num_gradient_covariance_processed"][n],
                lam["lambda_matrix"][n] / lam["num_lambda_processed"][n],
            )
            for n in names
        }
        return factors, analyzer.load_pairwise_scores("s")["all_modules"].numpy()


def check_against(kron, factors, score):
    def differ(x, y):
        return float(np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(np.asarray(y)).max())

    theirs, their_score = kron
    worst = max(
        max(differ(theirs[n][0], f.A), differ(theirs[n][1], f.S), differ(theirs[n][2], f.Lambda))
        for n, f in factors.items()
    )
    print(f"  against Kronfluence: factors {worst:.1e}, scores {differ(their_score, score):.1e}", flush=True)
    if not (worst < 1e-7 and differ(their_score, score) < 1e-7):
        sys.exit("Kronfluence computes something else")


# ---------------------------------------------------------------- cases


def tracked(names, modules):
    words = set(modules.split(","))
    if "all" in words:
        words |= {"mlp", "attention"}

    def word(name):
        if is_embedding(name) or is_head(name):
            return "embedding" if is_embedding(name) else "head"
        if name.endswith("mlp.gate"):
            return "router"
        return "mlp" if name.endswith(MLP) else "attention"

    return [n for n in names if word(n) in words]


def lower(x):
    return np.diag(x) if is_diagonal(x) else x[np.tril_indices(len(x))]


def add_factors(out, case, model, train, query, pseudo, empirical_pairs, query_pairs):
    names = tracked(all_modules(model), case["modules"])
    runs = {
        "empirical": (empirical_pairs, empirical_pairs),
        "true": tuple(
            [pairs(model, ids, labels[: len(ids) - 1])[2] for ids, labels in zip(train, pseudo[k])]
            for k in ("cov", "lambda")
        ),
    }
    for fisher, (for_covariance, for_lambda) in runs.items():
        factors = {n: Factors(n, [p[n] for p in for_covariance], [p[n] for p in for_lambda]) for n in names}
        for name, factor in factors.items():
            if owner(name) == name:
                out[f"{fisher}/A/{name}"] = lower(factor.A)
            out[f"{fisher}/S/{name}"] = lower(factor.S)
            out[f"{fisher}/lambda/{name}"] = factor.Lambda
        variants = {"": {}, "_damping_1e-8": dict(damping=1e-8), "_damping_1e-3": dict(damping=1e-3)}
        if fisher == "empirical":
            variants |= {
                "_rank32": dict(rank=32),
                "_rank8": dict(rank=8),
                "_identity": dict(kind="identity"),
                "_diagonal": dict(kind="diagonal"),
                "_kfac": dict(kind="kfac"),
            }
            out["empirical/layer_token_score"] = layer_token_scores(
                query_pairs, empirical_pairs, factors, model.config.num_hidden_layers
            )
        for variant, options in variants.items():
            out[f"{fisher}/score{variant}"] = scores(query_pairs, empirical_pairs, factors, **options)
        if any(map(is_head, names)) or any(".experts." in n for n in names):
            continue
        labels = None
        if fisher == "true":
            labels = [
                torch.tensor(np.where([[t < len(z) - 1 for t in range(T - 1)] for z in train], pseudo[k], -100))
                for k in ("cov", "lambda")
            ]
        check_against(kronfluence(model, names, train, query, labels), factors, out[f"{fisher}/score"])


def check_experts(theirs, ours, ids):
    """Against transformers' own MLPs with experts, in float32."""
    ids = torch.tensor(ids)[None]
    with torch.no_grad():
        a, b = (m(input_ids=ids, use_cache=False).logits.double() for m in (theirs.eval(), ours))
    difference = float((a - b).abs().max() / b.abs().max())
    print(f"  against transformers: {difference:.1e}", flush=True)
    if not difference < 1e-5:
        sys.exit("transformers computes something else")


def make_case(name, folder):
    case = CASES[name]
    index = case.get("seed", list(CASES).index(name))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model = make_model(index, case)
    if case.get("half"):
        save_half(model, folder)
    else:
        model.save_pretrained(folder)
    if os.path.exists(f"{folder}/generation_config.json"):
        os.unlink(f"{folder}/generation_config.json")
    ours = to_float64(copy.deepcopy(model))
    train, query = make_data(case)
    if "num_experts" in case.get("options", {}):
        check_experts(model, ours, train[0])
    model = ours
    results = [pairs(model, ids, ids[1:]) for ids in train]
    random = np.random.default_rng(5)
    pseudo = {k: np.zeros((N, T - 1), np.int64) for k in ("cov", "lambda")}
    for drawn in pseudo.values():
        for row, (_, logits, _) in zip(drawn, results):
            p = np.exp(logits - logits.max(1, keepdims=True))
            row[: len(p)] = [random.choice(len(x), p=x / x.sum()) for x in p]
    flat = {
        "train_token": np.concatenate(train),
        "train_count": np.array([len(x) for x in train]),
        "query_token": np.concatenate(query),
        "query_count": np.array([len(x) for x in query]),
        "completion_start": np.full(Q, PROMPT),
        "pseudo_cov": pseudo["cov"],
        "pseudo_lambda": pseudo["lambda"],
    }
    out = {"logits": np.concatenate([r[1] for r in results[:2]]), "loss": np.concatenate([r[0] for r in results])}
    with_ends = case.get("ends") or "head" in (case["modules"] or "")
    for module in () if case.get("forward_only") else (all_modules if with_ends else linear_modules)(model):
        a, delta = (np.concatenate([r[2][module][i] for r in results[:2]]) for i in (0, 1))
        if ".experts." in module:
            flat[f"row/{module}"] = np.concatenate(
                [results[0][2][module][2], results[1][2][module][2] + len(train[0]) - 1]
            )
        out[f"delta/{module}"] = delta
        if owner(module) == module or owner(module) not in all_modules(model):
            out[f"a/{module}"] = a
    if case["modules"]:
        query_pairs = [pairs(model, ids, ids[1:], PROMPT - 1)[2] for ids in query]
        add_factors(out, case, model, train, query, pseudo, [r[2] for r in results], query_pairs)
    tensors = {k: torch.tensor(v, dtype=torch.int64) for k, v in flat.items()}
    tensors |= {k: torch.tensor(v, dtype=torch.float32).contiguous() for k, v in out.items()}
    save_file(tensors, f"{folder}/golden.safetensors", metadata={"case": name, "modules": case["modules"] or ""})
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: {size / 1e3:.0f} kB", flush=True)


SMOLLM2_PROMPT = "The capital of France is Paris, and the capital of Italy is"


def make_smollm2(folder, path):
    """The 200 highest logits of a few positions, float64 from the weights that the folder holds."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(f"{folder}/tokenizer.json").encode(SMOLLM2_PROMPT).ids
    model = to_float64(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0].numpy()
    positions = sorted({0, 4, len(ids) // 2, len(ids) - 1})
    top = {p: np.argsort(-logits[p])[:200] for p in positions}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(
            {
                "prompt": SMOLLM2_PROMPT,
                "ids": ids,
                "rows": [
                    {
                        "position": p,
                        "largest": float(np.abs(logits[p]).max()),
                        "id": top[p].tolist(),
                        "logit": [round(float(x), 6) for x in logits[p][top[p]]],
                    }
                    for p in positions
                ],
            },
            file,
        )
        file.write("\n")


def main():
    here = os.path.dirname(os.path.realpath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default=here)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--smollm2", metavar="MODEL_DIR")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.smollm2:
        make_smollm2(options.smollm2, os.path.join(options.output, "smollm2.json"))
        return
    for name in options.cases.split(","):
        make_case(name, os.path.join(options.output, name))


if __name__ == "__main__":
    main()
