"""Tables, a row of which is a document: Parquet, and Arrow's stream and file formats."""

from bregman import chat
from bregman.corpora.source import Source, chat_of, chunks_by_size, decode, listed, made_document
from bregman.errors import UserError

BATCH_ROWS = 256
FILE_MAGIC, STREAM_END = b"ARROW1\0\0", b"\xff\xff\xff\xff\0\0\0\0"


def _nested(names, of):
    """(path) of each column: its name and, inside structs, those of its fields."""
    for name in names:
        field = of.field(name)
        if str(field.type).startswith("struct<"):
            yield from ((field.name, *path) for path in _nested(range(field.type.num_fields), field.type))
        else:
            yield (field.name,)


def _values(column):
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = column.cast(pyarrow.large_binary())  # decoded row by row, so that a bad one can be named
    return column.to_pylist()


def _column(batch, path):
    import pyarrow.compute

    if not path:
        return [None] * batch.num_rows
    column = batch.column(path[0])
    return _values(pyarrow.compute.struct_field(column, list(path[1:])) if path[1:] else column)


class Table(Source):
    """What the kinds of tables share.  A kind has _batches(): (the path of each field's column, a record batch that has these
    columns, bytes read until then)."""

    def parse(self, row):
        text, *others = (decode(value) if isinstance(value, bytes) else value for value in row)
        return made_document(chat_of(text) if isinstance(text, dict) else text, self.fields, others)

    def chunks(self):
        import pyarrow

        try:
            yield from chunks_by_size(self._records())
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f'cannot read "{self.path}": {str(error).splitlines()[0]}') from None
        except UnicodeDecodeError as error:  # in a message
            raise UserError(f'"{self.path}": invalid UTF-8: {error}') from None

    def _columns(self, schema):
        """The path of each field's column, None where there is none and none was asked for; without a text, those of a chat or of
        token ids behind them."""
        paths = list(_nested(range(len(schema)), schema))
        whole = {"messages", "input_ids"} & set(schema.names)
        others = [(name,) for name in chat.FIELDS if whole and name in schema.names]
        found = []
        for option, name in self.fields._asdict().items():
            here = [path for path in paths if ".".join(path) == name]
            if len(here) > 1:
                raise UserError(
                    f'"{self.path}" has {len(here)} columns named "{name}" (--{option}-field): rename all but one'
                )
            if not here and (not others if option == "text" else name != option):
                have = listed(".".join(path) for path in paths)
                raise UserError(f'"{self.path}" has no column "{name}" (--{option}-field); it has: {have}')
            found.append(here[0] if here else None)
        return found if found[0] else found + others

    def _records(self):
        number = before = 0
        for paths, batch, position in self._batches():
            for first in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(first, BATCH_ROWS)
                columns = [_column(part, path) for path in paths]
                if not paths[0]:
                    names = [name for (name,) in paths[len(self.fields) :]]
                    columns[0] = [dict(zip(names, row)) for row in zip(*columns[len(self.fields) :])]
                for row in zip(*columns[: len(self.fields)]):
                    number += 1
                    n_bytes = len(row[0]) if isinstance(row[0], bytes) else part.nbytes // part.num_rows
                    yield f"{self.path}: row {number}", row, n_bytes, position - before
                    before = position


class Parquet(Table):
    def _batches(self):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            paths = self._columns(file.schema_arrow)
            size, rows = self.size(), 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[".".join(path) for path in paths if path]):
                rows += batch.num_rows
                yield paths, batch, size * rows // file.metadata.num_rows


class Arrow(Table):
    """A file of record batches in Arrow's file format (Feather 2) or stream format (Hugging Face's datasets)."""

    def _batches(self):
        import pyarrow

        size = self.size()
        with open(self.path, "rb") as file:
            magic = file.read(len(FILE_MAGIC))
            file.seek(-min(size, len(STREAM_END)), 2)
            end = file.read()
        with pyarrow.memory_map(self.path) if size else open(self.path, "rb") as mapped:
            if magic == FILE_MAGIC:
                reader = pyarrow.ipc.open_file(mapped)
                batches = map(reader.get_batch, range(reader.num_record_batches))
                ends = (size * (i + 1) // reader.num_record_batches for i in range(reader.num_record_batches))
            else:
                if end != STREAM_END:  # or a batch that is missing would not show
                    raise UserError(f'"{self.path}" is no Arrow file, or is cut short: it does not end as one')
                reader = pyarrow.ipc.open_stream(mapped)
                batches, ends = reader, iter(mapped.tell, None)
            paths = self._columns(reader.schema)
            for batch, position in zip(batches, ends):
                yield paths, batch, position
