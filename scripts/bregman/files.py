"""HDF5 files with provenance, as the C stages write them.

A file is written under a name of this attempt's own, flushed, closed, fsynced, given its name, its folder fsynced,
and then listed in the folder's manifest ("HASH SIZE NAME" a line; include/bregman/manifest.h).  `is_done` believes only
files that are listed there.
"""

import contextlib
import datetime
import errno
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import time

import h5py
import numpy as np

from bregman import ROOT, schema
from bregman.errors import UserError, os_error_text
from bregman.hashes import hash_file, hash_file_once, hash_texts, remember_hash, require_regular
from bregman.writer import attempt_name, is_dead, remove_leftovers, writer_name

SCALE_NAME = "This is a netCDF dimension but not a netCDF variable. %10d"
TEXT = h5py.string_dtype("utf-8")
DTYPE = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "uint32": "<u4", "uint8": "u1", "text": TEXT}


def printable(path):
    """A path as text that can be stored: bytes that are not UTF-8 as \\xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_json(path):
    """The object in a file; {} where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'cannot read "{path}": {getattr(error, "strerror", None) or error}') from None
    if not isinstance(value, dict):
        raise UserError(f'"{path}" is not a JSON object')
    return value


def own_identity(path):
    """The identity that a file has of its fingerprint; None for a file that others made."""
    require_regular(path)
    try:
        with h5py.File(path, "r") as file:
            fingerprint = file["run"].attrs.get("fingerprint", "") if "run" in file else ""
    except OSError:
        return None
    text = fingerprint.decode("utf-8", "replace") if isinstance(fingerprint, bytes) else str(fingerprint)
    return hash_texts([text]) if text else None


def input_identity(path):
    """What a file is known by as an input, as in include/bregman/identity.h: its fingerprint, else the hash of its content.

    Refuses a file that is listed, but with another content."""
    folder, name = os.path.split(os.path.abspath(path))
    identity, lines = own_identity(path), _manifest_lines(folder).get(name)
    content = hash_file_once(path) if lines or not identity else None
    if lines and content not in (digest for digest, _ in lines):
        raise UserError(
            f'"{path}" was changed since it was published: its content is not what its folder\'s MANIFEST lists; '
            "remove it and make it again"
        )
    return identity or content


def file_identity(path):
    """The same for all names of a file or folder."""
    try:
        about = os.stat(path)
    except OSError:
        return path  # reported where it is read
    return about.st_dev, about.st_ino


# ---------------------------------------------------------------- provenance


