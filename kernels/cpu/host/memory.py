"""Addresses; and large arrays, on large pages where the kernel gives them.

The C library hands a large array back to the kernel as soon as it is freed, and the next one comes
as fresh pages: mapping them 4 KB at a time costs more than filling them (92 MB: 40 ms, and 8 ms on
pages of 2 MB).
"""

import ctypes
import threading
from functools import cache

import numpy as np
import torch
from torch.utils import deterministic

PAGE = 2 * 2**20
LARGE = 2 * PAGE  # bytes from which on large pages are asked for
SCRATCH = 256 * 2**20  # bytes that a thread holds on to at most
MADV_HUGEPAGE = 14  # Linux, <asm-generic/mman-common.h>
# The address of more zeros, of any dtype, than any tile is wide, to start sums from. They are not
# torch's: what torch makes depends on its default device and on the modes that are active.
_zeros = np.zeros(1024)
ZEROS = _zeros.__array_interface__["data"][0]


def at(*tensors):
    """The addresses of tensors that are ours, or that passed the gate; 0 for None."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def at_each(tensor, count):
    """The addresses of all ``count`` parts, ``tensor[0]`` and so on; zeros for None."""
    if tensor is None:
        return [0] * count
    first = tensor.data_ptr()
    if count == 1:
        return [first]
    each = tensor.nbytes // count
    return [first + i * each for i in range(count)]


@cache
def _madvise():
    """madvise(address, length, advice), or None where the platform has none."""
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def empty(like, *shape):
    """An uninitialised tensor of ``like``'s dtype and device."""
    tensor = like.new_empty(*shape)
    if tensor.nbytes >= LARGE and (madvise := _madvise()):
        start = -(-tensor.data_ptr() // PAGE) * PAGE
        end = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
        madvise(start, end - start, MADV_HUGEPAGE)  # advice: where it is not taken, nothing is lost
    return tensor


_held = threading.local()


def scratch(like, size):
    """``size`` uninitialised bytes or more, this thread's until it asks again.

    A thread holds on to its largest, as oneDNN's do: what is mapped need not be mapped again.
    """
    held = getattr(_held, "memory", None)
    if size > SCRATCH or held is None or held.nbytes < size:
        held = empty(like, size // like.itemsize)
        if size <= SCRATCH:
            _held.memory = held
    elif torch.are_deterministic_algorithms_enabled() and deterministic.fill_uninitialized_memory:
        held.view(torch.uint8).fill_(255)  # NaN in every dtype: what torch.empty does in this mode
    return held
