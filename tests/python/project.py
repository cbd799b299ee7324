"""Where the project is.  Import it before packages that are not Python's own: it puts scripts/ on the path and starts the
program again with the scripts' interpreter."""

import os
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
import bregman.env  # noqa: F401
