"""Documents that are not text: chats, and sequences of token ids; which of their tokens are in the loss.

A chat is rendered as apply_chat_template of transformers 5 does it: by the model's own template, of chat_template.jinja or else
of tokenizer_config.json, in a sandbox, and its text is tokenized without what the tokenizer would put around one.  In the loss
are the tokens that reach into a {% generation %} span; of a template without such spans, those of each assistant's turn: what
the template makes of the messages up to it, beyond what it makes of those before it with a generation prompt.
"""

import collections
import contextlib
import datetime
import json
import os

import numpy as np

from bregman.errors import UserError
from bregman.hashes import hash_bytes
from bregman.tokenizer import read_json

IGNORED = -100  # the label of a token that is not in the loss
FIELDS = ("messages", "tools", "chat_template_kwargs", "input_ids", "labels", "attention_mask")
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# kwargs: what else the template is given
Chat = collections.namedtuple("Chat", "messages kwargs")
Ids = collections.namedtuple("Ids", "tokens loss")


class BadRecord(Exception):
    """A record that is no such document; the message is the reason."""


def kind_of(text):
    return {Chat: "a chat", Ids: "token ids"}.get(type(text), "text")


# ---------------------------------------------------------------- records


def from_record(record):
    """The Chat or Ids that a record's fields (FIELDS) hold; None: neither is there."""
    if record.get("messages") is not None:
        return _chat(record)
    if record.get("input_ids") is not None:
        return _ids(record)
    return None


def _without_null(value):
    """Parquet has null for each key that another row has."""
    if isinstance(value, dict):
        return {key: _without_null(x) for key, x in value.items() if x is not None}
    return [_without_null(x) for x in value] if isinstance(value, list) else value


def _chat(record):
    messages = _without_null(record["messages"])
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
    ):
        raise BadRecord("messages is no list of objects with a role")
    kwargs = _without_null(record.get("chat_template_kwargs") or {})
    if not isinstance(kwargs, dict):
        raise BadRecord("chat_template_kwargs is not an object")
    return Chat([_with_reasoning(m) for m in messages], {"tools": _without_null(record.get("tools")), **kwargs})


