"""How large a corpus is in sequences and tokens, from the beginnings of its files: they are not read to their ends."""

import collections

import numpy as np

from bregman import chat, corpora
from bregman.errors import UserError

LOOKED_AT = 16  # files, evenly spaced
SAMPLE_BYTES = 2 << 20  # of all of them together, but a chunk of each at least

# sequences, tokens: estimates, unless exact
Size = collections.namedtuple("Size", "sequences tokens exact")


def open_sources(paths, text_field):
    sources = [corpora.open_source(path, corpora.Fields(text=text_field)) for path in paths]
    corpora.check_apart(sources)
    return sources


def of_text(chunk, source, model):
    """Tokens of each document of a chunk."""
    lengths = []
    for place, payload in chunk:
        try:
            text = source.parse(payload).text
            lengths.append(n_tokens(text, model))
        except (corpora.BadText, chat.BadRecord) as error:
            raise UserError(f"{place}: {error}") from None
    return lengths


def n_tokens(text, model):
    """Of a text, a conversation, or what is tokens already."""
    if isinstance(text, chat.Ids):
        return len(text.tokens)
    if isinstance(text, chat.Chat):
        return len(chat.encode_chat(model, chat.open_template(model), text)[0])
    return len(model.encode_documents([text])[0][0])


def chunks(source, model):
    """(tokens of each document, bytes read)"""
    if source.has_text:
        for chunk, progress in source.chunks():
            yield of_text(chunk, source, model), progress
    else:
        for chunk in source.token_chunks():
            yield chunk.lengths, chunk.n_bytes


def sample(source, model, most_bytes):
    """(documents' lengths, bytes they are of, was that all?)"""
    lengths, read = [], 0
    for found, progress in chunks(source, model):
        lengths.extend(found)
        read += progress
        if read >= most_bytes:
            return lengths, read, False
    return lengths, read, True


def corpus_size(sources, model, max_length):
    """As it will be when it is cut into sequences of max_length, each document on its own."""
    step = -(-len(sources) // LOOKED_AT)
    chosen = sources[::step]
    sequences = tokens = read = 0
    exact = step == 1
    for source in chosen:
        found, n_bytes, whole = sample(source, model, SAMPLE_BYTES // len(chosen))
        share = 1 if whole else max(1, source.size() / max(1, n_bytes))
        lengths = np.array(found, np.int64)
        # a piece of one token is dropped
        cut = np.sum(-(-lengths // max_length)) - np.sum(lengths % max_length == 1)
        sequences, tokens, read = sequences + share * cut, tokens + share * lengths.sum(), read + source.size()
        exact = exact and whole
    share = 1 if step == 1 else sum(source.size() for source in sources) / max(1, read)
    return Size(round(share * sequences), round(share * tokens), exact)
