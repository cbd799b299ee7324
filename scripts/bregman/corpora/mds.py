"""MosaicML's streaming data sets (MDS): a folder of shards that its index.json lists.

A shard is u32 samples, u32 offset of each and of the end, and at each offset a sample: the u32 size of each column that has none in
the index, then the columns' bytes.  A sample with a text is a document; one of `tokens` has token ids, as LLM Foundry writes them.
"""

import os
import re

import numpy as np
import zstandard

from bregman.corpora.source import Source, chunks_by_size, decode, listed, made_document
from bregman.corpora.tokens import Tokens
from bregman.errors import UserError
from bregman.files import read_json

INDEX = "index.json"
TOKENS = "tokens"
NUMBER = re.compile(r"u?int(8|16|32|64)?")
ARRAY = re.compile(r"ndarray:(u?int(?:16|32|64)):\d+")


class _Shards(Source):
    """What both kinds share; payloads are the bytes of fields, in a list of those that were asked for."""

    def __init__(self, path, name, fields):
        super().__init__(path, name, fields)
        self.index = os.path.join(path, INDEX)
        self.shards = read_json(self.index).get("shards")
        if not isinstance(self.shards, list) or not all(map(self._known, self.shards)):
            raise UserError(f'"{self.index}" does not list the shards of a data set of MDS')

    @staticmethod
    def _known(shard):
        """Has it what is read below?"""
        try:
            names, encodings, sizes = (shard[f"column_{part}"] for part in ("names", "encodings", "sizes"))
            file = shard["zip_data"] or shard["raw_data"]
            plain = file["basename"] == os.path.basename(file["basename"])
            return (
                shard["format"] == "mds"
                and len(names) == len(encodings) == len(sizes)
                and plain
                and shard["samples"] >= 0
            )
        except (KeyError, TypeError):
            return False

    def _place(self, shard):
        """The file of a shard: packed, or unpacked by a reader of it before."""
        raw = os.path.join(self.path, shard["raw_data"]["basename"])
        packed = shard["zip_data"] and os.path.join(self.path, shard["zip_data"]["basename"])
        return raw if not packed or os.path.exists(raw) else packed

    def files(self):
        return [self.index, *(self._place(shard) for shard in self.shards)]

    def hashes(self):
        return self.hash_as_one([os.path.relpath(file, self.path) for file in self.files()])

    def _read(self, shard, place):
        with open(place, "rb") as file:
            data = file.read()
        if place.endswith((".zstd", ".zst")):
            try:
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=shard["raw_data"]["bytes"])
            except zstandard.ZstdError as error:
                raise UserError(f'"{place}" is corrupt: {error}') from None
        elif place != os.path.join(self.path, shard["raw_data"]["basename"]):
            raise UserError(
                f'"{place}" is packed as {shard["compression"]}: unpack it, or write the data set with zstd'
            )
        if len(data) != shard["raw_data"]["bytes"]:
            raise UserError(f'"{place}" has {len(data)} bytes, {shard["raw_data"]["bytes"]} by "{self.index}"')
        return data

    def _samples(self, wanted):
        """(place, {column: bytes}, bytes read of a file) of each sample; wanted: names of columns."""
        for shard in self.shards:
            place = self._place(shard)
            data, n = self._read(shard, place), shard["samples"]
            offsets = np.frombuffer(data, "<u4", min(n + 2, len(data) // 4)).tolist()
            if len(offsets) != n + 2 or offsets[0] != n or offsets[-1] != len(data):
                raise UserError(f'"{place}" does not begin as a shard of {n} samples')
            for i, (begin, end) in enumerate(zip(offsets[1:], offsets[2:]), 1):
                sample = self._sample(shard, data[begin:end])
                if sample is None:
                    raise UserError(f'"{place}": sample {i} has {end - begin} bytes, which do not fit its columns')
                yield (
                    f"{place}: sample {i}",
                    {name: sample.get(name) for name in wanted},
                    self._size(place) if i == n else 0,
                )

    @staticmethod
    def _sample(shard, data):
        sizes, at, found = list(shard["column_sizes"]), 0, {}
        for i, size in enumerate(sizes):
            if not size:
                sizes[i], at = int.from_bytes(data[at : at + 4], "little"), at + 4
        for name, size in zip(shard["column_names"], sizes):
            found[name], at = data[at : at + size], at + size
        return found if at == len(data) else None

    def _encoding(self, name):
        """Of a column, the same in all shards; None where there is none."""
        found = {dict(zip(shard["column_names"], shard["column_encodings"])).get(name) for shard in self.shards}
        if len(found) > 1:
            raise UserError(f'"{self.index}": column "{name}" has several encodings')
        return next(iter(found), None)


class MdsText(_Shards):
    def chunks(self):
        return chunks_by_size(self._records())

    def _records(self):
        names = {}
        for option, name in self.fields._asdict().items():
            encoding = self._encoding(name)
            if encoding is None and (option == "text" or name != option):
                have = listed(self.shards[0]["column_names"]) if self.shards else "none"
                raise UserError(f'"{self.path}" has no column "{name}" (--{option}-field); it has: {have}')
            if encoding not in (None, "str") and (option == "text" or not NUMBER.fullmatch(encoding)):
                raise UserError(f'"{self.path}": column "{name}" is {encoding}, no text')
            names[name] = encoding
        for place, sample, n_bytes in self._samples(names):
            row = [(names[name], sample[name]) for name in self.fields]
            yield place, (place.removeprefix(os.path.join(self.path, "")), row), len(sample[self.fields.text]), n_bytes

    def parse(self, payload):
        place, row = payload
        text, *others = (data if data is None else _decoded(encoding, data) for encoding, data in row)
        document = made_document(text, self.fields, others)
        return document if document.id else document._replace(id=place)


def _decoded(encoding, data):
    return decode(data) if encoding == "str" else int.from_bytes(data, "little", signed=encoding[0] != "u")


class MdsTokens(_Shards, Tokens):
    def _documents(self):
        encoding = self._encoding(TOKENS)
        array = ARRAY.fullmatch(encoding)
        if not array and encoding != "bytes":  # bytes: LLM Foundry's are of 64 bits
            raise UserError(f'"{self.path}": column "{TOKENS}" is {encoding}: no token ids that are read here')
        dtype = np.dtype(array[1] if array else np.int64).newbyteorder("<")
        for place, sample, _ in self._samples([TOKENS]):
            if len(sample[TOKENS]) % dtype.itemsize:
                raise UserError(f'"{place}": {len(sample[TOKENS])} bytes are no array of {dtype}')
            yield np.frombuffer(sample[TOKENS], dtype), place.removeprefix(os.path.join(self.path, "")), ""


def mds_source(path, name, fields):
    found = MdsText(path, name, fields)
    columns = {name for shard in found.shards for name in shard["column_names"]}
    return MdsTokens(path, name, fields) if TOKENS in columns and fields.text not in columns else found