def _with_reasoning(message):
    """An assistant's reasoning under the names that templates know it by, as in transformers."""
    names = ("reasoning_content", "thinking", "reasoning")
    found = next((message[name] for name in names if name in message), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _whole_numbers(record, name, n=None):
    values = record[name]
    if not isinstance(values, list) or not all(type(x) is int and abs(x) < 1 << 62 for x in values):
        raise BadRecord(f"{name} is no list of whole numbers")
    if n is not None and len(values) != n:
        raise BadRecord(f"{name} has {len(values)} values for {n} input_ids")
    return np.array(values, np.int64)


def _ids(record):
    tokens = _whole_numbers(record, "input_ids")
    loss = np.ones(len(tokens), bool)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < 1 << 32:
        raise BadRecord("input_ids has a number that is no token id")
    if record.get("labels") is not None:
        labels = _whole_numbers(record, "labels", len(tokens))
        loss = labels != IGNORED
        wrong = np.flatnonzero(loss & (labels != tokens))
        if len(wrong):
            at = int(wrong[0])
            raise BadRecord(f"label {labels[at]} at {at} is neither the token there, {tokens[at]}, nor {IGNORED}")
    if record.get("attention_mask") is not None:
        real = np.flatnonzero(_whole_numbers(record, "attention_mask", len(tokens)))
        whole = slice(int(real[0]), int(real[-1]) + 1) if len(real) else slice(0, 0)
        if whole.stop - whole.start != len(real):
            raise BadRecord("attention_mask has a gap: packed documents are to be given one by one")
        tokens, loss = tokens[whole], loss[whole]
    if not len(tokens):
        raise BadRecord("no token")
    return Ids(tokens, loss)


# ---------------------------------------------------------------- the template


def _environment():
    """As transformers makes it, and what {% generation %} notes down: (environment, blocks so far, spans, is there such a tag?)"""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    blocks, spans, tags = [], [], []

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            tags.append(line)
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

        def _note(self, caller):
            text = caller()
            start = sum(map(len, blocks))
            spans.append((start, start + len(text)))
            return text

    class Namespace(jinja2.utils.Namespace):
        """Without the names that lead out of the sandbox."""

        def __init__(*args, **kwargs):  # a template may have a name `self`
            jinja2.utils.Namespace.__init__(args[0], *args[1:], **kwargs)
            for name in dict(*args[1:], **kwargs):
                Namespace.check(name)

        def __setitem__(self, name, value):
            Namespace.check(name)
            super().__setitem__(name, value)

        @staticmethod
        def check(name):
            if str(name).startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace is given {name}")

    def fail(message):
        raise jinja2.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = fail
    made.globals["namespace"] = Namespace
    made.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return made, blocks, spans, tags


class ChatTemplate:
    """Of a model's folder.  hash: the template's."""

    def __init__(self, folder):
        self._settings = read_json(os.path.join(folder, "special_tokens_map.json"))
        self._settings |= read_json(os.path.join(folder, "tokenizer_config.json"))
        self.path, source = self._find(folder)
        self.hash = hash_bytes(source.encode("utf-8", "surrogatepass"))
        environment, self._blocks, self._spans, self._tags = _environment()
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # jinja2's own, and what its compiler meets
            raise UserError(f'"{self.path}": its chat template is none: {_first_line(error)}') from None

    def _find(self, folder):
        path = os.path.join(folder, "chat_template.jinja")
        with contextlib.suppress(FileNotFoundError):
            try:
                with open(path, encoding="utf-8") as file:
                    return path, file.read()
            except (UnicodeDecodeError, PermissionError, IsADirectoryError) as error:
                raise UserError(f'cannot read "{path}": {error}') from None
        path, found = os.path.join(folder, "tokenizer_config.json"), self._settings.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}.get("default")
        if not isinstance(found, str):
            raise UserError(
                f'"{folder}" has no chat template (chat_template.jinja, or chat_template of tokenizer_config.json): '
                "messages need the one that the model was trained with"
            )
        return path, found

    def _special_tokens(self):
        found = {name: self._settings.get(name) for name in SPECIAL}
        found = {name: t.get("content") if isinstance(t, dict) else t for name, t in found.items()}
        return {name: t for name, t in found.items() if isinstance(t, str)}

    def _render(self, messages, kwargs, prompt=False):
        """(text, spans of {% generation %})"""
        self._blocks.clear()
        self._spans.clear()
        given = {**self._special_tokens(), **kwargs, "messages": messages, "add_generation_prompt": prompt}
        try:
            for block in self._template.generate(**{"documents": None, **given}):
                self._blocks.append(block)
            text = "".join(self._blocks)
            text.encode()
        except UnicodeEncodeError:
            raise BadRecord("invalid UTF-8 (an unpaired surrogate)") from None
        except Exception as error:  # its own raise_exception, the sandbox, and whatever Python says of its operations
            raise BadRecord(f'the chat template of "{self.path}" refuses it: {_first_line(error)}') from None
        return text, list(self._spans)

    def render(self, chat):
        """(text, spans of it that are in the loss)"""
        text, spans = self._render(chat.messages, chat.kwargs)
        if not self._tags:
            spans = [self._turn(chat, i, text) for i, m in enumerate(chat.messages) if m["role"] == "assistant"]
        if not any(end > start for start, end in spans):
            raise BadRecord("no assistant's turn")
        return text, spans

    def render_last(self, chat):
        """(text, those of its spans that are of the last message)"""
        if not chat.messages or chat.messages[-1]["role"] != "assistant":
            raise BadRecord("its last message is not the assistant's, which is to be the completion")
        text, spans = self.render(chat)
        before = self._render(chat.messages[:-1], chat.kwargs)[1] if self._tags else spans[:-1]
        return text, spans[len(before) :]

    def _turn(self, chat, i, whole):
        """What the i-th message, an assistant's, adds."""
        before, _ = self._render(chat.messages[:i], chat.kwargs, True)
        upto, _ = self._render(chat.messages[: i + 1], chat.kwargs)
        if not upto.startswith(before):
            raise BadRecord(
                f'the chat template of "{self.path}" writes message {i} otherwise than its generation prompt begins it, and has '
                "no {% generation %} to say what the model is to learn"
            )
        if not whole.startswith(upto):
            raise BadRecord(
                f'the chat template of "{self.path}" writes message {i} otherwise when others follow, and has no '
                "{% generation %} to say what the model is to learn"
            )
        return len(before), len(upto)


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---------------------------------------------------------------- documents to tokens


def open_template(model):
    """The ChatTemplate beside a TextModel's tokenizer."""
    return ChatTemplate(os.path.dirname(model.path))


def encode_chat(model, template, chat):
    """(ids, [token, begin and end] of its characters in the rendered text, is it in the loss?)"""
    return _encode(model, *template.render(chat))


def encode_last_turn(model, template, chat):
    """(ids up to the end of the last turn, its first token, are they in the loss?)"""
    ids, _, loss = _encode(model, *template.render_last(chat))
    found = np.flatnonzero(loss)
    if not len(found):
        raise BadRecord("its last turn gives no token")
    end = int(found[-1]) + 1
    return ids[:end], int(found[0]), loss[:end]


def _encode(model, text, spans):
    encoding = model.encode(text)
    covered = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    loss = np.zeros(len(covered), bool)
    for start, end in spans:
        loss |= (covered[:, 1] > start) & (covered[:, 0] < end)
    return encoding.ids, covered, loss
