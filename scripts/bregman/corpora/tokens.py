"""Token ids that others have made: Megatron's indexed data sets, OLMo's and datatrove's arrays.  They are mapped, never read whole."""

import csv
import glob
import gzip
import os
import re
import zlib

import numpy as np

from bregman.corpora.source import CHUNK_TOKENS, Source, TokenChunk
from bregman.errors import UserError
from bregman.files import printable

_MAGIC = b"MMIDIDX\x00\x00"
_TOKEN_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
_HEADER_BYTES = len(_MAGIC) + 8 + 1 + 8 + 8
_SHARD = re.compile(r"(?P<base>.+)-\d{5}-of-(?P<last>\d{5})")
_ROWS = 1 << 20


def _map(path, dtype, offset=0, count=None):
    if count == 0 or (count is None and not os.path.getsize(path)):
        return np.empty(0, dtype)
    try:
        # as a plain array: slices of a memmap cost several times as much
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=count and (count,)))
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read "{path}": {getattr(error, "strerror", None) or error}') from None


class _Joined:
    """Arrays that are one, of which runs are taken."""

    def __init__(self, arrays):
        self._arrays, self.dtype = arrays, arrays[0].dtype
        self._ends = np.cumsum([len(array) for array in arrays])

    def __len__(self):
        return int(self._ends[-1])

    def run(self, first, n):
        if len(self._arrays) == 1:
            return self._arrays[0][first : first + n]
        i = int(np.searchsorted(self._ends, first, "right"))
        found = []
        while n:
            begin = first - (int(self._ends[i - 1]) if i else 0)
            found.append(self._arrays[i][begin : begin + n])
            first, n, i = first + len(found[-1]), n - len(found[-1]), i + 1
        return np.concatenate(found) if len(found) != 1 else found[0]


class Tokens(Source):
    """What the kinds share.  A kind has _documents(): (token ids, id, source) of each document, of which the last two may be ""."""

    has_text = False

    def token_chunks(self):
        parts, about, size = [], [], 0
        for ids, *known in self._documents():
            parts.append(ids)
            about.append(known)
            size += len(ids) + 8
            if size >= CHUNK_TOKENS:
                yield self._chunk(parts, about)
                parts, about, size = [], [], 0
        yield self._chunk(parts, about)

    @staticmethod
    def _chunk(parts, about):
        tokens = np.concatenate(parts or [np.empty(0, np.uint16)])
        ids, sources = ([known[i] for known in about] for i in range(2))
        return TokenChunk(tokens, np.array([len(part) for part in parts], np.int64), ids, sources, tokens.nbytes)


# ---------------------------------------------------------------- Megatron


