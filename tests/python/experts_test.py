#!/usr/bin/env python3
"""Models with experts through all stages: one that no token is sent to, experts that share the A of their inputs, grids, and
what is refused."""

from engine_checks import (
    BUILD,
    FOLDER,
    check,
    close,
    engine,
    finish,
    model,
    same_file,
    shared_files,
)  # noqa: I001

import json
import os
import subprocess

import h5py
import numpy as np

from check_goldens import explained, read_safetensors, shard_scores, write_safetensors, write_tokens

BLOCK, UNUSED = 1, 4
MLP = f"model.layers.{BLOCK}.mlp"


def with_unused_expert(name, change=lambda config, weights: None):
    """A model in whose block 1 the router's rows are r, -r, 2r, -2r and 0: of each token two logits are above 0, so that
    the last expert is never among the two that are chosen."""
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder)
    weights = dict(read_safetensors(f"{model('olmoe_renormalised')}/model.safetensors")[0])
    with open(f"{model('olmoe_renormalised')}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["num_experts_per_tok"] = 2
    row = weights[f"{MLP}.gate.weight"][0]
    weights[f"{MLP}.gate.weight"] = np.outer([1, -1, 2, -2, 0], row).astype("f4")
    change(config, weights)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    write_safetensors(f"{folder}/model.safetensors", weights)
    return folder


MODEL = with_unused_expert("model")
TOKENS, QUERIES = shared_files()
MODULES = ["--modules", "mlp,router"]


def all_finite(name, *paths):
    """No number of a file is NaN or infinite."""
    for path in paths:
        wrong = []

        def look(key, item, wrong=wrong):
            known = not key.endswith("/sampling")  # NaN where there is no second half to compare with
            if known and isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and not np.isfinite(item[()]).all():
                wrong.append(key)

        with h5py.File(path) as file:
            file.visititems(look)
        check(not wrong, f"{name}: finite", ", ".join(wrong[:5]))


def factors_of(folder, name):
    with h5py.File(f"{folder}/index.h5") as file:
        group = file[name]
        return {
            "A": group["activation_covariance"][()].astype(np.float64),
            "S": group["gradient_covariance"][()].astype(np.float64),
            "lambda": group["lambda"][()],
            "n": int(group["gradient_covariance"].attrs["n_tokens"]),
        }


def test_unused():
    """It has factors of zeros and no rows, and no part in any score; the others have theirs."""
    base = engine(MODEL, "base")
    factors = base.fit(TOKENS, "factors", "--unit-sequences", "8", *MODULES)
    all_finite("factors", f"{factors}/block-000.h5", f"{factors}/block-001.h5")
    counts = []
    for e in range(5):
        for part in ("gate_proj", "up_proj", "down_proj"):
            found = factors_of(factors, f"{MLP}.experts.{e}.{part}")
            used = e != UNUSED
            counts.append(found["n"])
            check((found["n"] > 0) == used, f"rows of expert {e}", found["n"])
            for kind in ("A", "S", "lambda"):
                check(bool(np.any(found[kind])) == used, f"{kind} of expert {e}'s {part}")
    rows = factors_of(factors, f"{MLP}.gate")["n"]
    check(sum(counts[::3]) == 2 * rows, "each row is two experts'", f"{counts[::3]} of {rows}")
    for kind in ("ekfac", "kfac", "diagonal", "identity"):
        compressed = base.compress(factors, QUERIES, f"{kind}.h5", "--preconditioner", kind, "--rank", "4")
        scores = base.score(compressed, TOKENS, f"scores-{kind}", "--layer-scores")
        all_finite(kind, compressed, f"{scores}/shard-00000-of-00001.h5")
        with h5py.File(compressed) as file:
            unused = file[f"{MLP}.experts.{UNUSED}.gate_proj/left"][()]
        check(not unused.any(), f"{kind}: nothing of the unused expert")
        check(np.abs(shard_scores(scores)).min() > 0, f"{kind}: scores")
    return base, factors


def test_explained(base, factors):
    """By position and by output token both add up to the score."""
    compressed = base.compress(factors, QUERIES, "full.h5", "--rank", "full")
    scores = base.score(compressed, TOKENS, "full")
    ranking = base.merge(scores, "ranking.h5", "--top", "5")
    base.score(compressed, TOKENS, "full", "--explain", ranking, "--attribution", "output")
    with h5py.File(ranking) as file:
        top, count = file["top/score"][()], file["top/count"][()]
        outputs = file["top/output_token_score"][()].astype(np.float64)
    parts, at, sums = explained(ranking), 0, np.zeros(top.shape)
    for q, i in np.ndindex(top.shape):
        sums[q, i] = outputs[at : at + int(count[q, i])].sum()
        at += int(count[q, i])
    check(len(parts) == top.size, "every sequence explained", len(parts))
    close("output-token scores add up", sums, top, 1e-4)


def test_grids(base, factors):
    compressed = base.compress(factors, QUERIES, "grid.h5", "--rank", "4")
    scores = base.score(compressed, TOKENS, "grid")
    for ranks, pipeline in ((2, 1), (2, 2)):
        work = engine(MODEL, f"grid-{ranks}-{pipeline}", ranks=ranks, common=["--pipeline", pipeline])
        name = f"{ranks} ranks, pipeline {pipeline}"
        again = work.fit(TOKENS, "factors", "--unit-sequences", "8", *MODULES)
        for block in ("block-000.h5", "block-001.h5"):
            same_file(f"{name}: {block}", f"{again}/{block}", f"{factors}/{block}")
        found = work.score(work.compress(again, QUERIES, "c.h5", "--rank", "4"), TOKENS, "scores")
        check(np.array_equal(shard_scores(found), shard_scores(scores)), f"{name}: scores")


def test_shared(base, factors):
    """One A a block: the mean over all experts' rows, each row being k experts', is that of all rows, which is the router's;
    S and the counts are each expert's own."""
    shared = base.fit(TOKENS, "shared", "--unit-sequences", "8", "--modules", "mlp,router,shared")
    all_rows = factors_of(shared, f"{MLP}.gate")
    weighted = 0
    for e in range(5):
        own, one = (factors_of(f, f"{MLP}.experts.{e}.gate_proj") for f in (factors, shared))
        weighted = weighted + own["n"] * own["A"] / (2 * all_rows["n"])
        close(f"A of expert {e} is that of all rows", one["A"], all_rows["A"], 2e-6)
        close(f"S of expert {e}", one["S"], own["S"], 1e-7)
        check(one["n"] == own["n"], f"rows of expert {e}")
        down = [factors_of(f, f"{MLP}.experts.{e}.down_proj")["A"] for f in (factors, shared)]
        close(f"A of expert {e}'s down_proj is its own", down[1], down[0], 1e-7)
    close("A of all rows from the experts' own", weighted, all_rows["A"], 2e-6)
    with h5py.File(f"{shared}/block-001.h5") as file:
        a, b = (file[f"{MLP}.experts.{e}.up_proj/activation_covariance"] for e in (0, UNUSED))
        check(a == b, "it is kept once")
        check(int(a.attrs["n_tokens"]) == 2 * all_rows["n"], "rows in the shared A")
    compressed = base.compress(shared, QUERIES, "shared.h5", "--rank", "full")
    scores = base.score(compressed, TOKENS, "shared-scores")
    all_finite("shared", compressed, f"{scores}/shard-00000-of-00001.h5")
    mine = shard_scores(base.score(base.compress(factors, QUERIES, "own.h5", "--rank", "full"), TOKENS, "own"))
    check(np.corrcoef(shard_scores(scores).ravel(), mine.ravel())[0, 1] > 0.9, "scores like those of own A")


def test_masked(base):
    """A sequence whose last tokens are masked is one that ends before them, for routers and each expert's rows alike."""
    random, keep = np.random.default_rng(4), [3 + i % 9 for i in range(20)]
    sequences = [random.integers(0, 64, n + 1 + n % 4) for n in keep]
    short = write_tokens(base.path("short.h5"), [ids[:n] for ids, n in zip(sequences, keep)])
    long = write_tokens(base.path("long.h5"), sequences)
    with h5py.File(long, "r+") as file:
        file["loss"] = np.concatenate([np.arange(len(ids)) < n for ids, n in zip(sequences, keep)]).astype("u1")
    for modules in ("mlp,router", "mlp,router,shared"):
        made = [base.fit(tokens, f"{tokens[:-3]}-{modules}", "--modules", modules) for tokens in (short, long)]
        for part in ("gate", "experts.0.gate_proj", "experts.1.up_proj", "experts.3.down_proj"):
            want, found = (factors_of(folder, f"{MLP}.{part}") for folder in made)
            check(found["n"] == want["n"] > 0, f"{modules}: positions of {part}", (found["n"], want["n"]))
            for kind in ("A", "S", "lambda"):
                close(f"{modules}: masked {kind} of {part}", found[kind], want[kind], 2e-5)
    compressed = base.compress(made[0], QUERIES, "masked.h5", "--rank", "full")
    scores = [shard_scores(base.score(compressed, tokens, f"{tokens[:-3]}-scores")) for tokens in (short, long)]
    close("masked scores", scores[1], scores[0], 1e-5)


def adapter(name, module):
    """A LoRA adapter of one module, and the model with it merged."""
    folder, (n_out, n_in) = (
        os.path.join(FOLDER, name),
        read_safetensors(f"{MODEL}/model.safetensors")[0][f"{module}.weight"].shape,
    )
    random = np.random.default_rng(6)
    a, b = (random.normal(0, 0.3, shape).astype("f4") for shape in ((2, n_in), (n_out, 2)))
    os.makedirs(folder)
    with open(f"{folder}/adapter_config.json", "w", encoding="utf-8") as file:
        json.dump(dict(peft_type="LORA", base_model_name_or_path=MODEL, r=2, lora_alpha=4, bias="none"), file)
    prefix = f"base_model.model.{module}"
    write_safetensors(
        f"{folder}/adapter_model.safetensors", {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    )

    def merge(config, weights):
        for key, row in read_safetensors(f"{MODEL}/model.safetensors")[0].items():
            weights[key] = row
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + 2 * b @ a

    return folder, with_unused_expert(f"{name}-merged", merge)


def test_adapter():
    """One of the attention computes the merged model; of a router or an expert it is refused."""
    scores = []
    for folder in adapter("adapter", "model.layers.1.self_attn.q_proj"):
        work = engine(folder, f"{os.path.basename(folder)}-run")
        factors = work.fit(TOKENS, "factors", "--modules", "mlp,router")
        scores.append(shard_scores(work.score(work.compress(factors, QUERIES, "c.h5", "--rank", "full"), TOKENS, "s")))
    close("scores with an adapter of the attention", scores[0], scores[1], 2e-4)
    for name in ("gate", "experts.3.up_proj"):
        folder = adapter(f"adapter-{name}", f"{MLP}.{name}")[0]
        refused(
            name, "a router or an expert, which is not supported", "fit_factors", "--model", folder, "--tokens", TOKENS
        )


def refused(name, reason, stage, *arguments):
    output = os.path.join(FOLDER, "refused")
    done = subprocess.run(
        [os.path.join(BUILD, "bin", stage), *map(str, arguments), "--output", output],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    check(done.returncode == 1 and reason in done.stderr, f"{name} is refused", done.stderr.strip())
    check(not os.path.exists(output), f"{name}: nothing is written")


def test_refused():
    def fit(name, reason, change):
        refused(name, reason, "fit_factors", "--model", with_unused_expert(name, change), "--tokens", TOKENS)

    expert = f"{MLP}.experts.3.up_proj.weight"
    fit("missing", f'tensor "{expert}" is missing', lambda c, w: w.pop(expert))
    fit("too-many", "experts.5.gate_proj.weight", lambda c, w: (c.update(num_experts=6), fill_routers(w, 6)))
    fit("too-few", "gate.weight", lambda c, w: c.update(num_experts=4))
    fit("top", "num_experts_per_tok 6 is more than the 5 of num_experts", lambda c, w: c.update(num_experts_per_tok=6))
    fit("clip", "clip_qkv is not supported", lambda c, w: c.update(clip_qkv=3.0))
    refused(
        "training",
        "models of olmoe cannot be trained here: which experts",
        "train_models",
        "--config",
        MODEL,
        "--tokens",
        TOKENS,
    )


def fill_routers(weights, n):
    for name in [k for k in weights if k.endswith("mlp.gate.weight")]:
        weights[name] = np.resize(weights[name], (n, weights[name].shape[1])).astype("f4")


def main():
    base, factors = test_unused()
    test_explained(base, factors)
    test_grids(base, factors)
    test_shared(base, factors)
    test_masked(base)
    test_adapter()
    test_refused()
    finish(90)


if __name__ == "__main__":
    main()
