"""The files a report is made from: ranking.h5, token files and queries.h5."""

import json
from bisect import bisect_right
from dataclasses import dataclass, field

import h5py
import numpy as np

from bregman.errors import UserError, os_error_text
from bregman.files import open_dataset, open_file
from bregman.report.pieces import CHARACTERS, Piece, Pieces, characters, follows


def as_text(value):
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)


def finite(value):
    """NaN, as files have it where something is not known, is None."""
    return value if value is not None and np.isfinite(value) else None


def plain(value):
    """An HDF5 attribute or element as what JSON knows."""
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    return as_text(value) if isinstance(value, (bytes, str)) else value


class InputFile:
    """One HDF5 file; every failure to read it says which file it is."""

    def __init__(self, path, kind):
        self.path = path
        self._file = open_file(path, kind)
        self._lengths = {}

    def close(self):
        self._file.close()

    def attribute(self, name, default):
        return plain(self._file.attrs[name]) if name in self._file.attrs else default

    def has(self, name):
        try:
            return name in self._file
        except RuntimeError:  # a link in a circle
            raise UserError(f'"{name}" is a link that leads nowhere: "{self.path}"') from None

    def dataset(self, name):
        return open_dataset(self._file, self.path, name, self._lengths)

    def read(self, name, rows=()):
        try:
            return self.dataset(name)[rows]
        except OSError as error:
            raise UserError(f'dataset "{name}" cannot be read ({os_error_text(error)}): "{self.path}"') from None

    def strings(self, name):
        return [as_text(v) for v in self.read(name)]

    def runs(self):
        """Fields of /run, and of the groups in it that are runs of earlier stages."""
        found = []
        group = self._file.get("run")
        if isinstance(group, h5py.Group):
            _collect_runs(group, found)
        return found


def _collect_runs(group, found):
    fields = {name: plain(value) for name, value in group.attrs.items()}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            if not item.is_scale:  # an axis has no values
                fields[name] = plain(item[()])
        else:
            _collect_runs(item, found)
    if fields:
        found.insert(0, fields)


def require(condition, message):
    if not condition:
        raise UserError(message)


