#!/usr/bin/env python3
"""Inputs for the fault tests: a tiny GPT-2 with tokens and queries that work, and many that must be refused.

make_inputs.py FOLDER                 all of them; the good ones are model, tokens.h5 and queries.h5
make_inputs.py flip FILE DATASET      change one byte inside the dataset's first chunk
make_inputs.py nan FILE DATASET       make a value of it a NaN, checksum and size kept right
make_inputs.py remove FILE OBJECT
make_inputs.py attribute FILE NAME VALUE    set a text attribute of the root
make_inputs.py check FOLDER           every HDF5 file under it can be read to its end
make_inputs.py same FILE FILE         all numbers of the two are equal
"""

import glob
import json
import math
import os
import shutil
import struct
import sys

import h5py
import numpy
import xxhash

D, FF, VOCABULARY, POSITIONS, BLOCKS = 8, 32, 32, 16, 2
CONFIG = {
    "model_type": "gpt2",
    "n_embd": D,
    "n_head": 2,
    "n_layer": BLOCKS,
    "n_positions": POSITIONS,
    "vocab_size": VOCABULARY,
    "layer_norm_epsilon": 1e-5,
}
TOKENIZER = b'{"version": "1.0"}'
TOKENIZER_HASH = xxhash.xxh3_128_hexdigest(TOKENIZER)


# ---- models


def weights(seed):
    random = numpy.random.default_rng(seed)
    shapes = {"wte.weight": (VOCABULARY, D), "wpe.weight": (POSITIONS, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for b in range(BLOCKS):
        for name, shape in {
            "ln_1.weight": (D,),
            "ln_1.bias": (D,),
            "ln_2.weight": (D,),
            "ln_2.bias": (D,),
            "attn.c_attn.weight": (D, 3 * D),
            "attn.c_attn.bias": (3 * D,),
            "attn.c_proj.weight": (D, D),
            "attn.c_proj.bias": (D,),
            "mlp.c_fc.weight": (D, FF),
            "mlp.c_fc.bias": (FF,),
            "mlp.c_proj.weight": (FF, D),
            "mlp.c_proj.bias": (D,),
        }.items():
            shapes[f"h.{b}.{name}"] = shape
    return {
        name: (random.normal(0, 0.3, shape) + ("ln_" in name and name.endswith("weight"))).astype("<f4")
        for name, shape in shapes.items()
    }


def write_safetensors(path, tensors, change_header=None):
    header, at = {}, 0
    for name, x in tensors.items():
        dtype = "F64" if x.dtype == "f8" else "F32"
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    if change_header:
        change_header(header)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for x in tensors.values()))


def write_model(folder, tensors, config=None, change_header=None, tokenizer=TOKENIZER):
    os.makedirs(folder)
    write_safetensors(f"{folder}/model.safetensors", tensors, change_header)
    with open(f"{folder}/config.json", "w") as f:
        json.dump({**CONFIG, **(config or {})}, f)
    with open(f"{folder}/tokenizer.json", "wb") as f:
        f.write(tokenizer)


