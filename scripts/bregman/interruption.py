"""Signals to programs of several processes: each unwinds, which removes its temporary files, and none outlives its parent."""

import ctypes
import signal
import sys

UNWIND_S = 10


class Interruption:
    """What is raised in a signal handler is lost where Python or HDF5 call back and ignore errors: so it is looked for too."""

    asked = False

    @classmethod
    def check(cls):
        if cls.asked:
            raise KeyboardInterrupt

    @staticmethod
    def ignore_lost(lost):
        """sys.unraisablehook"""
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)


def interrupt_once(_number, _frame):
    """Signal handler: unwind, which removes temporary files, undisturbed by further signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Interruption.asked = True
    raise KeyboardInterrupt


def interrupt_child(number, frame):
    """Signal handler of a process whose parent may be gone: SIGALRM ends it where what is raised is lost, as in HDF5's callbacks."""
    signal.alarm(UNWIND_S)
    interrupt_once(number, frame)


def end_with_parent(number):
    """A child leaves Ctrl-C to its parent, and gets a signal when that ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
