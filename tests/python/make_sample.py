#!/usr/bin/env python3
"""Makes a ranking, token files, queries and a tokenizer as the stages would, with invented scores.

  make_sample.py FOLDER [--queries N] [--top K] [--length T] [--layers L]

Texts are public domain (King James Bible, Luther Bible of 1912, Austen, Soseki, Iroha) or written for this
test.  Scores follow a heavy-tailed law; a token that the query's completion shares gets most of the influence.
"""

import project  # noqa: F401  (first: it may start another interpreter)

import argparse
import json
import os

import h5py
import numpy as np
from bregman.files import input_identity
from bregman.hashes import hash_bytes, hash_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

DOCUMENTS = [
    (
        "bible/genesis-1",
        "bible-kjv",
        "en",
        "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters. And God said, Let there be light: and there was light. And God saw the light, that it was good: and God divided the light from the darkness. And God called the light Day, and the darkness he called Night. And the evening and the morning were the first day.",
    ),
    (
        "bible/matthew-5",
        "bible-kjv",
        "en",
        "And seeing the multitudes, he went up into a mountain: and when he was set, his disciples came unto him: And he opened his mouth, and taught them, saying, Blessed are the poor in spirit: for theirs is the kingdom of heaven. Blessed are they that mourn: for they shall be comforted. Blessed are the meek: for they shall inherit the earth.",
    ),
    (
        "bibel/1-mose-1",
        "luther-1912",
        "de",
        "Am Anfang schuf Gott Himmel und Erde. Und die Erde war wüst und leer, und es war finster auf der Tiefe; und der Geist Gottes schwebte auf dem Wasser. Und Gott sprach: Es werde Licht! Und es ward Licht. Und Gott sah, daß das Licht gut war. Da schied Gott das Licht von der Finsternis und nannte das Licht Tag und die Finsternis Nacht.",
    ),
    (
        "austen/pride-and-prejudice/1",
        "janeaustenr",
        "en",
        "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful property of some one or other of their daughters.",
    ),
    (
        "man/ja/ls.1",
        "manpages-ja",
        "ja",
        "ls はディレクトリの内容を一覧表示します。デフォルトではカレントディレクトリが対象です。オプション -l を指定すると、ファイルの許可属性、リンク数、所有者、サイズ、更新日時を一行に一つずつ表示します。-a を指定すると、ピリオドで始まるファイルも表示します。",
    ),
    (
        "soseki/wagahai",
        "aozora",
        "ja",
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。吾輩はここで始めて人間というものを見た。",
    ),
    (
        "man/de/ls.1",
        "manpages-de",
        "de",
        "ls zeigt Informationen über die Dateien an (standardmäßig im aktuellen Verzeichnis). Die Einträge werden alphabetisch sortiert, wenn keine der Optionen -cftuvSUX oder --sort angegeben ist. Mit der Option -l wird das lange Format verwendet: Rechte, Anzahl der Verweise, Eigentümer, Größe und Zeitstempel.",
    ),
    (
        "man/en/ls.1",
        "manpages",
        "en",
        "ls lists information about the files (the current directory by default). Entries are sorted alphabetically if none of -cftuvSUX nor --sort is specified. With the option -l a long listing format is used: permissions, number of links, owner, size and time stamp; -a does not ignore entries starting with a period.",
    ),
    (
        "python/library/heapq",
        "python-docs",
        "en",
        'def nsmallest(n, iterable, key=None):\n    """Find the n smallest elements in a dataset."""\n    if n == 1:\n        return [min(iterable, key=key)]\n    result = sorted(iterable, key=key)\n    return result[:n]\n\nA heap is a binary tree for which every parent node has a value less than or equal to any of its children.',
    ),
    (
        "licences/sample",
        "written for this test",
        "en",
        'You may copy and pass on this work, changed or not, as long as this notice stays with every copy. The work comes without any warranty; whoever uses it bears the risk. A <b>bold</b> claim & a "quoted" one change nothing about that.',
    ),
]
QUERIES = [
    ("genesis", "In the beginning God created", " the heaven and the earth. And the earth was without form", 0),
    (
        "pride",
        "It is a truth universally acknowledged, that a single man",
        " in possession of a good fortune, must be in want of a wife.",
        3,
    ),
    ("ls-ja", "ls はディレクトリの内容を", "一覧表示します。オプション -l を指定すると", 4),
    ("ls-de", "Mit der Option -l wird", " das lange Format verwendet: Rechte, Eigentümer, Größe", 6),
]
SCORED = 20000  # sequences that the moments speak of
TEXT = h5py.string_dtype("utf-8")