class Sequences:
    """The training sequences of all token files, numbered through in the order given.

    One file is open at a time: a corpus may have more than a process may open."""

    def __init__(self, paths):
        self.paths, self._current, self._offset, self._pieces = paths, None, [], Pieces()
        self.has_characters = False
        for f in self.files():
            self.has_characters |= f.has(CHARACTERS[0])
            self._offset.append(_offsets(f.read("count")))
            n, total = f.dataset("token").shape[0], self._offset[-1][-1]
            require(total == n, f'"token" has {n} entries where "count" adds up to {total}: "{f.path}"')
        self._first = np.concatenate(([0], np.cumsum([len(o) - 1 for o in self._offset])))

    def files(self):
        """Each file in turn, open until the next one is asked for."""
        return (self._open(path) for path in self.paths)

    def _open(self, path):
        if self._current is None or self._current.path != path:
            if self._current is not None:
                self._current.close()
                self._current = None
            self._current = InputFile(path, "bregman/tokens")
        return self._current

    def __len__(self):
        return int(self._first[-1])

    def blocks(self, most_tokens, most_in_all):
        """(tokens of each sequence, their tokens, one after another) of blocks of whole sequences in their order: at most so many
        tokens, unless a sequence has more.  Where that is more than `most_in_all`, every second block, or third, and so on."""
        step, number = -(-sum(int(offset[-1]) for offset in self._offset) // most_in_all), 0
        for file, offset in zip(self.files(), self._offset):
            row = 0
            while row < len(offset) - 1:
                end = max(row + 1, int(np.searchsorted(offset, offset[row] + most_tokens, "right")) - 1)
                if number % step == 0:
                    yield np.diff(offset[row : end + 1]), file.read("token", rows=slice(offset[row], offset[end]))
                row, number = end, number + 1

    def locate(self, sequence):
        file = bisect_right(self._first, sequence) - 1
        return file, int(sequence - self._first[file])

    def tokens(self, sequence):
        file, row = self.locate(sequence)
        begin, end = self._offset[file][row : row + 2]
        return self._open(self.paths[file]).read("token", rows=slice(begin, end))

    def document(self, sequence):
        """(id, source, language) of the document a sequence was cut from."""
        index, row = self.locate(sequence)
        file = self._open(self.paths[index])
        document = int(file.read("document", rows=row)) if file.has("document") else -1
        id, source, language = (_document_field(file, name, document) for name in ("id", "source", "lang"))
        return id or f"sequence {sequence}", source, language

    def first_place(self, sequence):
        """(id of the document, start in it) of a sequence's first token, as rankings have them: "", -1 where the file does not say."""
        index, row = self.locate(sequence)
        file = self._open(self.paths[index])
        document = int(file.read("document", rows=row)) if file.has("document") else -1
        return _document_field(file, "id", document), int(file.read("start", rows=row)) if file.has("start") else -1

    def documents(self, sequence):
        """The pieces of documents that a sequence was cut from, in order."""
        index, row = self.locate(sequence)
        file, n_tokens = self._open(self.paths[index]), int(np.diff(self._offset[index][row : row + 2])[0])
        pieces = self._pieces.read(file, row)
        if pieces is None:
            covered = characters(file, slice(row, row + 1))[0]
            return [Piece(*self.document(sequence), self.first_place(sequence)[1], n_tokens, *covered)]
        require(
            sum(n for _, _, n, _ in pieces) == n_tokens,
            f'the pieces of sequence {row} do not make up its {n_tokens} tokens: "{file.path}"',
        )
        found = []
        for document, start, n, covered in pieces:
            id, source, language = (_document_field(file, name, document) for name in ("id", "source", "lang"))
            found.append(Piece(id or f"document {document}", source, language, start, n, *covered))
        return found

    def around(self, sequence, most):
        """(tokens before, tokens after) a sequence in the documents at its ends, at most so many of each: as far as
        the sequences beside it in its token file go on with them."""
        index, row = self.locate(sequence)
        return self._beside(index, row, -1, most), self._beside(index, row, 1, most)

    def _beside(self, index, row, step, most):
        file, parts, offset = self._open(self.paths[index]), [np.empty(0, np.uint32)], self._offset[index]
        here = self._rows_of(file, index, row)
        while most > 0 and 0 <= row + step < len(offset) - 1:
            row += step
            there = self._rows_of(file, index, row)
            first, second = (here[-1], there[0]) if step > 0 else (there[-1], here[0])
            if not follows(first, second):
                break
            n = min((second if step > 0 else first)[2], most)
            begin = offset[row] if step > 0 else offset[row + 1] - n
            parts.append(file.read("token", rows=slice(begin, begin + n)))
            most -= n
            here = there
            if len(there) > 1:
                break
        return np.concatenate(parts[::step])

    def _rows_of(self, file, index, row):
        """(row of /documents, start in it, tokens, ...) of each piece of a sequence; -1: not known."""
        pieces = self._pieces.read(file, row)
        if pieces is not None:
            return pieces
        document, start = (int(file.read(name, rows=row)) if file.has(name) else -1 for name in ("document", "start"))
        return [(document, start, int(np.diff(self._offset[index][row : row + 2])[0]))]


def _document_field(file, name, document):
    """One field of one document, "" where the file has none; read alone, as a corpus has many documents."""
    path = f"documents/{name}"
    if document < 0 or not file.has(path):
        return ""
    n = file.dataset(path).shape[0]
    require(document < n, f'a sequence names document {document} of {n}: "{file.path}"')
    return as_text(file.read(path, rows=document))


class Queries:
    def __init__(self, path):
        self.file = InputFile(path, "bregman/queries")
        self.ids = self.file.strings("id")
        self._row = {id: row for row, id in enumerate(self.ids)}
        self._offset = _offsets(self.file.read("count"))
        self._completion_start = self.file.read("completion_start")
        self._first_piece = _offsets(self.file.read("piece/count")) if self.file.has("piece/count") else None

    def tokens(self, id):
        """Of all its texts."""
        require(id in self._row, f'query "{id}" of the ranking is missing: "{self.file.path}"')
        row = self._row[id]
        return self.file.read("token", rows=slice(*self._offset[row : row + 2]))

    def pieces(self, id):
        """[(sign, prompt tokens, completion tokens)] of the texts that a query is made of"""
        tokens, row = self.tokens(id), self._row[id]
        if self._first_piece is None:
            start = int(self._completion_start[row])
            return [(1, tokens[:start], tokens[start:])]
        of_query = slice(*self._first_piece[row : row + 2])
        length, starts, signs = (self.file.read(f"piece/{name}", rows=of_query) for name in ("length", "start", "sign"))
        parts = np.split(tokens, np.cumsum(length)[:-1])
        return [(int(sign), part[:start], part[start:]) for sign, part, start in zip(signs, parts, starts)]

    def is_contrast(self, id):
        """Is something subtracted in it?"""
        return any(sign < 0 for sign, _, _ in self.pieces(id))

    def n_terms(self, id):
        """Tokens of its completions that are in the loss."""
        offset, n = self._offset[self._row[id]], 0
        for _, prompt, completion in self.pieces(id):
            first, offset = offset + len(prompt), offset + len(prompt) + len(completion)
            n += (
                np.count_nonzero(self.file.read("loss", rows=slice(first, offset)))
                if self.file.has("loss")
                else len(completion)
            )
        return n

    def texts(self, id, text):
        """(prompt, completion): text(tokens) of the query's; of several texts the first's prompt, and then all of them, signed."""
        (_, prompt, completion), *others = self.pieces(id)
        found = [text(completion)]
        for sign, before, behind in others:
            same = np.array_equal(before, prompt)
            found.append(
                f"{'+' if sign > 0 else '−'} " + text(behind if same else np.concatenate([before, behind])).strip()
            )
        return text(prompt), "  ".join(found)


@dataclass
class Entry:
    """One place in a query's ranking."""

    rank: int
    sequence: int
    score: float
    token_score: np.ndarray | None = None  # [position]
    output_score: np.ndarray | None = None  # [position]: of the token that is predicted there
    input_score: np.ndarray | None = None  # [position]: what the score loses without the token there
    layer_score: np.ndarray | None = None  # [position, layer]
    error: float | None = None  # standard error of the score; None: not known
    prefilter_rank: int | None = None  # from 1; -1: not among the query's best of the prefilter; None: not known


@dataclass
class Statistics:
    """Of all scores of one query."""

    moments: dict
    edge: np.ndarray
    count: np.ndarray
    tail: np.ndarray = field(repr=False)


class Ranking:
    MOMENTS = ("count", "sum", "sum_positive", "mean", "sd", "minimum", "maximum")

    def __init__(self, path):
        self.file = InputFile(path, "bregman/ranking")
        self.ids = self.file.strings("query")
        self._open_places, self._known = (None, None), {}
        self._loss = self.file.read("query_loss") if self.file.has("query_loss") else None
        self._moments = {m: self.file.read(f"moments/{m}") for m in self.MOMENTS}
        self._edge = self.file.read("histogram/edge")
        self._tail_offset = _offsets(self.file.read("tail/count"))
        self._ends = {end: self._open_end(end) for end in ("top", "bottom")}

    def _open_end(self, end):
        sequence = self.file.read(f"{end}/sequence")
        score = self.file.read(f"{end}/score")
        require(
            sequence.shape == score.shape and sequence.shape[0] == len(self.ids),
            f'"{end}/sequence" and "{end}/score" do not fit the {len(self.ids)} queries: "{self.file.path}"',
        )
        offset = None
        if self.file.has(f"{end}/token_score"):
            offset = _offsets(self.file.read(f"{end}/count").ravel())
            n = self.file.dataset(f"{end}/token_score").shape[0]
            require(
                offset[-1] == n,
                f'"{end}/token_score" has {n} values where "{end}/count" adds up to {offset[-1]}: "{self.file.path}"',
            )
        return sequence, score, offset

    @property
    def is_explained(self):
        return any(offset is not None for _, _, offset in self._ends.values())

    @property
    def attributions(self):
        """What tokens are given, beside what their positions are: "output", "input", both or neither."""
        return [name for name in ("output", "input") if self.file.has(f"top/{name}_token_score")]

    @property
    def has_errors(self):
        return self.file.has("top/score_error")

    def errors(self, query):
        """Standard errors of a score by their sources, and what they leave of the query's best places; None: not known."""
        names = ("sampling", "truncation", "agreement")
        if not self.file.has("error/agreement"):
            return None
        found = {name: finite(plain(self.file.read(f"error/{name}", query))) for name in names}
        found["places"] = int(self.file.dataset("error/agreement").attrs["places"])
        return found if found["agreement"] is not None else None

    def open_places(self, end, query):
        """As find_open_places; the last list's are kept, as each of its entries asks for them."""
        if self._open_places[0] != (end, query):
            self._open_places = ((end, query), self.find_open_places(end, query))
        return self._open_places[1]

    def find_open_places(self, end, query):
        """[(best, worst) place that an entry may have], where scores closer than their errors have no order; None: not known.
        A worst of None: not apart from the last that is listed, so it may be below that.

        Two scores are apart if they differ by 1.96 standard errors of their difference, errors being independent."""
        if not self.file.has(f"{end}/score_error"):
            return None
        sequence, score, _ = self._ends[end]
        listed = sequence[query] >= 0
        score, error = score[query][listed].astype(float), self.file.read(f"{end}/score_error", query)[listed]
        if not np.isfinite(error).all():
            return None
        sign = 1 if end == "top" else -1
        ahead = sign * (score[:, None] - score) > 1.96 * np.hypot(error[:, None], error)
        last = len(score) if len(score) < self._moments["count"][query] else None
        places = [(1 + int(better), len(score) - int(worse)) for better, worse in zip(ahead.sum(0), ahead.sum(1))]
        return [(best, None if best < worst == last else worst) for best, worst in places]

    def z_score(self, query, score):
        """Standard deviations above the mean of all scores; None where all are the same."""
        mean, sd = (self._moments[name][query].item() for name in ("mean", "sd"))
        return finite((score - mean) / sd) if sd > 0 else None

    def percentile(self, end, query, score):
        """Per cent of the other scored sequences that have less than one that is listed at an end, where equal scores count half;
        None if there is no other.  Of equal scores those are known that are listed, or among the largest that are kept."""
        n = self._moments["count"][query].item()
        beyond, same, open_end = self._count(end, query, score)
        further, others, _ = self._count("bottom" if end == "top" else "top", query, score)
        if open_end and others:  # all between the two lists is the same
            same = n - beyond - further
        below = beyond if end == "bottom" else n - beyond - same
        return 100 * (below + (same - 1) / 2) / (n - 1) if n > 1 else None

    def _count(self, end, query, score):
        """Of the known scores of an end: those more extreme than this one, those equal to it, and whether the last is."""
        known = self._known_scores(end, query)
        beyond = known > score if end == "top" else known < score
        return int(beyond.sum()), int((known == score).sum()), known.size > 0 and known[-1] == score

    def _known_scores(self, end, query):
        """Those that are listed at an end, or more of them, the most extreme first; a query's are kept until the next's."""
        if self._known.get("query") != query:
            self._known = {"query": query, **{name: self._read_known(name, query) for name in self._ends}}
        return self._known[end]

    def _read_known(self, end, query):
        sequence, score, _ = self._ends[end]
        listed = score[query][sequence[query] >= 0].astype(np.float64)
        return max(listed, self._tail(query), key=len) if end == "top" else listed

    def _tail(self, query):
        return self.file.read("tail/score", rows=slice(*self._tail_offset[query : query + 2])).astype(np.float64)

    @property
    def has_log_probabilities(self):
        return self._loss is not None

    def log_probability(self, query):
        """Of the query's completion, in nats, by the model that was traced; None: not known."""
        loss = finite(self._loss[query].item()) if self._loss is not None else None
        return None if loss is None else 0.0 - loss

    @property
    def prefilter(self):
        """How the sequences were chosen that were scored, in words; "": by no prefilter."""
        return self.file.attribute("prefilter", "")

    @property
    def corpus_sequences(self):
        return self.file.attribute("corpus_sequences", 0)

    def layer_names(self, n):
        """Of n layers: the blocks' numbers where the ranking does not say."""
        names = self.file.strings("layer_name") if self.file.has("layer_name") else [str(i) for i in range(n)]
        require(len(names) == n, f'"layer_name" has {len(names)} names for {n} layers: "{self.file.path}"')
        return names

    def largest_sequence(self):
        return max((int(s.max()) for s, _, _ in self._ends.values() if s.size), default=-1)

    def size(self, end):
        return self._ends[end][0].shape[1]

    def place(self, end, name, query, place):
        """`document` or `start` of an entry; None where the ranking does not say."""
        return plain(self.file.read(f"{end}/{name}", (query, place))) if self.file.has(f"{end}/{name}") else None

    def entry(self, end, query, place, scores_only=False):
        """None where the query has fewer entries."""
        sequence, score, offset = self._ends[end]
        if place >= sequence.shape[1] or sequence[query, place] < 0:
            return None
        entry = Entry(place + 1, int(sequence[query, place]), float(score[query, place]))
        entry.error = finite(self.place(end, "score_error", query, place))
        entry.prefilter_rank = self.place(end, "prefilter_rank", query, place) or None
        if offset is not None and not scores_only:
            row = query * sequence.shape[1] + place
            rows = slice(offset[row], offset[row + 1])
            if rows.stop > rows.start:
                entry.token_score = self.file.read(f"{end}/token_score", rows=rows).astype(np.float64)
                for name in self.attributions:
                    values = self.file.read(f"{end}/{name}_token_score", rows=rows).astype(np.float64)
                    setattr(entry, f"{name}_score", values)
                if self.file.has(f"{end}/layer_token_score"):
                    entry.layer_score = self.file.read(f"{end}/layer_token_score", rows).astype(np.float64)
        return entry

    def statistics(self, query):
        moments = {m: values[query].item() for m, values in self._moments.items()}
        count = self.file.read("histogram/count", query)
        require(
            len(count) + 1 == len(self._edge),
            f'"histogram/count" has {len(count)} bins where '
            f'"histogram/edge" has {len(self._edge)} edges: "{self.file.path}"',
        )
        return Statistics(moments, self._edge, count, self._tail(query))


def _offsets(counts):
    return np.concatenate(([0], np.cumsum(counts.astype(np.int64))))


def options_of(fields):
    """The options of a run as a dictionary, whatever wrote them."""
    try:
        options = json.loads(fields.get("options") or "{}")
    except (TypeError, ValueError):
        return {"options": fields["options"]}
    return options if isinstance(options, dict) else {"options": options}
