"""Corpus inputs: JSON lines (plain, gzip, zstd), Parquet, folders of plain text, Megatron's indexed data sets.

Each source streams: it never holds more than a chunk.  Text sources yield chunks of (place, payload) records,
which `parse` turns into documents in a worker process; a Megatron source yields token ids.
"""

import collections
import gzip
import io
import json
import os
import zlib

import numpy as np
import zstandard

from bregman import chat
from bregman.errors import UsageError, UserError
from bregman.files import printable
from bregman.hashes import BLOCK_BYTES, hash_file_once, hash_texts, require_regular

CHUNK_BYTES = 256 << 10
CHUNK_TOKENS = 256 << 10
ZSTD_BLOCK_BYTES = 64 << 10  # small, as one block may expand a thousandfold
JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
FILE_SUFFIXES = JSON_SUFFIXES + (".parquet", ".bin", ".idx")

# text: or a chat.Chat or chat.Ids
Document = collections.namedtuple("Document", "text id source lang")


class BadText(Exception):
    """A record that is no document; the message is the reason."""


def _field(value):
    """An optional field as text: absent is "", a number is written out."""
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise BadText("id, source or lang is not a text or a number")
    text = str(value)
    if "\0" in text:
        raise BadText("id, source or lang holds a NUL character")
    return text


def _document(text, fields):
    """text: or a record with chat.FIELDS."""
    try:
        text = chat.from_record(text) if isinstance(text, dict) else text
    except chat.BadRecord as reason:
        raise BadText(str(reason)) from None
    if not text or not isinstance(text, (str, chat.Chat, chat.Ids)):
        raise BadText("no text")
    document = Document(text, *(_field(value) for value in fields))
    try:
        "".join(field for field in document if isinstance(field, str)).encode()
    except UnicodeEncodeError:
        raise BadText("invalid UTF-8 (an unpaired surrogate)") from None
    return document


def _decode(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadText(f"invalid UTF-8 at byte {error.start}") from None


def _parse_json(line, text_field):
    try:
        value = json.loads(_decode(line))
    except (ValueError, RecursionError) as error:
        raise BadText(f"invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadText("invalid JSON: not an object")
    return _document(
        value if value.get(text_field) is None else value[text_field],
        [value.get(name) for name in ("id", "source", "lang")],
    )


def _parse_row(row, _text_field):
    text, *fields = (_decode(value) if isinstance(value, bytes) else value for value in row)
    return _document(text, fields)


def _chunks_by_size(records):
    """(place, payload, text size, progress) records -> (list of (place, payload), progress) chunks."""
    chunk, size, progress = [], 0, 0
    for place, payload, n_bytes, advanced in records:
        chunk.append((place, payload))
        size += n_bytes + 64
        progress += advanced
        if size >= CHUNK_BYTES:
            yield chunk, progress
            chunk, size, progress = [], 0, 0
    yield chunk, progress


class _Source:
    """One input: path, name of its output, files it consists of, size for the progress bar."""

    has_text = True

    def __init__(self, path, name):
        self.path, self.name = path, name

    def _size(self, path):
        try:
            return os.path.getsize(path)
        except OSError as error:
            raise UserError(f'cannot read "{path}": {error.strerror}') from None

    def files(self):
        """Paths of all files that it is read from."""
        return [self.path]

    def size(self):
        return sum(self._size(path) for path in self.files())

    def hashes(self):
        return [(path, hash_file_once(path)) for path in self.files()]


# ---------------------------------------------------------------- JSON lines


def _zstd_blocks(file):
    """Decompressed blocks of all frames; a frame that ends early is an error, which stream_reader would not tell."""
    frame = None
    while block := file.read(ZSTD_BLOCK_BYTES):
        while block:
            frame = frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            yield frame.decompress(block)
            block = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame:
        raise EOFError("the last frame is cut short")


class _BlockFile(io.RawIOBase):
    """A readable file made of blocks of bytes."""

    def __init__(self, blocks):
        super().__init__()
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


class JsonLines(_Source):
    parse = staticmethod(_parse_json)

    def _lines(self, raw):
        if self.path.endswith(".gz"):
            return gzip.GzipFile(fileobj=raw)
        if self.path.endswith(".zst"):
            return io.BufferedReader(_BlockFile(_zstd_blocks(raw)), BLOCK_BYTES)
        return raw

    def _records(self):
        before = 0
        with open(self.path, "rb", buffering=BLOCK_BYTES) as raw:
            for number, line in enumerate(self._lines(raw), 1):
                position = raw.tell()
                if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
                if line.strip():
                    yield f"{self.path}:{number}", line, len(line), position - before
                    before = position

    def chunks(self):
        try:
            yield from _chunks_by_size(self._records())
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise UserError(f'"{self.path}" is corrupt: {error}') from None
        except OSError as error:
            raise UserError(f'cannot read "{self.path}": {error.strerror or error}') from None


# ---------------------------------------------------------------- Parquet


class Parquet(_Source):
    parse = staticmethod(_parse_row)

    def __init__(self, path, name, text_field):
        super().__init__(path, name)
        self.text_field = text_field

    def chunks(self):
        import pyarrow

        try:
            yield from _chunks_by_size(self._records())
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f'cannot read "{self.path}": {str(error).splitlines()[0]}') from None

    def _records(self):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            have = file.schema_arrow.names
            own = [self.text_field] if self.text_field in have else [name for name in chat.FIELDS if name in have]
            if not {self.text_field, "messages", "input_ids"} & set(own):
                raise UserError(
                    f'"{self.path}" has no column "{self.text_field}" (--text-field); it has: {", ".join(have)}'
                )
            columns = own + [name for name in ("id", "source", "lang") if name in have]
            per_row = self.size() / max(file.metadata.num_rows, 1)
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=columns):
                values = {name: self._column(batch.column(name)) for name in columns}
                absent = [None] * batch.num_rows
                texts = values.get(self.text_field) or [
                    dict(zip(own, row)) for row in zip(*(values[name] for name in own))
                ]
                rows = zip(texts, *(values.get(name, absent) for name in ("id", "source", "lang")))
                for row in rows:
                    number += 1
                    n_bytes = len(row[0]) if isinstance(row[0], bytes) else int(per_row)
                    yield (
                        f"{self.path}: row {number}",
                        row,
                        n_bytes,
                        int(per_row * number) - int(per_row * (number - 1)),
                    )

    @staticmethod
    def _column(column):
        import pyarrow

        types = pyarrow.types
        if types.is_string(column.type) or types.is_large_string(column.type):
            column = column.cast(pyarrow.large_binary())  # decoded row by row, so that a bad one can be named
        elif types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column.to_pylist()