def train_tokenizer(path):
    """A byte-level BPE so small that most Japanese characters take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text for *_, text in DOCUMENTS], trainer)
    tokenizer.save(path)
    return tokenizer


def start_file(path, kind, stage, options, inputs):
    file = h5py.File(path, "w")
    file.attrs["format"], file.attrs["format_version"] = kind, 1
    run = file.create_group("run")
    run.attrs.update(
        stage=stage,
        options=json.dumps(options),
        git_revision="0123456789abcdef0123456789abcdef01234567",
        library_versions="Open MPI 4.1.4, HDF5 1.10.8, OpenBLAS 0.3.21",
        ranks=2,
        threads=1,
        seed=1,
        started="2025-03-01T10:00:00Z",
        finished="2025-03-01T10:14:31Z",
    )
    run.create_dataset("input_name", data=[n for n, _ in inputs], dtype=TEXT)
    run.create_dataset("input_hash", data=[h for _, h in inputs], dtype=TEXT)
    return file


def write_tokens(path, documents, sequences, tokenizer_hash, vocab_size):
    with start_file(path, "bregman/tokens", "tokenize_corpus", {"max_length": 512, "packing": "none"}, []) as file:
        file.attrs.update(tokenizer_hash=tokenizer_hash, vocab_size=vocab_size, max_length=512, packing="none")
        file["token"] = np.concatenate(sequences).astype(np.uint32)
        file["count"] = np.array([len(s) for s in sequences], np.uint32)
        file["document"] = np.arange(len(sequences))
        file["start"] = np.zeros(len(sequences), np.int64)
        for column, name in enumerate(("id", "source", "lang")):
            file.create_dataset(f"documents/{name}", data=[d[column] for d in documents], dtype=TEXT)
        if len(documents[0]) > 3:  # texts, each of which is a sequence
            file["begin_character"] = np.zeros(len(sequences), np.int64)
            file["end_character"] = np.array([len(d[3]) for d in documents])


def write_queries(path, queries, tokenizer, tokenizer_hash):
    with start_file(path, "bregman/queries", "tokenize_queries", {}, []) as file:
        prompts = [tokenizer.encode(prompt).ids for _, prompt, _, _ in queries]
        completions = [tokenizer.encode(completion).ids for _, _, completion, _ in queries]
        file.attrs.update(tokenizer_hash=tokenizer_hash, vocab_size=tokenizer.get_vocab_size())
        file["token"] = np.array(sum((p + c for p, c in zip(prompts, completions)), []), np.uint32)
        file["count"] = np.array([len(p) + len(c) for p, c in zip(prompts, completions)], np.uint32)
        file["completion_start"] = np.array([len(p) for p in prompts], np.uint32)
        file.create_dataset("id", data=[q[0] for q in queries], dtype=TEXT)
    return [set(c) for c in completions]


def token_scores(random, tokens, shared, layers, sign, total):
    """Layer x token values of a sequence: bumps where its next token is one of the completion's."""
    n = len(tokens) - 1
    weight = random.exponential(1, n) * (0.03 + np.isin(tokens[1:], list(shared)) * random.pareto(1.3, n))
    signs = np.where(random.random(n) < 0.12, -0.4, 1.0) * sign
    centre = random.normal(0.6 * layers, layers / 10, n)
    depth = np.exp(-0.5 * ((np.arange(layers) - centre[:, None]) / (layers / 6)) ** 2)
    values = (weight * signs)[:, None] * (depth + random.normal(0, 0.15, (n, layers)))
    return (values * (total / values.sum())).astype(np.float32)


def write_origin(file, token_files, queries, documents):
    """What a ranking says of the files it was made from.  documents: of the sequences of all token files, by id."""
    file.create_dataset("corpus/file", data=[os.path.basename(path) for path in token_files], dtype=TEXT)
    file.create_dataset("corpus/hash", data=[input_identity(path) for path in token_files], dtype=TEXT)
    lengths = []
    for path in token_files:
        with h5py.File(path, "r") as tokens:
            lengths.append(len(tokens["count"]))
    file["corpus/sequences"] = np.array(lengths)
    file.attrs.update(
        corpus_sequences=sum(lengths),
        model_hash="0" * 32,
        compressed_fingerprint="1" * 32,
        queries_hash=input_identity(queries),
    )
    for end in ("top", "bottom"):
        sequence = file[f"{end}/sequence"][:]
        file.create_dataset(
            f"{end}/document", data=[[documents[s] if s >= 0 else "" for s in row] for row in sequence], dtype=TEXT
        )
        file[f"{end}/start"] = np.where(sequence >= 0, 0, -1)


def write_ranking(path, queries, shared, sequences, top, layers, inputs):
    random = np.random.default_rng(7)
    all_scores = random.standard_t(2.4, (len(queries), SCORED)) * 40 + 2
    order = {"top": np.sort(all_scores, 1)[:, ::-1], "bottom": np.sort(all_scores, 1)}
    with start_file(path, "bregman/ranking", "merge_scores", {"top": top, "scores": "scores"}, inputs) as file:
        file.create_dataset("query", data=[q[0] for q in queries], dtype=TEXT)
        for end, sign in (("top", 1), ("bottom", -1)):
            write_end(file, random, end, sign, order[end][:, :top].copy(), queries, shared, sequences, layers)
        write_statistics(file, all_scores)
        file["query_loss"] = np.resize([12.5, 3.75, 0.0625, 20.0], len(queries))  # the third: less than a copy's effect


