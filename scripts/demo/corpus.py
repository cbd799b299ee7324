#!/usr/bin/env python3
"""Make a small multilingual corpus, OUT.jsonl, from the texts in Debian packages; nothing is installed.

One JSON object a line: {"id", "text", "lang", "source"}, source being the package. Packages are downloaded by
apt-get (no root needed) and unpacked under --cache. Their versions are pinned for each release in
corpus_versions.json; where the archive has moved on, or the release is another, the current version is taken and
the script says so. The same versions give the same bytes. A corpus of --mb megabytes holds a share of each kind of
text, chosen by a hash of the ids, and always the documents that queries.jsonl asks about. Documents are cut at
--max-chars, all alike.

With --parallel documents have translations: of manual pages those that are there in English and other languages, each in all
its languages (man/en/NAME, man/de/NAME, ...), those with most of them first.  Nothing is taken for the demo's queries then.

Licences: manual pages (man/, from manpages*): each its own, mostly GPL-2+, BSD, MIT or the Linux man-pages
"verbatim" licence, see the packages' copyright files. Python documentation (pydoc/): PSF-2.0. Licence texts
(lic/): may be copied verbatim. King James Bible (kjv/) and Jane Austen's novels (austen/): public domain.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import bregman.env  # noqa: F401  (first: it may start another interpreter)

import argparse
import glob
import gzip
import hashlib
import json
import platform
import re
import struct
import subprocess
import unicodedata
import zlib

from bregman.errors import UserError, run_main
from bregman.writer import attempt_name, remove_leftovers

HERE = os.path.dirname(os.path.realpath(__file__))
MAN_PACKAGES = {"en": "manpages", "de": "manpages-de", "fr": "manpages-fr", "es": "manpages-es", "ja": "manpages-ja"}
# share of the corpus's bytes; manual pages are split evenly over the languages
SHARES = {"man": 0.45, "pydoc": 0.2, "kjv": 0.13, "austen": 0.15, "lic": 0.07}
MIN_CHARS, MAX_CHARS = 200, 60000  # longer documents are left out


def release():
    """The system's name and version, "debian 12"."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{system['ID']} {system.get('VERSION_ID', '')}"


class Packages:
    """Downloads and unpacks packages, each once."""

    def __init__(self, cache):
        self.cache = os.path.abspath(cache)
        self.debs = os.path.join(self.cache, "debs")
        os.makedirs(self.debs, exist_ok=True)
        if os.geteuid() == 0:
            os.chmod(self.debs, 0o777)  # apt downloads as its own user where it can
        with open(os.path.join(HERE, "corpus_versions.json"), encoding="utf-8") as file:
            self.pinned = json.load(file).get(release(), {})

    def _run(self, *command, **keywords):
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, **keywords)
        except FileNotFoundError:
            raise UserError(f'"{command[0]}" is not installed: the demo corpus is made from Debian packages') from None

    def _deb(self, package):
        found = sorted(glob.glob(os.path.join(self.debs, package + "_*.deb")))
        return found[-1] if found else None

    def _download(self, package):
        pinned = self.pinned.get(package)
        for wanted in ([f"{package}={pinned}"] if pinned else []) + [package]:
            done = self._run("apt-get", "download", "-q", wanted, cwd=self.debs)
            deb = self._deb(package)
            if done.returncode == 0 and deb:
                if wanted == package:
                    version = self._run("dpkg-deb", "-f", deb, "Version").stdout.strip()
                    reason = (
                        f"in place of {pinned}, which the archive no longer has"
                        if pinned
                        else "is what the archive has now"
                    )
                    print(f"corpus.py: {package} {version} {reason}", file=sys.stderr)
                return deb
        message = (done.stderr.strip() or "no file came").splitlines()[-1]
        raise UserError(f'cannot download the package "{package}": {message} (is "apt-get update" done?)')

    def root(self, package):
        """Folder that the package is unpacked in."""
        deb = self._deb(package) or self._download(package)
        root = os.path.join(self.cache, "unpacked", os.path.basename(deb)[:-4])
        if not os.path.isdir(root):
            remove_leftovers(root)
            temporary = attempt_name(root)
            os.makedirs(temporary)
            done = self._run("dpkg-deb", "-x", deb, temporary)
            if done.returncode:
                os.unlink(deb)
                raise UserError(f'cannot unpack "{deb}" (removed; run again): {done.stderr.strip()}')
            os.rename(temporary, root)
        return root

    def dependency(self, package, pattern):
        """The package that this one depends on and whose name has the pattern."""
        for line in self._run("env", "LC_ALL=C", "apt-cache", "depends", package).stdout.split("\n"):
            found = re.fullmatch(rf"\s*Depends: ({pattern})", line)
            if found:
                return found.group(1)
        raise UserError(
            f'the archive has no package "{package}" that depends on a {pattern} (is "apt-get update" done?)'
        )

    def output_of(self, *command, **keywords):
        done = self._run(*command, **keywords)
        if done.returncode and not done.stdout:
            raise UserError(f'"{os.path.basename(command[0])}" failed: {done.stderr.strip()[:200]}')
        return done.stdout


