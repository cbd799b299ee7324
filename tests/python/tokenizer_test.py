#!/usr/bin/env python3
"""What a tokenizer.json and the files beside it say about token ids: the join of prompt and completion, tokens and the
space before a text, settings that would change ids from run to run, files that disagree."""

from text_checks import check, datasets, finish, path, refused, run, tiny_model, write

import json
import os

import h5py
import numpy as np
import tokenizers
from bregman.tokenizer import TextModel
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

WORDS = ("▁the", "▁fox", "▁dog", "▁capital", "tal", "▁a", "dog")
TEXT = "the fox"


def words_model():
    """A BPE as SentencePiece makes them: letters, and the merges that lead to WORDS."""
    vocabulary = {token: i for i, token in enumerate(("<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz.\n"))}
    merges = []
    for word in WORDS:
        for n in range(1, len(word)):
            pair = (word[:n], word[n])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault(word[: n + 1], len(vocabulary))
    return models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True)


def word_tokenizer(normalizer=None, pre_tokenizer=None, bos=True):
    made = tokenizers.Tokenizer(words_model())
    if normalizer:
        made.normalizer = normalizer
    if pre_tokenizer:
        made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def byte_tokenizer(prefix=False, bos=False):
    """The tokenizer of tiny_model with its own begin-of-text token and prefix space."""
    made = tokenizers.Tokenizer.from_str(TINY.to_str())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.add_special_tokens(["<s>", "</s>"])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return made


def prepend():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def model(name, made, config=None, **settings):
    """A folder of a tokenizer (or a tokenizer.json's content), config.json and tokenizer_config.json."""
    text = made if isinstance(made, str) else made.to_str()
    write(f"{name}/tokenizer.json", text)
    write(f"{name}/config.json", json.dumps({"vocab_size": 400, **(config or {})}))
    write(f"{name}/tokenizer_config.json", json.dumps({"bos_token": "<s>", "eos_token": "</s>", **settings}))
    return path(name)


def queries(folder, *pairs, options=()):
    write("q.jsonl", "".join(json.dumps({"id": p + "|" + c, "prompt": p, "completion": c}) + "\n" for p, c in pairs))
    return run("tokenize_queries", "q.jsonl", "--model", folder, "--output", path("q.h5"), "--force", *options)


def ids(folder, *options, text=TEXT, name="c"):
    """Ids of a corpus of one text, and what was said."""
    write(f"{name}.jsonl", json.dumps({"text": text}) + "\n")
    done = run(
        "tokenize_corpus",
        f"{name}.jsonl",
        "--model",
        folder,
        "--output",
        path("out"),
        "--processes",
        1,
        "--force",
        *options,
    )
    check(done.returncode == 0, f"{folder} {options}", done.stderr)
    return datasets(f"out/{name}.h5")["token"], done.stderr


def taken(folder, **choices):
    """Ids of TEXT and the lines for the log, as both programs get them."""
    found = TextModel(folder, **choices)
    return found.encode_documents([TEXT])[0][0], "\n".join(found.notes)


TINY = tiny_model("tiny")[1]


# ---------------------------------------------------------------- prompt and completion

PAIRS = (("the fox", " dog"), ("fox", "dog"), ("the capi", "tal"), ("fox\n", "the"), ("", "the fox"), ("the ", "dog"))


def test_joins():
    """Whatever puts the space before a text, it stands before the prompt only, and the tokens are those of the text."""
    spaced = {
        "prepend": word_tokenizer(prepend()),
        "metaspace always": word_tokenizer(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False)),
        "metaspace first": word_tokenizer(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=True)),
    }
    for name, made in spaced.items():
        done = queries(model("spm", made), *PAIRS)
        check(done.returncode == 0, name, done.stderr)
        found = datasets("q.h5")
        sequences = np.split(found["token"], np.cumsum(found["count"])[:-1])
        for (prompt, completion), sequence, start in zip(PAIRS, sequences, found["completion_start"]):
            sequence = sequence.tolist()
            check(
                made.decode(sequence) == prompt + completion and sequence[0] == 1,
                f"{name}: {prompt}|{completion}: text",
                made.decode(sequence),
            )
            wanted = "the fox" if not prompt else completion
            spelt = "".join(made.id_to_token(i) for i in sequence[start:]).replace("▁", " ")
            check(
                spelt == (" " + wanted if not prompt else wanted), f"{name}: {prompt}|{completion}: completion", spelt
            )
        check(found["completion_start"][4] == 1, f"{name}: an empty prompt", found["completion_start"])
        check(
            "in 2 of 6 queries" in done.stderr and 'the first, "the capi|tal", has other tokens' in done.stderr,
            f"{name}: divided words are told",
            done.stderr,
        )


