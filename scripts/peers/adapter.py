"""What the adapters of other tools share: options, Bregman's token and query files, and the file of scores that validate reads.

An adapter is run by a Python that has the tool, h5py and transformers, and needs nothing else of Bregman.  Its file of scores has
`score` [sequence, query], float32: higher where more training on the sequence lowers the query's loss; and the attribute `inputs`,
a digest of all that the scores depend on.  A file with the same digest is left as it is."""

import argparse
import hashlib
import importlib.metadata
import os
import sys
import traceback

import h5py

WORDS = ("mlp", "attention", "head")
RESULTS = 1  # raised when an adapter gives other scores than before for the same options and inputs


def parse_options(text, words, preconditioners):
    """The options of every adapter; words: of --modules, those that the tool can track."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, metavar="FOLDER", help="config.json, tokenizer.json and *.safetensors"
    )
    parser.add_argument(
        "--tokens", required=True, nargs="+", metavar="FILE", help="of tokenize_corpus: training sequences"
    )
    parser.add_argument("--queries", required=True, metavar="FILE", help="of tokenize_queries")
    parser.add_argument("--modules", required=True, metavar="WORD,...", help="some of " + ", ".join(words))
    parser.add_argument("--preconditioner", choices=preconditioners, default="ekfac", help="%(default)s")
    parser.add_argument(
        "--damping-factor",
        type=float,
        default=0.1,
        metavar="F",
        help="times each module's mean eigenvalue (%(default)s)",
    )
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="scores, to be written")
    parser.add_argument("--factors", required=True, metavar="FOLDER", help="where one fit is kept for all dampings")
    parser.add_argument("--seed", type=int, default=0, help="of the labels that are sampled (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(%(default)s)")
    options = parser.parse_args()
    wanted = options.modules.split(",")
    if not set(wanted) <= set(words):
        parser.error(f'--modules "{options.modules}": the tool tracks {", ".join(words)}')
    if not options.damping_factor > 0 or options.damping_factor == float("inf"):
        parser.error("--damping-factor takes a number above 0")
    options.modules = [word for word in words if word in wanted]
    return options


def read_ids(path):
    """(token ids of each sequence, where its completion starts: at 1, so that all predicted tokens count, in a corpus)"""
    with h5py.File(path) as file:
        if "loss" in file or file.attrs.get("attention") == "document":
            raise ValueError(f'"{path}" has a mask, or documents that read only themselves: neither is taken here')
        ids, count = file["token"][:].astype("int64"), file["count"][:].astype("int64")
        starts = file["completion_start"][:].tolist() if "completion_start" in file else [1] * len(count)
    if int(count.sum()) != len(ids):
        raise ValueError(f'"{path}": its counts add up to {int(count.sum())} tokens, it has {len(ids)}')
    found, at = [], 0
    for n in count.tolist():
        found.append(ids[at : at + n].tolist())
        at += n
    return found, starts


def read_corpus(paths):
    """As read_ids, of several files, in their order."""
    each = [read_ids(path) for path in paths]
    return [ids for found, _ in each for ids in found], [start for _, starts in each for start in starts]


def labels(ids, start):
    """The tokens whose loss counts; -100 for the others."""
    return [-100] * start + ids[start:]


def batch_of(sequences, tokens=2048):
    """How many sequences of the longest one's length make about so many tokens."""
    return max(1, tokens // max(map(len, sequences)))


def words_of(model):
    """{a linear layer's name: its word}, by how transformers names parts of blocks, in the model's order."""
    found, head = {}, model.get_output_embeddings()
    for name, module in model.named_modules():
        if type(module).__name__ not in ("Linear", "Conv1D"):
            continue
        parts = name.split(".")
        if module is head:
            found[name] = "head"
        elif "mlp" in parts:
            found[name] = "mlp"
        elif {"attn", "attention", "self_attn"} & set(parts):
            found[name] = "attention"
    return found


def tracked(model, words):
    """Names of the layers that the words stand for, which are some."""
    found = words_of(model)
    for word in words:
        if word not in found.values():
            raise ValueError(f'no linear layer of this {type(model).__name__} is known as "{word}"')
    return [name for name, word in found.items() if word in words]


def digest_of_file(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.digest()


def digest(options, package, damped=True):
    """Of contents of all files, options and versions; damped: with the damping, as scores depend on it and a fit does not."""
    found = hashlib.sha256()
    weights = [f for f in sorted(os.listdir(options.model)) if f.endswith(".safetensors")]
    files = [os.path.join(options.model, f) for f in ["config.json", *weights]]
    for path in [*files, *options.tokens, options.queries]:
        found.update(digest_of_file(path))
    said = [RESULTS, options.modules, options.preconditioner, options.seed, len(options.tokens)]
    said += [(name, importlib.metadata.version(name)) for name in (package, "torch", "transformers")]
    found.update(repr([*said, options.damping_factor if damped else None]).encode())
    return found.hexdigest()


def made_before(path, inputs):
    try:
        with h5py.File(path) as file:
            return file.attrs["inputs"] == inputs
    except (OSError, KeyError):
        return False


def write_scores(path, scores, inputs):
    """All of it or nothing."""
    part = f"{path}.part"
    with h5py.File(part, "w") as file:
        file["score"] = scores.astype("float32")
        file.attrs["inputs"] = inputs
    os.replace(part, path)


def run(text, package, make, words=WORDS, preconditioners=("ekfac",)):
    """The adapter's main: make(options, fit) -> scores [sequence, query]; fit: folder of the fit, that of these inputs alone.

    An error is one line that names the adapter, the last one, which validate shows.  --version imports the tool: it fails where
    that cannot be used."""
    name = os.path.basename(sys.argv[0])
    try:
        if sys.argv[1:] == ["--version"]:
            make(None, None)
            print(
                f"{name}: {package} {importlib.metadata.version(package)}, torch {importlib.metadata.version('torch')}"
            )
            return
        options = parse_options(text, words, preconditioners)
        # before torch is imported, which reads them once
        os.environ.update(
            dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
        )
        inputs = digest(options, package)
        if made_before(options.output, inputs):
            print(f"{name}: already done", file=sys.stderr)
            return
        fit = os.path.join(options.factors, digest(options, package, damped=False)[:16])
        os.makedirs(options.factors, exist_ok=True)
        write_scores(options.output, make(options, fit), inputs)
    except Exception as error:  # whatever another package raises
        traceback.print_exc()
        sys.exit(f"{name}: error: {type(error).__name__}: {' '.join(str(error).split())}")
