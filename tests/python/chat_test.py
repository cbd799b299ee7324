#!/usr/bin/env python3
"""Chats and token ids as documents and as queries: their ids, what of them is in the loss, and what is refused."""

from text_checks import check, datasets, finish, path, refused, run, write

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import tokenizers

from bregman.report.inputs import Queries

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' ~ m['content'] | trim ~ ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' ~ m['content'] ~ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
    "{{ tools | tojson if tools else '' }}"
)
CHATS = (
    [{"role": "user", "content": "Hi é?"}, {"role": "assistant", "content": "Hé the 🐍"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "Hand"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "x"},
    ],
)
TOOLS = [{"name": "f", "é": 1}]
# what apply_chat_template(..., return_assistant_tokens_mask=True) of transformers 5.24 makes of them with the tokenizer below
GOLDEN = (
    (CHATML, 0, None, "262 84 82 68 81 260 72 220 127 102 30 263 198 262 64 82 82 72 82 83 258 83 260 127 102 220 257 220 172 253 238 235 263 198",
     "0000000000000000000000111111111110"),
    (CHATML, 1, None, "262 84 82 68 81 198 64 263 198 262 64 82 82 72 82 83 258 83 260 259 263 198 262 84 82 68 81 198 259 263 198 262 64 82 82 72 82 83 258 83 198 87 263 198",
     "00000000000000000011100000000000000000000110"),
    (INST, 0, None, "261 58 40 45 50 51 60 220 39 72 220 127 102 30 220 58 14 40 45 50 51 60 220 39 127 102 220 257 220 172 253 238 235 261",
     "0000000000000000000000111111111111"),
    (INST, 1, TOOLS, "261 58 40 45 50 51 60 220 64 220 58 14 40 45 50 51 60 220 39 259 261 58 40 45 50 51 60 220 259 220 58 14 40 45 50 51 60 220 87 261 58 90 1 77 64 76 68 1 25 220 1 69 1 11 220 1 127 102 1 25 220 16 92 60",
     "0000000000000000011110000000000000000111000000000000000000000000"),
)  # fmt: skip


def model(name, template=None, jinja=None, settings=()):
    """A byte-level tokenizer with merges, one of which ("\\nH") reaches over the place where an assistant's turn begins."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ċ", "H")]
    vocabulary = {token: i for i, token in enumerate(alphabet + ["".join(pair) for pair in merges])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<eos>", "<|im_start|>", "<|im_end|>"])
    made.save(path(f"{name}/tokenizer.json"))
    write(f"{name}/config.json", json.dumps({"vocab_size": made.get_vocab_size(), "eos_token_id": 261}))
    config = {"bos_token": "<eos>", "eos_token": {"content": "<eos>"}, **dict(settings)}
    if template is not None:
        config["chat_template"] = template
    write(f"{name}/tokenizer_config.json", json.dumps(config))
    if jinja is not None:
        write(f"{name}/chat_template.jinja", jinja)
    return path(name)


def lines(name, records):
    return write(name, "".join(json.dumps(record) + "\n" for record in records))


def numbers(text):
    return [int(word) for word in text.split()]


def tokenized(source, folder, *options):
    """(ids and mask of each sequence, all datasets)"""
    output = path(f"out-{source.rsplit('/', 1)[-1]}-{folder.rsplit('/', 1)[-1]}-{len(options)}")
    done = run("tokenize_corpus", source, "--model", folder, "--output", output, "--processes", 1, *options)
    check(done.returncode == 0, f"{source} is tokenized", done.stderr[-300:])
    name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    data = datasets(f"{output}/{name}.h5")
    ends = np.cumsum(data["count"])
    cut = [slice(end - n, end) for end, n in zip(ends, data["count"])]
    return [(data["token"][x], data["loss"][x] if "loss" in data else None) for x in cut], data


def digits(mask):
    return "".join(str(int(x)) for x in mask)


def test_goldens():
    for place, (template, number, tools, ids, mask) in enumerate(GOLDEN):
        record = {"messages": CHATS[number], "tools": tools}
        source = lines(f"golden{place}.jsonl", [record])
        for name, folder in (
            ("string", model(f"string{place}", template)),
            ("file", model(f"file{place}", "{{ wrong", jinja=template)),
            (
                "named",
                model(
                    f"named{place}", [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
                ),
            ),
        ):
            found, data = tokenized(source, folder)
            check(found[0][0] == numbers(ids), f"case {place}, {name}: ids", found[0][0])
            check(digits(found[0][1]) == mask, f"case {place}, {name}: mask", digits(found[0][1]))
        check(data["end_character"][0] > 20, "characters are those of the rendered text")
        test_prefixes(place, template, source, ids, mask)


def test_prefixes(place, template, source, ids, mask):
    """Without {% generation %} a turn is what the template adds: of CHATML the line's end too."""
    if place == 3:  # tools stand behind whatever is rendered: no part of it is the beginning of the whole
        return
    plain = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    found, _ = tokenized(source, model(f"plain{place}", plain))
    wanted = mask.replace("10", "11") if template == CHATML else mask
    check(found[0][0] == numbers(ids), f"case {place}, prefixes: ids")
    check(digits(found[0][1]) == wanted, f"case {place}, prefixes: mask", digits(found[0][1]))


