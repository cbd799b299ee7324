"""Token ids as readable text: what each token stands for, and where characters end."""

import json

from bregman.errors import UserError

REPLACEMENT = "\ufffd"


def _byte_of_character():
    """GPT-2's byte-level alphabet: printable Latin-1 stands for itself, other bytes for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    table.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return table


BYTE_OF_CHARACTER = _byte_of_character()
# Control characters get their visible pictures: HTML parsers would drop or rewrite them.
CONTROL_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
CONTROL_PICTURES[0x7F] = "\u2421"


def _decoder_types(decoder):
    """Types of a tokenizer.json decoder and of those nested in it."""
    if not isinstance(decoder, dict):
        return set()
    types = {decoder.get("type")}
    for inner in decoder.get("decoders", []):
        types |= _decoder_types(inner)
    return types


class TokenText:
    """Bytes and text of the tokens of a tokenizer.json; without one, the ids stand for themselves."""

    def __init__(self, tokenizer_path=None):
        self._tokenizer = None
        self._cache = {}
        if tokenizer_path is None:
            return
        from tokenizers import Tokenizer

        # One buffer for both: the library's own object hides the decoder's type.
        content = tokenizer_path.read_bytes()
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except ValueError as error:
            raise UserError(f'cannot read the tokenizer "{tokenizer_path}": {error}') from None
        description = json.loads(content)
        types = _decoder_types(description.get("decoder"))
        self._byte_level = "ByteLevel" in types
        self._byte_fallback = "ByteFallback" in types
        self._verbatim = {t["id"]: t["content"] for t in description.get("added_tokens", [])}

    def token_bytes(self, token):
        """What one token adds to the text; may be part of a UTF-8 character."""
        if token not in self._cache:
            self._cache[token] = self._compute_bytes(token)
        return self._cache[token]

    def _compute_bytes(self, token):
        if self._tokenizer is None:
            return f"[{token}] ".encode()
        if token in self._verbatim:
            return self._verbatim[token].encode()
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return f"[{token}]".encode()
        if self._byte_level and all(c in BYTE_OF_CHARACTER for c in piece):
            return bytes(BYTE_OF_CHARACTER[c] for c in piece)
        if self._byte_fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    def groups(self, tokens):
        """Cut tokens into the shortest runs that are whole characters: [(text, number of tokens)]."""
        found, pending, n_pending = [], b"", 0
        for token in tokens:
            piece = self.token_bytes(int(token))
            if pending and not _may_continue(pending + piece):
                found.append((_printable(pending), n_pending))
                pending, n_pending = b"", 0
            pending += piece
            n_pending += 1
            if not _is_cut_short(pending):
                found.append((_printable(pending), n_pending))
                pending, n_pending = b"", 0
        if n_pending:
            found.append((_printable(pending), n_pending))
        return found

    def text(self, tokens):
        return "".join(text for text, _ in self.groups(tokens))


def _decoding_error(data):
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _is_cut_short(data):
    """Ends inside a UTF-8 character that more bytes could complete."""
    error = _decoding_error(data)
    return error is not None and error.reason == "unexpected end of data"


def _may_continue(data):
    return _decoding_error(data) is None or _is_cut_short(data)


def _printable(data):
    return data.decode(errors="replace").translate(CONTROL_PICTURES)
