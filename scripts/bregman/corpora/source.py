"""What every reader of a corpus is made of.

A reader is a class: it has `files`, `size` and `hashes`, and either gives text, by `chunks` and `parse`, or token ids, by
`token_chunks`.  Each streams: it never holds more than a chunk and one document.
"""

import collections
import os

from bregman import chat
from bregman.errors import UserError
from bregman.files import printable
from bregman.hashes import hash_file_once, hash_texts

CHUNK_BYTES = 256 << 10
CHUNK_TOKENS = 256 << 10
# names of the fields of a document; a.b is the field b of a
Fields = collections.namedtuple("Fields", "text id source lang", defaults=("text", "id", "source", "lang"))
# text: or a chat.Chat or chat.Ids
Document = collections.namedtuple("Document", "text id source lang")
# tokens of whole documents, back to back, how many each has, and what is known of each; n_bytes: read for them
TokenChunk = collections.namedtuple("TokenChunk", "tokens lengths ids sources n_bytes")


KINDS = {
    type(None): "null",
    dict: "an object",
    list: "a list",
    bool: "a truth value",
    int: "a number",
    float: "a number",
}


class BadText(Exception):
    """A record that is no document; the message is the reason."""


# ---------------------------------------------------------------- fields


def add_field_options(parser, names=Fields._fields):
    for name in names:
        what = "JSON field or column of a table" if name == "text" else f"that of the document's {name}"
        more = "; a.b is the field b of a" if name == "text" else ""
        parser.add_argument(
            f"--{name}-field", default=name, metavar="NAME", help=f"{what}{more} ({name}{'' if more else ', if any'})"
        )


def fields_of(options):
    return Fields(*(getattr(options, f"{name}_field", name) for name in Fields._fields))


def without_defaults(recorded):
    """Options as they are recorded: a field that is where it always was is not, as files made before it had a name stay valid."""
    return {k: v for k, v in recorded.items() if not (k.endswith("_field") and k != "text_field" and f"{v}_field" == k)}


def look_up(value, name):
    """(is it there?, the field of a JSON object); a field of the whole name comes before a nested one."""
    if name in value:
        return True, value[name]
    outer, dot, inner = name.partition(".")
    while dot:
        if isinstance(value.get(outer), dict):
            there, found = look_up(value[outer], inner)
            if there:
                return there, found
        more, dot, inner = inner.partition(".")
        outer += "." + more
    return False, None


def names_in(value, prefix=""):
    """The names of all fields of a JSON object, nested ones too."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from names_in(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def listed(names, most=20):
    names = list(names)
    return ", ".join(f'"{name}"' for name in names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def missing(value, name, option):
    have = f"there are {listed(names_in(value))}" if value else "there is none"
    return BadText(f'no {option}: no field "{name}" (--{option}-field), {have}')


def document_of(value, fields):
    """The document in a JSON object: its text, else its chat or token ids.  A field that only may be there must be, where it was
    named by an option."""
    found = {}
    for option, name in fields._asdict().items():
        there, found[option] = look_up(value, name)
        if option == "text" and found[option] is None:
            found[option] = chat_of(value)
            there = there or found[option] is not None
        if not there and (option == "text" or name != option):
            raise missing(value, name, option)
    return made_document(found["text"], fields, [found[option] for option in ("id", "source", "lang")])


def chat_of(record):
    """The chat.Chat or chat.Ids in a record, or None."""
    try:
        return chat.from_record(record)
    except chat.BadRecord as reason:
        raise BadText(str(reason)) from None


def made_document(text, fields, others):
    """others: its id, source and lang, or None."""
    if not text or not isinstance(text, (str, chat.Chat, chat.Ids)):
        raise BadText(f'no text: "{fields.text}" is {KINDS.get(type(text), "empty")}')
    document = Document(text, *(_as_text(value) for value in others))
    try:
        "".join(field for field in document if isinstance(field, str)).encode()
    except UnicodeEncodeError:
        raise BadText("invalid UTF-8 (an unpaired surrogate)") from None
    return document


def _as_text(value):
    """An optional field as text: absent is "", a number is written out."""
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise BadText("id, source or lang is not a text or a number")
    text = str(value)
    if "\0" in text:
        raise BadText("id, source or lang holds a NUL character")
    return text


# ---------------------------------------------------------------- bytes


MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def other_encoding(data):
    """What is wrong with bytes that begin with the mark of another encoding than UTF-8, or ""."""
    name = next((name for mark, name in MARKS if data.startswith(mark)), None)
    return (
        f"is {name} (it begins with its byte order mark), not UTF-8: iconv -f {name} -t UTF-8 converts it"
        if name
        else ""
    )


def decode(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadText(f"invalid UTF-8 at byte {error.start}") from None


# ---------------------------------------------------------------- sources


def chunks_by_size(records):
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


class Source:
    """One input: path, name of its output, names of its fields.

    A reader of text has chunks(): (records, bytes read) pairs, each record a (place, payload), and parse(payload): its
    Document, called in a worker process; BadText where there is none.  A reader of token ids has token_chunks(): TokenChunks."""

    has_text = True
    in_pieces = False  # may several inputs be pieces of it?
    notes = ()  # lines for the log

    def __init__(self, path, name, fields=Fields()):
        self.path, self.name, self.fields = path, name, fields

    def _size(self, path):
        try:
            return os.path.getsize(path)
        except OSError as error:
            raise UserError(f'cannot read "{path}": {error.strerror}') from None

    def files(self):
        """Paths of all files that it is read from."""
        return [self.path]

    def size(self):
        """Bytes, for the progress bar; an error where a file is missing."""
        return sum(self._size(path) for path in self.files())

    def hashes(self):
        """(path, hash) of each input."""
        return [(path, hash_file_once(path)) for path in self.files()]

    def hash_as_one(self, names):
        """The hash of many files: of their names, relative to the path, and contents."""
        parts = [part for name in names for part in (printable(name), hash_file_once(os.path.join(self.path, name)))]
        return [(self.path, hash_texts(parts))]
