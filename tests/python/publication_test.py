#!/usr/bin/env python3
"""How the scripts give files their names: of two attempts the first one's file stays, and what a killed one has left goes."""

from text_checks import FOLDER, check, finish, path, run, tiny_model, write

import os
import re
import signal
import subprocess
import sys
import time

from bregman import files, hashes, writer
from bregman.errors import UserError

MODEL = tiny_model("model")[0]
FOREIGN = "node7.0123abcd.4026531836-12.345-0a1b2c3d"
for corpus, text in (("large", "the cat and the dog"), ("larger", "the dog and the cat and")):
    write(corpus + ".jsonl", f'{{"text": "{text}"}}\n' * (1 << 16))


def attempt(name, inputs="the same", force=False):
    """A file in the making."""
    out = files.OutputFile(path(name), "bregman/queries", files.Run("tokenize_queries", {"of": inputs}, []), force)
    for dataset, values in (("token", [1, 2]), ("count", [2]), ("completion_start", [1]), ("id", ["q"])):
        files.append(out.dataset(dataset), values)
    return out


def end(out):
    """Publish it: the error's text, or ""."""
    try:
        with out:
            pass
    except UserError as error:
        return str(error)
    return ""


def is_whole(name):
    """Listed as it is, with nothing beside it."""
    beside = [n for n in os.listdir(os.path.dirname(path(name))) if n not in (os.path.basename(name), "MANIFEST")]
    entry = files.manifest_entry(path(name))
    return not beside and entry and entry[:2] == (hashes.hash_file(path(name)), os.path.getsize(path(name)))


