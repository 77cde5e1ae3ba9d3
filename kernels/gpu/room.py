"""How many programs of a kernel a GPU runs at the same time, where it is fewer than was reckoned.

A part of a GPU may be set aside for others, and a compiler may have made more of a kernel than was
thought. The driver refuses such a launch before anything has run.
"""

import ctypes
from functools import cache
from math import prod

import torch

REFUSAL = "too many blocks in cooperative launch"  # the driver's words for it
_granted = {}


def within(place, launches):
    """The Launches, with no more lanes at a time than the driver has granted in this place."""
    if launches.together is None:
        return launches
    return launches._replace(together=min(launches.together, _granted.get(place, 2**31)))


def fewer(place, launches, compiled, processors):
    """The Launches with as many lanes at a time as there is room for; None if there is for none.

    place: where to remember it; compiled: the kernel, as Triton has it. Where the driver cannot be
    asked, half as many.
    """
    blocks, directions = launches.at_once
    lanes, found = min(blocks, launches.blocks) * directions, programs_of(compiled)
    each = prod(launches.grid(launches.groups, 1, 1))
    room = lanes // 2 if found is None else found * processors // each
    _granted[place] = min(room, lanes - 1)
    return within(place, launches) if _granted[place] else None


def programs_of(compiled):
    """How many programs of a kernel a processor runs at the same time, as the driver says; None
    where it cannot be asked.
    """
    function, driver = getattr(compiled, "function", None), _driver()
    if function is None or driver is None:
        return None
    found, shared = ctypes.c_int(), ctypes.c_size_t(compiled.metadata.shared)
    threads = 32 * compiled.metadata.num_warps
    ask = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
    status = ask(ctypes.byref(found), ctypes.c_void_p(function), threads, shared)
    return found.value if status == 0 else None


@cache
def _driver():
    """CUDA's, if there is one."""
    try:
        return None if torch.version.hip else ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
