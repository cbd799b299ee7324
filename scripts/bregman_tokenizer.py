"""The model's tokenizer and what config.json says about token ids."""
import json
import os

import tokenizers

from bregman_files import UserError, hash_bytes


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read "{path}": {getattr(error, "strerror", None) or error}') from None
    if not isinstance(value, dict):
        raise UserError(f'"{path}" is not a JSON object')
    return value


def _count(config, names, path):
    """The first of several integer fields that is there and not null, or None."""
    for name in names:
        value = config.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f'"{path}": {name} is {json.dumps(value)}, not a positive integer')
            return value
    return None


class TextModel:
    """tokenizer.json and the fields of config.json that matter for text.

    path, hash: of tokenizer.json ("" without one).  vocab_size: the model's, else the tokenizer's (None if
    neither is known).  max_positions: None if not limited.  eos_id: the end-of-text token, or None.
    """

    def __init__(self, model_folder=None, tokenizer_file=None, need_tokenizer=True):
        if model_folder and not os.path.isdir(model_folder):
            raise UserError(f'--model "{model_folder}" is not a folder')
        self.path = tokenizer_file or (os.path.join(model_folder, "tokenizer.json") if model_folder else "")
        self.hash, self._tokenizer = "", None
        folder = model_folder or os.path.dirname(self.path)
        config_path = os.path.join(folder, "config.json")
        config = _read_json(config_path) if model_folder else {}
        if tokenizer_file or need_tokenizer or os.path.exists(self.path):
            self._load()
        self.vocab_size = _count(config, ("vocab_size",), config_path)
        if self.vocab_size is None and self._tokenizer:
            self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.max_positions = _count(config, ("max_position_embeddings", "n_positions"), config_path)
        self.eos_id = self._find_eos(config, _read_json(os.path.join(folder, "tokenizer_config.json")))

    def _load(self):
        if not os.path.exists(self.path):
            raise UserError(f'no tokenizer: "{self.path}" does not exist')
        try:
            with open(self.path, "rb") as file:
                data = file.read()
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except OSError as error:
            raise UserError(f'cannot read "{self.path}": {error.strerror}') from None
        except Exception as error:                # the library raises plain Exception, ValueError or its own type
            if data.startswith(b"version https://git-lfs.github.com/spec/"):
                raise UserError(f'"{self.path}" is a Git LFS pointer, not the file itself: run "git lfs pull" in its clone'
                                ) from None
            raise UserError(f'"{self.path}" is not a tokenizer.json: {str(error).splitlines()[0]}') from None
        self.hash = hash_bytes(data)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def _find_eos(self, config, tokenizer_config):
        eos = config.get("eos_token_id")
        if isinstance(eos, list):
            eos = eos[0] if eos else None
        if isinstance(eos, int):
            return eos
        token = tokenizer_config.get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        return self._tokenizer.token_to_id(token) if self._tokenizer and isinstance(token, str) else None

    def encode_documents(self, texts):
        """Token ids of each text, with the special tokens that the tokenizer itself adds."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=True)]

    def encode_prompt(self, text):
        """As encode_documents, but without special tokens behind the text: a completion follows."""
        probe = self._tokenizer.encode("a", add_special_tokens=True)
        n_before = probe.special_tokens_mask.index(0) if 0 in probe.special_tokens_mask else 0
        return probe.ids[:n_before] + self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_completion(self, text):
        return self._tokenizer.encode(text, add_special_tokens=False).ids
