"""Corpora that people have, read as they are: a reader for each kind of input, and which is which.

A new kind is a class (source.py says of what) and a row of FILES, or of folder_source for a folder.
"""

import os

from bregman.corpora.columns import Arrow, Parquet
from bregman.corpora.folders import folder_source
from bregman.corpora.json_text import COMPRESSIONS, JsonFile, JsonLines
from bregman.corpora.source import BadText, Fields, add_field_options, fields_of, without_defaults  # noqa: F401
from bregman.corpora.tokens import Datatrove, DolmaArray, Megatron
from bregman.errors import UsageError, UserError
from bregman.hashes import require_regular

# what a file's name ends in, and its reader; a longer ending comes before one that it ends in
FILES = {
    **{name + packed: JsonLines for name in (".jsonl", ".ndjson") for packed in COMPRESSIONS},
    **{".json" + packed: JsonFile for packed in COMPRESSIONS},
    ".parquet": Parquet,
    ".arrow": Arrow,
    ".feather": Arrow,
    ".bin": Megatron,
    ".idx": Megatron,
    ".npy": DolmaArray,
    ".ds": Datatrove,
    ".ds.index": Datatrove,
}


def suffix_of(path):
    return next((suffix for suffix in FILES if path.endswith(suffix)), "")


def kinds():
    """The known endings, in words: those of compression once."""
    packed = ", ".join(suffix for suffix in COMPRESSIONS if suffix)
    plain = [suffix for suffix in FILES if not any(suffix.endswith(p) for p in COMPRESSIONS if p)]
    return f"{', '.join(plain)} (of JSON also {packed})"


def open_source(path, fields=Fields()):
    """The source for an input path; its name decides, of a folder what it holds."""
    name = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path):
        source = folder_source(path, name, fields, lambda part: FILES.get(suffix_of(part)))
    else:
        source = _file_source(path, name, fields)
    source.size()  # a missing file is told before any work starts
    return source


def _file_source(path, name, fields):
    require_regular(path)
    suffix = suffix_of(path)
    if not suffix:
        if not os.path.exists(path):
            raise UserError(f'cannot read "{path}": No such file or directory')
        raise UsageError(f'"{path}": unknown kind of corpus; a folder is one, or a file whose name ends in {kinds()}')
    return FILES[suffix](path, name.removesuffix(suffix), fields)


def open_sources(paths, fields=Fields()):
    """The sources of all inputs; those that are pieces of one data set are one."""
    found = [open_source(path, fields) for path in paths]
    first = {source.path: source for source in reversed(found) if source.in_pieces}
    return [source for source in found if first.get(source.path, source) is source]


def check_apart(sources):
    """Refuse inputs that would be written to one output, and a file that is there twice."""
    names = {}
    for source in sources:
        if source.name in names:
            raise UsageError(f'"{names[source.name]}" and "{source.path}" would both be written to "{source.name}.h5"')
        names[source.name] = source.path
    check_once(sources)


def check_once(sources):
    """Refuse a file that is there twice, by whatever path."""
    files = {}
    for source in sources:
        for path in source.files():
            status = os.stat(path)
            other, other_source = files.setdefault((status.st_dev, status.st_ino), (path, source))
            if other_source is not source:
                raise UsageError(f'"{other}" and "{path}" are the same file: give it once')
