"""The page of a comparison of models: findings with their intervals, and each query's top sequences side by side."""

import itertools
import json
import os

import numpy as np

from bregman.files import input_identity, write_whole
from bregman.report import charts, findings
from bregman.report.compared import Comparison
from bregman.report.estimates import LEAST_QUERIES, RESAMPLES, number, shown_cell
from bregman.report.inputs import Queries, Sequences, require
from bregman.report.opened import check_replaced, check_tokenizer, find_tokenizer
from bregman.report.origin import check_hash, order_tokens
from bregman.report.text import TokenText

DEFAULT_SHOWN = 10
TITLE = "What models of several sizes learned it from"
BEGINNING = 64  # tokens of a sequence that are shown
CHARACTERS = 220  # and what is shown of a long text at most
JSON_BEGIN = b'{"bregman": "comparison page"'


class Compared:
    """A comparison with the token files, the queries and the tokenizer that it is shown with, each checked to be its own."""

    def __init__(self, arguments):
        self.comparison = c = Comparison(arguments.comparison)
        paths = [arguments.comparison, *arguments.tokens, *([arguments.queries] if arguments.queries else [])]
        self.hashes = {path: input_identity(path) for path in paths}
        self.sequences = Sequences(order_tokens(c, arguments.tokens, self.hashes))
        require(
            len(self.sequences) == c.corpus_sequences,
            f'"{arguments.comparison}" is of {c.corpus_sequences} sequences, the token files hold {len(self.sequences)}',
        )
        last = int(c.top["sequence"].max()) if c.top["sequence"].size else -1
        require(
            last < len(self.sequences),
            f'"{arguments.comparison}" ranks sequence {last}, the token files given hold {len(self.sequences)}',
        )
        self.queries = self._open_queries(arguments)
        tokenizer = find_tokenizer(arguments)
        files = itertools.chain(self.sequences.files(), [self.queries.file] if self.queries else [])
        check_tokenizer(tokenizer, files)
        self.text, self.has_text = TokenText(tokenizer), tokenizer is not None

    def _open_queries(self, arguments):
        if not arguments.queries:
            return None
        if self.comparison.file.attribute("queries_hash", ""):
            check_hash(self.comparison, "queries_hash", arguments.queries, self.hashes[arguments.queries], "queries")
        queries = Queries(arguments.queries)
        missing = [id for id in self.comparison.queries if id not in set(queries.ids)]
        require(not missing, f'query "{missing[:1]}" of "{arguments.comparison}" is missing: "{arguments.queries}"')
        return queries

    # ------------------------------------------------------------ the queries' part of the page

    def shown_sequences(self, models, most):
        """{sequence: {"document", "source", "text"}} of all that the page shows, read in the order of the files."""
        rows = [model.row for model in models]
        wanted = np.unique(self.comparison.top["sequence"][rows, :, :most])
        return {int(s): self.described(int(s)) for s in wanted if s >= 0}

    def described(self, sequence):
        first, *others = self.sequences.documents(sequence)
        text = ""
        if self.has_text:
            text = beginning(self.text.text(self.sequences.tokens(sequence)[:BEGINNING]))
        about = {"document": first.id, "others": len(others), "source": first.source, "language": first.language}
        return {**about, "text": text}

    def query_parts(self, query):
        """(prompt, completion), or None without the queries or their text."""
        if self.queries is None or not self.has_text:
            return None
        return self.queries.texts(self.comparison.queries[query], self.text.text)

    def place(self, model, query, place, described):
        """One cell of a query's table; None where the model has fewer."""
        top = {name: values[model.row, query, place] for name, values in self.comparison.top.items()}
        if top["sequence"] < 0:
            return None
        mean, sd = (self.comparison.per_query[name][model.row, query] for name in ("mean", "sd"))
        z = (float(top["score"]) - mean) / sd if sd > 0 else None
        bm25 = int(top["bm25_place"])
        return {
            "sequence": int(top["sequence"]),
            "z": number(z),
            "score": float(top["score"]),
            "overlap": number(float(top["overlap"])),
            "run": int(top["run"]),
            "bm25": f"{bm25:,}" if bm25 > 0 else "none",
            "sparse": bool(top["sparsity"] > findings.SPARSE),
            **described[int(top["sequence"])],
        }

    def query(self, query, models, most, described):
        c = self.comparison
        related = [
            {"relation": c.relation[p], "percentiles": [number(c.pair["percentile"][m.row, p]) for m in models]}
            for p in np.flatnonzero(c.pair_query == query)
        ]
        return {
            "id": c.queries[query],
            "kind": c.kind[query],
            "parts": self.query_parts(query),
            "losses": [number(c.per_query["loss"][m.row, query]) for m in models],
            "related": related,
            "places": [[self.place(m, query, place, described) for m in models] for place in range(most)],
        }


