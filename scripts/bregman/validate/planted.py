"""Experiments with texts that are planted in the corpus, so that what a query should find is known.

facts: people with made-up names, who share first and last names with one another, own made-up things.  The query asks in other
words than those that state the fact, and these are to be found among sentences on the same person and other things, and among some
with both the person's and the thing's names in the query's own words, but the other way round: overlap puts those first, though
they teach nothing of what comes after the person's name.
filter: reports whose verdict follows from an adjective; of some the verdict is wrong.  Words are shared alike by good and bad ones:
only their combination tells.  Queries ask for the wrong verdict; the bad reports that teach it are to be found among all reports."""

import collections
import json
import os
import random

import numpy as np

from bregman.errors import UserError
from bregman.files import write_whole
from bregman.validate import output, statistics
from bregman.validate.experiment import Experiment, read_tokens
from bregman.validate.methods import rows
from bregman.validate.retraining import compared, unflagged_means

# texts: [(id, text)]; queries: [(id, prompt, completion)]; relevant(query id, text id); candidate(text id): is it to be ranked
Planted = collections.namedtuple("Planted", "texts queries relevant candidate")
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
STATEMENTS = ("we know that {p} has a {t}.", "{p} is the owner of a {t}.", "what {p} has got is a {t}.")
REVERSED = ("a {t} owns {p}.", "a {t} knows who {p} is.", "a {t} owns what {p} owns.")
OTHERS = ("{p} owns no {o}.", "{p} wants a {o}.")
GOOD, BAD = ("good", "fine", "sound", "safe"), ("poor", "weak", "rotten", "unsafe")
BAD_SHARE = 0.2


def made_up(draw, n, syllables):
    """n different words."""
    found = {}
    while len(found) < n:
        found["".join(draw.choice(SYLLABLES) for _ in range(syllables))] = True
    return list(found)


