"""What the tests that end jobs share: the processes of a session, and signals to them."""

import glob
import os
import signal


def members(session, states="RSDTtIW"):
    """Processes of a session, mpirun and its ranks, that are in one of the states of proc(5)."""
    found = []
    for entry in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(entry, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if int(fields[3]) == session and fields[0] in states:
            found.append((int(entry.split("/")[2]), name))
    return found


def send(session, number, only=None):
    """Signal a session's processes, or those of one name."""
    for pid, name in members(session):
        if only is None or name == only:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def kill(session):
    """All at once: stopped first, so that none can react to another's end."""
    send(session, signal.SIGSTOP)
    send(session, signal.SIGKILL)