def test_fields():
    """Reasoning under its several names, keys that are null, and arguments of a record's own for the template."""
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.content is defined }}{{ shout }}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    record = {
        "messages": [
            {"role": "user", "content": None, "name": None},
            {"role": "assistant", "content": "b", "reasoning": "r"},
        ],
        "chat_template_kwargs": {"shout": "!"},
    }
    folder = model("fields", template)
    found, _ = tokenized(lines("fields.jsonl", [record]), folder)
    text = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json").decode(found[0][0])
    check(text == "user:||False!assistant:r|r|True!b", "fields of messages", text)


def test_ids():
    records = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, -100, 9], "attention_mask": [1] * 5, "id": "a"},
        {
            "input_ids": [0, 0, 3, 4, 5, 0],
            "attention_mask": [0, 0, 1, 1, 1, 0],
            "labels": [-100, -100, -100, 4, 5, -100],
        },
        {"input_ids": [1, 2, 3]},
    ]
    wanted = [([5, 6, 7, 8, 9], [0, 0, 1, 0, 1]), ([3, 4, 5], [0, 1, 1]), ([1, 2, 3], [1, 1, 1])]
    folder = model("ids")
    found, data = tokenized(lines("ids.jsonl", records), folder)
    check(found == wanted, "ids and labels", found)
    check(data["documents/id"] == ["a", "", ""] and "begin_character" not in data, "ids have no text")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path("table.parquet"))
    check(tokenized(path("table.parquet"), folder)[0] == wanted, "Parquet: the same")
    packed, data = tokenized(lines("ids.jsonl", records), folder, "--packing", "concat", "--max-length", 4)
    check([t for t, _ in packed] == [[5, 6, 7, 8], [9, 261, 3, 4], [5, 261, 1, 2], [3, 261]], "packed", packed)
    masks = [[0, 0, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1], [1, 1]]
    check([m for _, m in packed] == masks, "packed masks: a separator is as its document's last token", packed)
    bad = (
        ({"input_ids": [1, 2], "labels": [1]}, "labels has 1 values for 2 input_ids"),
        ({"input_ids": [1, 2], "labels": [1, 3]}, "label 3 at 1 is neither the token there, 2, nor -100"),
        ({"input_ids": [1, 2.5]}, "input_ids is no list of whole numbers"),
        ({"input_ids": [1, True]}, "input_ids is no list of whole numbers"),
        ({"input_ids": "1 2"}, "input_ids is no list of whole numbers"),
        ({"input_ids": [1, -2]}, "input_ids has a number that is no token id"),
        ({"input_ids": [1, 2], "attention_mask": [0, 0]}, "no token"),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, "attention_mask has a gap"),
        ({"input_ids": []}, "no token"),
        ({"input_ids": [1, 264]}, "token id 264 is not in the vocabulary of 264"),
    )
    refuse("ids", folder, [{"input_ids": [1, 2]}, bad[0][0]], f":2: {bad[0][1]}")
    skip("ids", folder, {"input_ids": [1, 2]}, bad)


