"""What the tests of the Python scripts share: running a script, counting checks, a tiny tokenizer."""

from project import ROOT, SCRIPTS  # noqa: F401  (first: it may start another interpreter)

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import tokenizers

from check_goldens import read_safetensors, write_safetensors

FOLDER = tempfile.mkdtemp(prefix="bregman-text-")
counts = {"passed": 0, "failed": 0}


def check(condition, name, detail=""):
    """Count a check; a failed one is printed."""
    counts["passed" if condition else "failed"] += 1
    if not condition:
        print(f"not ok: {name}" + (f": {detail}" if detail != "" else ""))


def finish():
    shutil.rmtree(FOLDER)
    print(f"{os.path.basename(sys.argv[0])[:-3]}: {counts['passed']} passed, {counts['failed']} failed")
    sys.exit(counts["failed"] > 0)


def path(name):
    """A path in the test's own folder, whose parent exists."""
    full = os.path.join(FOLDER, name)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    return full


def write(name, data):
    with open(path(name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return path(name)


def run(script, *arguments, timeout=60, **keywords):
    return subprocess.run(
        [sys.executable, os.path.join(SCRIPTS, script), *map(str, arguments)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **keywords,
    )


def load(script):
    """A script as a module."""
    loader = importlib.machinery.SourceFileLoader(os.path.basename(script), os.path.join(SCRIPTS, script))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def refused(name, done, *parts, code=1):
    """Check that a script ended with one clear line: exit code, what the line names, no traceback."""
    lines = done.stderr.strip().split("\n")
    check(
        done.returncode == code and len(lines) == 1 and all(part in done.stderr for part in parts),
        name,
        f"exit {done.returncode}: {done.stderr.strip()[-400:]}",
    )


def datasets(name):
    """All datasets outside /run, and the root's attributes."""
    found = {}
    with h5py.File(path(name), "r") as file:

        def visit(key, item):
            if isinstance(item, h5py.Dataset) and not key.startswith("run/") and item.id.get_storage_size():
                found[key] = (item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]).tolist()

        file.visititems(visit)
        found["attributes"] = {
            key: value if isinstance(value, str) else int(value) for key, value in file.attrs.items()
        }
    return found


def tiny_model(name, bos=False, config=None):
    """A folder with a byte-level tokenizer of 256 bytes, some merges and <eos>; token ids are bytes' order."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d")]
    vocabulary = {token: i for i, token in enumerate(alphabet + ["".join(pair) for pair in merges])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<eos>"])
    eos = made.token_to_id("<eos>")
    if bos:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="<eos> $A <eos>", special_tokens=[("<eos>", eos)]
        )
    made.save(path(f"{name}/tokenizer.json"))
    write(f"{name}/config.json", json.dumps(config or {"vocab_size": made.get_vocab_size(), "eos_token_id": eos}))
    return path(name), made, eos


def make_model(name):
    """The NeoX of tests/goldens, with the vocabulary of a tokenizer of bytes and room for 512 tokens."""
    golden = os.path.join(ROOT, "tests", "goldens", "neox")
    with open(os.path.join(golden, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    folder, tokenizer, eos = tiny_model(name)
    config.update(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=512, eos_token_id=eos)
    write(f"{name}/config.json", json.dumps(config))
    weights, random = read_safetensors(f"{golden}/model.safetensors")[0], np.random.default_rng(5)
    for part in ("gpt_neox.embed_in.weight", "embed_out.weight"):
        weights[part] = random.normal(0, 0.3, (config["vocab_size"], config["hidden_size"])).astype(np.float32)
    write_safetensors(f"{folder}/model.safetensors", weights)
