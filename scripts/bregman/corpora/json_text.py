"""JSON lines; JSON files that are an array, an object or lines; all of them compressed or not."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import re
import zlib

import zstandard

from bregman.corpora.source import BadText, Source, chunks_by_size, decode, document_of, other_encoding
from bregman.errors import UserError
from bregman.hashes import BLOCK_BYTES

ZSTD_BLOCK_BYTES = 64 << 10  # small, as one block may expand a thousandfold
MOST_VALUE_BYTES = 1 << 30  # of one document in an array: what is longer is an array without its end
UTF8_MARK = b"\xef\xbb\xbf"


# ---------------------------------------------------------------- compression


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


def _zstd(raw):
    return io.BufferedReader(_BlockFile(_zstd_blocks(raw)), BLOCK_BYTES)


COMPRESSIONS = {
    "": lambda raw: raw,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".zst": _zstd,
    ".zstd": _zstd,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
CORRUPT = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, lzma.LZMAError)


def compression_of(path):
    return next((suffix for suffix in COMPRESSIONS if suffix and path.endswith(suffix)), "")


# ---------------------------------------------------------------- values in an array


# what ends a string, opens or closes a value, or is a line's end
_MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]|\n|"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")


class _Values:
    """The values of a JSON array, or objects one behind another, as bytes, each with the line that it begins in."""

    def __init__(self, file):
        self._file, self._data, self._at, self._line = file, b"", 0, 1

    def __iter__(self):
        opening = self._next_byte()
        array = opening == b"["
        self._at += array
        while self._next_byte() not in (b"", b"]"):
            line = self._line
            yield line, self._value()
            if self._next_byte() == b"," and array:
                self._at += 1
        if array and self._next_byte() != b"]":
            raise EOFError("its array has no end")
        self._at += array
        if self._next_byte():
            raise BadText(f"invalid JSON: line {self._line}: more behind the end of its array")

    def _more(self):
        """Read on; False at the end.  What has been used goes."""
        block = self._file.read(BLOCK_BYTES)
        self._data, self._at = self._data[self._at :] + block, 0
        if len(self._data) > MOST_VALUE_BYTES:
            raise BadText(f"invalid JSON: line {self._line}: a value of more than {MOST_VALUE_BYTES} bytes")
        return bool(block)

    def _next_byte(self):
        """The next byte that is no space, b"" at the end; it stays."""
        while True:
            space = _SPACE.match(self._data, self._at)
            self._line += space.group().count(b"\n")
            self._at = space.end()
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def _value(self):
        """The bytes of a value: to where its brackets are closed, or without brackets to the next comma or bracket."""
        depth, done, line = 0, 0, 0
        while True:
            for mark in _MARKS.finditer(self._data, self._at + done):
                text = mark.group()
                if text == b'"':  # its string goes on behind what has been read
                    break
                ends = text in b",]}" and depth == 0
                if not ends:
                    depth += (text in b"[{") - (text in b"]}")
                    line += text.count(b"\n")
                    done = mark.end() - self._at
                if ends and mark.start() == self._at:
                    raise BadText(f"invalid JSON: line {self._line}: nothing before {text.decode()}")
                if ends or (depth == 0 and text in b"]}"):
                    return self._take(mark.start() - self._at if ends else done, line)
            if not self._more():
                raise EOFError("its last value has no end")

    def _take(self, n_bytes, lines):
        value = self._data[self._at : self._at + n_bytes]
        self._at, self._line = self._at + n_bytes, self._line + lines
        return value


# ---------------------------------------------------------------- files


class JsonLines(Source):
    """A document in each line."""

    def parse(self, line):
        try:
            value = json.loads(decode(line))
        except (ValueError, RecursionError) as error:
            raise BadText(f"invalid JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadText("invalid JSON: not an object")
        return document_of(value, self.fields)

    def chunks(self):
        try:
            yield from chunks_by_size(self._records())
        except CORRUPT as error:
            raise UserError(f'"{self.path}" is corrupt: {error}') from None
        except BadText as error:
            raise UserError(f'"{self.path}": {error}') from None
        except OSError as error:
            raise UserError(f'cannot read "{self.path}": {error.strerror or error}') from None

    def _records(self):
        before = 0
        with open(self.path, "rb", buffering=BLOCK_BYTES) as raw:
            file = COMPRESSIONS[compression_of(self.path)](raw)
            for number, value in self._values(file):
                position = raw.tell()
                if value.strip():
                    yield f"{self.path}:{number}", value, len(value), position - before
                    before = position

    def _values(self, file):
        """(line, bytes) of each document."""
        return self._lines(file, file.readline())

    def _lines(self, file, first):
        self._check_mark(first)
        return itertools.chain([(1, first.removeprefix(UTF8_MARK))] if first else [], enumerate(file, 2))

    def _check_mark(self, data):
        wrong = other_encoding(data)
        if wrong:
            raise UserError(f'"{self.path}" {wrong}')


class JsonFile(JsonLines):
    """An array of objects, objects one behind another, or lines; what it begins with decides."""

    def _values(self, file):
        head = file.read(BLOCK_BYTES)
        self._check_mark(head)
        head = head.removeprefix(UTF8_MARK)
        file = _behind(head, file)
        if head.lstrip().startswith(b"["):
            return iter(_Values(file))
        first = file.readline()
        try:
            json.loads(first)
        except (ValueError, RecursionError):  # an object of several lines
            return iter(_Values(_behind(first, file)))
        return self._lines(file, first)


def _behind(head, file):
    """A file of what has been read of it and the rest."""
    return io.BufferedReader(_BlockFile(itertools.chain([head], iter(lambda: file.read(BLOCK_BYTES), b""))))
