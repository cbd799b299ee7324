"""A ranking opened with the queries, the token files and the tokenizer that it is shown with, each checked to be what was ranked."""

import argparse
import itertools
import os
from pathlib import Path


from bregman import hashes
from bregman.errors import UsageError
from bregman.files import input_identity, version_line
from bregman.report.inputs import Queries, Ranking, Sequences, require
from bregman.report.lexical import Lexical
from bregman.report.origin import check_document, check_hash, check_lists, check_sum, order_tokens
from bregman.report.text import TokenText


class Parser(argparse.ArgumentParser):
    """Of a program that shows rankings: its inputs and what it shows of them."""

    def __init__(self, description, output, most, compares=False):
        """compares: does it show comparisons of models as well?"""
        super().__init__(description=description, allow_abbrev=False)
        shown = self.add_mutually_exclusive_group(required=True) if compares else self
        shown.add_argument("--ranking", required=not compares, metavar="FILE", help="ranking.h5 from merge_scores")
        if compares:
            shown.add_argument("--comparison", metavar="FILE", help="compare.h5 from compare_scales: several models")
        self.add_argument(
            "--tokens", required=True, nargs="+", metavar="FILE", help="the token files that were scored, in any order"
        )
        self.add_argument(
            "--queries",
            required=not compares,
            metavar="FILE",
            help="queries.h5" + ("; a comparison can do without" if compares else ""),
        )
        self.add_argument(
            "--model",
            metavar="DIR",
            help="model directory; its tokenizer.json turns ids into text, and its weights, if there are any, must be those that were scored",
        )
        self.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json, where it is not in the model directory")
        self.add_argument("--output", required=True, metavar="FILE", help=output)
        self.add_argument(
            "--corpus-sequences",
            type=int,
            metavar="N",
            help="sequences the model was trained on: also give score / N, the effect of one copy",
        )
        self.add_argument("--show", type=int, metavar="K", help=f"sequences at each end of a query (default: {most})")
        hashes.add_option(self)
        self.add_argument("--version", action="version", version=version_line())

    def error(self, message):
        raise UsageError(f"{message}; see --help")

    def parse(self):
        arguments = self.parse_args()
        for name in ("corpus_sequences", "show"):
            value = getattr(arguments, name)
            if value is not None and value < 1:
                self.error(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
        return arguments


def check_replaced(path, is_own, what):
    """Only what is_own(its first bytes), or nothing, is replaced."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return
    hashes.require_regular(path)
    with open(path, "rb") as file:
        require(is_own(file.read(200)), f'"{path}" is there and no {what}: choose another --output')


class Opened:
    def __init__(self, arguments):
        self.ranking = Ranking(arguments.ranking)
        self.queries = Queries(arguments.queries)
        self.hashes = {path: input_identity(path) for path in (arguments.ranking, arguments.queries, *arguments.tokens)}
        self.sequences = Sequences(order_tokens(self.ranking, arguments.tokens, self.hashes))
        tokenizer = find_tokenizer(arguments)
        _check_inputs(self.ranking, arguments, self.hashes)
        check_lists(self.ranking)
        require(
            self.ranking.ids == self.queries.ids,
            f'"{arguments.ranking}" ranks other queries than "{arguments.queries}" holds, '
            "or in another order: merge the shards again",
        )
        check_tokenizer(tokenizer, itertools.chain(self.sequences.files(), [self.queries.file]))
        self.lexical = Lexical(self.sequences, [self.queries.tokens(id) for id in self.ranking.ids])
        self.text = TokenText(tokenizer)
        self.has_text = tokenizer is not None
        last = self.ranking.largest_sequence()
        require(
            last < len(self.sequences),
            f'"{arguments.ranking}" ranks sequence {last}, the token files given hold {len(self.sequences)}',
        )

    def entries(self, end, query, most):
        """(entry, its tokens) of the first places of a query, best first."""
        for place in range(min(most, self.ranking.size(end))):
            entry = self.ranking.entry(end, query, place)
            if entry is None:
                continue
            check_document(self.ranking, end, query, entry, *self.sequences.first_place(entry.sequence))
            tokens = self.sequences.tokens(entry.sequence)
            if entry.token_score is not None:
                require(
                    len(entry.token_score) == len(tokens) - 1,
                    f'sequence {entry.sequence} has {len(tokens)} tokens, "{self.ranking.file.path}" '
                    f"explains {len(entry.token_score) + 1}: other token files, or another order?",
                )
                check_sum(self.ranking, entry)
            yield entry, tokens


def find_tokenizer(arguments):
    if arguments.tokenizer:
        path = Path(arguments.tokenizer)
        require(path.is_file(), f'no such tokenizer: "{path}"')
        return path
    if arguments.model is None:
        return None
    require(Path(hashes.checkpoint_folder(arguments.model)).is_dir(), f'no such model directory: "{arguments.model}"')
    path = Path(hashes.model_file(arguments.model, "tokenizer.json"))
    return path if path.is_file() else None


def check_tokenizer(path, files):
    if path is None:
        return
    found = hashes.hash_file(path)
    for file in files:
        wanted = file.attribute("tokenizer_hash", "")
        require(wanted in ("", found), f'tokenizer mismatch: "{file.path}" was made with {wanted}, "{path}" is {found}')


def _check_inputs(ranking, arguments, known):
    """Refuse queries, or a model with weights, that the ranking was not made from."""
    check_hash(ranking, "queries_hash", arguments.queries, known[arguments.queries], "queries")
    model = hashes.hash_model(arguments.model) if arguments.model else None
    if model:
        check_hash(ranking, "model_hash", arguments.model, model, "model")
