"""What is said of a step that no kernel can run: what it does, in which file and line."""

import inspect
import linecache
import os
import sys
import traceback
from pathlib import Path

import torch

INNER = tuple(str(Path(file).parent) + os.sep for file in (__file__, torch.__file__))


class Refused(TypeError):
    """A step does what no kernel can. The message says what, and where: file, line and text."""


def refuse(what):
    """Raise Refused for what the step's line that is running now does."""
    raise _refused(what, traceback.walk_stack(sys._getframe(1)))


def broken(error):
    """The Refused for an error that running a step on symbols has raised."""
    if isinstance(error, Refused):
        return error
    frames = reversed(list(traceback.walk_tb(error.__traceback__)))
    first, *_ = f"{type(error).__name__}: {error}".splitlines()
    return _refused(first, frames)


def badly_made(what, step):
    """The Refused for what is wrong with a step as a whole."""
    code = getattr(inspect.unwrap(step), "__code__", None)
    return Refused(what if code is None else _at(what, code.co_filename, code.co_firstlineno))


def _refused(what, frames):
    for frame, line in frames:
        name = frame.f_code.co_filename
        if not name.startswith(INNER):
            return Refused(_at(what, name, line))
    return Refused(what)


def _at(what, name, line):
    return f"{what}\n  {name}, line {line}: {linecache.getline(name, line).strip()}"