# ---------------------------------------------------------------- the sources: (id, text, lang, package)


def files_under(root, suffix):
    found = [
        os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if name.endswith(suffix)
    ]
    return sorted(path for path in found if not os.path.islink(path))


def read_text(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def manual_pages(packages, planned):
    """Pages whose id is planned: rendering all of them would take minutes."""
    mandoc = packages.root("mandoc") + "/usr/bin/mandoc"
    for lang, package in MAN_PACKAGES.items():
        for path in files_under(packages.root(package) + "/usr/share/man", ".gz"):
            name, section = os.path.basename(path)[:-3].rsplit(".", 1)
            page_id = f"man/{lang}/{name}.{section}"
            source = read_text(path) if page_id in planned else ".so"
            if re.match(r"\s*\.so\b", source):  # stands for another page
                continue
            # one output line per paragraph: the width is beyond any
            text = packages.output_of(mandoc, "-K", "utf-8", "-T", "utf8", "-O", "width=990,indent=0", input=source)
            lines = re.sub(".\x08", "", text).strip("\n").split("\n")[1:-1]  # without running header and footer
            body = re.sub("^ {7}", "", "\n".join(lines), flags=re.M)
            yield page_id, f"{name}({section})\n{body}", lang, package


def python_docs(packages):
    package = packages.dependency("python3-doc", r"python3\.\d+-doc")
    for path in files_under(packages.root(package), ".rst.txt"):
        name = path.split("/_sources/")[1][: -len(".rst.txt")]
        if name.startswith(("library/", "tutorial/", "howto/", "reference/", "faq/")):
            yield f"pydoc/en/{name}", read_text(path), "en", package


def licences(packages):
    folder = packages.root("base-files") + "/usr/share/common-licenses"
    for name in sorted(os.listdir(folder)):
        if not os.path.islink(os.path.join(folder, name)):
            yield f"lic/en/{name}", read_text(os.path.join(folder, name)), "en", "base-files"


def bible(packages):
    """A document per chapter, a line per verse."""
    program = packages.root("bible-kjv") + "/usr/bin/bible"
    data = packages.root("bible-kjv-text") + "/usr/lib"
    chapters = {}
    for line in packages.output_of(program, "-p", data, "-f", "gen1:1-rev22:21").split("\n"):
        verse = re.match(r"([1-3]?[A-Za-z]+?)(\d+):(\d+) (.*)", line)
        if verse:
            book, chapter, number, text = verse.groups()
            chapters.setdefault((book, int(chapter)), []).append(f"{chapter}:{number} {text}")
    for (book, chapter), verses in chapters.items():
        yield f"kjv/en/{book}{chapter:03d}", "\n".join(verses), "en", "bible-kjv-text"


def r_strings(data):
    """The character strings of an R serialisation (XDR), in order."""
    found, i = [], data.find(b"X\n") + 2
    while i + 8 <= len(data):
        flags, length = struct.unpack_from(">ii", data, i)
        is_string = flags & 0xFF == 9 and flags >> 8 & 0xFF in (0, 1) and flags >> 18 & 0x3FFF in (0, 1, 2)
        if is_string and 0 <= length <= 4000 and i + 8 + length <= len(data):
            found.append(data[i + 8 : i + 8 + length].decode("utf-8", "replace"))
            i += 8 + length
        else:
            i += 1
    return found


def novels(packages):
    """Lines of each novel: R's lazy-load file is a row of zlib streams, each after its 4-byte size."""
    path = packages.root("r-cran-janeaustenr") + "/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at + 4 < len(data):
        stream = zlib.decompressobj()
        try:
            lines = r_strings(stream.decompress(data[at + 4 :]))
        except zlib.error:
            at += 1
            continue
        at = len(data) - len(stream.unused_data)
        if sum(map(len, lines)) > 100000:
            yield lines


def austen(packages):
    """A document per chapter."""
    for lines in sorted(novels(packages)):
        title = re.sub(r"[^A-Za-z]+", "_", lines[0].strip().title())[:30].strip("_")
        chapters = [[]]
        for line in lines:
            if re.match(r"chapter ", line.strip(), re.I) and sum(map(len, chapters[-1])) > 1500:
                chapters.append([])
            chapters[-1].append(line)
        for i, chapter in enumerate(chapters):
            yield f"austen/en/{title}/{i:02d}", "\n".join(chapter), "en", "r-cran-janeaustenr"


# ---------------------------------------------------------------- choosing


def normalise(text):
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u00a0", " ").replace("\u200b", ""))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    text = re.sub(r"(?<=\S)[ \t]{2,}(?=\S)", "  ", re.sub(r"[ \t]+\n", "\n", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def beginning(text, max_chars):
    """The whole lines among the first max_chars characters."""
    if max_chars == 0 or len(text) <= max_chars:
        return text
    return text[: text.rfind("\n", 0, max_chars) + 1] or text[:max_chars]


def rank(document_id):
    return hashlib.sha256(document_id.encode()).hexdigest()


def always_kept():
    """Ids, or their beginnings, that the demo queries are about."""
    with open(os.path.join(HERE, "queries.jsonl"), encoding="utf-8") as file:
        return tuple(prefix for line in file for prefix in json.loads(line)["expect"])


def within(documents, kept, n_bytes):
    """Kept documents, then others in hash order while they fit."""
    chosen, size = [], 0
    for document in sorted(documents, key=lambda d: (not d[0].startswith(kept), rank(d[0]))):
        length = len(document[1].encode())
        if document[0].startswith(kept) or (size + length <= n_bytes and len(document[1]) <= MAX_CHARS):
            chosen.append(document)
            size += length
    return chosen


def page_name(page_id):
    """A manual page's id without its language."""
    return page_id.split("/", 2)[2]


def pages_within(documents, n_bytes):
    """Manual pages with all their translations, those with most of them first, then in hash order, while they fit."""
    pages, chosen, size = {}, [], 0
    for document in documents:
        pages.setdefault(page_name(document[0]), []).append(document)
    for name in sorted(pages, key=lambda name: (-len(pages[name]), rank(name))):
        languages = {lang for _, _, lang, _ in pages[name]}
        length = sum(len(text.encode()) for _, text, _, _ in pages[name])
        too_long = any(len(text) > MAX_CHARS for _, text, _, _ in pages[name])
        if "en" in languages and len(languages) > 1 and not too_long and size + length <= n_bytes:
            chosen += pages[name]
            size += length
    return chosen


def collect(packages, n_bytes, max_chars, parallel=False):
    kept = () if parallel else always_kept()
    man_bytes, language_bytes = n_bytes * SHARES["man"], n_bytes * SHARES["man"] / len(MAN_PACKAGES)
    groups = {kind: (n_bytes * share, []) for kind, share in SHARES.items() if kind != "man"}
    if parallel:
        planned = plan_translated(packages, 2 * man_bytes, max_chars)
        groups["man"] = (man_bytes, [])
    else:
        planned = plan_pages(packages, kept, 2 * language_bytes, max_chars)
        groups.update({"man/" + lang: (language_bytes, []) for lang in MAN_PACKAGES})
    for source in (
        manual_pages(packages, planned),
        python_docs(packages),
        licences(packages),
        bible(packages),
        austen(packages),
    ):
        for name, text, lang, package in source:
            text = beginning(normalise(text), max_chars)
            if len(text) >= MIN_CHARS:
                group = f"man/{lang}" if name.startswith("man/") and not parallel else name.split("/")[0]
                groups[group][1].append((name, text, lang, package))
    chosen = pages_within(groups["man"][1], groups.pop("man")[0]) if parallel else []
    chosen += [document for size, documents in groups.values() for document in within(documents, kept, size)]
    missing = [prefix for prefix in kept if not any(document[0].startswith(prefix) for document in chosen)]
    if missing:
        raise UserError(f"documents that the demo queries are about were not found: {', '.join(missing)}")
    return sorted(chosen, key=lambda document: rank(document[0]))


def page_sizes(packages, lang, max_chars):
    """{id: about how long it is} of the manual pages in a language, by their source's size."""
    sizes = {}
    for path in files_under(packages.root(MAN_PACKAGES[lang]) + "/usr/share/man", ".gz"):
        size = 3 * os.path.getsize(path)
        sizes["man/{}/{}".format(lang, os.path.basename(path)[:-3])] = min(size, max_chars or size)
    return sizes


def plan_translated(packages, n_bytes, max_chars):
    """Ids of enough manual pages in English, and of their translations."""
    pages, planned, total = {}, set(), 0
    for lang in MAN_PACKAGES:
        for name, size in page_sizes(packages, lang, max_chars).items():
            pages.setdefault(page_name(name), {})[name] = size
    for page in sorted(pages, key=lambda page: (-len(pages[page]), rank(page))):
        if f"man/en/{page}" in pages[page] and len(pages[page]) > 1 and total < n_bytes:
            planned.update(pages[page])
            total += sum(pages[page].values())
    return planned


def plan_pages(packages, kept, language_bytes, max_chars):
    """Ids of enough manual pages for each language, so that only these are rendered."""
    planned = set()
    for lang in MAN_PACKAGES:
        sizes = page_sizes(packages, lang, max_chars)
        total = 0
        for name in sorted(sizes, key=lambda name: (not name.startswith(kept), rank(name))):
            if name.startswith(kept) or total < language_bytes:
                planned.add(name)
                total += sizes[name]
    return planned


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="OUT.jsonl")
    parser.add_argument(
        "--cache", default="build/demo/packages", metavar="DIR", help="for packages (build/demo/packages)"
    )
    parser.add_argument("--mb", type=float, default=3.0, metavar="N", help="about how many megabytes of text (3)")
    parser.add_argument(
        "--max-chars",
        type=int,
        default=0,
        metavar="N",
        help="of a longer document only the first N characters (0: no limit)",
    )
    parser.add_argument("--parallel", action="store_true", help="manual pages in English and all their translations")
    options = parser.parse_args()
    documents = collect(Packages(options.cache), options.mb * 1e6, options.max_chars, options.parallel)
    remove_leftovers(options.output)
    temporary = attempt_name(options.output)
    digest, size = hashlib.sha256(), 0
    try:
        with open(temporary, "wb") as file:
            for name, text, lang, package in documents:
                line = (
                    json.dumps({"id": name, "text": text, "lang": lang, "source": package}, ensure_ascii=False) + "\n"
                )
                file.write(line.encode())
                digest.update(line.encode())
                size += len(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, options.output)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    print(
        f"{options.output}: {len(documents)} documents, {size / 1e6:.2f} MB of text, sha256 {digest.hexdigest()}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_main(main)
