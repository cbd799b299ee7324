"""Names by which files in the making say who makes them, and whether that one still lives: include/bregman/writer.h has the same."""

import contextlib
import os
import platform
import re
import secrets
import shutil

from bregman.errors import UserError, os_error_text

MARK = ".tmp-"


def _place():
    """(HOST.BOOT.NAMESPACE, does the system tell, and of this namespace's processes?)"""
    boot, space, told = "0", 0, False
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
        space = os.stat("/proc/self/ns/pid").st_ino
        told = os.readlink("/proc/self") == str(os.getpid())
    return f"{platform.node()}.{boot}.{space}", told


def _look_at_process(pid):
    """(the letter of its state, when it began in ticks since the boot), or None where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # behind the command's name, which may have any character
    except OSError:
        return None
    return (fields[0], int(fields[19])) if len(fields) > 19 else None


def writer_name():
    """Another name at each call."""
    _, start = _look_at_process(os.getpid()) or ("", 0)
    return f"{_place()[0]:.100}-{os.getpid()}.{start}-{secrets.token_hex(4)}"


def is_dead(writer):
    """Is it certain that a writer is gone?  Of another host, boot or container nothing can be said."""
    place, told = _place()
    fields = re.fullmatch(r"-([0-9]{1,10})(?:\.([0-9]+))?-[0-9a-f]{8}", writer.removeprefix(place))
    if not told or not writer.startswith(place) or not fields or not 0 < int(fields[1]) < 1 << 31:
        return False
    try:
        os.kill(int(fields[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    start, now = int(fields[2] or 0), _look_at_process(int(fields[1]))
    # it began at another time, or has ended, and nobody has asked how
    return bool(start and now) and (now[1] != start or now[0] in "ZX")


def attempt_name(path):
    """A name beside `path` that no other attempt uses."""
    return path + MARK + writer_name()


def remove_leftovers(path):
    """Remove what dead writers have left of a file or folder; of all files of a folder if `path` ends in a slash.

    What others may still be writing stays.  A folder that is not there, or cannot be read, has none."""
    folder, wanted = os.path.split(path)
    found = []
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        found = [entry for entry in entries if MARK in entry.name]
    for entry in found:
        name, _, writer = entry.name.rpartition(MARK)
        if wanted not in ("", name) or not is_dead(writer):
            continue
        try:
            if entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
            elif wanted and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
        except FileNotFoundError:
            pass  # another attempt removes it too
        except OSError as error:
            raise UserError(
                f'cannot remove "{entry.path}", which an attempt that was killed has left: {os_error_text(error)}'
            ) from None
