"""Running other programs, which end this one where they fail: what the programs of scripts/demo share."""

import os
import signal
import subprocess
import sys

from bregman import ROOT


def call(command):
    """Ends this program with the command's code where it fails: 75 where it was stopped.  Ctrl-C reaches the command by itself,
    SIGTERM is passed on: it ends when it has kept what it has done."""
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(command) as child:
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
    if code:
        sys.exit(code if code > 0 else 128 - code)


def run(script, *arguments):
    """A program of scripts/."""
    command = [sys.executable, os.path.join(ROOT, "scripts", script), *map(str, arguments)]
    print("$ " + " ".join([script, *command[2:]]), file=sys.stderr, flush=True)
    call(command)
