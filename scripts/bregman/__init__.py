"""What the programs of scripts/ are made of.  A program's first import is bregman.env: it may start another interpreter, so
nothing that a package must be found for may come before it."""

import os

# the folder of this repository, or what is laid out like it: libexec/bregman of an installation
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))
