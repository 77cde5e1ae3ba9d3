"""Which tile a layer runs with on a GPU, if it fits: pure functions of plain numbers.

Of the tiles that fit (sizes.py), one with the fewest launches serves, and of these the first, until
a measurement (measured.json) says better.
"""

from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from . import measured
from .sizes import (
    KERNELS,
    MOST,
    OLDEST,
    PRECISIONS,
    Backward,
    Forward,
    fitting,
    launches,
    precision,
)


class Choice(NamedTuple):
    """The tiles (backward in training only), or None where torch's kernels serve; and why."""

    forward: Forward | None
    backward: Backward | None
    reason: str


LAUNCHES = 2  # one after another, at most, where nobody has measured whether torch is faster
SHORT = 32  # steps, and more of them there: a call has some 0.1 ms of its own
HELD = 8  # values of a unit that a thread has room for, with any tile: an LSTM's
_told = []  # pairs, the last one counts; for every thread, as autograd has its own


def choose_forward(gates, dtype, tf32, B, H, D, device):
    """The Forward tile for B sequences in D directions, or why there is none."""
    told = _told[-1][0] if _told else None
    return told or _chosen("forward", gates, precision(dtype, tf32), B, H, D, device)


def choose_backward(gates, dtype, tf32, B, H, D, device):
    """The Backward tile for B sequences in D directions, or why there is none."""
    told = _told[-1][1] if _told else None
    return told or _chosen("backward", gates, precision(dtype, tf32), B, H, D, device)


def sequences(cell, B):
    """For how many of B sequences to choose a tile: of a cell with much to hold, for one."""
    return B if 2 * cell.states + cell.kept + cell.inputs <= HELD else 1


@lru_cache(4096)
def _chosen(direction, gates, kind, B, H, D, device):
    known = measured.tile(direction, gates, kind, B, H, D, device.arch)
    best = [KERNELS[direction].tile(*known)] if known else []
    found = fitting(direction, gates, kind, B, H, D, device, best)
    return found[0] if found else _reason(direction, gates, kind, H, device)


def _reason(direction, gates, kind, H, device):
    """Why no tile fits."""
    kernel = KERNELS[direction]
    tiles = list(kernel.tiles(gates, kind, H))
    if device.arch < OLDEST:
        return f"compute capability {device.arch / 10}, and {OLDEST / 10} or newer is needed"
    if gates > MOST:
        return f"{gates} gates, and {MOST} at most are multiplied with the hidden state"
    if not tiles:
        return f"H = {H} is beyond {PRECISIONS[kind].widest}, the widest with {kind} arithmetic"
    least = min(kernel.shared(tile, gates, kind, H) for tile in tiles)
    if least > device.shared:
        return (
            f"H = {H} needs {least // 1024} KiB of shared memory a program, "
            f"this GPU has {device.shared // 1024}"
        )
    fewest = min(kernel.programs(tile, H) for tile in tiles)
    return f"H = {H} takes {fewest} programs at the same time, more than this GPU runs"


def choose(gates, dtype, tf32, T, B, H, D, device, training, forced=False, torchs=True):
    """The Choice for a layer: ours where it fits and torch is not faster, measured or by estimate.

    T and B may be None, in a trace: for any length, and any number of sequences. forced: ours
    wherever it fits; and so where torch has no kernels of its own, but for its cells (``torchs``).
    """
    sizes = gates, dtype, tf32, B or 1, H, D, device
    forward = choose_forward(*sizes)
    backward = choose_backward(*sizes) if training else None
    for tile in (forward, backward):
        if isinstance(tile, str):
            return Choice(None, None, tile)
    if forced or _told:
        return Choice(forward, backward, "it was asked for")
    if not torchs:
        return Choice(forward, backward, "torch has no kernels for such a cell")
    faster, reason = measured.verdict(gates, dtype, tf32, T, B, H, D, device.arch, training)
    if faster is None:
        sizes = gates, precision(dtype, tf32), B or 1, H, D, device
        found = [launches("forward", forward, *sizes)]
        found += [launches("backward", backward, *sizes)] if training else []
        slower = _estimate(T, B, max(each.count for each in found))
        faster, reason = not slower, slower or reason
    return Choice(forward, backward, reason) if faster else Choice(None, None, reason)


def _estimate(T, B, launches):
    """Why torch is thought to be faster, where nobody has measured; None where it is not."""
    if T is not None and T < SHORT:
        return f"T = {T}: torch is thought to be faster, which has less to prepare"
    if launches > LAUNCHES:
        return f"B = {B} takes {launches} launches: torch is thought to be faster"
    return None


@contextmanager
def using(forward=None, backward=None):
    """Within this context these tiles are chosen, fit or not, whoever may be faster.

    For measuring and for tests. None: the tile that is chosen otherwise.
    """
    _told.append((forward, backward))
    try:
        yield
    finally:
        _told.pop()