def refuse(name, folder, records, *parts, options=()):
    """Refused with one line; nothing is written."""
    source, output = lines("bad.jsonl", records), path("refused")
    done = run("tokenize_corpus", source, "--model", folder, "--output", output, "--processes", 1, *options)
    refused(f"{name}: {parts[0][:60]}", done, *parts)


def skip(name, folder, good, bad):
    """Each of the bad records is skipped, with its reason; the good one before them stays."""
    source, output = lines(f"skip-{name}.jsonl", [good, *(record for record, _ in bad)]), path(f"skip-{name}")
    done = run(
        "tokenize_corpus", source, "--model", folder, "--output", output, "--processes", 1, "--bad-lines", "skip"
    )
    check(
        done.returncode == 0 and f"{len(bad)} bad lines skipped" in done.stderr,
        f"{name}: bad ones are skipped",
        done.stderr,
    )
    for number, (_, reason) in enumerate(bad, 2):
        check(f"skipped {source}:{number}: {reason}" in done.stderr, f"{name}: {reason}", done.stderr)
    check(len(datasets(f"{output}/skip-{name}.h5")["count"]) == 1, f"{name}: the good one stays")


def test_masks():
    """A sequence of which nothing is in the loss."""
    folder, labels = model("masks"), [-100] * 6 + [7, 8, 9]
    record = {"input_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9], "labels": labels}
    cut = ("--max-length", 4)
    refuse(
        "prompt", folder, [record], ":1: its tokens from 0 on make a sequence of which none is in the loss", options=cut
    )
    source = lines("cut.jsonl", [record, {"input_ids": [1, 2], "labels": [1, -100]}, record])
    for packing, wanted in (
        ("none", [([5, 6, 7, 8], [0, 0, 1, 1])] * 2),
        (
            "concat",
            [
                ([5, 6, 7, 8], [0, 0, 1, 1]),
                ([9, 261, 1, 2], [1, 1, 1, 0]),
                ([4, 5, 6, 7], [0, 0, 0, 1]),
                ([8, 9, 261], [1, 1, 1]),
            ],
        ),
    ):
        found, data = tokenized(source, folder, *cut, "--packing", packing, "--bad-lines", "skip", "--force")
        check(found == wanted, f"{packing}: sequences with something in the loss stay", found)
        check(len(data["count"]) == len(data["start"]) == len(data["document"]), "their datasets agree")
        if packing == "concat":
            check(
                sum(data["piece/length"]) == sum(data["count"]) and data["piece/count"] == [1, 2, 1, 1],
                "pieces",
                data["piece/count"],
            )
    whole = [{"input_ids": [1, 2, 3], "labels": [-100] * 3}]
    refuse("all", folder, whole, ":1: its tokens from 0 on make a sequence of which none is in the loss")
    refuse("all", folder, whole, "gives no sequence of two tokens or more", options=("--bad-lines", "skip"))


def test_refused():
    chats = [{"messages": chat} for chat in CHATS]
    refuse("none", model("none"), chats, "no chat template")
    refuse("syntax", model("syntax", "{% if %}"), chats, "its chat template is none")
    refuse(
        "raises", model("raises", INST), [{"messages": CHATS[0][::-1]}], ":1: the chat template", "roles must alternate"
    )
    refuse("sandbox", model("sandbox", "{{ ''.__class__.__mro__ }}"), chats, ":1: the chat template", "unsafe")
    refuse("python", model("python", "{{ messages[0]['content'] + 1 }}"), chats, ":1: the chat template")
    rewriting = "{% for m in messages %}{{ m.role if loop.last else 'x' }}:{{ m.content }}{% endfor %}"
    refuse("rewrites", model("rewrites", rewriting), chats[1:], ":1: the chat template", "writes message 1 otherwise")
    thinking = "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}{% if add_generation_prompt %}assistant:<think>{% endif %}"
    refuse(
        "prompt", model("thinking", thinking), chats, "writes message 1 otherwise than its generation prompt begins it"
    )
    folder = model("good", CHATML)
    bad = (
        ([{"role": "user", "content": "a"}], "no assistant's turn"),
        ([{"content": "a"}], "messages is no list of objects with a role"),
        ("Hi", "messages is no list of objects with a role"),
        ([], "no assistant's turn"),
        ([{"role": "assistant", "content": "\ud800"}], "invalid UTF-8"),
    )
    refuse("messages", folder, [{"messages": bad[0][0]}], f":1: {bad[0][1]}")
    skip("messages", folder, chats[0], [({"messages": messages}, reason) for messages, reason in bad])
    refuse("mixed", folder, [chats[0], {"text": "a b"}], ":2: text, where the file's first record has a chat")
    refuse("mixed", folder, [{"text": "a b"}, chats[0]], ":2: a chat, where the file's first record has text")
    source, output = lines("text.jsonl", [{"text": "a b"}, chats[0]]), path("trained")
    done = run("train_tokenizer", source, "--vocab-size", 300, "--output", output)
    refused("a tokenizer of chats", done, "text.jsonl:2: a chat: a tokenizer is made from text")


def test_forms():
    """JSON lines and Parquet, one process and two: the same; and another template is another corpus."""
    records = [{"messages": CHATS[i % 2], "id": str(i)} for i in range(40)]
    folder = model("forms", CHATML)
    one, data = tokenized(lines("forms.jsonl", records), folder)
    check(len(one) == 40 and data["documents/id"][7] == "7", "a sequence a chat")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path("forms.parquet"))
    check(tokenized(path("forms.parquet"), folder)[0] == one, "Parquet: the same")
    output = path("two")
    command = ("tokenize_corpus", path("forms.jsonl"), "--model", folder, "--output", output, "--processes", 2)
    check(run(*command).returncode == 0 and datasets(f"{output}/forms.h5") == data, "two processes: the same")
    check("already done" in run(*command).stderr, "already done")
    model("forms", INST)
    refused("another template", run(*command), "forms.h5")


