"""All that follows from the shapes of a call alone: block sizes, the threads' grid, scratch memory.

Laid out once for each shape, and remembered: batch 1 is mostly the Python around the kernels.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch

from ..keep import Keep
from . import compiled, machine
from .memory import ZEROS
from .pieces import CHUNK
from .plan import BACKWARD, FORWARD, Layout, team_grid
from .products import GROUP

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not
# Weights are multiplied as they lie where that is less work than to pack them, which was measured
# (AMD EPYC Zen 4, LSTM, GRU and RNN of 32 to 512 units, float32 and float64): forward, as long as
# they are read this often, and twice as often where they are as large as this; backward, for so
# many rows.
PASSES, FAR_BYTES, BACKWARD_ROWS = 4, 4 * 2**20, 64


class Shape(NamedTuple):
    """All that the layout of a call depends on: x's dtype, steps, directions, and sizes."""

    dtype: torch.dtype
    T: int  # steps, rounded up to a power of two: calls of many lengths share few layouts
    B: int
    D: int
    I: int
    H: int
    S: int  # of the hidden state: H, or P if projected
    projected: bool

    @classmethod
    def of(cls, cell, x, steps, directions, states):
        first = directions[0]
        projected, H = first.hr is not None, first.hh.shape[0] // cell.gates
        S = first.hr.shape[0] if projected else H
        D, I = len(directions), x.shape[-1]
        return cls(x.dtype, steps.rounded, steps.B, D, I, H, S, projected)

    def threads(self, cell, N):
        """How many threads the work on N rows, in multiply-adds, is worth."""
        work = N * self.D * cell.gates * self.H * (self.I + self.S)
        return torch.get_num_threads() if work >= MIN_WORK else 1

    def kept(self, cell, N, gates=None):
        """What forward keeps of N rows for backward: {name: (shape, dtype)}, of what there is.

        The states after each row, the cell's values before its projection, and its gates;
        gates: of which rows, as ``gates`` says (None: of all).
        """
        D, H = self.D, self.H
        gate_rows = D * N if gates is None else sum(rows for _, _, rows in gates)
        found = {"after": ((D, N, self.S), self.dtype)}
        if cell.states > 1:
            found["extra_after"] = (D, N, cell.states - 1, H), machine.wide(self.dtype)
        if self.projected:
            found["m"] = (D, N, H), self.dtype
        if cell.kept and gate_rows:
            found["gates"] = (gate_rows, cell.kept, H), self.dtype
        return found

    def gates(self, cell, keep, steps):
        """(step, row, rows) for each direction: from which of its steps on its gates are kept,
        which is the first of their rows, and how many these are.

        That is all of them (Keep.ALL), or so many that all that is kept is half of that: to compute
        more of them anew would cost over a quarter of the time.
        """
        N = steps.N
        if keep == Keep.ALL:
            return ((0, 0, N),) * self.D
        each = self.dtype.itemsize * cell.kept * self.H
        states = sum(prod(shape) * t.itemsize for shape, t in self.kept(cell, N, ()).values())
        half = (each - states / (self.D * N)) / 2
        # within one block of backward's all or nothing is computed anew
        rows = int(N * half / each) if half > 0 and N > CHUNK else 0
        found = []
        for reverse in range(self.D):
            step = steps.last(rows, reverse)
            if step == steps.T:
                found.append((step, 0, 0))
            elif reverse:
                t = steps.T - 1 - step
                found.append((step, 0, int(steps.offsets[t] + steps.sizes[t])))
            else:
                found.append((step, int(steps.offsets[step]), N - int(steps.offsets[step])))
        return tuple(found)


