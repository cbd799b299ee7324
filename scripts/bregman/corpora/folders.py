"""Folders: files of plain text, files of documents, data sets as Hugging Face's datasets saves them."""

import fnmatch
import os

from bregman.corpora.columns import Arrow
from bregman.corpora.mds import INDEX, mds_source
from bregman.corpora.source import BadText, Source, chunks_by_size, decode, listed, made_document, other_encoding
from bregman.errors import UserError
from bregman.files import printable, read_json

# what stands beside files of documents and is none: descriptions, licences, what Hugging Face's datasets keeps for itself
BESIDE = (
    *(
        "README*",
        "*.md",
        "LICENSE*",
        "LICENCE*",
        "NOTICE*",
        "CITATION*",
        "MANIFEST*",
        "*SUMS",
        "*.sha256",
        "*.md5",
        "*.lock",
    ),
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "cache-*.arrow", "_SUCCESS"),
)


def walk(path):
    """The files of a folder, but for hidden ones, by their names relative to it."""
    found = []

    def unreadable(error):
        raise UserError(f'cannot read "{error.filename}": {error.strerror}')

    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(folder, name), path) for name in names if name[0] != "."]
    if not found:
        raise UserError(f'folder "{path}" holds no file')
    return sorted(found)


class TextFolder(Source):
    """Each file is a document."""

    def __init__(self, path, name, fields):
        super().__init__(path, name, fields)
        self.names = walk(path)

    def files(self):
        return [os.path.join(self.path, name) for name in self.names]

    def hashes(self):
        return self.hash_as_one(self.names)

    def parse(self, payload):
        data, name = payload
        wrong = other_encoding(data)
        if wrong:
            raise BadText(wrong)
        return made_document(decode(data), self.fields, (name, None, None))

    def chunks(self):
        return chunks_by_size(self._records())

    def _records(self):
        for name, place in zip(self.names, self.files()):
            try:
                with open(place, "rb") as file:
                    data = file.read()
            except OSError as error:
                raise UserError(f'cannot read "{place}": {error.strerror}') from None
            yield place, (data, printable(name)), len(data), len(data)


class Parts(Source):
    """Files of documents of one kind that are one corpus.  A document without an id is named by its file and place."""

    def __init__(self, path, name, fields, kind, names):
        super().__init__(path, name, fields)
        self.names = names
        self.parts = [kind(os.path.join(path, part), part, fields) for part in names]

    def files(self):
        return [path for part in self.parts for path in part.files()]

    def hashes(self):
        return self.hash_as_one(self.names)

    def parse(self, payload):
        place, inner = payload
        document = self.parts[0].parse(inner)
        return document if document.id else document._replace(id=place)

    def chunks(self):
        for part in self.parts:
            for records, progress in part.chunks():
                yield [(place, (self._within(place), payload)) for place, payload in records], progress

    def _within(self, place):
        return printable(place.removeprefix(os.path.join(self.path, "")))


class SavedDataset(Parts):
    """What datasets.save_to_disk leaves: state.json names the Arrow files, in order."""

    def __init__(self, path, name, fields):
        where = os.path.join(path, "state.json")
        state = read_json(where)
        files = state.get("_data_files")
        names = [file.get("filename") if isinstance(file, dict) else None for file in files or [None]]
        if not all(isinstance(name, str) and name == os.path.basename(name) for name in names):
            raise UserError(f'"{where}" does not name the data set\'s files')
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise UserError(
                f'"{path}" is a choice of rows of its files: save it again, behind datasets\' flatten_indices()'
            )
        super().__init__(path, name, fields, Arrow, names)


def folder_source(path, name, fields, kind_of):
    """The reader of a folder.  kind_of: the reader of a file by its name, None where none is known."""
    has = sorted(os.listdir(path))
    if "dataset_dict.json" in has:
        splits = [part for part in has if os.path.exists(os.path.join(path, part, "state.json"))]
        example = f', such as "{os.path.join(path, splits[0])}"' if splits else ""
        raise UserError(f'folder "{path}" holds several data sets: {listed(splits)}; give one{example}')
    if "state.json" in has and "dataset_info.json" in has:
        return SavedDataset(path, name, fields)
    if INDEX in has and any(".mds" in part for part in has):
        return mds_source(path, name, fields)
    names = walk(path)
    kinds = {part: kind_of(part) for part in names}
    if not any(kinds.values()):
        return TextFolder(path, name, fields)
    beside = [part for part in names if any(fnmatch.fnmatch(os.path.basename(part), pattern) for pattern in BESIDE)]
    data = [part for part in names if part not in beside]
    _check_alike(path, data or beside, kinds)
    found = Parts(path, name, fields, kinds[data[0]], data)
    found.notes = [f'"{path}": {len(data)} files of documents'] + ([f"not read: {listed(beside)}"] if beside else [])
    found.notes = ["; ".join(found.notes)]
    return found


def _check_alike(path, data, kinds):
    """Refuse a folder with other files than those of documents of one kind."""
    by_kind = {}
    for part in data:
        by_kind.setdefault(kinds[part], part)
    examples = list(by_kind.values())
    if None in by_kind or len(by_kind) > 1:
        raise UserError(
            f'folder "{path}" holds files of different kinds, such as {listed(examples)}: give those that are its documents '
            "by their names, or move the others out of it"
        )
    kind = next(iter(by_kind))
    if not kind.has_text:
        raise UserError(f'folder "{path}" holds "{examples[0]}", token ids: give such files by their names')
    if any(fnmatch.fnmatch(os.path.basename(data[0]), pattern) for pattern in BESIDE):
        raise UserError(f'folder "{path}" holds no documents, but "{examples[0]}"')