def test_documents():
    """Packed, each document reads itself alone: the file says so, and its sequences are those without."""
    source, folder = lines("packed.jsonl", [{"messages": CHATS[i % 2]} for i in range(4)]), model("packed", CHATML)
    pack = ("--packing", "concat", "--max-length", 60)
    plain, _ = tokenized(source, folder, *pack)
    for positions in ("restart", "continue"):
        found, data = tokenized(source, folder, *pack, "--attention", "document", "--positions", positions, "--force")
        about = data["attributes"]
        check(found == plain, "the same sequences")
        check((about["attention"], about["positions"]) == ("document", positions), "the file says how", about)
    done = run("tokenize_corpus", source, "--model", folder, "--output", path("x"), "--attention", "document")
    refused("without packing", done, "--packing concat", code=2)


def queries(name, folder, records, *options):
    output = path(f"{name}.h5")
    done = run("tokenize_queries", lines(f"{name}.jsonl", records), "--model", folder, "--output", output, *options)
    return done, datasets(f"{name}.h5") if done.returncode == 0 else None


def test_chat_queries():
    """The completion is the last turn; what the template writes behind it is left out."""
    template, _, _, ids, mask = GOLDEN[1]
    records = [{"id": "a", "messages": CHATS[1]}, {"id": "b", "prompt": "x", "completion": " y"}]
    folder = model("queries", template)
    done, data = queries("chats", folder, records)
    check(done.returncode == 0, "chats as queries", done.stderr)
    start, end = mask.rindex("01") + 1, mask.rindex("1") + 1
    check(data["token"][:end] == numbers(ids)[:end] and data["count"][0] == end, "tokens", data["token"])
    check(
        data["completion_start"][0] == start and "loss" not in data and "piece/count" not in data, "the last turn alone"
    )
    split = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}|"
        "{% generation %}!{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    done, data = queries("split", model("split", split), [{"id": "a", "messages": CHATS[1]}])
    check(
        data["loss"] == [0] * (len(data["loss"]) - 3) + [1, 0, 1],
        "a mask, where the turn is not all in the loss",
        data["loss"],
    )
    bad = (
        ({"messages": CHATS[1][:3]}, "its last message is not the assistant's"),
        ({"messages": CHATS[1], "prompt": "x"}, "has both messages and a prompt"),
        ({"messages": 3}, "messages is no list"),
    )
    for record, reason in bad:
        done, _ = queries("bad-chats", folder, [{"id": "a", **record}])
        refused(reason, done, ':1: query "a"', reason)
    done, _ = queries("none", model("no-template"), records)
    refused("no template", done, "no chat template")


