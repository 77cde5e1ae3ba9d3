"""Which tile a layer runs with on a GPU, if it fits: pure functions of plain numbers.

Of the tiles that fit (sizes.py), one with the fewest launches serves, and of these the first, until
a measurement (measured.json) says better. The least power of two that is no less than B chooses: a
kernel is compiled for each tile, and the last batch of an epoch may be a smaller one.
"""

from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from . import measured
from .sizes import (
    KERNELS,
    MOST,
    OLDEST,
    Backward,
    Forward,
    fitting,
    launches,
    precision,
    widest,
)


class Choice(NamedTuple):
    """The tiles (backward in training only), or None where torch's kernels serve; and why."""

    forward: Forward | None
    backward: Backward | None
    reason: str


LAUNCHES = 2  # one after another, at most
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


def _chosen(direction, gates, kind, B, H, D, device):
    return _chosen_for(direction, gates, kind, 1 << (B - 1).bit_length(), H, D, device)


@lru_cache(4096)
def _chosen_for(direction, gates, kind, B, H, D, device):
    """A tile, or why there is none. B: a power of two."""
    tile = KERNELS[direction].tile

    def as_many(row):
        """Whether the tile of a row takes as many launches here as it did where it was timed."""
        found = (
            launches(direction, tile(*row[direction]), gates, kind, *sizes, D, device).count
            for sizes in ((B, H), (row["B"], row["H"]))
        )
        return len(set(found)) == 1

    known = measured.tile(direction, gates, kind, B, H, D, device, as_many)
    found = fitting(direction, gates, kind, B, H, D, device, [tile(*known)] if known else ())
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
        return f"H = {H} is beyond {widest(kind, gates)}, the widest with {kind} arithmetic"
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
    faster, reason = _faster(gates, dtype, tf32, T, B, H, D, device, training)
    return Choice(forward, backward, reason) if faster else Choice(None, None, reason)


@lru_cache(4096)
def _faster(gates, dtype, tf32, T, B, H, D, device, training):
    """(whether ours is faster than torch, as far as anybody knows; why)."""
    kind, directions = precision(dtype, tf32), list(KERNELS)[: 1 + training]

    def count(B, H):
        """The launches of a layer, of the kernel that takes more; None if it does not fit."""
        found = []
        for direction in directions:
            tile = _chosen(direction, gates, kind, B, H, D, device)
            if isinstance(tile, str):
                return None
            found.append(launches(direction, tile, gates, kind, B, H, D, device).count)
        return max(found)

    mine = count(B or 1, H)
    if slower := _estimate(T, B, mine):
        return False, slower

    def as_many(row):
        return B is None or count(row["B"], row["H"]) == mine

    found, reason = measured.verdict(gates, dtype, tf32, T, B, H, D, device, training, as_many)
    return found is not False, reason


def _estimate(T, B, launches):
    """Why torch is thought to be faster, whatever was measured elsewhere; None where it is not."""
    if T is not None and T < SHORT:
        return f"T = {T}: torch is thought to be faster, which has less to prepare"
    if launches > LAUNCHES:
        return f"B = {B} takes {launches} launches: torch is thought to be faster"
    return None


def told():
    """The tiles that ``using`` says, None outside of it."""
    return _told[-1] if _told else None


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