def make_models(at):
    good = weights(1)
    write_model(f"{at}/model", good)
    write_model(f"{at}/other-weights", weights(2))
    write_model(f"{at}/other-tokenizer", good, tokenizer=b"{}")
    write_model(f"{at}/wider", good, {"n_embd": 2 * D})
    write_model(f"{at}/deeper", good, {"n_layer": BLOCKS + 1})
    write_model(f"{at}/larger-vocabulary", good, {"vocab_size": VOCABULARY + 1})
    write_model(f"{at}/odd-heads", good, {"n_head": 3})
    write_model(f"{at}/no-heads", good, {"n_head": 0})
    write_model(f"{at}/activation", good, {"activation_function": "quick_gelu"})
    write_model(f"{at}/family", good, {"model_type": "mamba"})
    write_model(
        f"{at}/rope",
        good,
        {
            "model_type": "llama",
            "hidden_size": D,
            "num_attention_heads": 2,
            "num_hidden_layers": BLOCKS,
            "intermediate_size": FF,
            "hidden_act": "silu",
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-5,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
        },
    )
    for name, tensor, value in (
        ("nan-weight", "h.1.mlp.c_fc.weight", numpy.nan),
        ("nan-bias", "h.0.ln_1.bias", numpy.nan),
        ("infinite-weight", "h.0.attn.c_attn.weight", numpy.inf),
    ):
        bad = weights(1)
        bad[tensor].flat[3] = value
        write_model(f"{at}/{name}", bad)

    def overlap(header):
        begin, end = header["wpe.weight"]["data_offsets"]
        header["wpe.weight"]["data_offsets"] = [begin - 4, end - 4]

    write_model(f"{at}/overlap", good, change_header=overlap)
    write_model(f"{at}/dtype", good, change_header=lambda h: h["wte.weight"].update(dtype="Q4"))
    write_model(f"{at}/whole-numbers", good, change_header=lambda h: h["wte.weight"].update(dtype="I32"))

    head = weights(3)["wte.weight"]
    write_model(f"{at}/tied-and-equal", {**good, "lm_head.weight": good["wte.weight"]})
    write_model(f"{at}/tied-and-other", {**good, "lm_head.weight": head})
    write_model(f"{at}/untied", {**good, "lm_head.weight": head}, {"tie_word_embeddings": False})
    write_model(f"{at}/head-alone", {"lm_head.weight" if k == "wte.weight" else k: x for k, x in good.items()})
    write_model(f"{at}/tied-and-wider", {**good, "lm_head.weight": numpy.zeros((VOCABULARY + 1, D), "<f4")})
    write_model(f"{at}/fewer-blocks", good, {"n_layer": 1})
    buffers = {
        f"h.{b}.attn.{name}": numpy.ones((1, 1, 4, 4), "<f4") for b in range(BLOCKS) for name in ("bias", "masked_bias")
    }
    write_model(f"{at}/buffers", {**good, **buffers})
    write_model(f"{at}/double", {name: x.astype("<f8") for name, x in good.items()})
    silent = weights(1)
    silent["h.1.mlp.c_proj.weight"][:] = 0  # and so the gradient of h.1.mlp.c_fc
    write_model(f"{at}/zero-projection", silent)
    write_model(f"{at}/many-blocks", good, {"n_layer": 2**31 - 1})
    write_model(f"{at}/large-epsilon", good, {"layer_norm_epsilon": 1e300})
    write_model(f"{at}/odd-numbers", good, {"limits": [-math.inf, math.inf, math.nan, 10**30]})
    for name in ("model.safetensors", "config.json"):
        write_model(f"{at}/pointer-{name}", good)
        with open(f"{at}/pointer-{name}/{name}", "w") as f:
            f.write(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 548105171\n")

    for name in ("truncated", "oversized-header", "no-config", "config-cut", "no-weights", "empty-weights"):
        shutil.copytree(f"{at}/model", f"{at}/{name}")
    os.truncate(f"{at}/truncated/model.safetensors", os.path.getsize(f"{at}/model/model.safetensors") - 100)
    with open(f"{at}/oversized-header/model.safetensors", "r+b") as f:
        f.write(struct.pack("<Q", 1 << 62))
    os.remove(f"{at}/no-config/config.json")
    os.truncate(f"{at}/config-cut/config.json", 40)
    os.remove(f"{at}/no-weights/model.safetensors")
    os.truncate(f"{at}/empty-weights/model.safetensors", 0)
    for name, file in (("pickled", "pytorch_model.bin"), ("pickled-parts", "pytorch_model.bin.index.json")):
        shutil.copytree(f"{at}/no-weights", f"{at}/{name}")
        with open(f"{at}/{name}/{file}", "w") as f:
            f.write("{}")


# ---- adapters

LORA = {"peft_type": "LORA", "base_model_name_or_path": "organisation/model", "r": 3, "lora_alpha": 6, "bias": "none"}


def lora(seed):
    """A and B of both projections of the MLPs and of the attention's inputs."""
    random, tensors = numpy.random.default_rng(seed), {}
    for b in range(BLOCKS):
        for module, n_out, n_in in (("attn.c_attn", 3 * D, D), ("mlp.c_fc", FF, D), ("mlp.c_proj", D, FF)):
            name = f"base_model.model.transformer.h.{b}.{module}"
            tensors[f"{name}.lora_A.weight"] = random.normal(0, 0.3, (3, n_in)).astype("<f4")
            tensors[f"{name}.lora_B.weight"] = random.normal(0, 0.3, (n_out, 3)).astype("<f4")
    return tensors


def merged(tensors, adapter, scale):
    """As peft's merge_and_unload, of Conv1D weights."""
    out = dict(tensors)
    for name, a in adapter.items():
        if name.endswith(".lora_A.weight"):
            b = adapter[name.replace("lora_A", "lora_B")]
            module = name[len("base_model.model.transformer.") : -len(".lora_A.weight")] + ".weight"
            out[module] = (out[module].astype("f8") + scale * (b.astype("f8") @ a.astype("f8")).T).astype("<f4")
    return out


def write_adapter(folder, tensors, config=None, base="../model"):
    os.makedirs(folder)
    write_safetensors(f"{folder}/adapter_model.safetensors", tensors)
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump({key: value for key, value in {**LORA, **(config or {})}.items() if value is not None}, f)
    if base:
        os.symlink(base, f"{folder}/base")


def make_adapters(at):
    good, name = lora(5), "base_model.model.transformer.h.0.mlp.c_fc"
    write_adapter(f"{at}/adapter", good)
    write_adapter(f"{at}/adapter-other", lora(6))
    write_adapter(f"{at}/adapter-by-path", good, {"base_model_name_or_path": f"{at}/model"}, base=None)
    write_adapter(f"{at}/adapter-scaled", good, {"lora_alpha": 12, "rank_pattern": {"mlp.c_fc": 3}})
    write_model(f"{at}/merged", merged(weights(1), good, 2))
    write_model(f"{at}/merged-scaled", merged(weights(1), good, 4))
    write_adapter(f"{at}/adapter-of-wider", good, base="../adapter-base-wider")
    write_model(
        f"{at}/adapter-base-wider",
        {k: numpy.tile(x, [2] * x.ndim) for k, x in weights(1).items()},
        {"n_embd": 2 * D, "vocab_size": 2 * VOCABULARY, "n_positions": 2 * POSITIONS},
    )
    for case, config in (
        ("dora", {"use_dora": True}),
        ("bias", {"bias": "all"}),
        ("type", {"peft_type": "LOHA"}),
        ("no-type", {"peft_type": None}),
        ("pissa", {"init_lora_weights": "pissa_niter_4"}),
        ("future", {"use_what_is_not_known_yet": {"x": 1}}),
        ("rank", {"r": 4}),
        ("no-alpha", {"lora_alpha": None}),
        ("alpha-text", {"lora_alpha": "6"}),
        ("pattern", {"alpha_pattern": {r"h\.\d\.mlp.c_fc": 3}}),
    ):
        write_adapter(f"{at}/adapter-{case}", good, config)
    write_adapter(f"{at}/adapter-no-base", good, base=None)
    write_adapter(f"{at}/adapter-of-adapter", good, base="../adapter")
    write_adapter(f"{at}/adapter-no-B", {k: x for k, x in good.items() if k != f"{name}.lora_B.weight"})
    write_adapter(f"{at}/adapter-no-A", {k: x for k, x in good.items() if k != f"{name}.lora_A.weight"})
    write_adapter(
        f"{at}/adapter-strange",
        {**good, "base_model.model.transformer.h.7.mlp.c_fc.lora_A.weight": good[f"{name}.lora_A.weight"]},
    )
    embedding = {f"base_model.model.{n}.weight": weights(4)["wte.weight"] for n in ("transformer.wte", "lm_head")}
    write_adapter(
        f"{at}/adapter-embedding", {**good, "base_model.model.transformer.wte.weight": weights(4)["wte.weight"]}
    )
    write_adapter(f"{at}/adapter-both-ends", {**good, **embedding})
    write_model(f"{at}/merged-both-ends", {**merged(weights(1), good, 2), "wte.weight": weights(4)["wte.weight"]})
    write_adapter(f"{at}/adapter-none", {})
    nan = {k: x.copy() for k, x in good.items()}
    nan[f"{name}.lora_A.weight"][1, 2] = numpy.nan
    write_adapter(f"{at}/adapter-nan", nan)
    write_adapter(f"{at}/adapter-pickled", good)
    os.rename(f"{at}/adapter-pickled/adapter_model.safetensors", f"{at}/adapter-pickled/adapter_model.bin")
    write_adapter(f"{at}/adapter-cut", good)
    os.truncate(
        f"{at}/adapter-cut/adapter_model.safetensors", os.path.getsize(f"{at}/adapter/adapter_model.safetensors") - 8
    )


# ---- sequences


def write_sequences(path, rows, count=None, start=None, tokenizer=TOKENIZER_HASH, dtype="u4"):
    """Queries if start, the first tokens of the completions, is given."""
    with h5py.File(path, "w") as f:
        ids = numpy.array([t for row in rows for t in row], dtype)
        f.create_dataset("token", data=ids, maxshape=(None,), chunks=(4096,), fletcher32=True)
        f["count"] = numpy.array([len(row) for row in rows] if count is None else count, "u4")
        f.attrs["tokenizer_hash"] = tokenizer
        if start is not None:
            f["completion_start"] = numpy.array(start, "u4")
            f.create_dataset("id", data=[f"q{i}" for i in range(len(rows))], dtype=h5py.string_dtype())


def make_sequences(at):
    random = numpy.random.default_rng(3)
    rows = [random.integers(0, VOCABULARY, random.integers(4, POSITIONS + 1)).tolist() for _ in range(40)]
    too_long = random.integers(0, VOCABULARY, POSITIONS + 2).tolist()  # the last token takes no position
    large_id = [1, 2, VOCABULARY, 3, 4]
    write_sequences(f"{at}/tokens.h5", rows)
    write_sequences(f"{at}/tokens-fewer.h5", rows[:30])
    write_sequences(f"{at}/tokens-short.h5", [row[:4] for row in rows])
    write_sequences(f"{at}/tokens-id.h5", rows[:30] + [large_id] + rows[30:])
    write_sequences(f"{at}/tokens-one.h5", rows[:7] + [[5]] + rows[7:])
    write_sequences(f"{at}/tokens-empty.h5", rows[:7] + [[]] + rows[7:])
    write_sequences(f"{at}/tokens-none.h5", [])
    write_sequences(f"{at}/tokens-long.h5", rows[:20] + [too_long])
    write_sequences(f"{at}/tokens-tokenizer.h5", rows, tokenizer="0" * 32)
    write_sequences(f"{at}/tokens-count.h5", rows, count=[len(r) + 1 for r in rows])
    write_sequences(f"{at}/tokens-float.h5", rows, dtype="f4")
    write_sequences(f"{at}/tokens-negative.h5", rows[:3] + [[1, -2, 3]], dtype="i8")
    with h5py.File(f"{at}/tokens-missing.h5", "w") as f:
        f["token"] = numpy.zeros(4, "u4")
    queries = [row[:8] + row[:4] for row in rows[:3]]
    start = [5, 5, 5]
    write_sequences(f"{at}/queries.h5", queries, start=start)
    write_sequences(f"{at}/queries-two.h5", queries[:2], start=start[:2])
    write_sequences(f"{at}/queries-id.h5", queries + [large_id], start=start + [3])
    write_sequences(f"{at}/queries-none.h5", [], start=[])
    write_sequences(f"{at}/queries-one.h5", queries + [[5]], start=start + [0])
    write_sequences(f"{at}/queries-long.h5", queries + [too_long], start=start + [3])
    write_sequences(f"{at}/queries-completion.h5", queries, start=[5, len(queries[1]), 5])
    write_sequences(f"{at}/queries-prompt.h5", queries, start=[5, 5, 0])
    write_sequences(f"{at}/queries-tokenizer.h5", queries, start=start, tokenizer="0" * 32)


def make_others(at):
    """Labels, lists of candidates, and files that are no HDF5 at all."""
    labels = numpy.zeros((40, POSITIONS), "<i8")
    for name, tensors in (
        ("labels", {"pseudo_cov": labels, "pseudo_lambda": labels}),
        ("labels-large", {"pseudo_cov": labels + VOCABULARY, "pseudo_lambda": labels}),
        ("labels-few", {"pseudo_cov": labels[:3], "pseudo_lambda": labels}),
        ("labels-missing", {"pseudo_lambda": labels}),
    ):
        write_safetensors(
            f"{at}/{name}.safetensors", tensors, lambda header: [t.update(dtype="I64") for t in header.values()]
        )
    for name, text in (
        ("good", "# chosen\n3\n1\n\n1\n 7 \n"),
        ("word", "1\nseven\n"),
        ("negative", "1\n-2\n"),
        ("large", "1\n40\n"),
        ("huge", "99999999999999999999999\n"),
        ("two", "1 2\n"),
        ("none", "# none\n"),
        ("long", "1" + " " * 100 + "\n2" + " " * 70 + "x\n"),
    ):
        with open(f"{at}/candidates-{name}.txt", "w") as f:
            f.write(text)
    for name, values in (
        ("good", [3, 1, 7]),
        ("negative", [1, -2]),
        ("fractions", [1.5]),
        ("none", []),
        ("table", [[1, 2]]),
    ):
        with h5py.File(f"{at}/candidates-{name}.h5", "w") as f:
            f["sequence"] = numpy.array(values, "f8" if name == "fractions" else "i8")
    with open(f"{at}/text.h5", "w") as f:
        f.write("not HDF5\n")


# ---- damage to files that the stages wrote


def flip(path, dataset):
    with h5py.File(path) as f:
        chunk = f[dataset].id.get_chunk_info(0)
        at = chunk.byte_offset + min(chunk.size, f[dataset].nbytes) // 2
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x40]))


