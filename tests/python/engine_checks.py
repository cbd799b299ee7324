"""What the tests that run whole stages share: counted checks, random corpora, byte comparison of HDF5 files."""

from project import ROOT, SCRIPTS  # first: it may start another interpreter

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

from check_goldens import Engine, read_safetensors, relative, write_safetensors, write_tokens

BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
MPI = os.path.join(SCRIPTS, "mpi")
FOLDER = tempfile.mkdtemp(prefix="bregman-engine-")
# An mpirun that is killed leaves its session's folder, and Open MPI 5 refuses to start when one of its process id exists.
os.environ["TMPDIR"] = FOLDER
counts = {"passed": 0, "failed": 0}


def check(condition, name, detail=""):
    """Count a check; a failed one is printed."""
    counts["passed" if condition else "failed"] += 1
    if not condition:
        print(f"not ok: {name}" + (f": {detail}" if detail != "" else ""), flush=True)


def close(name, found, wanted, limit):
    difference = relative(found, wanted)
    check(difference <= limit, name, f"{difference:.2e}, limit {limit:.0e}")


def finish(least):
    """End the test; fewer checks than `least` means that some did not run."""
    shutil.rmtree(FOLDER, ignore_errors=True)  # what was killed may still be removing files of its own
    print(f"{os.path.basename(sys.argv[0])[:-3]}: {counts['passed']} passed, {counts['failed']} failed")
    sys.exit(counts["failed"] > 0 or counts["passed"] < least)


def model(case):
    return os.path.join(ROOT, "tests", "goldens", case)


def golden(case):
    return read_safetensors(f"{model(case)}/golden.safetensors")[0]


def engine(case, folder, **options):
    """Stages on a model of tests/goldens, or on a folder."""
    path = case if os.path.isabs(case) else model(case)
    return Engine(BUILD, path, os.path.join(FOLDER, folder), **options)


def deep_model(case="llama", n_blocks=5):
    """A model of tests/goldens with more blocks, each a disturbed copy of one of its own."""
    folder = os.path.join(FOLDER, f"deep-{case}-{n_blocks}")
    os.makedirs(folder)
    with open(f"{model(case)}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    key = "num_hidden_layers" if "num_hidden_layers" in config else "n_layer"
    weights, n, random = read_safetensors(f"{model(case)}/model.safetensors")[0], config[key], np.random.default_rng(3)
    for name, x in list(weights.items()):
        match = re.match(r"(.*?(?:layers|h)\.)(\d+)(\..*)", name)
        for block in range(n, n_blocks) if match and int(match[2]) == 0 else []:
            weights[f"{match[1]}{block}{match[3]}"] = (x * random.normal(1, 0.1, x.shape)).astype(np.float32)
    config[key] = n_blocks
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    write_safetensors(f"{folder}/model.safetensors", weights)
    return folder


def plain_gpt2(name, d, blocks, positions, vocabulary, change=lambda weights: None):
    """A GPT-2 of random weights, of any size; change(weights) may disturb them."""
    random, folder = np.random.default_rng(7), os.path.join(FOLDER, name)
    shapes = {"wte.weight": (vocabulary, d), "wpe.weight": (positions, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    for b in range(blocks):
        for part, shape in {
            "ln_1.weight": (d,),
            "ln_1.bias": (d,),
            "ln_2.weight": (d,),
            "ln_2.bias": (d,),
            "attn.c_attn.weight": (d, 3 * d),
            "attn.c_attn.bias": (3 * d,),
            "attn.c_proj.weight": (d, d),
            "attn.c_proj.bias": (d,),
            "mlp.c_fc.weight": (d, 4 * d),
            "mlp.c_fc.bias": (4 * d,),
            "mlp.c_proj.weight": (4 * d, d),
            "mlp.c_proj.bias": (d,),
        }.items():
            shapes[f"h.{b}.{part}"] = shape
    weights = {
        part: (random.normal(0, 0.1, shape) + ("ln_" in part and part.endswith("weight"))).astype("f4")
        for part, shape in shapes.items()
    }
    change(weights)
    os.makedirs(folder)
    write_safetensors(f"{folder}/model.safetensors", weights)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(
            {
                "model_type": "gpt2",
                "n_embd": d,
                "n_head": 4,
                "n_layer": blocks,
                "n_positions": positions,
                "vocab_size": vocabulary,
                "layer_norm_epsilon": 1e-5,
            },
            file,
        )
    return folder


def fault_library():
    """tests/fault/inject_fault.c, to be preloaded into ranks."""
    path = os.path.join(FOLDER, "inject_fault.so")
    subprocess.run(
        [
            os.environ.get("CC", "cc"),
            "-D_GNU_SOURCE",
            "-shared",
            "-fPIC",
            "-o",
            path,
            os.path.join(ROOT, "tests", "fault", "inject_fault.c"),
            "-ldl",
        ],
        check=True,
    )
    return path


def corpus(n, vocab=64, longest=32, seed=1):
    """Sequences of 2 to `longest` ids."""
    random = np.random.default_rng(seed)
    return [random.integers(0, vocab, length) for length in random.integers(2, longest + 1, n)]


def query_corpus(n, seed=2):
    """(sequences, first token of each completion)"""
    random = np.random.default_rng(seed)
    made = [random.integers(0, 64, length) for length in random.integers(4, 33, n)]
    return made, np.array([random.integers(1, len(x)) for x in made])


def shared_files(name="shared", n=37, n_queries=5):
    """(token file, query file) of random ids."""
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder)
    made, start = query_corpus(n_queries)
    return write_tokens(f"{folder}/tokens.h5", corpus(n)), write_tokens(f"{folder}/queries.h5", made, start)


def contents(path):
    """{name: (dtype, shape, bytes)} of all datasets but /run, external links followed; attributes by "NAME@ATTRIBUTE"."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not (item.dtype == ">f4" and item.id.get_storage_size() == 0):
            text = h5py.check_string_dtype(item.dtype) is not None
            data = repr(item.asstr()[()].tolist()).encode() if text else item[()].tobytes()
            found[name] = (str(item.dtype), item.shape, data)
        for key, value in item.attrs.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Coordinates"):  # addresses in the file
                found[f"{name}@{key}"] = repr(value)

    def walk(group, prefix):
        for key in sorted(group):
            if prefix == "" and key == "run":
                continue
            item = group[key]
            visit(prefix + key, item)
            if isinstance(item, h5py.Group):
                walk(item, f"{prefix}{key}/")

    with h5py.File(path, "r") as file:
        walk(file, "")
        visit("", file)
    return found


def same_file(name, path, reference, ignore=()):
    """All datasets and attributes of two files are the same bytes."""
    a, b = contents(path), contents(reference)
    differ = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and not k.endswith(tuple(ignore))]
    check(len(b) > 3 and not differ, f"{name}: same bytes", ", ".join(differ[:8]))