class Megatron(Tokens):
    """PATH.bin: token ids.  PATH.idx: magic, u64 version 1, u8 dtype code, u64 sequences, u64 document marks, then
    i32 length and i64 byte offset in .bin of each sequence, and i64 document marks (first sequence of each; the last
    is the number of sequences).  Pythia's shuffled data have the mark 0 alone, as nobody ended a document: each
    sequence is one.  They are published in pieces, PATH-00000-of-00020.bin to PATH-00020-of-00020.bin, of one .idx."""

    def __init__(self, path, name, fields):
        base = os.path.splitext(path)[0]
        shard = _SHARD.fullmatch(base)
        if shard and not os.path.exists(base + ".idx"):
            base = shard["base"]
        super().__init__(base, os.path.basename(base), fields)
        self.idx_path, self.bin_paths = base + ".idx", [base + ".bin"]
        self.in_pieces = not os.path.exists(base + ".bin") and bool(shard or self._shards("?????"))
        if self.in_pieces:
            self.bin_paths = self._find_shards(shard)

    def _shards(self, last):
        return sorted(glob.glob(f"{glob.escape(self.path)}-?????-of-{last}.bin"))

    def _find_shards(self, shard):
        last = shard["last"] if shard else _SHARD.match(self._shards("?????")[0][:-4])["last"]
        found = self._shards(last)
        for i in range(max(int(last), len(found))):  # some count the pieces, some from 0 to the last
            if f"{self.path}-{i:05d}-of-{last}.bin" not in found:
                raise UserError(
                    f'"{self.idx_path}" wants all pieces of its data: "{self.path}-{i:05d}-of-{last}.bin" is missing'
                )
        return found

    def files(self):
        return [self.idx_path, *self.bin_paths]

    def size(self):
        self._size(self.idx_path)
        return sum(map(self._size, self.bin_paths))

    def _open(self):
        """(ids, length of each sequence, its offset in bytes, document marks), mapped and checked."""
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
        if n == 0 or marks == 0 or self.size() == 0:
            raise UserError(f'"{self.path}" holds no sequence')
        dtype = np.dtype(_TOKEN_TYPES[code]).newbyteorder("<")
        return (
            _Joined([_map(path, dtype, 0, self._size(path) // dtype.itemsize) for path in self.bin_paths]),
            _map(self.idx_path, "<i4", _HEADER_BYTES, n),
            _map(self.idx_path, "<i8", _HEADER_BYTES + 4 * n, n),
            _map(self.idx_path, "<i8", _HEADER_BYTES + 12 * n, marks),
        )

    def _documents(self):
        ids, length, pointer, mark = self._open()
        self._sequence(ids, length, pointer, len(length) - 1)  # a piece that is missing is told before the work
        if len(mark) == 1:
            mark = range(int(mark[0]), len(length) + 1)
        if mark[0] != 0 or mark[-1] != len(length):
            raise UserError(
                f'"{self.idx_path}": its document marks do not run from 0 to {len(length)}, its sequences, but from {mark[0]} to '
                f"{mark[-1]}: was it merged by a program that leaves out the marks? (merge its parts again with Megatron's "
                "tools/merge_datasets.py, or give them instead)"
            )
        for document in range(len(mark) - 1):
            first, last = int(mark[document]), int(mark[document + 1])
            if not 0 <= first <= last <= len(length):
                raise UserError(f'"{self.idx_path}": document {document} runs from sequence {first} to {last}')
            pieces = [self._sequence(ids, length, pointer, i) for i in range(first, last)]
            yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, ids.dtype)]), "", ""

    def _sequence(self, ids, length, pointer, i):
        n, offset = int(length[i]), int(pointer[i])
        itemsize = ids.dtype.itemsize
        if n < 0 or offset < 0 or offset % itemsize or offset // itemsize + n > len(ids):
            raise UserError(
                f'"{self.idx_path}": sequence {i} ({n} tokens at byte {offset}) lies outside "{self.bin_paths[-1]}"'
            )
        return ids.run(offset // itemsize, n)


# ---------------------------------------------------------------- arrays without a header


def _by_size(path, n_tokens, where):
    """The array of a file of n_tokens u16 or u32; where: what says how many they are."""
    size = os.path.getsize(path)
    for dtype in ("<u2", "<u4"):
        if n_tokens and size == n_tokens * np.dtype(dtype).itemsize:
            return _map(path, dtype)
    raise UserError(f'"{path}" has {size} bytes, neither 2 nor 4 for each of the {n_tokens} tokens of "{where}"')


class DolmaArray(Tokens):
    """OLMo's and Dolma's NAME.npy, ids without a header, and NAME.csv.gz, a row for each document: start, end, id, source, line.
    A .npy of NumPy's own is read as well; where it has rows, each is a document."""

    def __init__(self, path, name, fields):
        super().__init__(path, name, fields)
        self.csv_path = path.removesuffix(".npy") + ".csv.gz"

    def _array(self):
        """The array of NumPy's own format, None of another file."""
        with open(self.path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                return None
        try:
            found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f'cannot read "{self.path}": {str(error).splitlines()[0]}') from None
        if found.dtype.kind not in "iu" or found.ndim not in (1, 2):
            raise UserError(f'"{self.path}" has {found.ndim} dimensions of {found.dtype}: no token ids')
        return found

    def files(self):
        array = self._array() if os.path.isfile(self.path) else None
        return [self.path] if array is not None and array.ndim == 2 else [self.path, self.csv_path]

    def size(self):
        for path in self.files():
            self._size(path)
        return self._size(self.path)

    def _rows(self):
        """(start, end, id, source) of each document, checked."""
        number = before = 0
        try:
            with gzip.open(self.csv_path, "rt", encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.reader(file), 1):
                    start, end, name, source, line = (*row, "", "", "")[:5]
                    start, end = int(start), int(end)
                    if start != before or end < start:
                        raise ValueError(f"tokens {start} to {end} follow those to {before}")
                    before = end
                    place = (
                        f"{source}:{line}" if source else f"{printable(os.path.basename(self.csv_path))}: row {number}"
                    )
                    yield start, end, name or place, source
        except (EOFError, zlib.error, csv.Error, ValueError) as error:
            raise UserError(f'"{self.csv_path}": row {number}: {error}') from None
        except OSError as error:
            raise UserError(f'cannot read "{self.csv_path}": {error.strerror or error}') from None

    def _documents(self):
        array = self._array()
        if array is not None and array.ndim == 2:
            for number, row in enumerate(array):
                yield row, f"{printable(os.path.basename(self.path))}[{number}]", ""
            return
        end = 0
        for _, end, _, _ in self._rows():
            pass
        if array is None:
            array = _by_size(self.path, end, self.csv_path)
        elif len(array) != end:
            raise UserError(f'"{self.path}" has {len(array)} tokens, "{self.csv_path}" {end}')
        for start, end, name, source in self._rows():
            yield array[start:end], name, source


class Datatrove(Tokens):
    """datatrove's and nanotron's NAME.ds, ids without a header, and NAME.ds.index, the u64 end of each document."""

    def __init__(self, path, name, fields):
        super().__init__(path.removesuffix(".index"), name, fields)
        self.index_path = self.path + ".index"

    def files(self):
        return [self.path, self.index_path]

    def size(self):
        self._size(self.index_path)
        return self._size(self.path)

    def _documents(self):
        size = self._size(self.index_path)
        if size % 8 or not size:
            raise UserError(f'"{self.index_path}" has {size} bytes, not 8 for each document')
        if os.path.exists(self.path + ".loss"):
            raise UserError(
                f'"{self.path}.loss" leaves tokens out of the loss, which is not read here: move it away to have all in it'
            )
        ends = _map(self.index_path, "<u8")
        array = _by_size(self.path, int(ends[-1]), self.index_path)
        first, own = 0, printable(os.path.basename(self.path))
        for i in range(0, len(ends), _ROWS):
            for number, end in enumerate(ends[i : i + _ROWS].tolist(), i):
                if not first <= end <= len(array):
                    raise UserError(f'"{self.index_path}": document {number} runs from token {first} to {end}')
                yield array[first:end], f"{own}: document {number}", ""
                first = end
