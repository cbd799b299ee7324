"""What the converters share: a model folder that is made whole or not at all, and safetensors files."""

import errno
import json
import os
import shutil

import numpy as np

from bregman.errors import UserError
from bregman.writer import attempt_name, remove_leftovers


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def write_safetensors(path, tensors):
    """tensors: (name, dtype as safetensors spells it, bytes of a number, shape, its bytes in blocks), one after the other."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, n_bytes, shape, _ in tensors:
        end = offset + int(np.prod(shape, dtype=object)) * n_bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, blocks in tensors:
            for block in blocks:
                file.write(block)
        file.flush()
        os.fsync(file.fileno())


def is_done(folder, provenance, force):
    if force or not os.path.exists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    try:
        with open(os.path.join(folder, "SOURCE.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = {}
    if any(found.get(key) != value for key, value in provenance.items()):
        asked = ", ".join(f"{key} {value}" for key, value in provenance.items())
        raise UserError(
            f'"{folder}" exists and is not this conversion ({asked}); remove it, or add --force to replace it'
        )
    return True


def publish_folder(temporary, folder, provenance, force):
    """Unless forced, a folder of this conversion that another attempt has published meanwhile stays."""
    old = attempt_name(folder)
    if force and os.path.exists(folder):
        os.rename(folder, old)
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_done(folder, provenance, False):
            raise
    shutil.rmtree(old, ignore_errors=True)


def make_folder(output, provenance, force, make):
    """make(temporary folder) fills what becomes `output`; False: it is there already."""
    if os.path.islink(output):
        output = os.path.realpath(output)  # what it leads to is made; the link stays
    if is_done(output, provenance, force):
        return False
    temporary = attempt_name(output)
    remove_leftovers(output)
    try:
        os.makedirs(temporary)
        make(temporary)
        publish_folder(temporary, output, provenance, force)
    except OSError as error:
        raise UserError(f'cannot write "{output}": {error.strerror or error}') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