# ---------------------------------------------------------------- folders of plain text


class TextFolder(_Source):
    parse = staticmethod(_parse_row)

    def _files(self):
        found = []

        def unreadable(error):
            raise UserError(f'cannot read "{error.filename}": {error.strerror}')

        for folder, folders, names in os.walk(self.path, onerror=unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in names if name[0] != "."]
        for name in found:
            if name.endswith(FILE_SUFFIXES):
                raise UserError(
                    f'folder "{self.path}" holds "{name}": a folder is read as plain text, '
                    "so give such files by their names"
                )
        if not found:
            raise UserError(f'folder "{self.path}" holds no file')
        return sorted(found)

    def files(self):
        return [os.path.join(self.path, name) for name in self._files()]

    def hashes(self):
        parts = [
            part for name in self._files() for part in (printable(name), hash_file_once(os.path.join(self.path, name)))
        ]
        return [(self.path, hash_texts(parts))]

    def chunks(self):
        return _chunks_by_size(self._records())

    def _records(self):
        for name in self._files():
            place = os.path.join(self.path, name)
            try:
                with open(place, "rb") as file:
                    data = file.read()
            except OSError as error:
                raise UserError(f'cannot read "{place}": {error.strerror}') from None
            yield place, (data, printable(name), None, None), len(data), len(data)


# ---------------------------------------------------------------- Megatron indexed data sets

_MAGIC = b"MMIDIDX\x00\x00"
_TOKEN_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
_HEADER_BYTES = len(_MAGIC) + 8 + 1 + 8 + 8


