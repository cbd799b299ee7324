#!/usr/bin/env python3
"""bin_to_hf: files as torch writes them, made here opcode by opcode (no torch), and what must be refused."""

from text_checks import FOLDER, check, finish, path, refused, run

import json
import os
import shutil
import struct
import zipfile

import numpy as np

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
NAMES = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"}
NAMES |= {"LongStorage": "I64", "ByteStorage": "U8", "BoolStorage": "BOOL"}


# ---- pickles


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def name_of(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"t" + b"R"


def storage(kind, key, numel):
    return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + number(numel) + b"t" + b"Q"


def rebuilt(kind, key, numel, first, shape, stride):
    hooks = call(name_of("collections", "OrderedDict"))
    return call(
        name_of("torch._utils", "_rebuild_tensor_v2"),
        storage(kind, key, numel),
        number(first),
        numbers(shape),
        numbers(stride),
        b"\x89",
        hooks,
    )


def state_dict(items, metadata=True):
    made = call(name_of("collections", "OrderedDict")) + b"("
    made += b"".join(text(name) + value for name, value in items.items()) + b"u"
    if metadata:  # as nn.Module.state_dict leaves it: an attribute of the OrderedDict
        made += b"}" + text("_metadata") + call(name_of("collections", "OrderedDict")) + b"s" + b"b"
    return b"\x80\x02" + made + b"."


def write_bin(name, pickled, storages, root="archive", order=b"little", compressed=(), padding=True):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with zipfile.ZipFile(path(name), "w") as archive:
        members = {"data.pkl": pickled, "byteorder": order, "version": b"3\n"}
        members |= {f"data/{key}": values.tobytes() for key, values in storages.items()}
        for member, data in members.items():
            entry = zipfile.ZipInfo(f"{root}/{member}")
            if member in compressed:
                entry.compress_type = zipfile.ZIP_DEFLATED
            if padding:  # torch aligns its members with such a field
                entry.extra = b"FB" + struct.pack("<H", 21) + b"Z" * 21
            archive.writestr(entry, data)
    return path(name)


# ---- a model


def model_values():
    draw = np.random.default_rng(1)
    values = {
        kind: draw.normal(0, 100, 24).astype(DTYPES[kind]) if DTYPES[kind][1:2] == "f" else draw.integers(0, 2, 24)
        for kind in DTYPES
    }
    return {kind: x.astype(DTYPES[kind]) for kind, x in values.items()}


def model_pickle(storages):
    """Tensors and the numbers that they must have: of every kind, in every layout."""
    keys = {kind: str(i) for i, kind in enumerate(storages)}
    items, wanted = {}, {}
    for kind, values in storages.items():
        items[f"whole.{kind}"] = rebuilt(kind, keys[kind], 24, 0, (4, 6), (6, 1))
        wanted[f"whole.{kind}"] = kind, values.reshape(4, 6)
    first = storages["FloatStorage"]
    for name, at, shape, stride, value in (
        ("transposed", 0, (6, 4), (1, 6), first.reshape(4, 6).T),
        ("slice", 7, (3, 2), (6, 2), first.reshape(4, 6)[1:, 1:5:2]),
        ("scalar", 5, (), (), first[5]),
        ("empty", 0, (0, 3), (3, 1), first[:0].reshape(0, 3)),
        ("shared", 0, (24,), (1,), first),
    ):
        items[name] = rebuilt("FloatStorage", keys["FloatStorage"], 24, at, shape, stride)
        wanted[name] = "FloatStorage", value
    items["parameter"] = call(
        name_of("torch._utils", "_rebuild_parameter"),
        rebuilt("HalfStorage", keys["HalfStorage"], 24, 0, (24,), (1,)),
        b"\x88",
        call(name_of("collections", "OrderedDict")),
    )
    wanted["parameter"] = "HalfStorage", storages["HalfStorage"]
    return items, wanted, {keys[kind]: values for kind, values in storages.items()}


def write_folder(name, bins, others=("config.json", "tokenizer.json", "merges.txt")):
    os.makedirs(path(name), exist_ok=True)
    for other in others:
        with open(path(f"{name}/{other}"), "w", encoding="utf-8") as file:
            file.write(f'{{"of": "{other}"}}\n')
    for file, arguments in bins.items():
        write_bin(f"{name}/{file}", *arguments)
    return path(name)


def read_safetensors(name):
    with open(name, "rb") as file:
        data = file.read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    check(header.pop("__metadata__") == {"format": "pt"}, f"{name}: metadata")
    at, found = 0, {}
    for key, entry in header.items():
        check(entry["data_offsets"][0] == at, f"{name}: {key} follows the one before it")
        at = entry["data_offsets"][1]
        found[key] = entry["dtype"], entry["shape"], data[start + entry["data_offsets"][0] : start + at]
    check(start + at == len(data), f"{name}: nothing is left over")
    return found


def check_tensors(name, found, wanted):
    check(found.keys() == wanted.keys(), f"{name}: tensors", found.keys() ^ wanted.keys())
    for key, (kind, values) in wanted.items():
        got = NAMES[kind], list(values.shape), np.ascontiguousarray(values).tobytes()
        check(found.get(key) == got, f"{name}: {key}", (found.get(key), got))


def test_one_file():
    items, wanted, storages = model_pickle(model_values())
    write_folder("one", {"pytorch_model.bin": (state_dict(items), storages)})
    done = run("bin_to_hf", path("one"), path("one.hf"))
    check(done.returncode == 0, "one file", done.stderr)
    check_tensors("one", read_safetensors(path("one.hf/model.safetensors")), wanted)
    names = ["SOURCE.json", "config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
    check(sorted(os.listdir(path("one.hf"))) == names, "one: files", os.listdir(path("one.hf")))
    for name in ("config.json", "tokenizer.json", "merges.txt"):
        with open(path(f"one/{name}"), "rb") as a, open(path(f"one.hf/{name}"), "rb") as b:
            check(a.read() == b.read(), f"one: {name}")
    check("already done" in run("bin_to_hf", path("one"), path("one.hf")).stdout, "already done")
    again = run("bin_to_hf", path("one"), path("again"))
    with open(path("one.hf/model.safetensors"), "rb") as a, open(path("again/model.safetensors"), "rb") as b:
        check(again.returncode == 0 and a.read() == b.read(), "the same bytes again")
    write_folder("one", {"pytorch_model.bin": (state_dict(items, False), storages, "other", b"little", (), False)})
    refused("another source", run("bin_to_hf", path("one"), path("one.hf")), "one.hf", "--force")
    done = run("bin_to_hf", path("one"), path("one.hf"), "--force")
    check(done.returncode == 0, "forced", done.stderr)
    check_tensors("forced", read_safetensors(path("one.hf/model.safetensors")), wanted)


def test_several_files():
    items, wanted, storages = model_pickle(model_values())
    parts = [dict(list(items.items())[i::2]) for i in range(2)]
    files = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    write_folder("several", {file: (state_dict(part), storages) for file, part in zip(files, parts)})
    where = {name: file for file, part in zip(files, parts) for name in part}
    with open(path("several/pytorch_model.bin.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": 1}, "weight_map": where}, file)
    done = run("bin_to_hf", path("several"), path("several.hf"))
    check(done.returncode == 0, "several files", done.stderr)
    found = {}
    with open(path("several.hf/model.safetensors.index.json"), encoding="utf-8") as file:
        index = json.load(file)["weight_map"]
    for name in sorted(set(index.values())):
        part = read_safetensors(path(f"several.hf/{name}"))
        check(all(index[key] == name for key in part), f"{name} is what the index says")
        found |= part
    check_tensors("several", found, wanted)
    check("pytorch_model.bin.index.json" not in os.listdir(path("several.hf")), "the old index stays behind")
    where["gone"] = files[0]
    with open(path("several/pytorch_model.bin.index.json"), "w", encoding="utf-8") as file:
        json.dump({"weight_map": where}, file)
    refused("index of more", run("bin_to_hf", path("several"), path("refused")), files[0], '"gone"')
    with open(path("several/pytorch_model.bin.index.json"), "w", encoding="utf-8") as file:
        json.dump({"weight_map": {"x": "../one/pytorch_model.bin"}}, file)
    refused("index that leaves", run("bin_to_hf", path("several"), path("refused")), "../one/pytorch_model.bin")


def test_adapter():
    items, wanted, storages = model_pickle(model_values())
    write_folder("adapter", {"adapter_model.bin": (state_dict(items), storages)}, ("adapter_config.json",))
    done = run("bin_to_hf", path("adapter"), path("adapter.hf"))
    check(done.returncode == 0, "adapter", done.stderr)
    check_tensors("adapter", read_safetensors(path("adapter.hf/adapter_model.safetensors")), wanted)


def test_other_programs():
    """A pickle that would run something does not: each names what it asked for."""
    touched = path("touched")
    command = text(f"touch {touched}")
    one = {"0": np.zeros(4, "<f4")}
    good = rebuilt("FloatStorage", "0", 4, 0, (4,), (1,))
    pickles = {
        "os.system": call(name_of("os", "system"), command),
        "posix.system": call(name_of("posix", "system"), command),
        "builtins.eval": call(name_of("builtins", "eval"), text(f"open({touched!r}, 'w')")),
        "builtins.getattr": call(name_of("builtins", "getattr"), name_of("collections", "OrderedDict"), text("pop")),
        "torch.load": call(name_of("torch", "load"), text("x")),
        "torch.storage._load_from_bytes": call(name_of("torch.storage", "_load_from_bytes"), text("x")),
        "collections.OrderedDict.fromkeys": text("collections") + text("OrderedDict.fromkeys") + b"\x93",
    }
    for name, asked in pickles.items():
        # protocol 4, for names on the stack
        pickled = state_dict({"a": good, "b": asked}).replace(b"\x80\x02", b"\x80\x04", 1)
        write_folder("bad", {"pytorch_model.bin": (pickled, one)})
        refused(name, run("bin_to_hf", path("bad"), path("refused")), "bad/pytorch_model.bin", f'"{name}"')
        check(not os.path.exists(touched), f"{name} was run")
    instance = b"(" + text(f"touch {touched}") + b"ios\nsystem\n"  # the INST opcode
    write_folder("bad", {"pytorch_model.bin": (state_dict({"a": instance}), one)})
    refused("INST", run("bin_to_hf", path("bad"), path("refused")), '"os.system"')
    check(not os.path.exists(touched), "INST was run")


def test_damage():
    one = {"0": np.zeros(4, "<f4")}
    good = rebuilt("FloatStorage", "0", 4, 0, (4,), (1,))
    tensors = {
        "beyond its storage": rebuilt("FloatStorage", "0", 4, 1, (4,), (1,)),
        "by its stride": rebuilt("FloatStorage", "0", 4, 0, (2,), (4,)),
        "expanded": rebuilt("FloatStorage", "0", 4, 0, (1000000,), (0,)),
        "negative": rebuilt("FloatStorage", "0", 4, 0, (-1,), (1,)),
        "negative stride": rebuilt("FloatStorage", "0", 4, 3, (4,), (-1,)),
        "no stride": rebuilt("FloatStorage", "0", 4, 0, (4,), ()),
        "storage that is too short": rebuilt("FloatStorage", "0", 5, 0, (5,), (1,)),
        "of wider numbers": rebuilt("DoubleStorage", "0", 4, 0, (4,), (1,)),
        "absent storage": rebuilt("FloatStorage", "7", 4, 0, (4,), (1,)),
        "few arguments": call(name_of("torch._utils", "_rebuild_tensor_v2"), number(3)),
        "called kind": call(name_of("torch", "FloatStorage"), number(4)),
    }
    for name, tensor in tensors.items():
        write_folder("bad", {"pytorch_model.bin": (state_dict({"a": tensor}), one)})
        refused(name, run("bin_to_hf", path("bad"), path("refused")), "bad/pytorch_model.bin", "corrupt")
    cases = {
        "no dictionary": ((b"\x80\x02" + good + b".", one), "no state dict"),
        "number": ((state_dict({"step": number(3)}), one), '"step" is no tensor but a int'),
        "nested": ((state_dict({"model": call(name_of("collections", "OrderedDict"))}), one), '"model" is no tensor'),
        "cut pickle": ((state_dict({"a": good})[:-20], one), "corrupt"),
        "big-endian": ((state_dict({"a": good}), one, "archive", b"big"), "big-endian"),
        "compressed": ((state_dict({"a": good}), one, "archive", b"little", ("data/0",)), "compressed"),
    }
    for name, (arguments, reason) in cases.items():
        write_folder("bad", {"pytorch_model.bin": arguments})
        refused(name, run("bin_to_hf", path("bad"), path("refused")), "bad/pytorch_model.bin", reason)
    write_folder("bad", {"pytorch_model.bin": (state_dict({"a": good}), {"0": np.arange(9, dtype="<f4")})})
    with open(path("bad/pytorch_model.bin"), "rb") as file:
        whole = file.read()
    flipped = bytearray(whole)
    flipped[whole.index(np.float32(3).tobytes())] ^= 1
    contents = {
        "flipped": (bytes(flipped), "checksum"),
        "cut": (whole[: len(whole) // 2], "corrupt"),
        "empty": (b"", "zip format"),
        "old format": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "zip format that torch writes since 1.6"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    }
    for name, (content, reason) in contents.items():
        with open(path("bad/pytorch_model.bin"), "wb") as file:
            file.write(content)
        refused(name, run("bin_to_hf", path("bad"), path("refused")), "bad/pytorch_model.bin", reason)
    refused("no folder", run("bin_to_hf", path("nothing"), path("refused")), "nothing", "no folder")
    shutil.rmtree(path("bad"))
    refused("no weights", run("bin_to_hf", write_folder("bad", {}), path("refused")), "neither pytorch_model.bin")
    check(
        not [name for name in os.listdir(FOLDER) if name.startswith("refused")], "nothing is left of what was refused"
    )


test_one_file()
test_several_files()
test_adapter()
test_other_programs()
test_damage()
finish()
