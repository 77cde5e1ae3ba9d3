"""Launches: a whole sequence at once; a step in the interpreter, whose programs take turns."""

import os
from contextlib import contextmanager
from functools import cache
from threading import RLock

import torch
import triton

from . import guard, room
from .attempt import capturing
from .sizes import Device

INTERPRETED = STEPWISE = triton.knobs.runtime.interpret
# Looks at a counter, about 1 us each, until a program gives up: so many at a launch's first wait,
# as others' kernels may hold the processors until then; later waits have blocks.LOOKS at most.
PATIENCE = 1 << 30
STEPS = 1 << 15  # of a launch, at most: one that takes seconds is ended where a GPU has a display
MARGIN, BESIDE_NCCL = 4, 32  # processors that are left to other kernels
_patience = [PATIENCE]  # the last one counts; for every thread, as autograd has its own
_lock, _last = RLock(), {}  # a finalizer may call a layer while another is compiled


@contextmanager
def patience(looks):
    """Within this context programs give up after so many looks at a counter, from the first on."""
    _patience.append(looks)
    try:
        yield
    finally:
        _patience.pop()


def barred(device, forced):
    """Why no kernel of ours may run there at all, if so; forced: where it was asked for."""
    if forced:
        return guard.off(device)
    if torch.version.hip:
        return "on AMD GPUs ours is not known to be right, and serves only where it is asked for"
    if INTERPRETED:
        return "TRITON_INTERPRET is set: ours would be interpreted, if it were asked for"
    return guard.off(device)


def describe(device):
    """A torch.device as the choice of tiles sees it; the interpreter passes for an H200."""
    return _described(device)._replace(margin=margin())


def margin():
    """Processors that no launch takes, so that others' kernels run beside it.

    FASTRNN_GPU_MARGIN says how many. NCCL's kernels wait for those of other processes: they must
    not wait for ours.
    """
    said = os.environ.get("FASTRNN_GPU_MARGIN", "")
    if said:
        if not said.isdecimal():
            raise ValueError(f"FASTRNN_GPU_MARGIN should be a number of processors, not {said!r}")
        return int(said)
    distributed = torch.distributed
    beside = distributed.is_available() and distributed.is_initialized()
    return BESIDE_NCCL if beside and distributed.get_world_size() > 1 else MARGIN


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
    return Device(arch, found.multi_processor_count, shared, total, found.name)


def run(kernel, launches, start, warps, T, **arguments):
    """``kernel`` over T steps, from the states ``start``: the states at the end.

    launches: the grids.Launches.
    """
    alone, device = launches.together is None, start.device
    place = kernel, device, warps, launches.groups, arguments["BB"]
    launches, states = room.within(place, launches), (start, torch.empty_like(start))
    if capturing(device):
        guard.watch(device)
    options = {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}
    given = arguments | options | {"launch_cooperative_grid": not alone, "T": T}
    given |= {"failed": guard.word(device), "patience": _patience[-1]}
    times = _times(T, 1 if STEPWISE and not alone else STEPS)
    parts = [(part, *time) for part in launches.each() for time in enumerate(times)]
    with in_turn(device, alone):
        for number, ((block0, first, grid), turn, (s0, s1)) in enumerate(parts):
            begin, end = states[turn % 2], states[1 - turn % 2]
            mine = {"block0": block0, "FIRST": first, "s0": s0, "s1": s1}
            mine |= {"start": begin, "end": end}
            try:
                kernel[grid](**mine, **given)
            except RuntimeError as error:
                if number or capturing(device) or room.REFUSAL not in str(error):
                    raise
                compiled = kernel.warmup(grid=grid, **mine, **given)
                less = room.fewer(place, launches, compiled, describe(device).processors)
                if less is None:
                    raise
                return run(kernel, less, start, warps, T, **arguments)
    return states[len(times) % 2]


def _times(T, steps):
    """The steps in parts, as (first, end)."""
    return [(s, min(s + steps, T)) for s in range(0, T, steps)]


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