def test_byte_prefix():
    made = byte_tokenizer(prefix=True)
    queries(model("bytes", made), ("the", " and"), ("t", "he and"))
    found = datasets("q.h5")
    check(made.decode(found["token"][: found["count"][0]]) == " the and", "a prefix space before the prompt only")
    check(made.decode(found["token"][found["count"][0] :]) == " the and", "none where a word is divided")


def test_joins_by_offsets():
    """Where the parts alone do not stand for the text, the whole text's tokens do, if one begins there; else an error."""
    split = word_tokenizer(
        None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    )
    folder = model("split", split)
    done = queries(folder, ("the", " fox dog"))
    found = datasets("q.h5")
    check(
        done.returncode == 0 and found["token"] == split.encode("the fox dog").ids and found["completion_start"] == [2],
        "words that lose their spaces",
        found,
    )
    pieces = tokenizers.Tokenizer(
        models.WordPiece({"[UNK]": 0, "the": 1, "capi": 2, "##tal": 3, "tal": 4, "capital": 5}, unk_token="[UNK]")
    )
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    folder = model("pieces", pieces)
    check(
        queries(folder, ("the", " capi")).returncode == 0 and datasets("q.h5")["token"] == [1, 2],
        "word pieces, between words",
    )
    refused(
        "word pieces, inside a word",
        queries(folder, ("the capi", "tal")),
        "q.jsonl:1",
        '"the capi|tal"',
        "the capi tal",
    )


def first_new_character(made, prompt, completion):
    """The rule of --join character by single characters: (ids, start)."""
    encoding, text, seen = made.encode(prompt + completion, add_special_tokens=False), prompt + completion, set()
    whose = []
    for begin, end in encoding.offsets:
        new = [i for i in range(begin, end) if i not in seen]
        seen.update(new)
        worded = [i for i in new if not text[i].isspace()]
        whose.append((worded or new or [begin])[0] >= len(prompt))
    return encoding.ids, whose.index(True)


def check_join(name, made, folder, *pairs, said):
    done = queries(folder, *pairs, options=("--join", "character"))
    check(done.returncode == 0, name, done.stderr)
    found = datasets("q.h5")
    sequences = np.split(found["token"], np.cumsum(found["count"])[:-1])
    for (prompt, completion), sequence, start in zip(pairs, sequences, found["completion_start"]):
        wanted = first_new_character(made, prompt, completion)
        got = sequence.tolist(), start
        check(got == wanted, f"{name}: {prompt}|{completion}", (got, wanted))
    check(said in done.stderr, f"{name}: what is said", done.stderr)


def test_join_character():
    """In one piece: whose a token is that spans the join; those that are nobody's doubt; those that leave nothing."""
    made = byte_tokenizer()
    folder = model("join", made)
    check_join("words", made, folder, ("the", " and"), ("the and", "\n"), ("a", "b"), said="")
    check_join(
        "a divided word",
        made,
        folder,
        ("the", " and"),
        ("t", "he and"),
        said='"t|he and", has a token over the join: the',
    )
    check("prompt's" in queries(folder, ("t", "he and"), options=("--join", "character")).stderr, "the prompt's")
    check_join("bytes of a character", made, folder, ("a 🐍", "猫"), ("é", "é the"), said="")
    refused(
        "nothing but the rest of a word",
        queries(folder, ("t", "he"), options=("--join", "character")),
        'query "t|he"',
        "the (",
        "--join token",
    )
    spaced = word_tokenizer(prepend(), bos=False)
    folder = model("spaced", spaced)
    pairs = (("the ", "dog"), ("the fox ", "dog a"), ("fox", " dog"), ("the  ", "a"))
    check_join("behind its space", spaced, folder, *pairs, said='"the |dog", has a token over the join: ▁dog')
    queries(folder, ("the ", "dog"), options=("--join", "character"))
    check(datasets("q.h5")["completion_start"] == [1], "the word and its space are the completion's")
    done = queries(folder, ("the ", "dog"))
    check("--join character" in done.stderr, "the other way is told", done.stderr)
    with h5py.File(path("q.h5"), "r") as file:
        check("join" not in json.loads(file["run"].attrs["options"]), "files made before --join stay valid")


# ---------------------------------------------------------------- what stands around a text


