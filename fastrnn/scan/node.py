"""The values of a step, as a graph; and where in the user's code each is made."""

import linecache
import sys
from itertools import count
from pathlib import Path

import torch

from ..kernels.symbolic.refusals import Refused

# What a value depends on: nothing of the sequence, the step's input alone, or the states.
FIXED, X, STATE = range(3)
HERE, TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)
_numbers = count()


class Node:
    """A value of the step: func(*args, **kwargs), of other nodes; func is None for what is given.

    kind: FIXED, X or STATE; shape: of several values a list of theirs; place: (file, line).
    """

    __slots__ = ("args", "dtype", "func", "kind", "kwargs", "number", "place", "shape")

    def __init__(self, func, args, kwargs, kind, like, place=None):
        self.func, self.args, self.kwargs, self.kind, self.place = func, args, kwargs, kind, place
        several = isinstance(like, (tuple, list))
        self.shape = [tuple(t.shape) for t in like] if several else tuple(like.shape)
        self.dtype, self.number = getattr(like, "dtype", None), next(_numbers)

    @property
    def name(self):
        return getattr(self.func, "__name__", str(self.func))

    def inputs(self):
        return [a for a in leaves((self.args, self.kwargs)) if isinstance(a, Node)]

    def compute(self, values):
        """Its value, from those of its inputs."""

        def value(leaf):
            return values[leaf] if isinstance(leaf, Node) else leaf

        return self.func(*replaced(self.args, value), **replaced(self.kwargs, value))


class Like:
    """The shape and dtype of a tensor that is not there."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype


def leaves(tree):
    """What tuples, lists and dicts hold, however deep."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return [tree]
    return [leaf for each in tree for leaf in leaves(each)]


def replaced(tree, by):
    """The same tuples, lists and dicts of by(leaf)."""
    if isinstance(tree, dict):
        return {key: replaced(each, by) for key, each in tree.items()}
    if isinstance(tree, (tuple, list)):
        found = [replaced(each, by) for each in tree]
        return tuple(found) if isinstance(tree, tuple) else found
    return by(tree)


def ancestors(wanted, known):
    """All that ``wanted`` are made of, in the order of its making, down to ``known``."""
    found, waiting = set(), [n for n in wanted if n not in known]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [n for n in node.inputs() if n not in known]
    return sorted(found, key=lambda node: node.number)


def place():
    """Where the user's code is: (file, line)."""
    frame = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith((HERE, TORCH)):
        frame = frame.f_back
    return frame and (frame.f_code.co_filename, frame.f_lineno)


def refused(what, where):
    """The error that says what cannot be, and where."""
    if where is None:
        return Refused(what)
    return Refused(f"{what}\n  {where[0]}, line {where[1]}: {linecache.getline(*where).strip()}")
