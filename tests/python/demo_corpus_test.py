#!/usr/bin/env python3
"""The packages of the demo's corpus, from an apt that has one version of each: they follow the release, and what is taken in place of
a pinned version is said once."""

import contextlib
import io
import json
import os
import platform

from text_checks import SCRIPTS, check, finish, load, path, write

TOOLS = {
    "apt-get": """case $3 in *=*) [ "${3#*=}" = 2.0 ] || exit 1 ;; esac; touch "${3%=*}_2.0_all.deb" """,
    "apt-cache": """printf '%s\\n' python3-doc '  Depends: sensible-utils' '  Depends: python3.99-doc' '  Suggests: python3.98-doc'""",
    "dpkg-deb": """case $1 in -f) echo 2.0 ;; -x) mkdir -p "$3/usr" ;; esac""",
}


def said(packages, package):
    """What fetching a package prints."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        root = packages.root(package)
    check(os.path.isdir(f"{root}/usr"), f"{package} is unpacked")
    return text.getvalue()


def test_packages():
    for name, body in TOOLS.items():
        os.chmod(write(f"bin/{name}", f"#!/bin/sh\n{body}\n"), 0o755)
    os.environ["PATH"] = path("bin") + os.pathsep + os.environ["PATH"]
    write("here/corpus_versions.json", json.dumps({"debian 7": {"old": "1.0", "same": "2.0"}}))
    demo_corpus = load("demo/corpus.py")
    demo_corpus.HERE = path("here")
    for release, old in (
        ("7", "old 2.0 in place of 1.0, which the archive no longer has"),
        ("8", "old 2.0 is what the archive has now"),
    ):
        platform.freedesktop_os_release = lambda release=release: {"ID": "debian", "VERSION_ID": release}
        packages = demo_corpus.Packages(path(f"cache-{release}"))
        check(said(packages, "old") == f"corpus.py: {old}\n", f"Debian {release}: what is taken is said")
        check(said(packages, "old") == "", f"Debian {release}: and said once")
        check((said(packages, "same") == "") == (release == "7"), f"Debian {release}: a pinned version needs no word")
    check(
        packages.dependency("python3-doc", r"python3\.\d+-doc") == "python3.99-doc",
        "the release's Python documentation",
    )
    try:
        packages.dependency("python3-doc", "perl-doc")
        check(False, "no such dependency")
    except demo_corpus.UserError as error:
        check("python3-doc" in str(error), "the package is named", error)


def test_pins():
    """Each release pins the same packages."""
    with open(os.path.join(SCRIPTS, "demo", "corpus_versions.json"), encoding="utf-8") as file:
        pins = json.load(file)
    kinds = {
        tuple("python3-doc" if name.startswith("python3.") else name for name in release) for release in pins.values()
    }
    check(len(pins) >= 2 and len(kinds) == 1, "the same packages of each release", kinds)


def test_parallel():
    """Manual pages with all their translations or not at all, those with most first; none without English or alone."""
    pages = {"a.1": ("en", "de"), "b.1": ("en", "de", "fr"), "c.1": ("de", "fr"), "d.1": ("en",)}
    texts = [(f"man/{lang}/{name}", "x" * 100, lang, "p") for name, langs in pages.items() for lang in langs]
    within = load("demo/corpus.py").pages_within
    for n_bytes, wanted in ((1000, ["b.1"] * 3 + ["a.1"] * 2), (499, ["b.1"] * 3), (200, ["a.1"] * 2), (100, [])):
        found = [document[0].split("/")[2] for document in within(texts, n_bytes)]
        check(found == wanted, f"parallel pages in {n_bytes} bytes", found)


test_packages()
test_pins()
test_parallel()
finish()