def test_added_tokens():
    bos = byte_tokenizer(bos=True)
    plain, first = byte_tokenizer().encode(TEXT).ids, bos.token_to_id("<s>")
    last = bos.token_to_id("</s>")
    cases = (  # tokenizer, settings, choices, ids, what is said
        (bos, {}, {}, [first] + plain, f"<s> ({first}) is put before"),
        (bos, {"add_bos_token": False}, {}, [first] + plain, "add_bos_token is false"),
        (bos, {}, {"add_bos": "no"}, plain, ""),
        (byte_tokenizer(), {"add_bos_token": True}, {}, plain, "--add-bos yes"),
        (
            byte_tokenizer(),
            {"add_bos_token": True},
            {"add_bos": "yes"},
            [first] + plain,
            f"<s> ({first}) is put before",
        ),
        (bos, {}, {"add_bos": "yes"}, [first] + plain, "put before"),
        (byte_tokenizer(), {"add_eos_token": True}, {}, plain, "add_eos_token is true"),
        (byte_tokenizer(), {}, {"add_eos": "yes"}, plain + [last], f"</s> ({last}) is put behind"),
        (bos, {"tokenizer_class": "GPTNeoXTokenizerFast"}, {}, plain, ""),
    )
    for made, settings, choices, wanted, said in cases:
        found, log = taken(model("added", made, **settings), **choices)
        check(found == wanted and said in log, f"{settings} {choices}", f"{found} {log}")
        check(bool(said) == bool(log), f"{settings} {choices}: what is said", log)
    found, log = ids(model("added", bos), "--add-eos", "yes")
    check(found == [first] + plain + [last] and f"<s> ({first}) is put before" in log, "both, by tokenize_corpus", log)
    with h5py.File(path("out/c.h5"), "r") as file:
        recorded = json.loads(file["run"].attrs["options"])
    check(
        recorded["tokens_before"] == [first] and recorded["tokens_after"] == [last] and recorded["add_bos"] == "auto",
        "provenance",
        recorded,
    )
    folder = model("nameless", byte_tokenizer(), bos_token=None)
    write("c.jsonl", json.dumps({"text": TEXT}) + "\n")
    refused(
        "a token that nothing names",
        run("tokenize_corpus", "c.jsonl", "--model", folder, "--output", path("no"), "--add-bos", "yes"),
        "begin-of-text",
        code=2,
    )
    queries(model("added", bos), ("the", " and"), options=("--add-bos", "no"))
    check(datasets("q.h5")["completion_start"] == [1], "queries: no begin token")


def covered(name, made, text, **choices):
    return TextModel(model(name, made), **choices).encode_documents([text])[0][1].tolist()


def test_characters():
    """What tokens cover of a text as it was given, whatever was made of it; what is put around it covers nothing."""
    made = word_tokenizer(normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase(), prepend()]))
    found = covered("stripped", made, " The 漢 fox ", add_eos="yes")
    # <s>, "The", a space, a letter that is not in the vocabulary, " fox", </s>
    check(found == [[1, 1], [1, 4], [4, 5], [5, 6], [6, 10], [10, 10]], "stripped, in lower case", found)
    found = covered("stripped", made, "  ", add_eos="yes")
    check(found == [[0, 0]] * 2, "no token of the text itself", found)
    made = byte_tokenizer()
    for trims in (True, False):
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=trims)])
        found = covered("trims", made, "é the")
        wanted = [[0, 1], [0, 1], [1, 2], [2, 5]]
        check(found == wanted, f"bytes of one character, a space; trim_offsets {trims}", found)