def test_contrasts():
    """Texts of queries, their signs and groups."""
    folder = model("contrasts", CHATML)
    records = [
        {"id": "c", "prompt": "the", "completion": " and", "alternative": " x", "kind": "k"},
        {"id": "1", "group": "g", "prompt": "a", "completion": " b", "related": {"r": ["d"]}},
        {"id": "2", "prompt": "the", "completion": " cat"},
        {"id": "3", "group": "g", "messages": CHATS[0], "alternative": "x", "related": {"r": ["d", "e"]}, "kind": "l"},
    ]
    done, data = queries("contrasts", folder, records)
    check(done.returncode == 0 and "3 queries" in done.stdout, "three queries", done.stderr + done.stdout)
    check(data["id"] == ["c", "g", "2"] and data["piece/count"] == [2, 3, 1], "queries", data["id"])
    check(data["piece/id"] == ["c", "c", "1", "3", "3", "2"] and data["piece/sign"] == [1, -1, 1, 1, -1, 1], "texts")
    check(sum(data["piece/length"]) == sum(data["count"]) == len(data["loss"]) == len(data["token"]), "lengths")
    check(data["attributes"]["attention"] == "document" and data["attributes"]["positions"] == "restart", "attributes")
    at = np.cumsum([0, *data["piece/length"]])
    texts = [slice(a, b) for a, b in zip(at, at[1:])]
    for text, start in zip(texts, data["piece/start"]):
        mask = data["loss"][text]
        check(
            mask == [0] * start + [1] * (len(mask) - start) and 0 < start < len(mask),
            "completions are in the loss",
            mask,
        )
    one, other = (data["token"][text] for text in texts[:2])
    check(
        one[: data["piece/start"][0]] == other[: data["piece/start"][1]] and one != other, "a contrast has one prompt"
    )
    check(
        data["kind"] == ["k", "l", ""] and data["related/count"] == [0, 2, 0], "what is known of a group", data["kind"]
    )
    check(
        data["completion_start"] == [data["piece/start"][i] for i in (0, 2, 5)], "completion_start is the first text's"
    )
    show(folder)
    bad = (
        ([{"alternative": ""}], "its alternative is no text"),
        ([{"group": 3}], "its group is 3, not a text"),
        ([{"group": "b"}, {"id": "b"}], '"b" is both a query and a group'),
        ([{"group": "g", "kind": "x"}, {"id": "b", "group": "g", "kind": "y"}], "several kinds"),
    )
    for changes, reason in bad:
        made = [{"id": "a", "prompt": "the", "completion": " and", **change} for change in changes]
        refused(reason, queries("bad-contrasts", folder, made)[0], f":{len(changes)}: ", reason)


def show(folder):
    """What reports and exports say of them."""
    decode = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json").decode
    found = Queries(path("contrasts.h5"))
    check(found.texts("2", decode) == ("the", " cat"), "a query of one text", found.texts("2", decode))
    check(found.texts("c", decode) == ("the", " and  − x"), "a contrast", found.texts("c", decode))
    prompt, completion = found.texts("g", decode)
    check(prompt == "a" and completion.startswith(" b  + ") and "assistant\nx" in completion, "a group", completion)
    check([found.is_contrast(id) for id in ("c", "g", "2")] == [True, True, False], "what is subtracted from")
    check(
        [found.n_terms(id) for id in ("c", "2")] == [2 + 2, 4], "tokens in the loss", [found.n_terms(id) for id in "c2"]
    )
    check(found.n_terms("g") == sum(datasets("contrasts.h5")["loss"]) - 8, "of a group")
    check(len(found.tokens("g")) == datasets("contrasts.h5")["count"][1], "all tokens of a query")


TESTS = (test_goldens, test_fields, test_ids, test_masks, test_refused, test_forms)
for test in (*TESTS, test_documents, test_chat_queries, test_contrasts):
    test()
finish()
