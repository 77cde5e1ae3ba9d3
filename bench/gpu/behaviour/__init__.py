"""What the engine must do besides being right: a function each, that returns what to report.

Each asserts what it is about. ``common.Skip`` says that this machine cannot tell.
"""

from . import common, eager, recorded


def find(what):
    """The function called ``what``."""
    return getattr(eager, what, None) or getattr(recorded, what)


def run(what):
    """{"right": True, ...} of the behaviour called ``what``."""
    try:
        return {"right": True, **(find(what)() or {})}
    except common.Skip as reason:
        return {"skipped": str(reason)}