class Megatron(_Source):
    """PATH.bin: token ids.  PATH.idx: magic, u64 version 1, u8 dtype code, u64 sequences, u64 document marks, then
    i32 length and i64 byte offset in .bin of each sequence, and i64 document marks (first sequence of each; the last
    is the number of sequences).  Pythia's shuffled data have the mark 0 alone, as nobody ended a document: each
    sequence is one."""

    has_text = False

    def __init__(self, path, name):
        super().__init__(path, name)
        self.bin_path, self.idx_path = path + ".bin", path + ".idx"

    def files(self):
        return [self.idx_path, self.bin_path]

    def size(self):
        return self._size(self.bin_path)

    def _open(self):
        """(ids, length of each sequence, its offset in ids, document marks), mapped and checked."""
        size = self._size(self.idx_path)
        with open(self.idx_path, "rb") as file:
            header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[:9] != _MAGIC:
            raise UserError(f'"{self.idx_path}" is not a Megatron index (its magic is not MMIDIDX)')
        version, code = int.from_bytes(header[9:17], "little"), header[17]
        n, marks = int.from_bytes(header[18:26], "little"), int.from_bytes(header[26:34], "little")
        if version != 1:
            raise UserError(f'"{self.idx_path}" has version {version}; only 1 is known')
        if code not in _TOKEN_TYPES:
            raise UserError(f'"{self.idx_path}" has dtype code {code}, which is not an integer type')
        # newer writers add one byte a sequence (its mode) at the end
        if size - _HEADER_BYTES - n * 12 - marks * 8 not in (0, n):
            raise UserError(f'"{self.idx_path}" has {size} bytes, which do not fit its {n} sequences and {marks} marks')
        if n == 0 or marks == 0 or self._size(self.bin_path) == 0:
            raise UserError(f'"{self.path}" holds no sequence')
        dtype = np.dtype(_TOKEN_TYPES[code]).newbyteorder("<")
        return (
            self._map(self.bin_path, dtype, 0, self._size(self.bin_path) // dtype.itemsize),
            self._map(self.idx_path, "<i4", _HEADER_BYTES, n),
            self._map(self.idx_path, "<i8", _HEADER_BYTES + 4 * n, n),
            self._map(self.idx_path, "<i8", _HEADER_BYTES + 12 * n, marks),
        )

    @staticmethod
    def _map(path, dtype, offset, count):
        try:
            return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
        except OSError as error:
            raise UserError(f'cannot read "{path}": {error.strerror}') from None

    def token_chunks(self):
        """Yield (ids, tokens in each document, bytes read) chunks."""
        ids, length, pointer, mark = self._open()
        if len(mark) == 1:
            mark = range(int(mark[0]), len(length) + 1)
        if mark[0] != 0 or mark[-1] != len(length):
            raise UserError(f'"{self.idx_path}": its document marks do not run from 0 to {len(length)}')
        parts, counts, size = [], [], 0
        for document in range(len(mark) - 1):
            first, last = int(mark[document]), int(mark[document + 1])
            if not 0 <= first <= last <= len(length):
                raise UserError(f'"{self.idx_path}": document {document} runs from sequence {first} to {last}')
            pieces = [self._sequence(ids, length, pointer, i) for i in range(first, last)]
            parts += pieces
            counts.append(sum(len(piece) for piece in pieces))
            size += counts[-1] + 8
            if size >= CHUNK_TOKENS:
                yield np.concatenate(parts or [ids[:0]]), np.array(counts, np.int64), size * ids.itemsize
                parts, counts, size = [], [], 0
        yield np.concatenate(parts or [ids[:0]]), np.array(counts, np.int64), size * ids.itemsize

    def _sequence(self, ids, length, pointer, i):
        n, offset = int(length[i]), int(pointer[i])
        first = offset // ids.itemsize
        if n < 0 or offset < 0 or offset % ids.itemsize or first + n > len(ids):
            raise UserError(
                f'"{self.idx_path}": sequence {i} ({n} tokens at byte {offset}) lies outside "{self.bin_path}"'
            )
        return ids[first : first + n]


# ---------------------------------------------------------------- which is which


def open_source(path, text_field):
    """The source for an input path; the suffix decides."""
    name = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path):
        return TextFolder(path, name)
    require_regular(path)
    for suffix in JSON_SUFFIXES:
        if path.endswith(suffix):
            source = JsonLines(path, name[: -len(suffix)])
            break
    else:
        if path.endswith(".parquet"):
            source = Parquet(path, name[: -len(".parquet")], text_field)
        elif path.endswith((".bin", ".idx")):
            source = Megatron(path[:-4], name[:-4])
        elif not os.path.exists(path):
            raise UserError(f'cannot read "{path}": No such file or directory')
        else:
            raise UsageError(
                f'"{path}": unknown kind of corpus; a folder of text files is one, or a file whose name '
                f"ends in {', '.join(FILE_SUFFIXES)}"
            )
    source.size()  # a missing file is told before any work starts
    return source


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
