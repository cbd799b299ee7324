"""Runs a script with an interpreter that has the packages of requirements.txt.

Import it before anything else.  Where the packages are missing, the script is started again with the
Python of $BREGMAN_VENV, or of build/venv beside scripts/ (made by scripts/setup.sh).
"""

import importlib.util
import os
import sys

from bregman import ROOT

PACKAGES = ("gguf", "h5py", "jinja2", "matplotlib", "numpy", "pyarrow", "tokenizers", "tqdm", "xxhash", "zstandard")

SETUP = os.path.join(ROOT, "scripts", "setup.sh")


def _missing():
    return [p for p in PACKAGES if importlib.util.find_spec(p) is None]


def _virtual_environment():
    """The environment's folder, or None: a $BREGMAN_VENV that is set is the user's word and must work."""
    wanted = os.environ.get("BREGMAN_VENV")
    folder = os.path.abspath(wanted or os.path.join(ROOT, "build", "venv"))
    if os.access(os.path.join(folder, "bin", "python"), os.X_OK):
        return folder
    if wanted:
        sys.exit(f'{os.path.basename(sys.argv[0])}: BREGMAN_VENV "{wanted}" has no bin/python; run {SETUP}')
    return None


def _ensure():
    folder = _virtual_environment()
    if folder and os.path.realpath(sys.prefix) != os.path.realpath(folder):
        python = os.path.join(folder, "bin", "python")
        os.execv(python, [python, *sys.argv])
    missing = _missing()
    if missing:
        sys.exit(
            f"{os.path.basename(sys.argv[0])}: {sys.executable} lacks {', '.join(missing)}; run {SETUP} --python, "
            "or set BREGMAN_VENV to an environment that has the packages of requirements.txt"
        )


_ensure()
# Many cluster file systems have no flock; nothing here is shared while it is written.  HDF5 reads this when h5py is imported.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
# The workers of a script are processes; threads inside the tokenizers library would compete with them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