def test_prefix_space():
    off, on = byte_tokenizer().encode(TEXT).ids, byte_tokenizer(prefix=True).encode(TEXT).ids
    words_on, words_off = (
        word_tokenizer(prepend()).encode(TEXT).ids,
        word_tokenizer(normalizers.Replace(" ", "▁")).encode(TEXT).ids,
    )
    never = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    old = json.loads(word_tokenizer(None, never).to_str())  # how older files say it
    old["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    cases = (  # tokenizer, model_type, settings, choices, ids
        (byte_tokenizer(), "gpt2", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, {}, on),
        (byte_tokenizer(prefix=True), "gpt2", {"tokenizer_class": "GPT2Tokenizer"}, {}, off),
        (byte_tokenizer(), "gpt2", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, {}, off),
        (byte_tokenizer(), "qwen2", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, {}, on),
        (byte_tokenizer(), "starcoder2", {"add_prefix_space": True}, {}, on),
        (byte_tokenizer(), "olmo2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {}, off),
        (byte_tokenizer(), "olmo3", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {}, off),
        (byte_tokenizer(prefix=True), "olmoe", {}, {}, off),
        (byte_tokenizer(), "gpt_neo", {"add_prefix_space": True}, {}, on),
        (byte_tokenizer(), "qwen3_moe", {"add_prefix_space": True}, {}, on),
        (byte_tokenizer(), "llama", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True}, {}, off),
        (byte_tokenizer(), "llama", {}, {"add_prefix_space": "yes"}, on),
        (word_tokenizer(prepend()), "llama", {"tokenizer_class": "LlamaTokenizer"}, {}, words_on),
        (
            word_tokenizer(prepend()),
            "llama",
            {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
            {},
            words_off,
        ),
        (
            word_tokenizer(prepend()),
            "mistral",
            {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
            {},
            words_on,
        ),
        (
            word_tokenizer(None, never),
            "llama",
            {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True},
            {},
            words_on,
        ),
        (json.dumps(old), "llama", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}, {}, words_off),
        (word_tokenizer(prepend()), "llama", {}, {"add_prefix_space": "no"}, words_off),
    )
    for made, family, settings, choices, wanted in cases:
        found, log = taken(model("prefix", made, {"model_type": family}, **settings), **choices)
        check(found == wanted, f"{family} {settings} {choices}", f"{found}, not {wanted}; {log}")
    check(
        "no space is put before each text (--add-prefix-space no)" in log, "a space that was switched off is told", log
    )
    bare = word_tokenizer(normalizers.Replace(" ", "▁"))
    folder = model("bare", bare)
    refused(
        "no part that could put a space",
        run("tokenize_corpus", "c.jsonl", "--model", folder, "--output", path("no"), "--add-prefix-space", "yes"),
        "bare/tokenizer.json",
        "no part",
    )
    check(not os.path.exists(path("no")), "nothing is written")


# ---------------------------------------------------------------- what would change ids unseen


def test_run_state():
    """BPE dropout, truncation, padding: saved with tokenizer.json, no part of what text becomes."""
    made = byte_tokenizer()
    text = "the and " * 40
    wanted = made.encode(text).ids
    made.enable_truncation(4)
    made.enable_padding(length=600, pad_id=0)
    state = json.loads(made.to_str())
    state["model"]["dropout"] = 0.5
    found, log = ids(model("state", json.dumps(state)), "--max-length", 400, text=text)
    check(found == wanted, "ids without dropout, truncation and padding", len(found))
    check(log.count("BPE dropout 0.5: not applied") == 1, "dropout is told", log)
    done = queries(path("state"), ("the and", " and the"))
    check(
        datasets("q.h5")["token"] == TINY.encode("the and and the").ids and "dropout" in done.stderr,
        "queries without dropout",
    )
    special, _ = ids(model("special", byte_tokenizer(), split_special_tokens=True), text="a</s>b")
    check(len(special) == 6, "split_special_tokens", special)


def test_eos():
    made = byte_tokenizer()
    one, other = made.token_to_id("</s>"), made.token_to_id("<s>")
    concat, plain = ("--packing", "concat"), made.encode(TEXT).ids
    folder = model("eos", made, {"eos_token_id": [other, one]})
    found, log = ids(folder, *concat)
    check(
        found == plain + [other] and f"<s> ({other}) in config.json, </s> ({one}) in tokenizer_config.json" in log,
        "files disagree",
        log,
    )
    found, log = ids(folder, *concat, "--eos-token-id", one)
    check(found == plain + [one] and f"</s> ({one}) is put after each document" in log, "the user's choice", log)
    found, log = ids(folder)
    check(found == plain and "config.json" not in log, "nothing is said where no such token is put in", log)
    found, log = ids(model("eos2", made), *concat, text=TEXT + "</s>")
    check(found == plain + [one], "not twice in a row", found)
    found, log = ids(model("eos3", made, eos_token=None), *concat)
    check(found == plain and "no end-of-text token" in log, "none is known", log)
    write("c.jsonl", json.dumps({"text": TEXT}) + "\n")
    refused(
        "beyond the vocabulary",
        run("tokenize_corpus", "c.jsonl", "--model", folder, "--output", path("no"), *concat, "--eos-token-id", 400),
        "400",
        "--eos-token-id",
    )


def test_broken():
    """One line for whatever is wrong with a tokenizer.json."""
    unknown = tokenizers.Tokenizer(models.WordLevel({"the": 0, "fox": 1, "[UNK]": 2}, unk_token="[MISSING]"))
    unknown.pre_tokenizer = pre_tokenizers.Whitespace()
    cases = {
        "not JSON": "{",
        "a list": "[]",
        "no model": '{"model": null}',
        "of the future": json.dumps({"version": "9", "model": {"type": "BPE"}}),
    }
    write("c.jsonl", json.dumps({"text": "the wolf"}) + "\n")
    for name, text in cases.items():
        folder = model("broken", text)
        refused(
            name, run("tokenize_corpus", "c.jsonl", "--model", folder, "--output", path("no")), "broken/tokenizer.json"
        )
        refused(name, queries(folder, ("the", " fox")), "broken/tokenizer.json")
    folder = model("broken", unknown)
    refused(
        "a word that it cannot take",
        run("tokenize_corpus", "c.jsonl", "--model", folder, "--output", path("no"), "--processes", 2),
        "broken/tokenizer.json",
        "the wolf",
    )


for test in (
    test_joins,
    test_byte_prefix,
    test_joins_by_offsets,
    test_join_character,
    test_added_tokens,
    test_characters,
    test_prefix_space,
    test_run_state,
    test_eos,
    test_broken,
):
    test()
finish()