def _now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version():
    """(version, git revision): an installed VERSION has both; the revision is "" where there is none."""
    with open(os.path.join(ROOT, "VERSION"), encoding="utf-8") as file:
        number, *revision = file.read().split()
    if revision or not os.path.exists(os.path.join(ROOT, ".git")):
        return number, "".join(revision)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # of a hook's repository
    try:
        done = subprocess.run(
            ["git", "-C", ROOT, "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return number, ""
    return number, done.stdout.strip() if done.returncode == 0 else ""


def version_line():
    """What --version prints: parser.add_argument("--version", action="version", version=version_line())"""
    return " ".join(("%(prog)s", *_version())).strip()


def _library_versions(packages):
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions.update(python=platform.python_version(), hdf5=h5py.version.hdf5_version)
    return json.dumps(versions, sort_keys=True)


# Raised when a script gives other data than before for the same options and inputs.
RESULTS = "results 1"


class Run:
    """Where an output comes from.  options: all of them; those in no_effect never change a result.

    decisive: packages whose version may decide on the data."""

    def __init__(self, stage, options, inputs, no_effect=(), packages=("h5py", "numpy"), processes=1, decisive=()):
        self.stage, self.processes = stage, processes
        self.options = options = {k: printable(v) if isinstance(v, str) else v for k, v in options.items()}
        self.inputs = list(inputs)  # (name, identity) pairs
        self.packages = packages
        self.started = _now()
        identity = {k: v for k, v in options.items() if k not in no_effect}
        versions = [f"{name} {importlib.metadata.version(name)}" for name in decisive]
        self.fingerprint = hash_texts(
            [
                stage,
                f"format {schema.format_version()}",
                RESULTS,
                *versions,
                json.dumps(identity, sort_keys=True),
                *(digest for _, digest in self.inputs),
            ]
        )

    def write(self, file):
        group = file.create_group("run")
        group.attrs["stage"] = self.stage
        group.attrs["options"] = json.dumps(self.options, sort_keys=True)
        group.attrs["fingerprint"] = self.fingerprint
        group.attrs["git_revision"] = _version()[1]
        group.attrs["library_versions"] = _library_versions(self.packages)
        group.attrs["ranks"] = np.uint64(self.processes)
        group.attrs["threads"] = np.uint64(1)
        group.attrs["seed"] = np.uint64(0)
        group.attrs["started"] = self.started
        inputs = {"input_name": [printable(n) for n, _ in self.inputs], "input_hash": [h for _, h in self.inputs]}
        for name, values in inputs.items():
            row = schema.find(file.attrs["format"], f"run/{name}")
            data = group.create_dataset(name, data=values, dtype=DTYPE[row.dtype])
            data.attrs.update(units=row.units, description=row.description)


# ---------------------------------------------------------------- publication


def _manifest_texts(folder):
    """[(text, time of its last change in ns)]: MANIFEST, then the writers' files of MANIFEST.d in the order of their last change.

    Looked for in the order in which lines move: WRITER.open, WRITER, MANIFEST (common/publish/manifest.c has the argument)."""
    writers, texts = os.path.join(folder, "MANIFEST.d"), []

    def names():
        try:
            return sorted(name for name in os.listdir(writers) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(path):
        for _ in range(100):
            try:
                with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                    return [(file.read(), os.fstat(file.fileno()).st_mtime_ns)]
            except FileNotFoundError:
                return []
            except OSError as error:  # replaced by another host after it was opened
                if error.errno != errno.ESTALE:
                    raise
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    first = names()
    for name in first:
        path = os.path.join(writers, name)
        texts += read(path) or read(path.removesuffix(".open"))
    for name in names():  # a list may miss a file that is renamed meanwhile
        if not name.endswith(".open") and name not in first and name + ".open" not in first:
            texts += read(os.path.join(writers, name))
    texts.sort(key=lambda pair: pair[1])
    return read(os.path.join(folder, "MANIFEST")) + texts


def _manifest_lines(folder):
    """name -> [(hash, size)] of what a folder's manifest lists: of two attempts at once both may have listed theirs."""
    found = {}
    for text, _ in _manifest_texts(folder):
        for line in text.split("\n")[:-1]:  # what a crash cut short is no line
            fields = re.fullmatch("([0-9a-f]{32}) ([0-9]+) ([^/]+)", line.removesuffix("\r"))
            if fields:
                found.setdefault(fields[3], []).append((fields[1], int(fields[2])))
    return found


def read_manifest(folder):
    """name -> (hash, size) of what a folder's manifest lists; of several entries the one of the file's size counts, then the last."""
    found = _manifest_lines(folder)
    for name, entries in found.items():
        if len(entries) > 1:
            with contextlib.suppress(OSError):
                size = os.path.getsize(os.path.join(folder, name))
                entries = [entry for entry in entries if entry[1] == size] or entries
        found[name] = entries[-1]
    return found


def manifest_entry(path):
    """(hash, size) of a file as its folder's manifest has it, or None."""
    folder, name = os.path.split(os.path.abspath(path))
    return read_manifest(folder).get(name)


def is_done(path, fingerprint, force=False):
    """Is `path` published with this fingerprint?  Refuses to replace anything else, unless forced."""
    if not os.path.exists(path) or force:
        return False
    found = "none"
    try:
        with h5py.File(path, "r") as file:
            found = file["run"].attrs.get("fingerprint", "none") if "run" in file else "none"
    except OSError:
        pass
    if found != fingerprint:
        raise UserError(
            f'"{path}" was made from other inputs or options (its fingerprint is {found}, '
            f"these give {fingerprint}); remove it, or add --force to replace it"
        )
    entry = manifest_entry(path)
    return entry is not None and entry[1] == os.path.getsize(path)


def _fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path, text):
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def whole_file(path):
    """A name to write to instead: what is there when all went well is renamed to `path`, which is whole or not there."""
    remove_leftovers(path)
    temporary = attempt_name(path)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f'cannot write "{path}": {error.strerror or error}') from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_whole(path, pieces):
    """Write a text under a temporary name, then rename: it is whole or not there."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for piece in pieces:
            file.write(piece)


def _is_at_rest(name):
    """May nothing be written to it any more?  A flag of the dead is as good as an empty closed file."""
    writer = name.removesuffix(".open").removesuffix(".fold")
    return writer == name or is_dead(writer)


def list_published(path, digest, size):
    """List a file that has its name: in a file of this writer's own, which is then closed, and folded into MANIFEST with the others
    that are at rest, unless another one folds (common/publish/manifest.c has the argument why no line is lost)."""
    folder, name = os.path.split(os.path.abspath(path))
    writers, me = os.path.join(folder, "MANIFEST.d"), writer_name()
    own = os.path.join(writers, me)
    _fsync(folder)
    while True:
        os.makedirs(writers, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another that folds may take the folder away in between
            _write(own + ".open", f"{digest} {size} {name}\n")
            break
    os.rename(own + ".open", own)
    try:
        with open(own + ".fold", "x", encoding="utf-8"):
            pass
    except FileNotFoundError:  # another has folded all, and taken the folder away
        return
    try:
        names = [other for other in os.listdir(writers) if not other.startswith(".")]
        others = [name for name in names if name != me + ".fold"]
        resting = [name for name in others if _is_at_rest(name)]
        if resting and not any(name.endswith(".fold") and name not in resting for name in others):
            _fold(folder, resting, me)
    finally:
        os.unlink(own + ".fold")
    with contextlib.suppress(OSError):
        os.rmdir(writers)


def _fold(folder, names, me):
    """Put the writers' texts behind the old MANIFEST, in the order of their last change, in which they are then removed."""
    manifest, lines = os.path.join(folder, "MANIFEST"), ""
    paths = sorted(
        (os.path.join(folder, "MANIFEST.d", name) for name in names), key=lambda path: (os.stat(path).st_mtime_ns, path)
    )
    for path in [manifest] * os.path.exists(manifest) + paths:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            text = file.read()
            lines += text if text.endswith("\n") or not text else text + "/\n"
    temporary = f"{manifest}.tmp-{me}"
    _write(temporary, lines)
    os.replace(temporary, manifest)
    _fsync(folder)
    for path in paths:
        os.unlink(path)


def _take_name(temporary, path):
    """Give a file its name; False: another has it.  On a file system without hard links, of two that end in the same moment the last
    one's file stays."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return os.path.samestat(os.lstat(temporary), os.lstat(path))  # NFS may ask twice, and answer the second time
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    return True


def _yield_name(temporary, path, fingerprint):
    """The name is another attempt's, whose file stays if it was made from the same inputs: (hash, size) to list, or None if it is
    listed.  common/store/publish.c has the same, with the argument why."""
    held = os.path.exists(path) and os.stat(path).st_nlink > 1
    for _ in range(100):
        if is_done(path, fingerprint):
            return None
        time.sleep(0.02)
    if not held:
        os.replace(temporary, path)
    return hash_file(path), os.path.getsize(path)


def publish(temporary, path, fingerprint, force=False):
    """Give a finished file (closed) its final name, durably, and list it; its hash unless another one has the name.

    Unless forced, a file of this fingerprint that another attempt has published meanwhile stays."""
    _fsync(temporary)
    listed = hash_file(temporary), os.path.getsize(temporary)
    if force and os.path.exists(path):  # listed first, so that it is listed as it is whenever this ends
        list_published(path, *listed)
        os.replace(temporary, path)
        _fsync(os.path.dirname(os.path.abspath(path)))
        return listed[0]
    taken = not _take_name(temporary, path)
    if taken:
        listed = _yield_name(temporary, path, fingerprint)
    if listed:
        list_published(path, *listed)
    return None if taken else listed[0]


class OutputFile:
    """An HDF5 file in the making; a context manager that publishes it (see publish), or removes it after an error.

    Datasets are 1-D and grow by append().  As in common/store/scales.c a dataset named like its axis is the axis's scale;
    other axes have scales without data, as netCDF writes them.
    """

    def __init__(self, path, file_format, run, force=False):
        self.path, self.run, self.force = path, run, force
        remove_leftovers(os.path.join(os.path.dirname(path), ""))
        self.temporary = attempt_name(path)
        try:
            self.file = h5py.File(self.temporary, "w-", libver=("earliest", "v110"))
        except OSError as error:
            raise UserError(f'cannot create "{path}": {os_error_text(error)}') from None
        self._axes = {}  # axis name -> its datasets
        self.file.attrs["format"] = file_format
        self.file.attrs["format_version"] = np.uint64(schema.format_version())
        run.write(self.file)

    def dataset(self, name, chunk=16384):
        """Make an empty dataset of the format."""
        row = schema.find(self.file.attrs["format"], name)
        dtype = DTYPE[row.dtype]
        # HDF5 has no checksum filter for variable-length strings
        data = self.file.create_dataset(
            name, (0,), dtype=dtype, maxshape=(None,), chunks=(chunk,), fletcher32=dtype is not TEXT
        )
        data.attrs.update(units=row.units, description=row.description)
        if row.sample_dimension:
            data.attrs["sample_dimension"] = row.sample_dimension
        self._axes.setdefault(row.keys[0], []).append(data)
        return data

    def _finish(self):
        for axis, members in self._axes.items():
            if axis in self.file:
                scale = self.file[axis]
                scale.make_scale(axis)
            else:
                length = len(members[0])
                scale = self.file.create_dataset(axis, (length,), dtype=">f4")  # never written: no storage
                scale.make_scale(SCALE_NAME % length)
                scale.attrs.update(units="1", description="axis without coordinates (no values are stored)")
            for data in members:
                data.dims[0].label = axis.split("/")[-1]
                if data != scale:  # a scale cannot be attached to itself
                    data.dims[0].attach_scale(scale)
        self.file["run"].attrs["finished"] = _now()
        self.file.flush()
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _trace):
        digest = inode = None
        try:
            if kind is None:
                self._finish()
                inode = os.stat(self.temporary).st_ino
                digest = publish(self.temporary, self.path, self.run.fingerprint, self.force)
        except (OSError, RuntimeError) as failure:
            raise UserError(f'cannot write "{self.path}": {os_error_text(failure)}') from None
        finally:
            self._discard()  # with its temporary name, which changes the file's record
        if digest:
            remember_hash(self.path, inode, digest)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise UserError(f'cannot write "{self.path}": {os_error_text(error)}') from None

    def _discard(self):
        """After publication there is nothing under the temporary name."""
        try:
            self.file.close()
        except (OSError, RuntimeError):
            pass  # the disk is full: the first error is the one to report
        if os.path.exists(self.temporary):
            os.unlink(self.temporary)


def append(data, values):
    """Put values behind the last row of a 1-D dataset."""
    if len(values):
        first = data.shape[0]
        data.resize(first + len(values), axis=0)
        data[first:] = values


# ---------------------------------------------------------------- reading


def open_file(path, file_format):
    """Open for reading; refuses another format or an unknown major version.

    Token and query files that others made may lack the format attribute."""
    require_regular(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f'cannot read "{path}": {os_error_text(error)}') from None
    found = file.attrs.get("format", file_format if file_format in ("bregman/tokens", "bregman/queries") else "none")
    reads = schema.format_version()
    version = int(file.attrs.get("format_version", reads))
    if found != file_format:
        raise UserError(f'"{path}" holds "{found}", not "{file_format}"')
    if version != reads:
        raise UserError(f'"{path}" has format version {version}; this program reads {reads}')
    return file


def _is_elsewhere(file, name):
    """Is the dataset, or a group on the way to it, a link into another file?"""
    parts = name.split("/")
    return any(
        isinstance(file.get("/".join(parts[: i + 1]), getlink=True), h5py.ExternalLink) for i in range(len(parts))
    )


def _what_lacks(data):
    """Why a dataset's values are not all in its file; "" if they are.  HDF5 reads what was never written as zeros."""
    if data.shape is None or data.size == 0:
        return ""
    if data.is_virtual or data.external:
        return "its values are in other files"
    if data.chunks:
        needed = math.prod(-(-length // step) for length, step in zip(data.shape, data.chunks))
        stored = data.id.get_num_chunks() if needed <= os.path.getsize(data.file.filename) else 0
        return "" if stored >= needed else f"{stored} of {needed} chunks are stored"
    enough = data.id.get_storage_size() >= data.size * data.id.get_type().get_size()
    return "" if enough else "nothing, or less, is stored"


def open_dataset(file, path, name, lengths):
    """A dataset of the format that can be trusted: it has its axes, as long as elsewhere in the file, and all its values.

    file: open, of `path`.  lengths: a dictionary of what is known of the file's axes, kept between calls."""
    if _is_elsewhere(file, name):
        raise UserError(f'dataset "{name}" is a link into another file, which no hash of this one covers: "{path}"')
    try:
        data = file.get(name)
    except RuntimeError:  # a link in a circle
        data = None
    if not isinstance(data, h5py.Dataset):
        raise UserError(f'dataset "{name}" is missing: "{path}"')
    kind = file.attrs.get("format") or ("bregman/queries" if "completion_start" in file else "bregman/tokens")
    axes = schema.find(kind, name).keys
    if data.ndim != len(axes):
        raise UserError(f'dataset "{name}" has {data.ndim} axes, not {len(axes)}: "{path}"')
    lacking = _what_lacks(data)
    if lacking:
        raise UserError(f'dataset "{name}" declares {list(data.shape)}, but {lacking}: "{path}"')
    for axis, length in zip(axes, data.shape):
        other, known = lengths.setdefault(axis, (name, length))
        if known != length:
            raise UserError(f'dataset "{name}" has {length} along the axis "{axis}", "{other}" has {known}: "{path}"')
    return data


def strings(data):
    """All of a string dataset, as a list of str."""
    return list(data.asstr()[()])