def dead_writer():
    """The name of a process that has ended."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); from bregman import writer; print(writer.writer_name())"
    scripts = os.path.dirname(os.path.dirname(writer.__file__))
    return subprocess.run(
        [sys.executable, "-c", program, scripts], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_hash_is_remembered():
    os.environ["BREGMAN_HASH_CACHE"] = path("remembered-hashes")
    out = attempt("remembered/q.h5")
    files.append(out.file["token"], [0] * (1 << 19))
    check(end(out) == "", "a large file")
    check(len(os.listdir(path("remembered-hashes"))) == 1, "the hash of a published file is remembered")
    right = hashes.hash_file(path("remembered/q.h5"))
    check(hashes.hash_file_once(path("remembered/q.h5")) == right, "as what it is")
    with open(path("remembered/q.h5"), "r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"x")
    check(hashes.hash_file_once(path("remembered/q.h5")) != right, "one that was edited is read again")
    del os.environ["BREGMAN_HASH_CACHE"]


def test_the_first_stays():
    first, second = attempt("first/q.h5"), attempt("first/q.h5")
    check(end(first) == "", "the first ends")
    inode = os.stat(path("first/q.h5")).st_ino
    check(end(second) == "" and os.stat(path("first/q.h5")).st_ino == inode, "the first one's file stays")
    check(is_whole("first/q.h5"), "it is listed", os.listdir(path("first")))

    other = attempt("first/q.h5", "others")
    check("was made from other inputs or options" in end(other), "one of other inputs is not replaced")
    check(os.stat(path("first/q.h5")).st_ino == inode and is_whole("first/q.h5"), "and stays as it is")
    check(end(attempt("first/q.h5", "others", True)) == "", "unless forced")
    check(os.stat(path("first/q.h5")).st_ino != inode and is_whole("first/q.h5"), "it is replaced and listed")


def test_not_listed():
    """The first attempt is killed, or held, between taking the name and listing it."""
    list_published, files.list_published = files.list_published, lambda *_: None
    for held in (False, True):
        name = f"held-{held}/q.h5"
        second = attempt(name)
        end(attempt(name))
        inode = os.stat(path(name)).st_ino
        if held:
            os.link(path(name), path(name) + "-held")
        files.list_published = list_published
        check(end(second) == "", "the second ends")
        files.list_published = lambda *_: None
        if held:
            os.unlink(path(name) + "-held")
        check((os.stat(path(name)).st_ino == inode) == held, f"held: {held}: whose file stays")
        check(is_whole(name), f"held: {held}: it is listed")
    files.list_published = list_published


def test_no_links():
    """On a file system without hard links."""

    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    os_link, os.link = os.link, link
    first, second = attempt("nolinks/q.h5"), attempt("nolinks/q.h5")
    check(end(first) == "", "the first ends")
    inode = os.stat(path("nolinks/q.h5")).st_ino
    check(end(second) == "" and os.stat(path("nolinks/q.h5")).st_ino == inode, "the first one's file stays")
    os.link = os_link
    check(is_whole("nolinks/q.h5"), "it is listed")


def test_who_is_dead():
    own, dead = writer.writer_name(), dead_writer()
    check(own != writer.writer_name() and writer.is_dead(dead) and not writer.is_dead(own), "who is dead", (own, dead))
    place, _, process = own.rpartition(f"-{os.getpid()}.")
    start, _, random = process.partition("-")
    check(writer.is_dead(f"{place}-{os.getpid()}.7-{random}"), "a number that another process has now")
    check(not writer.is_dead(f"{place}-{os.getpid()}.0-{random}"), "of which nobody could tell when it began")
    for name in ("x" + dead, dead + "0", FOREIGN, f"{place}-99999999999.1-{random}", f"{place}--1.1-{random}", place):
        check(not writer.is_dead(name), "no name of a process here", name)
    check(not any(writer.is_dead(dead[:n]) for n in range(len(dead))), "nor are cut ones")
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    began = writer._look_at_process(child.pid)[1]
    check(writer.is_dead(f"{place}-{child.pid}.{began}-{random}"), "one that has ended, and nobody has asked how")
    child.wait()


def killed_in(name, script, *arguments):
    """Start a script, kill all its processes when its file in the making is there; what they leave."""
    folder = os.path.dirname(path(name))
    started = subprocess.Popen(
        [sys.executable, os.path.join(files.ROOT, "scripts", script), *arguments], cwd=FOLDER, start_new_session=True
    )
    while not any(".tmp-" in n for n in os.listdir(folder)) and started.poll() is None:
        time.sleep(0.001)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    left = [n for n in os.listdir(folder) if ".tmp-" in n]
    while not all(writer.is_dead(n.partition(".tmp-")[2]) for n in left):
        time.sleep(0.001)
    return left


def test_killed():
    verify = os.path.join(os.environ["BUILD"], "bin", "verify")
    arguments = ("large.jsonl", "--model", MODEL, "--output", path("t"), "--processes", "1")
    left = killed_in("t/large.h5", "tokenize_corpus", *arguments)
    check(len(left) == 1, "a killed attempt leaves its file", left)
    open(path(f"t/large.h5.tmp-{FOREIGN}"), "w").close()
    check(run("tokenize_corpus", *arguments).returncode == 0, "the next attempt ends")
    told = subprocess.run([verify, path("t")], capture_output=True, text=True, check=False).stdout
    check(left[0] not in told and left[0] not in os.listdir(path("t")), "the dead one's file is gone", told)
    check("being written by process 12 of node7" in told, "another host's stays", told)

    open(path(f"t/{left[0]}"), "w").close()
    told = subprocess.run([verify, path("t")], capture_output=True, text=True, check=False).stdout
    check(
        re.search(f"{re.escape(left[0])}: left over by process .* gone: it can be removed", told), "verify tells", told
    )


def test_killed_while_listing():
    """What a dead writer has listed is folded, its flag is none."""
    write(f"fold/MANIFEST.d/{dead_writer()}.open", f"{'0' * 32} 7 a.h5\n")
    write(f"fold/MANIFEST.d/{dead_writer()}.fold", "")
    check(end(attempt("fold/q.h5")) == "" and is_whole("fold/q.h5"), "folded", os.listdir(path("fold")))
    check("a.h5" in files.read_manifest(path("fold")), "the dead one's line stays")


def test_hash_cache():
    """A place for hashes that cannot be written is told once, also by several processes."""
    time.sleep(hashes.SETTLED_S + 1.1)
    write("file", "")
    arguments = ("large.jsonl", "larger.jsonl", "--model", MODEL, "--output", path("cached"), "--processes", "1")
    places = os.path.join(FOLDER, "file", "environment"), os.path.join(FOLDER, "file", "option")
    for folder, options, environment in ((places[0], (), places[0]), (places[1], ("--hash-cache", places[1]), "")):
        done = run("tokenize_corpus", *arguments, *options, env={**os.environ, "BREGMAN_HASH_CACHE": environment})
        told = f'hashes of inputs cannot be remembered in "{folder}", so every run reads them anew: Not a directory; --hash-cache'
        check(done.returncode == 0 and done.stderr.count(told) == 1, "told once", done.stderr)
    done = run("tokenize_corpus", *arguments, "--hash-cache", path("hashes"))
    check(done.returncode == 0 and len(os.listdir(path("hashes"))) == 2, "the option's folder is used", done.stderr)


test_the_hash_is_remembered()
test_the_first_stays()
test_not_listed()
test_no_links()
test_who_is_dead()
test_killed()
test_killed_while_listing()
test_hash_cache()
finish()
