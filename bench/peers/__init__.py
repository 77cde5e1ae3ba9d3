"""Whom fastrnn is measured against: one file in this folder each, named as the peer is.

A peer is a module with three functions:

    available() -> None, or the reason why it cannot be had here, in words
    version() -> text
    build(case, data) -> bench.data.Call; raises CannotServe(reason) for a case it has nothing for

Every file here is found by itself: adding a peer is adding a file.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

BASELINE = "torch_nn"
OURS = "fastrnn"


class CannotServe(Exception):
    """A peer has nothing for a case; the message says why."""


def missing(*packages):
    """What ``available`` says of ``packages``: None if all are installed."""
    absent = [name for name in packages if find_spec(name) is None]
    return f"needs pip install {' '.join(absent)}" if absent else None


def names():
    """All peers, torch.nn first and fastrnn second."""
    found = (module.name for module in iter_modules(__path__))
    return sorted(found, key=lambda name: (name != BASELINE, name != OURS, name))


def load(chosen):
    """{name: peer} of the names, in the order of ``names``."""
    return {name: import_module(f"{__name__}.{name}") for name in names() if name in chosen}
