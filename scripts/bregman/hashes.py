"""Hashes of texts, files and models, and where those of large files are remembered."""

import argparse
import contextlib
import functools
import json
import mmap
import os
import re
import stat
import sys
import time

import xxhash

from bregman.errors import UserError
from bregman.writer import attempt_name, remove_leftovers

BLOCK_BYTES = 1 << 20


def hash_bytes(data):
    return xxhash.xxh3_128_hexdigest(data)


def hash_texts(texts):
    """Hash of several texts in order; their lengths count, so that parts cannot run together."""
    digest = xxhash.xxh3_128()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how a file of this kind begins


def require_regular(path):
    """Refuse a named pipe, which would wait for ever for somebody to write, what else is no file, and what a clone without Git LFS
    left in a file's place; one that is not there is not refused."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = (
            "a folder"
            if os.path.isdir(path)
            else "a named pipe"
            if stat.S_ISFIFO(os.stat(path).st_mode)
            else "no regular file"
        )
        raise UserError(f'cannot read "{path}": it is {kind}')
    with contextlib.suppress(OSError), open(path, "rb") as file:  # whoever reads it says why it cannot be read
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(f'"{path}" is a Git LFS pointer, not the file itself: run "git lfs pull" in its clone')


def hash_file(path):
    digest = xxhash.xxh3_128()
    require_regular(path)
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror}') from None
    return digest.hexdigest()


# ---------------------------------------------------------------- remembered hashes

# As in common/publish/hash_cache.c: the stages and the scripts share the folder.
LEAST_REMEMBERED_BYTES, SETTLED_S = 1 << 20, 2
_told = mmap.mmap(-1, 1)  # not 0: said; shared with the processes that are forked


class _Choose(argparse.Action):
    def __call__(self, _parser, _options, folder, _name=None):
        if folder:
            os.environ["BREGMAN_HASH_CACHE"] = os.path.abspath(folder)


def add_option(parser):
    """--hash-cache, for this process and those that it starts; no part of what the options come to."""
    parser.add_argument(
        "--hash-cache",
        metavar="FOLDER",
        action=_Choose,
        default=argparse.SUPPRESS,
        help="folder where hashes of large inputs are remembered (BREGMAN_HASH_CACHE, else bregman/hashes in XDG_CACHE_HOME "
        "or ~/.cache)",
    )


def _hash_cache():
    """The folder where hashes are remembered, or ""."""
    home = os.environ.get("HOME", "")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        cache = os.path.join(home, ".cache") if home.startswith("/") else ""
    return os.environ.get("BREGMAN_HASH_CACHE", os.path.join(cache, "bregman/hashes") if cache else "")


def _remembered(path):
    """(the file's own entry, what stands there behind the hash, when the file was changed last), or None: not to be remembered."""
    folder = _hash_cache()
    try:
        about = os.stat(path)
    except OSError:
        return None
    if not folder or not stat.S_ISREG(about.st_mode) or about.st_size < LEAST_REMEMBERED_BYTES:
        return None
    real = os.fsencode(os.path.realpath(path))
    times = " ".join(f"{ns // 10**9}.{ns % 10**9:09d}" for ns in (about.st_mtime_ns, about.st_ctime_ns))
    key = f"{about.st_size} {about.st_ino} {times} ".encode() + real + b"\n"
    return os.path.join(folder, hash_bytes(real)), key, max(about.st_mtime, about.st_ctime)


def _entry(digest, key):
    line = digest + b" " + key
    return line + hash_bytes(line).encode() + b"\n"


def _recall(entry, key):
    try:
        with open(entry, "rb") as file:
            found = file.read()
    except OSError:
        return None
    digest = found[:32]
    return digest.decode() if re.fullmatch(rb"[0-9a-f]{32}", digest) and found == _entry(digest, key) else None


def _say_once(folder, cause):
    if not _told[0]:
        print(
            f'{os.path.basename(sys.argv[0])}: hashes of inputs cannot be remembered in "{folder}", so every run reads them '
            f"anew: {cause}; --hash-cache names another folder",
            file=sys.stderr,
        )
    _told[0] = 1


@functools.cache
def _clean(folder):
    """Once a process: what attempts that were killed have left."""
    with contextlib.suppress(UserError):  # another user's
        remove_leftovers(os.path.join(folder, ""))


def _remember(entry, key, digest):
    folder, temporary = os.path.dirname(entry), attempt_name(entry)
    try:
        os.makedirs(folder, exist_ok=True)
        _clean(folder)
        with open(temporary, "xb") as file:
            file.write(_entry(digest.encode(), key))
        os.replace(temporary, entry)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        _say_once(folder, error.strerror)


def hash_file_once(path):
    """hash_file, but a large file is read once as long as it stays the same, whichever program hashes it."""
    before = _remembered(path)
    known = before and _recall(*before[:2])
    if known:
        return known
    digest = hash_file(path)
    if before and _remembered(path) == before and time.time() - before[2] > SETTLED_S:
        _remember(*before[:2], digest)
    return digest


def remember_hash(path, inode, digest):
    """The hash of a file that this process has just published, so that those who read it need not; nothing if another file has the
    name by now."""
    now = _remembered(path)
    if now and os.stat(path).st_ino == inode:
        _remember(*now[:2], digest)


def checkpoint_folder(name):
    """The folder that a model's name means, as common/formats/checkpoint.c finds it: of DIR@STEP, a checkpoint of a training run."""
    run, _, step = name.rpartition("@")
    if os.path.isdir(name) or not re.fullmatch("[0-9]{1,18}", step) or not os.path.isdir(run):
        return name
    for folder in (f"step-{int(step):08}", f"checkpoint-{int(step)}"):
        if os.path.isdir(os.path.join(run, folder)):
            return os.path.join(run, folder)
    found = [re.fullmatch("(?:step|checkpoint)-([0-9]{1,18})", entry) for entry in os.listdir(run)]
    steps = ", ".join(map(str, sorted(int(match[1]) for match in found if match)))
    raise UserError(
        f'"{run}" has no checkpoint of step {int(step)}: it has {"steps " + steps if steps else "no checkpoint"}'
    )


def adapter_base(folder):
    """The folder of the model that a PEFT adapter's folder stands on, as common/formats/adapter.c finds it; None of another folder."""
    path = os.path.join(folder, "adapter_config.json")
    if not os.path.exists(path):
        return None
    beside = os.path.join(folder, "base")
    try:
        with open(path, encoding="utf-8") as file:
            named = json.load(file)["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        named = ""
    base = beside if os.path.isdir(beside) else named
    if not isinstance(base, str) or not os.path.isdir(base):
        raise UserError(
            f'"{path}": the base model "{base}" (base_model_name_or_path) is no folder here: link its folder to where it is '
            f"looked for first: ln -s FOLDER {beside}"
        )
    return base


def model_file(folder, name):
    """Path of a model's file; of an adapter that has none of its own, its base's."""
    folder = checkpoint_folder(folder)
    path, base = os.path.join(folder, name), adapter_base(folder)
    return os.path.join(base, name) if base and not os.path.exists(path) else path


def hash_model(folder):
    """Content hash of a model's config.json and weights, and of an adapter on top of them, as in every file of the stages; None
    if the folder lacks either."""
    folder = checkpoint_folder(folder)
    base = adapter_base(folder)
    if not base:
        return _hash_whole_model(folder)
    config, weights = (os.path.join(folder, name) for name in ("adapter_config.json", "adapter_model.safetensors"))
    below = _hash_whole_model(base)
    if not below or not os.path.exists(weights):
        return None
    together = hash_texts(["", os.path.basename(weights), hash_file_once(weights)])
    return hash_texts([below, hash_texts([hash_file(config), together])])


def _hash_whole_model(folder):
    weights = {"model.safetensors"}
    try:
        if not os.path.exists(os.path.join(folder, "model.safetensors")):
            with open(os.path.join(folder, "model.safetensors.index.json"), encoding="utf-8") as index:
                weights = set(json.load(index)["weight_map"].values())
        if not all(os.path.exists(os.path.join(folder, name)) for name in ("config.json", *weights)):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    together = ""
    for name in sorted(weights, key=os.fsencode):
        together = hash_texts([together, name, hash_file_once(os.path.join(folder, name))])
    return hash_texts([hash_file(os.path.join(folder, "config.json")), together])
