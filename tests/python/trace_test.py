#!/usr/bin/env python3
"""bregman-trace from its command line to its answer: what it writes, says, refuses and goes on with, on a tiny model."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib

from text_checks import ROOT, SCRIPTS, check, finish, make_model, path, run, write

import h5py

os.environ["BREGMAN_BIN"] = os.path.join(os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build"))), "bin")
from bregman import corpora  # noqa: E402
from bregman.tokenizer import TextModel  # noqa: E402
from bregman.trace import file as trace_file  # noqa: E402
from bregman.trace.answer import one_line  # noqa: E402
from bregman.trace.machine import Machine  # noqa: E402
from bregman.trace.size import corpus_size  # noqa: E402

CITIES = {"France": "Paris", "Norway": "Oslo", "Italy": "Rome"}
TEXTS = [f"The capital of {country} is {city}." for country, city in CITIES.items()] + ["Rain in the mountains."]
PROMPT, COMPLETION = "The capital of France is", " Paris."


whole = {}  # the answer of the first run


def command(output, *more, queries=True):
    of = ["--queries", path("queries.jsonl")] if queries else ["--prompt", PROMPT, "--completion", COMPLETION]
    return ["--model", path("model"), "--corpus", path("corpus.jsonl"), *of, "--output", path(output), *more]


def trace(*arguments):
    return run("trace", *arguments, timeout=400)


def make_inputs():
    make_model("model")
    lines = [{"id": f"d{i}", "source": f"s{i % 2}", "text": " ".join([TEXTS[i % 4]] * (1 + i // 4))} for i in range(24)]
    write("corpus.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    queries = [
        {"id": name, "prompt": f"The capital of {name} is", "completion": f" {CITIES[name]}."} for name in CITIES
    ]
    write("queries.jsonl", "".join(json.dumps(query) + "\n" for query in queries))


def answers(output):
    """{query: [(score, document)]}, as they were printed."""
    found = {}
    for block in output.split("\n\n")[1:]:
        head, *lines = block.split("\n")
        rows = [re.match(r" *(\d+)  +(-?[\d.e+-]+)  +(\S+)", line) for line in lines[1:]]
        if any(rows):
            found[head.split(":")[0]] = [(float(row[2]), row[3]) for row in rows if row]
    return found


def expected(ranking, tokens):
    """The same, from the files: of each document the best sequence."""
    found = {}
    with h5py.File(ranking) as file, h5py.File(tokens) as corpus_file:
        ids = corpus_file["documents/id"].asstr()[()]
        document = corpus_file["document"][()]
        for query, name in enumerate(file["query"].asstr()[()]):
            best = {}
            for score, sequence in zip(file["top/score"][query], file["top/sequence"][query]):
                best.setdefault(ids[document[sequence]], float(score))
            found[name] = [(score, id) for id, score in list(best.items())[:10]]
    return found


def is_same(found, wanted):
    return found.keys() == wanted.keys() and all(
        [d for _, d in found[q]] == [d for _, d in wanted[q]]
        and all(abs(a - b) <= 6e-4 * abs(b) for (a, _), (b, _) in zip(found[q], wanted[q]))
        for q in wanted
    )


def places(output):
    [tokens] = [os.path.join(f, n) for f, _, ns in os.walk(path(f"{output}/tokens")) for n in ns if n.endswith(".h5")]
    folders = [f for f, _, ns in os.walk(path(output)) if "ranking.h5" in ns]
    check(len(folders) == 1, "one ranking", folders)
    return folders[0], tokens


def page_of(folder):
    with open(f"{folder}/report.html", encoding="utf-8") as file:
        return re.search(r"<title>(.*?)</title>", file.read())[1]


def test_answer():
    done = trace(*command("whole"))
    check(done.returncode == 0, "a trace", f"exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    check("corpus: 24 sequences, " in done.stdout, "the corpus is counted", done.stdout)
    said = re.search(r"^predicted, .* of memory, .* of disk", done.stdout, re.M)
    check(said and " 0.0 s of" not in said[0], "its cost is said", done.stdout)
    folder, tokens = places("whole")
    with h5py.File(tokens) as found:
        check(len(found["count"]) == 24, "and counted rightly", len(found["count"]))
    wanted = expected(f"{folder}/ranking.h5", tokens)
    check(len(wanted) == 3 and all(len(rows) == 10 for rows in wanted.values()), "ten documents of each query")
    check(is_same(answers(done.stdout), wanted), "the answer", f"{answers(done.stdout)} {wanted}")
    check("(s0)" in done.stdout and "The capital of" in done.stdout, "sources and first words")
    check(done.stdout.rstrip().endswith(f"report: {folder}/report.html"), "the report's path", done.stdout[-200:])
    check(
        page_of(folder) == "model: what it learned queries from, in corpus", "and the report, with a title of its own"
    )
    with h5py.File(f"{folder}/ranking.h5") as ranking:
        check("top/token_score" in ranking, "it is explained")
    before = os.stat(f"{folder}/ranking.h5").st_mtime_ns
    whole.update(answers(done.stdout))
    again = trace(*command("whole"))
    check(again.returncode == 0 and answers(again.stdout) == answers(done.stdout), "a second time", again.stderr)
    check(os.stat(f"{folder}/ranking.h5").st_mtime_ns == before, "nothing is done twice")
    swept = subprocess.run(
        ["sh", os.path.join(ROOT, "jobs", "sweep"), path("whole/trace.toml"), "--local"],
        capture_output=True,
        text=True,
        check=False,
    )
    page = f"report--model--queries--corpus: {folder}/report.html"
    check(page in swept.stdout, "which says where the pages are", swept.stdout)
    check(
        swept.returncode == 0 and swept.stdout.startswith("all done"),
        "the sweep underneath",
        swept.stdout + swept.stderr,
    )


def refused(name, done, *parts, code=1):
    lines = done.stderr.strip().split("\n")
    good = done.returncode == code and all(part in lines[-1] for part in parts) and "Traceback" not in done.stderr
    check(good, name, f"exit {done.returncode}: {done.stderr[-600:]}")


def changed(at, value, output="new"):
    words = command(output)
    words[words.index(at) + 1] = value
    return words


def test_refusals():
    known = command("whole")
    text = write("other.jsonl", '{"id": "a", "prompt": "The", "completion": " end"}\n')
    refused("other queries", trace(*changed("--queries", text, "whole")), "was made with --queries", "other.jsonl")
    refused("another option", trace(*known, "--all"), "was made with --all none, not true: choose another --output")
    refused("a prompt instead", trace(*command("whole", queries=False)), "--queries")
    write("foreign/trace.toml", "output = 'x'\n")
    refused("another's file", trace(*command("foreign")), "does not say which arguments")
    refused("no model", trace(*changed("--model", "EleutherAI/pythia-160m")), "huggingface.co/EleutherAI/pythia-160m")
    refused("no model's name", trace(*changed("--model", path("absent"))), "hf download OWNER/NAME")
    write("part/config.json", "{}")
    refused("no tokenizer", trace(*changed("--model", path("part"))), "no tokenizer.json")
    write("part/tokenizer.json", "{}")
    refused("no weights", trace(*changed("--model", path("part"))), "no *.safetensors")
    refused("no corpus", trace(*changed("--corpus", path("absent.jsonl"))), "absent.jsonl")
    unknown = write("corpus.docx", "x")
    refused("an unknown corpus", trace(*changed("--corpus", unknown)), "corpus.docx", "unknown kind of corpus", code=2)
    wrong = write("wrong.jsonl", '{"body": "the hand"}\n')
    refused("no text", trace(*changed("--corpus", wrong)), "wrong.jsonl:1: no text")
    short = write("short.jsonl", '{"text": "t"}\n')
    refused("no sequence", trace(*changed("--corpus", short)), "short.jsonl", "two tokens")
    bad = write("bad.jsonl", '{"id": "a", "prompt": "the"}\n')
    refused("a bad query", trace(*changed("--queries", bad)), "bad.jsonl:1", "no completion")
    refused(
        "an empty completion", trace(*command("new", queries=False)[:-3], "", "--output", path("new")), "no completion"
    )
    bare = [word for word in known if word not in ("--queries", path("queries.jsonl"))]
    refused("no query", trace(*bare), "--queries FILE, or --prompt", code=2)
    refused("half a query", trace(*bare, "--prompt", "x"), "belong together", code=2)
    check(not os.path.exists(path("new")), "nothing is written by what is refused")


def test_plan():
    done = trace(*command("planned", "--plan"))
    check(
        done.returncode == 0 and "predicted" in done.stdout and not os.path.exists(path("planned")),
        "--plan writes nothing",
        done.stderr,
    )


def test_kill_and_resume():
    """Stopped by a signal it exits with 75 and goes on; killed, it goes on, too; the answer is the same."""
    words = [sys.executable, os.path.join(SCRIPTS, "trace"), *command("stopped")]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                if ": done in" in line:  # the next step runs
                    process.send_signal(number)
                    break
            process.stdout.read()
        check(process.returncode == code, f"signal {number}", process.returncode)
        check(not os.path.exists(os.path.join(path("stopped"), "model/queries/corpus/report.html")), "it had not ended")
    for _ in range(60):  # what was killed with it may still end
        done = trace(*command("stopped"))
        if "another sweep" not in done.stderr:
            break
        time.sleep(0.5)
    check(done.returncode == 0, "it goes on", done.stdout[-300:] + done.stderr[-600:])
    check(done.stdout.startswith("going on with "), "and says so", done.stdout[:200])
    check(answers(done.stdout) == whole, "the answer is that of one run")


def test_prompt():
    words = command("one", queries=False)
    done = trace(*words)
    found, wanted = answers(done.stdout), whole["France"]
    check(done.returncode == 0 and found.keys() == {"query"}, "a prompt", done.stderr[-600:])
    check(found.get("query") == wanted, "its answer is that of the query in a file", f"{found} {wanted}")
    other = trace(*words[:-3], " Oslo.", "--output", path("one"))
    refused("another completion", other, '--completion " Paris.", not " Oslo."')


def stub(name, lines):
    os.chmod(write(f"bin/{name}", "#!/bin/sh\n" + lines), 0o755)


def test_slurm():
    """The grid is that of a node of Slurm's; all is submitted, and nothing is run here."""
    environment = {**os.environ, "PATH": path("bin") + ":" + os.environ["PATH"]}
    stub("sinfo", "echo 'sinfo: error: no cluster' >&2\nexit 1\n")
    refused(
        "no cluster", trace_in(environment, *command("queued", "--slurm")), "--slurm: ", "no cluster", "is run here"
    )
    check(not os.path.exists(path("queued")), "no cluster: nothing is written")
    stub("sinfo", "echo 'long|64|256000|infinite'\necho 'cpu*|4+|16000|2:00:00'\n")
    stub("squeue", "exit 0\n")
    stub("scontrol", "exit 0\n")
    stub("sbatch", f'echo "$@" >> {path("submitted")}\nwc -l < {path("submitted")}\n')
    done = trace_in(environment, *command("queued", "--slurm"))
    check(done.returncode == 0, "submitted", done.stderr[-800:])
    check(
        "on a node of Slurm's partition cpu: " in done.stdout and "fit--model: submitted as " in done.stdout,
        "said",
        done.stdout,
    )
    check(
        "the same command prints the answer" in done.stdout and "report:" not in done.stdout, "what then", done.stdout
    )
    with open(path("submitted"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    fit = next(line for line in lines if "--job-name=fit--model" in line or "fit_factors" in line)
    check(len(lines) == 8 and "--partition=cpu" in fit and "--time=2:00:00" in fit, "the jobs", lines)
    with open(path("queued/trace.toml"), "rb") as file:
        cluster = tomllib.load(file)["cluster"]
    check(cluster["ranks_per_node"] * cluster["threads"] == 4, "a node's cores", cluster)


def trace_in(environment, *arguments):
    return run("trace", *arguments, timeout=400, env=environment)


def test_changed_corpus():
    with open(path("corpus.jsonl"), "a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "The capital of France is Paris."}\n')
    refused("a corpus that has changed", trace(*command("whole")), "corpus.jsonl", "was made from another")


def test_size():
    """Of a file that is read in part the size is an estimate that is near."""
    model = TextModel(path("model"))
    lines = [json.dumps({"text": TEXTS[i % 4] * (1 + i % 7)}) for i in range(40000)]
    data = "\n".join(lines).encode()
    lengths = [len(model.encode_documents([json.loads(line)["text"]])[0][0]) for line in lines[:28]]
    wanted = sum(-(-n // 64) - (n % 64 == 1) for n in lengths) / 28 * 40000
    for name, content in (("large.jsonl", data), ("large.jsonl.gz", gzip.compress(data, 1))):
        source = corpora.open_source(write(name, content))
        found = corpus_size([source], model, 64)
        check(abs(found.sequences - wanted) < 0.1 * wanted, f"{name}: sequences", f"{found} {wanted}")
        check(found.exact == (len(content) < 2 << 20), f"{name}: is it exact?", found)
    small = corpora.open_source(path("corpus.jsonl"))
    check(corpus_size([small], model, 64).exact, "a small one is counted")


def test_sweep_file():
    """Defaults by the size of the corpus; names that a sweep takes; what TOML reads is what was meant."""
    from argparse import Namespace

    from bregman.trace.cost import Cost
    from bregman.trace.size import Size

    of = Namespace(
        model="/m/queries", corpus=["/c/a--b c.jsonl.zst"], queries='/q/"x".jsonl', text_field="body", all=False
    )
    cost = Cost(4, 2, "500M", {"score": 40 * 3600}, 0, 0, 0, 400.5)

    def settings(n, everything=False, machine=Machine(8, 1 << 30)):
        work = trace_file.with_units(trace_file.work_of(Size(n, 100 * n, True), (3, 9, 4), everything), machine.cores)
        text = trace_file.text({"a": 1}, trace_file.settings(of, of.queries, work, cost, machine), ["said"])
        return tomllib.loads(text)

    small, large = settings(39999), settings(200000)
    check("covariance_sequences" not in small["fit"] and "prefilter" not in small, "a small corpus is taken whole")
    check(
        large["fit"]["covariance_sequences"] == "0:10000" and large["fit"]["lambda_sequences"] == "10000:20000",
        "a sample",
    )
    check(large["prefilter"] == {"top": 10000} and "prefilter" not in settings(200000, True), "filtered, unless --all")
    check(large["model"][0]["name"] == "model" and large["corpus"][0]["name"] == "a-b-c", "names", large)
    check(large["queries"][0]["file"] == '/q/"x".jsonl' and large["tokenize"]["text_field"] == "body", "texts", large)
    check(large["cluster"] == {"ranks_per_node": 4, "threads": 2, "memory_limit": "500M"}, "the grid", large["cluster"])
    slurm = settings(200000, machine=Machine(8, 1 << 30, "cpu", "24:00:00"))
    check(slurm["score"]["shards"] == 10 and slurm["cluster"]["warning_seconds"] == 400, "of Slurm", slurm)
    check(
        one_line("a\n\x1b[31m b", 9) == "a �[31m b" and one_line("abcdef", 4) == "abc…", "no text commands the terminal"
    )


make_inputs()
test_answer()
test_refusals()
test_plan()
test_kill_and_resume()
test_prompt()
test_size()
test_sweep_file()
test_slurm()
test_changed_corpus()
finish()
