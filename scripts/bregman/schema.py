"""What datasets each format has: the table of common/store/schema.c, of which the build makes build/share/schema.json."""

import collections
import functools
import json
import os

from bregman import ROOT
from bregman.errors import UserError

Row = collections.namedtuple("Row", "dtype axes keys domain units description sample_dimension")


def _path():
    """Of an installation, or of the build in the source tree; $BREGMAN_SCHEMA names that of a build elsewhere."""
    return os.environ.get("BREGMAN_SCHEMA") or os.path.join(ROOT, "build", "share", "schema.json")


@functools.cache
def _table():
    """(version of the formats, (format, path) -> Row)"""
    try:
        with open(_path(), encoding="utf-8") as file:
            table = json.load(file)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is cut short"
        raise UserError(
            f'cannot read the table of the file formats "{_path()}": {cause}; run make in "{ROOT}", or set BREGMAN_SCHEMA '
            "to share/schema.json of a build elsewhere"
        ) from None
    rows = {}
    for row in table["rows"]:
        names, keys = zip(*row["axes"])
        place = row.pop("format"), row.pop("path")
        rows[place] = Row(**{**row, "axes": names}, keys=keys)
    return table["format_version"], rows


def format_version():
    return _table()[0]


def rows(file_format):
    """path -> Row of a format's own datasets; in a path "*" stands for any group."""
    return {path: row for (of, path), row in _table()[1].items() if of == file_format}


def find(file_format, path):
    """The row of a dataset, whose path has no "*"; None: the format has none of that name."""
    every = _table()[1]
    return every.get((file_format, path)) or every.get(("bregman/*", path))
