"""Errors that are the user's to put right."""


class UserError(Exception):
    """Something the user can put right: reported as one line, exit 1."""


class UsageError(Exception):
    """A wrong command line: reported as one line, exit 2."""
