"""Words for the modules that a method tracks."""

MODULES = ("mlp", "attention", "all", "embedding", "head")


def words_of(modules):
    """Of "mlp,head" or "all" the words of which each tracks modules of its own; a regular expression as it is."""
    return [word for word in MODULES if word in modules.replace("all", "mlp,attention").split(",")] or [modules]