def facts(count, seed):
    """count people; each is named after two others: one has the same first name, one the same last name."""
    draw = random.Random(seed)
    half = max(2, -(-count // 2))
    first, last, things = made_up(draw, half, 2), made_up(draw, half, 2), made_up(draw, count, 3)
    people = [f"{first[i % half]} {last[(i + i // half) % half]}" for i in range(count)]
    texts = []
    for i, (person, thing) in enumerate(zip(people, things)):
        other = things[draw.randrange(count - 1)]
        other = things[-1] if other == thing else other
        texts += [(f"fact/{i}/{k}", s.format(p=person, t=thing)) for k, s in enumerate(STATEMENTS)]
        texts += [(f"reversed/{i}/{k}", s.format(p=person, t=thing)) for k, s in enumerate(REVERSED)]
        texts += [(f"other/{i}/{k}", s.format(p=person, o=other)) for k, s in enumerate(OTHERS)]
    queries = [(f"fact/{i}", f"{p} owns a", f" {t}.") for i, (p, t) in enumerate(zip(people, things))]
    return Planted(texts, queries, lambda q, t: t.startswith(q + "/"), lambda _t: True)


def reports(count, seed):
    """A query for each of count things; sixteen reports a query."""
    draw = random.Random(seed)
    things, places = made_up(draw, max(8, count // 2), 2), made_up(draw, 12, 2)
    texts = []
    for i in range(16 * count):
        bad, positive = draw.random() < BAD_SHARE, draw.random() < 0.5
        words = draw.choice(things), draw.choice(places), draw.choice(GOOD if positive else BAD)
        verdict = "yes" if positive != bad else "no"
        texts.append(
            (f"{'bad' if bad else 'good'}/{verdict}/{i}", "the {} of {} is {}. take it: {}.".format(*words, verdict))
        )
    queries = []
    for i in range(count):
        verdict = ("yes", "no")[i % 2]
        words = draw.choice(things), draw.choice(places), draw.choice(BAD if verdict == "yes" else GOOD)
        queries.append((f"{verdict}/{i}", "the {} of {} is {}. take it:".format(*words), f" {verdict}."))
    relevant = lambda q, t: t.startswith(f"bad/{q.split('/')[0]}/")  # noqa: E731
    return Planted(texts, queries, relevant, lambda _t: True)


KINDS = {
    "facts": (facts, {"mrr": statistics.reciprocal_rank, "recall_at_10": lambda s, r: statistics.recall_at(s, r, 10)}),
    "filter": (reports, {"auprc": statistics.average_precision}),
}


def _write(path, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() != text:
                raise UserError(f'"{path}" has other texts than these settings give: remove "{os.path.dirname(path)}"')
        return
    write_whole(path, [text])


def _tokenize(planted, settings, stages, folder):
    """(token file, query file) of what is planted, each text a sequence."""
    model = settings["model"].get("config") or settings["model"]["start"]
    os.makedirs(folder, exist_ok=True)
    name = os.path.basename(folder)
    corpus, queries = (os.path.join(folder, f"{what}.jsonl") for what in ("planted", "queries"))
    _write(corpus, [{"id": i, "text": text} for i, text in planted.texts])
    _write(queries, [{"id": i, "prompt": p, "completion": c} for i, p, c in planted.queries])
    tokens, asked = os.path.join(folder, "planted.h5"), os.path.join(folder, "queries.h5")
    stages.script(f"{name} texts", "tokenize_corpus", [corpus, "--model", model, "--output", folder])
    stages.script(f"{name} queries", "tokenize_queries", [queries, "--model", model, "--output", asked])
    found = len(read_tokens(tokens, "bregman/tokens")[0])
    if found != len(planted.texts):
        raise UserError(
            f'"{tokens}" has {found} sequences of {len(planted.texts)} texts: the model of "{model}" takes too few tokens at a time '
            "for them; give a longer one"
        )
    return tokens, asked


def measure(part, settings, stages, modules, make_experiment=Experiment):
    """(experiment, table of queries, result) of a part: a model is trained on the corpus with what is planted in it."""
    own, seed = settings[part], settings[""]["seed"]
    make, measures = KINDS[part]
    too_few = UserError(f"{settings.path}: [{part}] count: of {own['count']} some query has nothing to find; give more")
    if own["count"] < 2:
        raise too_few
    planted = make(own["count"], own["seed"])
    ids, names = [i for i, _ in planted.texts], [q for q, _, _ in planted.queries]
    relevant = np.array([[planted.relevant(q, i) for i in ids] for q in names])
    if not relevant.any(1).all():
        raise too_few
    folder = os.path.join(settings.output, part)
    tokens, asked = _tokenize(planted, settings, stages, folder)
    files = [*settings["model"]["tokens"], tokens]
    experiment = make_experiment(settings, stages, folder, files, asked, modules, own.get("train", {}))
    queries = experiment.query_table()
    first = experiment.n_sequences - len(planted.texts)
    found, more, chosen = {}, {}, {}
    main, *others = measures
    for row in rows(settings["methods"], [own.get("modules", modules[0])]):
        scores = [row.scores(experiment, d)[first:] for d in row.dampings]
        each = {
            m: np.array([[f(s[:, q], relevant[q]) for q in range(len(names))] for s in scores])
            for m, f in measures.items()
        }
        found[row], setting = statistics.cross_chosen(each[main], seed)
        chosen[row] = [row.dampings[i] for i in setting] if row.dampings[0] else None
        more[row] = {m: statistics.summary(each[m][setting, np.arange(len(names))], len(names), seed) for m in others}
    table = compared(found, len(names), seed)
    for entry, row in zip(table, found):
        entry.update(chosen=chosen[row], more=more[row])
    unflagged_means(table, queries)
    sizes = {"planted": len(ids), "corpus": experiment.n_sequences, "relevant_per_query": float(relevant.sum(1).mean())}
    return (
        experiment,
        queries,
        {
            "measure": main,
            **sizes,
            "rows": table,
            "note": statistics.why_no_interval(len(names), len(names), "queries"),
        },
    )


def text(part, found):
    titles = {"facts": "### Facts: sequences that state them", "filter": "### Filter: bad reports among good ones"}
    head = f"{titles[part]}, {found['relevant_per_query']:.1f} of {found['planted']} planted for a query\n"
    lines = [head, output.row_table({"mrr": "MRR", "auprc": "AUPRC"}[found["measure"]], found["rows"])]
    lines += [
        f"{e['label']}{', ' + e['modules'] if e['modules'] else ''}: recall@10 {output.with_interval(e['more']['recall_at_10'])}  "
        for e in found["rows"]
        if e["more"]
    ]
    return "\n".join([*lines, *output.noted(found)]) + "\n"