def beginning(text):
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "\u2026"


def caution(c):
    """What the page cannot say, in sentences."""
    n, scales = len(c.queries), len(c.scales())
    if scales == 1:
        yield "There is one model only: nothing can be compared across scales, and there are no figures against scale."
    elif not scales:
        yield "No model of this file is a scale, without a step or a method: nothing can be compared across scales."
    elif not all(np.isfinite(c.parameters[m.row]) for m in c.scales()):
        yield "Parameters are not known of all models, which therefore stand in the order of the file, evenly spaced."
    if n < LEAST_QUERIES:
        yield f"There are {n} queries only, and intervals are given from {LEAST_QUERIES} on: there are none."


def write_json(path, title, c, tables):
    record = {
        "bregman": "comparison page",
        "title": title,
        "models": [m.name for m in c.models],
        "queries": len(c.queries),
        "k": c.k,
        "interval": f"95 %, percentiles of {RESAMPLES} bootstrap resamples of the queries",
        "tables": [table.plain() for table in tables],
    }
    write_whole(path, [json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1).replace("{\n ", "{", 1), "\n"])


def write_figures(folder, sections):
    """SECTION-N.svg of each section's figures, from 1 on; files of other names are left alone."""
    os.makedirs(folder, exist_ok=True)
    for section in sections:
        for i, figure in enumerate(section.figures, 1):
            write_whole(os.path.join(folder, f"{section.id}-{i}.svg"), [charts.file_of(figure)])


def main(arguments, environment, made):
    """environment: jinja2's, of the report's templates; made: the time, as the page has it."""
    check_replaced(arguments.output, lambda begin: begin.lstrip().lower().startswith(b"<!doctype html"), "page")
    if arguments.json:
        check_replaced(arguments.json, lambda begin: begin.startswith(JSON_BEGIN), "numbers of a page")
    compared = Compared(arguments)
    c, title = compared.comparison, arguments.title or TITLE
    sections, overview = findings.sections(c), findings.overview(c)
    models = findings.main_models(c) + c.bm25()
    most = min(arguments.show or DEFAULT_SHOWN, c.k)
    described = compared.shown_sequences(models, most)
    environment.filters.update(cell=shown_cell, shortly=number)
    stream = environment.get_template("comparison.html.j2").stream(
        title=title,
        made=made,
        c=c,
        overview=overview,
        cautions=list(caution(c)),
        sections=sections,
        models=[m.name for m in models],
        queries=(compared.query(q, models, most, described) for q in range(len(c.queries))),
        most=most,
        resamples=RESAMPLES,
        least_queries=LEAST_QUERIES,
        files=[("comparison", arguments.comparison), ("queries", arguments.queries)]
        if arguments.queries
        else [("comparison", arguments.comparison)],
        hashes=compared.hashes,
        tokens=compared.sequences.paths,
        runs=c.file.runs(),
        basename=os.path.basename,
    )
    stream.enable_buffering(64)
    write_whole(arguments.output, stream)
    if arguments.json:
        write_json(arguments.json, title, c, overview + [t for section in sections for t in section.tables])
    if arguments.figures:
        write_figures(arguments.figures, sections)
    print(f"{len(c.models)} models, {len(c.queries)} queries: {arguments.output}")
