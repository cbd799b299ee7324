#!/usr/bin/env python3
"""Makes tests/goldens/lora_*: PEFT adapters of other cases' models, and what PyTorch and PEFT compute with them in float64.

    make_adapters.py [--output tests/goldens]

Needs torch, transformers, peft, safetensors.  A case is a folder as PEFT saves it, with a link named base to the model's and
golden.safetensors, as make_goldens.py has it: the sequences, logits, losses, and a/MODULE and delta/MODULE of the modules'
weights and, as MODULE.lora_A and MODULE.lora_B, of the adapters'.  B's input is h = s A a here (site.h), where PEFT
has A a and scales what comes out.  With factors and scores of the adapters' modules where the case says so.
"""

import argparse
import json
import os
import shutil

import make_goldens as goldens
import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import load_file
from safetensors.torch import save_file

CASES = {
    # every option that changes a number: ranks and alphas by module, in different spellings; the head in full
    "lora_llama": dict(
        base="llama_pad",
        factors=True,
        options=dict(
            r=4,
            lora_alpha=6,
            use_rslora=True,
            target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
            alpha_pattern={"model.layers.0.self_attn.(q|v)_proj": 10, r".*\.up_proj": 1},
            modules_to_save=["lm_head", "norm"],
        ),
    ),
    "lora_gpt2": dict(
        base="gpt2",
        half=True,
        options=dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True),
    ),
}


def make_adapter(case, index, base, folder):
    """The folder, with values that are not where training begins; as PEFT reads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **case["options"]))
    generator = torch.Generator().manual_seed(300 + index)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    os.remove(f"{folder}/README.md")
    path = f"{folder}/adapter_model.safetensors"
    if case.get("half"):
        stored = {name: torch.from_numpy(x).to(torch.bfloat16) for name, x in load_file(path).items()}
        save_file(stored, path, metadata={"format": "pt"})
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = "an-organisation/a-model"  # not here: the link is
    config["target_modules"] = sorted(config["target_modules"])
    with open(f"{folder}/adapter_config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, sort_keys=True)
        file.write("\n")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return goldens.to_float64(peft.PeftModel.from_pretrained(model, folder, is_trainable=True))


def pairs(model, ids, labels, start=0):
    """One sequence's losses, logits and {module: (a, delta)}, as make_goldens.pairs, with the adapters' own."""
    caught, hooks = {}, []
    blocks = (".layers.", ".h.")
    for path, module in model.named_modules():
        name = path.removeprefix("base_model.model.").replace(".base_layer", "")
        name = name.replace(".lora_A.default", ".lora_A").replace(".lora_B.default", ".lora_B")
        if not isinstance(module, torch.nn.Linear) or not any(part in "." + name for part in blocks):
            continue

        def catch(module, inputs, output, name=name):
            a = inputs[0].detach()[0, :-1]
            if module.bias is not None:
                a = torch.cat((a, torch.ones_like(a[:, :1])), 1)
            caught[name] = [a.numpy()]
            output.register_hook(lambda g, name=name: caught[name].append(g[0, :-1].numpy()))

        hooks.append(module.register_forward_hook(catch))
    logits = model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    loss = torch.where(torch.arange(len(labels)) >= start, loss, 0.0)
    loss.sum().backward()
    for hook in hooks:
        hook.remove()
    for path, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            a, delta = caught[path.removeprefix("base_model.model.") + ".lora_B"]
            scale = module.scaling["default"]
            caught[path.removeprefix("base_model.model.") + ".lora_B"] = [scale * a, delta / scale]
    return loss.detach().numpy(), logits.detach().numpy(), caught


def check_merged(base, folder, train, logits):
    """PEFT's own merging, of the model as it is and in float32, gives the same logits but for rounding."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    for ids, of_sequence in zip(train[:2], logits):
        got = merged(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0, :-1].detach().numpy()
        assert abs(got - of_sequence).max() < 1e-5 * abs(of_sequence).max()


def add_factors(out, model, train, query, pseudo, made):
    """The adapters' factors and scores, by make_goldens' definitions."""
    names = [name for name in made[0] if ".lora_" in name]
    of_queries = [pairs(model, ids, ids[1:], goldens.PROMPT - 1)[2] for ids in query]
    of_pseudo = [
        [pairs(model, ids, labels[: len(ids) - 1])[2] for ids, labels in zip(train, pseudo[which])]
        for which in ("pseudo_cov", "pseudo_lambda")
    ]
    for fisher, (covariance, squares) in (("empirical", (made, made)), ("true", of_pseudo)):
        factors = {n: goldens.Factors(n, [p[n] for p in covariance], [p[n] for p in squares]) for n in names}
        for name, factor in factors.items():
            out[f"{fisher}/A/{name}"], out[f"{fisher}/S/{name}"] = goldens.lower(factor.A), goldens.lower(factor.S)
            out[f"{fisher}/lambda/{name}"] = factor.Lambda
        for variant, options in (("", {}), ("_damping_1e-8", {"damping": 1e-8})):
            out[f"{fisher}/score{variant}"] = goldens.scores(of_queries, made, factors, **options)
        if fisher == "empirical":
            out["empirical/layer_token_score"] = goldens.layer_token_scores(of_queries, made, factors, 2)


def draw_labels(made):
    """As make_goldens draws them: two sets for each sequence, from what the model says."""
    random = np.random.default_rng(5)
    pseudo = {name: np.zeros((goldens.N, goldens.T - 1), np.int64) for name in ("pseudo_cov", "pseudo_lambda")}
    for drawn in pseudo.values():
        for row, (_, logits, _) in zip(drawn, made):
            p = np.exp(logits - logits.max(1, keepdims=True))
            row[: len(p)] = [random.choice(len(x), p=x / x.sum()) for x in p]
    return pseudo


def make_case(name, index, case, output):
    folder, base = f"{output}/{name}", f"{output}/{case['base']}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    os.symlink(f"../{case['base']}", f"{folder}/base")
    model = make_adapter(case, index, base, folder)
    train, query = goldens.make_data(goldens.CASES[case["base"]])
    made = [pairs(model, ids, ids[1:]) for ids in train]
    out = {
        "train_token": np.concatenate(train),
        "train_count": np.array([len(ids) for ids in train]),
        "logits": np.concatenate([logits for _, logits, _ in made[:2]]),
        "loss": np.concatenate([loss for loss, _, _ in made]),
    }
    for module in made[0][2]:
        a, delta = (np.concatenate([found[module][i] for _, _, found in made[:2]]) for i in (0, 1))
        out[f"a/{module}"], out[f"delta/{module}"] = a, delta
    if case.get("factors"):
        pseudo = draw_labels(made)
        out |= pseudo | {"query_token": np.concatenate(query), "query_count": np.array([len(ids) for ids in query])}
        out["completion_start"] = np.full(len(query), goldens.PROMPT)
        add_factors(out, model, train, query, pseudo, [found for _, _, found in made])
    check_merged(base, folder, train, [logits for _, logits, _ in made])
    tensors = {
        key: torch.from_numpy(np.ascontiguousarray(x)).to(torch.int64 if x.dtype.kind == "i" else torch.float32)
        for key, x in out.items()
    }
    save_file(
        tensors,
        f"{folder}/golden.safetensors",
        metadata={"case": name, "modules": "adapter" * case.get("factors", False)},
    )
    print(name, len(made[0][2]), "modules")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=os.path.dirname(os.path.abspath(__file__)))
    output = parser.parse_args().output
    torch.set_default_dtype(torch.float32)
    for index, (name, case) in enumerate(CASES.items()):
        make_case(name, index, case, output)


if __name__ == "__main__":
    main()