def write_end(file, random, end, sign, score, queries, shared, sequences, layers):
    sequence = np.array([random.permutation(len(sequences))[: score.shape[1]] for _ in queries])
    counts, flat = np.zeros(sequence.shape, np.uint32), []
    for q, (_, _, _, answer) in enumerate(queries):
        if end == "top":
            sequence[q] = [answer, *(s for s in sequence[q] if s != answer)][: sequence.shape[1]]
        for k in range(sequence.shape[1]):
            if end == "bottom" and q == 1 and k == sequence.shape[1] - 1:
                sequence[q, k], score[q, k] = -1, 0  # a query with fewer entries
                continue
            tokens = sequences[sequence[q, k]]
            values = token_scores(random, tokens, shared[q], layers, sign, score[q, k])
            if end == "top" and k == 2:
                values *= np.float32(0.001)  # all on one token: the spurious mark
                peak = values[len(tokens) // 2]
                peak *= np.float32((score[q, k] - values.sum() + peak.sum()) / peak.sum())
            counts[q, k] = len(values)
            flat.append(values)
    outputs = [v.sum(1)[::-1] for v in flat]  # whatever adds up to the same
    flat = np.concatenate(flat)
    file[f"{end}/output_token_score"] = np.concatenate(outputs)
    file[f"{end}/input_token_score"] = (0.7 * flat.sum(1) ** 2).astype(np.float32)  # they need not add up to it
    file[f"{end}/sequence"], file[f"{end}/score"] = sequence.astype(np.int64), score.astype(np.float32)
    error = np.where(sequence >= 0, 0.1 * np.abs(score), np.nan)
    error[0] = np.nan  # of a query of which it is not known
    file[f"{end}/score_error"] = error.astype(np.float32)
    file[f"{end}/count"], file[f"{end}/token_score"], file[f"{end}/layer_token_score"] = counts, flat.sum(1), flat


def write_statistics(file, scores):
    positive = np.maximum(scores, 0)
    for name, values in (
        ("sum", scores.sum(1)),
        ("sum_positive", positive.sum(1)),
        ("mean", scores.mean(1)),
        ("sd", scores.std(1)),
        ("minimum", scores.min(1)),
        ("maximum", scores.max(1)),
    ):
        file[f"moments/{name}"] = values
    for name, value in (("truncation", 0.25), ("sampling", 0.125), ("agreement", 0.75)):
        file[f"error/{name}"] = np.where(np.arange(len(scores)) > 0, value, np.nan)
    file["error/agreement"].attrs["places"] = 3
    file["moments/count"] = np.full(len(scores), scores.shape[1])
    half = 10.0 ** np.arange(-3, 6.01, 0.125)
    edge = np.concatenate((-half[::-1], half))
    file["histogram/edge"] = edge
    file["histogram/count"] = np.array([np.histogram(s, edge)[0] for s in scores])
    n_tail = scores.shape[1] // 200
    file["tail/count"] = np.full(len(scores), n_tail, np.uint32)
    file["tail/score"] = np.sort(scores, 1)[:, : -n_tail - 1 : -1].ravel().astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    for name, default in (("queries", len(QUERIES)), ("top", 6), ("length", 0), ("layers", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    folder = arguments.folder
    os.makedirs(os.path.join(folder, "model"), exist_ok=True)
    tokenizer_path = os.path.join(folder, "model", "tokenizer.json")
    tokenizer = train_tokenizer(tokenizer_path)
    tokenizer_hash = hash_file(tokenizer_path)

    sequences = [np.array(tokenizer.encode(text).ids) for *_, text in DOCUMENTS]
    if arguments.length:  # long sequences: texts repeated, for size and speed
        sequences = [np.resize(s, arguments.length) for s in sequences]
    copies = -(-arguments.top // len(DOCUMENTS))
    documents = [(f"{d[0]}{f'/{c}' if c else ''}", *d[1:]) for c in range(copies) for d in DOCUMENTS]
    sequences = sequences * copies
    queries = [QUERIES[i % len(QUERIES)] for i in range(arguments.queries)]
    queries = [(f"{q[0]}{f'-{i}' if i >= len(QUERIES) else ''}", *q[1:]) for i, q in enumerate(queries)]

    half = len(documents) // 2
    for name, part in (("a.h5", slice(0, half)), ("b.h5", slice(half, None))):
        write_tokens(
            os.path.join(folder, name), documents[part], sequences[part], tokenizer_hash, tokenizer.get_vocab_size()
        )
    shared = write_queries(os.path.join(folder, "queries.h5"), queries, tokenizer, tokenizer_hash)
    inputs = [("scores/shard-00000-of-00001.h5", hash_bytes(b"a shard"))]
    ranking = os.path.join(folder, "ranking.h5")
    write_ranking(ranking, queries, shared, sequences, arguments.top, arguments.layers, inputs)
    with h5py.File(ranking, "r+") as file:
        write_origin(
            file,
            [os.path.join(folder, name) for name in ("a.h5", "b.h5")],
            os.path.join(folder, "queries.h5"),
            [d[0] for d in documents],
        )


if __name__ == "__main__":
    main()
