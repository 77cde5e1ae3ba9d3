"""A kernel that cannot be compiled or launched here is tried once: from then on others serve.

Whatever fails before a kernel has run has changed nothing that anybody sees: the compiler, the
driver's loader, a cache that cannot be written, a launch that is refused.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..refused import Failed

_failed = {}


class Key(NamedTuple):
    """What it depends on whether a kernel runs."""

    cell: str  # its key
    name: str  # and what people call it
    arithmetic: str
    H: int
    D: int
    direction: str  # of time
    tile: tuple
    device: torch.device

    def __str__(self):
        return f"the {self.direction} kernel of {self.name}, {self.arithmetic}, H = {self.H}"


def refuse(key):
    """Raise Failed if this kernel has failed before."""
    if key in _failed:
        raise Failed("triton", _failed[key])


def failures():
    """Why kernels have failed, in words, the last one last."""
    return list(_failed.values())


def forget():
    """Have kernels tried anew that have failed before."""
    _failed.clear()


@contextmanager
def attempt(key):
    """Round a launch, which raises Failed if anything but the memory gave out."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds, not all of them RuntimeErrors
        if "out of memory" in str(error):  # as the driver says it through Triton
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _failed[key] = f"{key} does not run here: {said}"
        if capturing(key.device):
            raise RuntimeError(
                f"fastrnn: {_failed[key]}. While a CUDA graph is captured nothing can be tried "
                "twice: run the model once before, and capture it anew"
            ) from error
        raise Failed("triton", _failed[key]) from error


def capturing(device):
    """Whether a launch there would go into a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
