"""The model's tokenizer, and what config.json says about token ids.

tokenizer.json is taken as it is, with what transformers 5 does beside it:
- Tokens before and behind a text are those of tokenizer.json's post-processor: add_bos_token and add_eos_token of
  tokenizer_config.json count for nothing where there is a tokenizer.json.  GPTNeoXTokenizer adds none.
- The classes of PREFIX_SPACE set the space before a text by add_prefix_space of tokenizer_config.json.  Their other
  parts, which transformers 5 builds anew, are left as tokenizer.json has them: the model was trained with those.
- Truncation and padding that were saved with tokenizer.json are not applied.
Beyond that, BPE dropout is never applied: ids would differ from run to run.  And what a token covers of its text has the
spaces that it stands for, whether or not the post-processor trims them: no id depends on that.
"""

import copy
import itertools
import json
import os

import numpy as np
import tokenizers

from bregman.errors import UsageError, UserError
from bregman.files import read_json
from bregman.hashes import checkpoint_folder, hash_bytes, model_file, require_regular

CHOICES = ("auto", "yes", "no")
# the class that AutoTokenizer of transformers 5 has for a config.json's model_type
CLASS_OF = {
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "mistral": "TokenizersBackend",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
    "olmo": "GPTNeoXTokenizer",
    "olmo2": "TokenizersBackend",
    "olmo3": "TokenizersBackend",
    "olmoe": "GPTNeoXTokenizer",
    "starcoder2": "GPT2Tokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}
# classes that set the space before a text themselves, and what they do without add_prefix_space
PREFIX_SPACE = {"GPT2Tokenizer": False, "GPTNeoXTokenizer": False, "Qwen2Tokenizer": False, "LlamaTokenizer": True}
PROBES = 1000  # tokens tried to find a text that gives one


class BadQuery(Exception):
    """Prompt and completion that cannot be joined; the message is the reason."""


def _count(config, names, path):
    """The first of several integer fields that is there and not null, or None."""
    for name in names:
        value = config.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f'"{path}": {name} is {json.dumps(value)}, not a positive integer')
            return value
    return None


def _token_id(config, name):
    """A token id of config.json, or None; of several the first."""
    value = config.get(name)
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ---------------------------------------------------------------- parts of tokenizer.json


def _parts(part):
    """A normalizer, pre-tokenizer or post-processor and those that it is a sequence of."""
    if isinstance(part, dict):
        yield part
        for inner in part.get("normalizers") or part.get("pretokenizers") or part.get("processors") or []:
            yield from _parts(inner)


def _prefix_parts(description):
    """The parts that can put a space before a text."""
    yield from (part for part in _parts(description.get("normalizer")) if part.get("type") == "Prepend")
    yield from (
        part for part in _parts(description.get("pre_tokenizer")) if part.get("type") in ("ByteLevel", "Metaspace")
    )


def _puts_space(part):
    if part["type"] == "Metaspace":
        return part.get("add_prefix_space") is not False and part.get("prepend_scheme") != "never"
    return part["type"] == "Prepend" or part.get("add_prefix_space", True)


def has_prefix_space(description):
    return any(_puts_space(part) for part in _prefix_parts(description))


def set_prefix_space(description, wanted):
    """Switch the space before a text on or off; False where the tokenizer has no part that could put one."""
    parts = list(_prefix_parts(description))
    for part in parts:
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = wanted
        elif part["type"] == "Metaspace" and _puts_space(part) != wanted:
            part.pop("add_prefix_space", None)  # how older files say it
            part["prepend_scheme"] = "first" if wanted else "never"
    if not wanted:
        description["normalizer"] = _without_prepend(description.get("normalizer"))
    return bool(parts)


def _without_prepend(normalizer):
    if not isinstance(normalizer, dict) or normalizer.get("type") == "Prepend":
        return None
    if "normalizers" not in normalizer:
        return normalizer
    return dict(normalizer, normalizers=[n for n in map(_without_prepend, normalizer["normalizers"]) if n])


def transformers_class(config, tokenizer_config, description):
    """Name of the class that AutoTokenizer of transformers 5 takes for a tokenizer, without "Fast"."""
    family, declared = (
        config.get("model_type"),
        tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class"),
    )
    registered = CLASS_OF.get(family) if isinstance(family, str) else None
    if not isinstance(declared, str) or family == "qwen2":  # what Qwen2's checkpoints declare is not believed
        return registered
    declared = declared.removesuffix("Fast")
    byte_level = any(part.get("type") == "ByteLevel" for part in _parts(description.get("pre_tokenizer")))
    if registered == "TokenizersBackend" or (declared == "LlamaTokenizer" and byte_level):
        return "TokenizersBackend"
    return declared


