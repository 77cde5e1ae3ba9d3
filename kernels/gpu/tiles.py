"""Which tile a layer runs with on a GPU, if it fits: pure functions of plain numbers.

Of the tiles that fit (sizes.py), one with the fewest launches serves, and of these the first, until
a measurement (measured.json) says better.
"""

from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from . import measured
from .sizes import KERNELS, OLDEST, PRECISIONS, Backward, Forward, fitting, launches, precision


class Choice(NamedTuple):
    """The tiles (backward in training only), or None where torch's kernels serve; and why."""

    forward: Forward | None
    backward: Backward | None
    reason: str


LAUNCHES = 2  # one after another, at most, where nobody has measured whether torch is faster
_told = []  # pairs, the last one counts; for every thread, as autograd has its own


def choose_forward(gates, dtype, tf32, B, H, D, device):
    """The Forward tile for B sequences in D directions, or why there is none."""
    told = _told[-1][0] if _told else None
    return told or _chosen("forward", gates, precision(dtype, tf32), B, H, D, device)


def choose_backward(gates, dtype, tf32, B, H, D, device):
    """The Backward tile for B sequences in D directions, or why there is none."""
    told = _told[-1][1] if _told else None
    return told or _chosen("backward", gates, precision(dtype, tf32), B, H, D, device)


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


def choose(gates, dtype, tf32, B, H, D, device, training):
    """The Choice for a layer: ours where it fits and no measurement says that torch is faster.

    B may be None: for any number of sequences, in a trace that does not know it.
    """
    sizes = gates, dtype, tf32, B or 1, H, D, device
    forward = choose_forward(*sizes)
    backward = choose_backward(*sizes) if training else None
    for tile in (forward, backward):
        if isinstance(tile, str):
            return Choice(None, None, tile)
    if _told:
        return Choice(forward, backward, "as fastrnn.kernels.gpu.tiles was told")
    faster, reason = measured.verdict(gates, dtype, tf32, B, H, D, device.arch, training)
    if faster is None:
        sizes = gates, precision(dtype, tf32), B or 1, H, D, device
        found = [launches("forward", forward, *sizes)]
        found += [launches("backward", backward, *sizes)] if training else []
        most = max(each.count for each in found)
        faster = most <= LAUNCHES
        if not faster:
            reason = f"B = {B} takes {most} launches, and torch is thought to be faster"
    return Choice(forward, backward, reason) if faster else Choice(None, None, reason)


@contextmanager
def using(forward=None, backward=None):
    """Within this context these tiles are chosen, fit or not, and whatever was measured.

    For measuring and for tests. None: the tile that is chosen otherwise.
    """
    _told.append((forward, backward))
    try:
        yield
    finally:
        _told.pop()