@lru_cache(maxsize=256)
def forward_layout(cell, shape, keep, threads):
    dtype, T, B, D, I, H, S, projected = shape
    tile = machine.tiles(cell.gates, dtype)
    size, item = machine.wide(dtype).itemsize, dtype.itemsize
    width = tile.tiles(H) * tile.width
    block = max(1, min(T, _rows_at_a_time(I, width, size) // B))
    groups = _groups(D, threads)
    row_parts, unit_parts = team_grid(
        B, tile.tiles(H), threads // groups, S * width * item, CACHE_BYTES
    )
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "keep": keep,
        **_team(row_parts * unit_parts, unit_parts, groups, D),
        **_tiled(cell, tile, H), **compiled.forward_fields(cell, dtype, projected),
    }  # fmt: skip
    scratch = {
        "tile": (size, row_parts * unit_parts, tile.rows, width),
        "xgates": (size, row_parts, block * B, width),
    }
    if _lies_forward(cell, shape):
        numbers |= machine.lying(dtype)
    else:
        scratch |= _gate_tiles(shape, tile, size, item)
    if projected:
        scratch["w_hr_panels"] = (item, machine.depth(H, dtype), tile.padded(S))
    return Layout(FORWARD, D, row_parts, numbers, scratch), row_parts


@lru_cache(maxsize=256)
def backward_layout(cell, shape, keep, need_x, threads):
    """(layout, row parts, groups)."""
    dtype, T, B, D, I, H, S, projected = shape
    M, tile = cell.gates * H, machine.tiles(cell.gates, dtype)
    size, item = machine.wide(dtype).itemsize, dtype.itemsize
    columns = tile.padded(S)
    whole = -(-S // tile.lanes) * tile.lanes  # columns of S in whole registers
    block = max(1, min(T, CHUNK // B))
    capacity, groups = block * B, _groups(D, threads)
    parts = threads // groups
    row_parts, unit_parts = team_grid(B, tile.panels(S), parts, M * S * item, CACHE_BYTES)
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "capacity": capacity,
        "lddh": whole, "loop_parts": row_parts * unit_parts,
        **_team(parts, unit_parts, groups, D),
        **_tiled(cell, tile, H),
        **compiled.backward_fields(cell, dtype, projected, keep == Keep.STATES),
    }  # fmt: skip
    scratch = {
        "tile": (size, parts, tile.rows, max(tile.panel, tile.width)),
        "dgates": (item, 2, capacity, numbers["dgates_each"], H),
        "hidden": (item, 2, capacity, S),
        "extra": (size, 2, capacity, cell.states - 1, H),
        "w_hh_panels": (item, machine.depth(M, dtype), columns),
        "strip": (size, parts, max(GROUP * tile.panel, numbers["band"])),
    }
    if need_x:
        scratch["w_ih_panels"] = (item, machine.depth(M, dtype), tile.padded(I))
    if projected:
        scratch["dp"] = (item, 2, capacity, S)
        scratch["w_hr_panels"] = (item, machine.depth(S, dtype), tile.padded(H))
    if keep == Keep.STATES:
        numbers["recompute"] = 1
        scratch |= {
            "recalled": (item, capacity, cell.kept, H),
            "xgates": (size, capacity, tile.tiles(H) * tile.width),
            **_gate_tiles(shape, tile, size, item),
        }
    for more, field in zip(_for_weights(cell, shape, tile, parts), (numbers, scratch), strict=True):
        field |= more
    return Layout(BACKWARD, D, row_parts, numbers, scratch), row_parts, groups


def _for_weights(cell, shape, tile, parts):
    """The fields, and the scratch, that the gradients of the weights are made with."""
    dtype, T, B, _, I, H, S, projected = shape
    size, item, M, N = machine.wide(dtype).itemsize, dtype.itemsize, cell.gates * H, T * B
    few = N <= CHUNK and size == item
    if few:  # all at once: N is at least the number of rows
        left = (M + 2 * tile.lanes) * (N + tile.lanes)
        packed = max(N * tile.padded(max(I, H)), CHUNK * tile.panel)
    else:
        left, packed = (max(I, H) + 2 * tile.lanes) * CHUNK, CHUNK * tile.panel
    numbers = {"few": few, "left_each": left, "packed_each": packed}
    scratch = {"left": (item, parts, left), "packed": (item, parts, packed)}
    if few and N <= BACKWARD_ROWS:
        numbers |= machine.lying(dtype)
    if not few:
        wide = tile.padded(M)
        scratch |= {"strips_x": (size, wide, I), "strips_h": (size, wide, S)}
        if projected:
            scratch["strips_r"] = (size, tile.padded(S), H)
    return numbers, scratch


def _tiled(cell, tile, H):
    """The fields that say how the gates of H units lie in tiles."""
    padded, last = tile.tiles(H) * tile.width, tile.vectors
    if cell.gates == 1:
        last = -(-(H - padded + tile.panel) // tile.lanes)
    return {"padded": padded, "gates_last": last}


def _lies_forward(cell, shape):
    """Whether forward multiplies with the weights as they lie."""
    if machine.wide(shape.dtype) != shape.dtype:
        return False
    passes = shape.T * -(-shape.B // machine.lying_rows(shape.dtype))
    weights = cell.gates * shape.H * (shape.I + shape.S) * shape.dtype.itemsize
    return passes <= PASSES * (2 if weights >= FAR_BYTES else 1)


def _gate_tiles(shape, tile, size, item):
    """The scratch for weights in tiles of all gates."""
    width = tile.tiles(shape.H) * tile.width
    return {
        "w_ih_tiles": (item, machine.depth(shape.I, shape.dtype), width),
        "w_hh_tiles": (item, machine.depth(shape.S, shape.dtype), width),
        "b_ih_tiles": (size, width),
        "b_hh_tiles": (size, width),
    }


def _team(parts, unit_parts, groups, D):
    """The fields that say how threads divide the work."""
    return {
        "parts": parts,
        "unit_parts": unit_parts,
        "groups": groups,
        "directions": D,
        "zeros": ZEROS,
    }


def _groups(D, threads):
    """How many directions run at once: they need not wait for each other."""
    return 2 if D == 2 and threads % 2 == 0 else 1


def _rows_at_a_time(I, width, itemsize):
    """How many rows of x to project before their steps are taken."""
    rows = BLOCK_BYTES // (width * itemsize)
    if I * width * itemsize > CACHE_BYTES:  # W_ih comes from afar: many rows share the way
        rows = max(rows, FAR_ROWS)
    return rows