# ---------------------------------------------------------------- options


def add_options(parser):
    """The options of both tokenizing programs, which a TextModel takes."""
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json, instead of --model's")
    parser.add_argument(
        "--add-bos",
        choices=CHOICES,
        default="auto",
        help="begin-of-text token before each text; auto: what transformers 5 does, that is what "
        "tokenizer.json says, not add_bos_token of tokenizer_config.json (auto)",
    )
    parser.add_argument(
        "--add-prefix-space",
        choices=CHOICES,
        default="auto",
        help="space before each text; auto: as transformers 5, by add_prefix_space of tokenizer_config.json "
        "for the classes that heed it there (GPT-2, GPT-NeoX, Qwen2 and Llama), else by "
        "tokenizer.json (auto)",
    )


# ---------------------------------------------------------------- the tokenizer


class TextModel:
    """tokenizer.json and the fields of config.json that matter for text.

    path, hash: of tokenizer.json ("" without one).  vocab_size: the model's, else the tokenizer's (None if
    neither is known).  max_positions: None if not limited.  before, after: ids put around each text.  prefix_space: what
    it was set to, None as in tokenizer.json.  as_stored: is all of this what tokenizer.json has?  eos_id: the end-of-text
    token, or None, bos_id: the begin-of-text one; eos_note: where the files disagree on it.  notes: lines for the log."""

    def __init__(
        self,
        model_folder=None,
        tokenizer_file=None,
        need_tokenizer=True,
        add_bos="auto",
        add_eos="auto",
        add_prefix_space="auto",
        eos_token_id=None,
    ):
        model_folder = model_folder and checkpoint_folder(model_folder)
        if model_folder and not os.path.isdir(model_folder):
            raise UserError(f'--model "{model_folder}" is not a folder')
        self.path = tokenizer_file or (model_file(model_folder, "tokenizer.json") if model_folder else "")
        self.hash, self._tokenizer, self._bare, self.notes = "", None, None, []
        self.before, self.after, self.prefix_space, self.as_stored = [], [], None, True
        config_path = model_file(model_folder, "config.json") if model_folder else ""
        config = self._read_config(config_path)
        beside = os.path.join(os.path.dirname(self.path), "tokenizer_config.json")
        self._settings = read_json(beside) if self.path else {}
        if tokenizer_file or need_tokenizer or os.path.exists(self.path):
            self._load(config, add_prefix_space)
        self.vocab_size = _count(config, ("vocab_size",), config_path)
        if self.vocab_size is None and self._tokenizer:
            self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.max_positions = _count(config, ("max_position_embeddings", "n_positions"), config_path)
        self.eos_id, self.eos_note = self._find_eos(config, eos_token_id)
        self.bos_id = self._find_bos(config)
        if self._tokenizer:
            self._find_added(add_bos, add_eos)

    # ---- loading

    def _read_config(self, path):
        return read_json(path) if path else {}

    def _load(self, config, add_prefix_space):
        if not os.path.exists(self.path):
            raise UserError(f'no tokenizer: "{self.path}" does not exist')
        require_regular(self.path)
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise UserError(f'cannot read "{self.path}": {error.strerror}') from None
        self.hash = hash_bytes(data)
        try:
            self._description = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UserError(f'"{self.path}" is not a tokenizer.json: {error}') from None
        if not isinstance(self._description, dict) or not isinstance(self._description.get("model"), dict):
            raise UserError(f'"{self.path}" is not a tokenizer.json: it has no model')
        self._class = transformers_class(config, self._settings, self._description)
        dropout = self._description["model"].get("dropout")
        if dropout:
            self._description["model"]["dropout"] = None
            self.notes.append(
                f'"{self.path}" asks for BPE dropout {dropout}: not applied, ids would differ from run to run'
            )
        self._set_prefix_space(add_prefix_space)
        trimming = [part for part in _parts(self._description.get("post_processor")) if part.get("trim_offsets")]
        for part in trimming:
            part["trim_offsets"] = False
        changed = dropout or trimming or self.prefix_space is not None
        self._tokenizer = self._make(json.dumps(self._description).encode() if changed else data)

    def _make(self, data):
        try:
            made = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises plain Exception, ValueError or its own type
            raise UserError(f'"{self.path}" is not a tokenizer.json: {_first_line(error)}') from None
        made.no_truncation()
        made.no_padding()
        made.encode_special_tokens = self._settings.get("split_special_tokens") is True
        return made

    def _set_prefix_space(self, choice):
        """Leaves prefix_space at None where tokenizer.json has what is wanted."""
        wanted = {"yes": True, "no": False}.get(choice)
        if wanted is None and self._class in PREFIX_SPACE:
            wanted = self._settings.get("add_prefix_space")
            wanted = PREFIX_SPACE[self._class] if wanted is None else bool(wanted)
        if wanted is None or wanted == has_prefix_space(self._description):
            return
        if set_prefix_space(self._description, wanted):
            self.prefix_space = wanted
            self.notes.append(
                f"{'a' if wanted else 'no'} space is put before each text "
                f"({'tokenizer_config.json' if choice == 'auto' else f'--add-prefix-space {choice}'})"
            )
        elif choice == "yes":
            raise UserError(f'--add-prefix-space yes: "{self.path}" has no part that could put a space before a text')

    # ---- special tokens

    def _named_token(self, name):
        """Id of a token that tokenizer_config.json names, or None."""
        token = self._settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return self._tokenizer.token_to_id(token) if self._tokenizer and isinstance(token, str) else None

    def _find_eos(self, config, choice):
        """(id, line that says where the files disagree)"""
        of_model, of_tokenizer = _token_id(config, "eos_token_id"), self._named_token("eos_token")
        if choice is not None:
            return choice, ""
        if of_model is None:
            return of_tokenizer, ""
        note = ""
        if of_tokenizer not in (None, of_model):
            note = (
                f"the end-of-text token is {self.show(of_model)} in config.json, {self.show(of_tokenizer)} in "
                f"tokenizer_config.json; {of_model} is taken (--eos-token-id {of_tokenizer} takes the other)"
            )
        return of_model, note

    def _find_bos(self, config):
        named = self._named_token("bos_token")
        return _token_id(config, "bos_token_id") if named is None else named

    def _find_added(self, add_bos, add_eos):
        """Sets before and after, by tokenizer.json and by what the user chose."""
        stored = before, after = self._post_processor()
        if self._class == "GPTNeoXTokenizer":
            before, after = [], []
        bos = self.bos_id
        self.before = self._chosen("--add-bos", add_bos, before, bos, "begin-of-text", [bos] + before)
        self.after = self._chosen("--add-eos", add_eos, after, self.eos_id, "end-of-text", after + [self.eos_id])
        self.as_stored = self.prefix_space is None and (self.before, self.after) == stored
        eos = self._named_token("eos_token")
        for name, choice, here, token in (("bos", add_bos, before, bos), ("eos", add_eos, after, eos)):
            asked = self._settings.get(f"add_{name}_token")
            if choice == "auto" and isinstance(asked, bool) and token is not None and asked != (token in here):
                self.notes.append(
                    f"add_{name}_token is {json.dumps(asked)} in tokenizer_config.json; as in transformers 5 it "
                    f"counts for nothing beside a tokenizer.json (--add-{name} {'yes' if asked else 'no'} heeds it)"
                )
        for where, ids in (("before", self.before), ("behind", self.after)):
            if ids:
                self.notes.append(f"{' '.join(map(self.show, ids))} is put {where} each text")

    @staticmethod
    def _chosen(option, choice, given, token, what, more):
        if choice == "yes" and token is None:
            raise UsageError(f"{option} yes: neither config.json nor tokenizer_config.json names the {what} token")
        return {"auto": given, "no": [], "yes": given if token in given else more}[choice]

    def _post_processor(self):
        """(ids that tokenizer.json puts before a text, behind it)"""
        if self._tokenizer.num_special_tokens_to_add(False) == 0:
            return [], []
        for text in itertools.chain("a", itertools.islice(self._tokenizer.get_vocab(), PROBES)):
            probe = self.encode(text, special=True)
            mask = probe.special_tokens_mask
            if 0 in mask:
                first, last = mask.index(0), len(mask) - mask[::-1].index(0)
                return probe.ids[:first], probe.ids[last:]
        raise UserError(f'"{self.path}" gives no token for any text')

    def show(self, token):
        """A token's text and id, or the id alone."""
        text = self._tokenizer.id_to_token(token) if self._tokenizer and 0 <= token < 1 << 32 else None
        return f"{text} ({token})" if text is not None else str(token)

    def recorded(self):
        """What a token file's provenance says of all this."""
        return {
            "tokenizer_hash": self.hash,
            "vocab_size": self.vocab_size,
            "tokens_before": self.before,
            "tokens_after": self.after,
            "prefix_space": self.prefix_space,
            "split_special_tokens": self._settings.get("split_special_tokens") is True,
        }

    # ---- text to ids

    def encode(self, text, special=False):
        try:
            return self._tokenizer.encode(text, add_special_tokens=special)
        except Exception as error:  # a model without an unknown token, say
            raise UserError(f'"{self.path}" cannot tokenize {json.dumps(text[:40])}: {_first_line(error)}') from None

    def encode_documents(self, texts):
        """(token ids, the range of characters that each covers) of each text, tokens put before and behind it included."""
        try:
            found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        except Exception:  # find out which
            found = [self.encode(text) for text in texts]
        return [(self.before + encoding.ids + self.after, self._covered(encoding.offsets)) for encoding in found]

    def _covered(self, offsets):
        """[token, begin and end]; what is put around a text covers nothing at its ends."""
        first, last = (offsets[0][0], offsets[-1][1]) if offsets else (0, 0)
        offsets = [(first, first)] * len(self.before) + offsets + [(last, last)] * len(self.after)
        return np.array(offsets, np.int64).reshape(-1, 2)

    def encode_query(self, prompt, completion, join="token"):
        """(ids, where the completion starts among them, what is to be said of the join or ""); join: as JOINS has it."""
        whole = self.encode(prompt + completion)
        if not prompt:  # the completion is the text's beginning
            return self.before + whole.ids, len(self.before), ""
        start, ids, said = JOINS[join](self, prompt, completion, whole)
        return self.before + ids, len(self.before) + start, said

    def _join_at_token(self, prompt, completion, whole):
        """The completion begins with a token of its own."""
        first, second = self.encode(prompt).ids, self._encode_bare(completion)
        if self._stand_for_the_same(first + second, whole.ids, prompt + completion):
            divided = first + second != whole.ids
            return len(first), first + second, "other tokens than its text in one piece" if divided else ""
        n = _token_boundary(whole.offsets, len(prompt))
        if n is None:
            raise BadQuery(
                f"tokenized apart, its prompt and completion stand for {json.dumps(self._decode(first + second))}, "
                "and in one piece no token begins where the completion does; "
                "let the completion begin with a word, and the space before it"
            )
        return n, whole.ids, ""

    def _join_at_character(self, prompt, completion, whole):
        """The tokens of the text in one piece; a token is the completion's if its first new character is."""
        text, n_chars = prompt + completion, len(prompt)
        decisive = _decisive_characters(text, whole.offsets)
        n = next((i for i, place in enumerate(decisive) if place >= n_chars), len(decisive))
        if n == len(decisive) and decisive:
            raise BadQuery(
                f"{self.show(whole.ids[-1])} spans its prompt and its completion, no token begins in the completion, "
                'and so none would be in the loss; "--join token" divides it, or let the completion begin with the word'
            )
        for i, whose in ((n - 1, "prompt"), (n, "completion")):
            if 0 <= i and whole.offsets[i][0] < n_chars < whole.offsets[i][1]:
                return n, whole.ids, f"a token over the join: {self.show(whole.ids[i])} is its {whose}'s"
        return n, whole.ids, ""

    def _encode_bare(self, text):
        """Ids of a text that another stands before: without the space that begins a text."""
        if self._bare is None:
            self._bare = self._tokenizer
            if has_prefix_space(self._description):
                description = copy.deepcopy(self._description)
                set_prefix_space(description, False)
                self._bare = self._make(json.dumps(description).encode())
        return self._bare.encode(text, add_special_tokens=False).ids

    def _decode(self, ids):
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _stand_for_the_same(self, ids, whole, text):
        """Do two lists of ids stand for one text?  Without a decoder, tokens are taken as they are spelt."""
        if ids == whole:
            return True
        if self._tokenizer.decoder is None:
            return self._spelling(ids) == self._spelling(whole)
        decoded = self._decode(ids)
        return decoded == text or decoded == self._decode(whole)

    def _spelling(self, ids):
        return "".join(self._tokenizer.id_to_token(i) or "" for i in ids)


def _token_boundary(offsets, n_chars):
    """Index of the first token behind n_chars characters, None if a token reaches over that place."""
    n = next((i for i, (start, _) in enumerate(offsets) if start >= n_chars), len(offsets))
    return n if all(end <= n_chars for _, end in offsets[:n]) and 0 < n < len(offsets) else None


def _decisive_characters(text, offsets):
    """For each token the place of the character that says whose it is: the first that no token before it has, spaces aside where
    it has others; without a new character (a further byte of one), the first that it has."""
    found, covered = [], 0
    for start, end in offsets:
        new = range(max(start, covered), end)
        found.append(next((i for i in new if not text[i].isspace()), new[0] if new else start))
        covered = max(covered, end)
    return found


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


# how prompt and completion are joined: what --join names
JOINS = {"token": TextModel._join_at_token, "character": TextModel._join_at_character}
