"""Launches: a whole sequence at once; a step in the interpreter, whose programs take turns."""

import os
from contextlib import contextmanager
from functools import cache
from math import prod
from threading import RLock

import torch
import triton

from ..refused import Refused
from .blocks import LINE
from .sizes import Device

INTERPRETED = STEPWISE = triton.knobs.runtime.interpret
# For debugging: how often to look at a counter before giving up; 0 is for ever.
SPIN_LIMIT = int(os.environ.get("FASTRNN_SPIN_LIMIT", "0"))
_lock, _last = RLock(), {}  # a finalizer may call a layer while another is compiled
_granted = {}


def describe(device):
    """A torch.device as the choice of tiles sees it; the interpreter passes for an H200."""
    return _granted.get(device) or _described(device)


@cache
def _described(device):
    if device.type != "cuda":
        return Device(90, 132, 232448, 233472)
    found = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        arch = int(found.gcnArchName.partition(":")[0].removeprefix("gfx"), 16)
        shared = total = found.shared_memory_per_block
    else:
        arch = 10 * found.major + found.minor
        shared = found.shared_memory_per_block_optin
        total = found.shared_memory_per_multiprocessor
    return Device(arch, found.multi_processor_count, shared, total)


def run(kernel, launches, start, warps, T, **arguments):
    """``kernel`` over T steps, from the states ``start``: the states at the end.

    launches: the grids.Launches.
    """
    alone = launches.together is None
    end, failed = torch.empty_like(start), arguments["counters"][-LINE.value :]
    options = {"num_warps": warps, "num_stages": 1, "launch_cooperative_grid": not alone}
    arguments |= options | {"failed": failed, "T": T, "SPIN_LIMIT": SPIN_LIMIT}
    with in_turn(start.device, alone):
        for block0, first, grid in launches.each():
            states, mine = (start, end), {"block0": block0, "FIRST": first}
            for s0, s1 in [(s, s + 1) for s in range(T)] if STEPWISE and not alone else [(0, T)]:
                times = {"start": states[0], "end": states[1], "s0": s0, "s1": s1}
                with _room_for(grid, start.device):
                    kernel[grid](**mine, **times, **arguments)
                states = states[::-1]
    if SPIN_LIMIT and failed[0].item():
        raise RuntimeError("FASTRNN_SPIN_LIMIT: the programs of a kernel did not all arrive")
    return states[0]


@contextmanager
def _room_for(grid, device):
    """Where a GPU is not all ours (a part of it is set aside for others), a launch says so: from
    then on it passes for one of half as many processors.
    """
    try:
        yield
    except RuntimeError as error:
        if "cooperative launch" not in str(error):  # the driver's words for it
            raise
        whole = describe(device)
        _granted[device] = whole._replace(processors=whole.processors // 2)
        reason = f"{prod(grid)} programs at the same time are more than this GPU grants us"
        raise Refused("triton", reason) from error


@contextmanager
def in_turn(device, alone=False):
    """One after another on a device, on whatever streams: of two kernels whose programs wait for
    each other, each might hold the processors that the other waits for. Not so those ``alone``.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), _lock:
        stream = torch.cuda.current_stream()
        if alone or torch.cuda.is_current_stream_capturing():  # a graph cannot wait for others
            yield
            return
        stream_before, event = _last.setdefault(device.index, (None, torch.cuda.Event()))
        if stream_before not in (None, stream):
            stream.wait_event(event)
        yield
        event.record(stream)
        _last[device.index] = stream, event
