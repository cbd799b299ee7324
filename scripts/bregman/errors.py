"""Errors that are the user's to put right, and how a program reports them."""

import os
import re
import sys


class UserError(Exception):
    """Something the user can put right: reported as one line, exit 1."""


class UsageError(Exception):
    """A wrong command line: reported as one line, exit 2."""


def run_main(main):
    """Run main(); report what went wrong as one line; exit 0, 1, 2 (usage) or 130 (interrupted)."""
    name = os.path.basename(sys.argv[0])
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8; stderr is like that already
    try:
        main()
        sys.stdout.flush()
    except (UserError, UsageError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        print(f"{name}: {os_error_text(error)}", file=sys.stderr)
        sys.exit(1)


def os_error_text(error):
    """The cause in a few words: of an OSError, or of HDF5's RuntimeError, a long text with the system's message inside."""
    system = re.search(r"error message = '([^']*)'", str(error))
    if system:
        return system.group(1)
    if getattr(error, "strerror", None):
        cause = error.strerror.split("\n")[0]
        return f'{cause}: "{error.filename}"' if error.filename else cause
    return str(error).split("\n")[0]
