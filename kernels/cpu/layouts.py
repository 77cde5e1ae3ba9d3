"""All that follows from the shapes of a call alone: block sizes, the threads' grid, scratch memory.

Laid out once for each shape, and remembered: batch 1 is mostly the Python around the kernels.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch

from ..keep import Keep
from . import compiled
from .backward import BACKWARD
from .forward import FORWARD
from .memory import ZEROS
from .plan import Layout, team_grid
from .products import CHUNK, GROUP

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not


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
            found["extra_after"] = (D, N, cell.states - 1, H), compiled.wide(self.dtype)
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
    tile = compiled.tiles(cell.gates, dtype)
    size, item = compiled.wide(dtype).itemsize, dtype.itemsize
    width = tile.tiles(H) * tile.width
    block = max(1, min(T, _rows_at_a_time(I, width, size) // B))
    groups = _groups(D, threads)
    row_parts, unit_parts = team_grid(
        B, tile.tiles(H), threads // groups, S * width * item, CACHE_BYTES
    )
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "keep": keep,
        **_team(row_parts * unit_parts, unit_parts, groups, D),
    }  # fmt: skip
    scratch = {
        "tile": (size, row_parts * unit_parts, tile.rows, tile.width),
        **_gate_tiles(shape, tile, size, item, row_parts, block * B),
    }
    if projected:
        scratch["w_hr_panels"] = (item, compiled.depth(H, dtype), tile.padded(S))
    return Layout(FORWARD, D, row_parts, numbers, scratch, "m"), row_parts


@lru_cache(maxsize=256)
def backward_layout(cell, shape, keep, need_x, threads):
    """(layout, row parts, groups, numbers behind each gradient of a hidden state, width of the
    sums of a direction).
    """
    dtype, T, B, D, I, H, S, projected = shape
    M, tile = cell.gates * H, compiled.tiles(cell.gates, dtype)
    size, item = compiled.wide(dtype).itemsize, dtype.itemsize
    columns, wide = tile.padded(S), tile.padded(M)
    block = max(1, min(T, CHUNK // B))
    capacity, groups = block * B, _groups(D, threads)
    parts = threads // groups
    row_parts, unit_parts = team_grid(B, tile.panels(S), parts, M * S * item, CACHE_BYTES)
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "capacity": capacity,
        "lddh": columns, "loop_parts": row_parts * unit_parts,
        **_team(parts, unit_parts, groups, D),
    }  # fmt: skip
    scratch = {
        "tile": (size, parts, tile.rows, max(tile.panel, tile.width)),
        "dgates": (item, 2, capacity, cell.dgates, H),
        "hidden": (item, 2, capacity, S),
        "extra": (size, 2, capacity, cell.states - 1, H),
        "w_hh_panels": (item, compiled.depth(M, dtype), columns),
        "strips_x": (size, wide, I),
        "strips_h": (size, wide, S),
        "left": (item, parts, max(I, H) + 2 * tile.lanes, CHUNK),
        "packed": (item, parts, CHUNK, tile.panel),
    }
    if need_x:
        scratch["w_ih_panels"] = (item, compiled.depth(M, dtype), tile.padded(I))
        scratch["strip"] = (size, parts, GROUP, tile.panel)
    if projected:
        scratch["dp"] = (item, 2, capacity, S)
        scratch["w_hr_panels"] = (item, compiled.depth(S, dtype), tile.padded(H))
        scratch["strips_r"] = (size, columns, H)
    if keep == Keep.STATES:
        numbers["recompute"] = 1
        scratch |= {
            "recalled": (item, capacity, cell.kept, H),
            **_gate_tiles(shape, tile, size, item, 1, capacity),
        }
    layout = Layout(BACKWARD, D, row_parts, numbers, scratch, "kept_from")
    return layout, row_parts, groups, columns - S, tile.padded(max(M, S))


def _gate_tiles(shape, tile, size, item, row_parts, rows):
    """The scratch that pre-activations are computed with, ``rows`` of the input at a time."""
    width = tile.tiles(shape.H) * tile.width
    return {
        "xgates": (size, row_parts, rows, width),
        "w_ih_tiles": (item, compiled.depth(shape.I, shape.dtype), width),
        "w_hh_tiles": (item, compiled.depth(shape.S, shape.dtype), width),
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