def set_nan(path, dataset):
    with h5py.File(path, "r+") as f:
        f[dataset][(0,) * f[dataset].ndim] = numpy.nan


def remove(path, name):
    with h5py.File(path, "r+") as f:
        del f[name]


def set_attribute(path, name, value):
    with h5py.File(path, "r+") as f:
        f.attrs[name] = value


def check(folder):
    def read(name, item):
        if isinstance(item, h5py.Dataset):
            item[...]

    for path in glob.glob(f"{folder}/**/*.h5", recursive=True):
        if os.path.isfile(path):
            with h5py.File(path) as f:
                f.visititems(read)


def same(path_a, path_b):
    with h5py.File(path_a) as a, h5py.File(path_b) as b:

        def compare(name, item):
            if (
                isinstance(item, h5py.Dataset)
                and item.dtype.kind != "O"
                and item[...].tobytes() != b[name][...].tobytes()
            ):
                sys.exit(f"{name} differs")

        a.visititems(compare)
        for name in a:  # visititems does not follow links to other files
            compare(name, a[name]) if isinstance(a[name], h5py.Dataset) else a[name].visititems(
                lambda inner, item, name=name: compare(f"{name}/{inner}", item)
            )


def make_all(folder):
    make_models(folder)
    make_adapters(folder)
    make_sequences(folder)
    make_others(folder)


COMMANDS = {"flip": flip, "nan": set_nan, "remove": remove, "attribute": set_attribute, "check": check, "same": same}
if __name__ == "__main__":
    if sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    else:
        make_all(sys.argv[1])
