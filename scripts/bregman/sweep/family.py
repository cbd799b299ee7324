"""Models that a sweep trains itself: [train] has a table of sizes, each of which becomes a model.

They are yet to be made when the sweep file is read.  What is known of them is their config.json, [train.base] with the
keys of the size over it, and their tokenizer: enough to turn text into tokens, and for bregman-plan to say whether the
config is one that the engine takes."""

import collections
import json
import os
import re
import shutil
import tempfile

from bregman.errors import UserError
from bregman.files import write_whole
from bregman.tokenizer import TextModel

# of a tokenizer's folder, those that are there
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)

# folder: where config.json and the tokenizer are put for the jobs; files: {name: path} of the tokenizer's
Planned = collections.namedtuple("Planned", "folder config files")


class PlannedText(TextModel):
    """A TextModel of a config.json that is not written yet."""

    def __init__(self, config, tokenizer_file):
        self._planned = config
        super().__init__(None, tokenizer_file)

    def _read_config(self, _path):
        return self._planned


def tokenizer_files(folder):
    paths = {name: os.path.join(folder, name) for name in TOKENIZER_FILES}
    return {name: path for name, path in paths.items() if os.path.isfile(path)}


def complete(config, tokenizer_file):
    """The config with what it does not say of ids, as the tokenizer has it; and the TextModel of both."""
    alone = PlannedText({}, tokenizer_file)
    known = {"vocab_size": alone.vocab_size, "bos_token_id": alone.bos_id, "eos_token_id": alone.eos_id}
    config = {**{key: value for key, value in known.items() if value is not None}, **config}
    text = PlannedText(config, tokenizer_file)
    if text.vocab_size < alone.vocab_size:
        raise UserError(
            f'vocab_size is {text.vocab_size}, less than the {alone.vocab_size} tokens of "{tokenizer_file}"'
        )
    return config, text


def config_text(config):
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


# ---------------------------------------------------------------- its folder


def has_changed(planned):
    """Does the folder hold another config.json or tokenizer than the sweep file says?"""

    def differs(name, wanted):
        try:
            with open(os.path.join(planned.folder, name), "rb") as file:
                return file.read() != wanted
        except FileNotFoundError:
            return False

    if differs("config.json", config_text(planned.config).encode()):
        return True
    return any(differs(name, _content(path)) for name, path in planned.files.items())


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def write_folder(planned):
    """What is there already, and the same, is left alone: jobs may be reading it."""
    os.makedirs(planned.folder, exist_ok=True)
    wanted = {"config.json": config_text(planned.config)}
    wanted |= {name: _content(path).decode() for name, path in planned.files.items()}
    for name, text in wanted.items():
        path = os.path.join(planned.folder, name)
        if not os.path.exists(path) or _content(path) != text.encode():
            write_whole(path, [text])


class Drafts:
    """A temporary folder with every planned model's config.json and tokenizer: a context manager; folder(model) is for programs
    that ask for these only."""

    def __init__(self, models):
        self.models = models

    def __enter__(self):
        self.root = tempfile.mkdtemp(prefix="bregman-sweep-")
        for model in self.models:
            if model.planned:
                write_folder(model.planned._replace(folder=self.folder(model)))
        return self

    def __exit__(self, *_error):
        shutil.rmtree(self.root, ignore_errors=True)

    def folder(self, model):
        """Of its checkpoints and with other methods too: they have the names of comparison.py, NAME@STEP and NAME:METHOD."""
        return os.path.join(self.root, re.split("[@:]", model.name)[0]) if model.planned else model.path
