"""One function for each compiled function: allocates, plans, and runs it on a team of threads.

Batch 1 is mostly this file's time, so all that follows from shapes alone is laid out once.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from ..weights import Weights
from . import compiled
from .backward import BACKWARD
from .forward import FORWARD
from .memory import empty
from .plan import ALIGNMENT, Layout, address, team_grid
from .products import CHUNK, GROUP
from .threads import TEAM

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not


class Shape(NamedTuple):
    """All that the layout of a call depends on: x's dtype, steps, directions, and sizes."""

    dtype: torch.dtype
    T: int
    B: int
    N: int  # rows, T * B if dense
    D: int
    I: int
    H: int
    S: int  # of the hidden state: H, or P if projected
    projected: bool

    @classmethod
    def of(cls, cell, x, steps, directions, states):
        D, B, S = states[0].shape
        N, I = x.shape
        H = directions[0].hh.shape[0] // cell.gates
        return cls(x.dtype, steps.T, B, N, D, I, H, S, directions[0].hr is not None)

    def threads(self, cell):
        """How many threads the work, in multiply-adds, is worth."""
        work = self.N * self.D * cell.gates * self.H * (self.I + self.S)
        return torch.get_num_threads() if work >= MIN_WORK else 1

    def record(self, cell):
        """{name: first byte} of what one direction keeps for backward; bytes of all of it."""
        places, end, item = {}, 0, self.dtype.itemsize
        for name, width in (
            ("after", item * self.S),
            ("extra_after", compiled.wide(self.dtype).itemsize * (cell.states - 1) * self.H),
            ("kept", item * cell.kept * self.H),
            ("m", item * self.H * self.projected),
        ):
            places[name], end = end, end + -(-self.N * width // ALIGNMENT) * ALIGNMENT
        return places, end


def at(tensor):
    """A tensor's address; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


FORWARD_GIVEN = (
    "bounds sizes offsets x w_ih b_ih w_hh b_hh w_hr trail ld_trail h_first h_last extra "
    "extra_first extra_last y ldy kept m"
).split()


@lru_cache(maxsize=256)
def _forward_layout(cell, shape, keep, threads):
    dtype, T, B, N, D, I, H, S, projected = shape
    tile = compiled.tiles(cell.gates, dtype)
    size, item = compiled.wide(dtype).itemsize, dtype.itemsize
    width = tile.tiles(H) * tile.width
    block = max(1, min(T, _rows_at_a_time(I, width, size) // B))
    groups = _groups(D, threads)
    row_parts, unit_parts = team_grid(
        B, tile.tiles(H), threads // groups, S * width * item, CACHE_BYTES
    )
    numbers = {
        "T": T, "B": B, "I": I, "H": H, "S": S, "block": block, "keep": keep,
        **_team(row_parts * unit_parts, unit_parts, groups, D, dtype),
    }  # fmt: skip
    scratch = {
        "tile": (size, row_parts * unit_parts, tile.rows, tile.width),
        "xgates": (size, row_parts, block * B, width),
        "w_ih_tiles": (item, compiled.depth(I, dtype), width),
        "w_hh_tiles": (item, compiled.depth(S, dtype), width),
        "b_ih_tiles": (size, width),
        "b_hh_tiles": (size, width),
    }
    given = FORWARD_GIVEN
    if projected:
        w_hr = (item, compiled.depth(H, dtype), tile.padded(S))
        scratch["w_hr_panels"] = w_hr
    if projected and not keep:
        scratch["m"], given = (item, B, H), given[:-1]
    return Layout(FORWARD, D, row_parts, numbers, scratch, given), row_parts


def forward(cell, x, steps, directions, states, keep):
    """One layer. x: contiguous; states and weights: of ``compiled.wide(x.dtype)``.

    Returns the output in x's dtype, the final states in theirs, and what backward wants: that is a
    tensor with a row for each direction, as ``Shape.record`` says (None unless ``keep``).
    """
    shape = Shape.of(cell, x, steps, directions, states)
    D, S, size, item = shape.D, shape.S, states[0].itemsize, x.itemsize
    directions = [[None if w is None else w.contiguous() for w in ws] for ws in directions]
    hidden, *extras = (s.contiguous() for s in states)
    first = [hidden.to(x.dtype), *extras]
    y = empty(x, shape.N, D * S)
    finals = [torch.empty_like(hidden)]
    for extra in extras:  # updated in place where no step's is kept
        finals.append(torch.empty_like(extra) if keep else extra.clone())
    kept, places = None, {}
    if keep:
        places, each = shape.record(cell)
        kept = empty(hidden, D, each // size)
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts = _forward_layout(cell, shape, keep, team.size)
        memory = empty(hidden, layout.size // size)
        bounds = steps.bounds(row_parts)
        rows = []
        for d, (ih, hh, b_ih, b_hh, hr) in enumerate(directions):
            h0, *c0 = (s.data_ptr() + d * s.stride(0) * s.itemsize for s in first)
            h_n, *c_n = (s.data_ptr() + d * s.stride(0) * size for s in finals)
            c0, c_n = (c0[0], c_n[0]) if c0 else (0, 0)
            out = y.data_ptr() + d * S * item
            row = [*steps.addresses, at(x), at(ih), at(b_ih), at(hh), at(b_hh), at(hr)]
            if keep:
                base = kept.data_ptr() + d * each
                row += [base + places["after"], S, h0, h_n, base + places["extra_after"], c0, c_n]
                row += [out, D * S, base + places["kept"], base + places["m"]]
            else:
                row += [out, D * S, h0, h_n, c_n, c_n, c_n, out, D * S, 0, 0]
            rows.append([address(bounds), *row][: len(layout.given)])
        team.run(compiled.forward(cell, x.dtype), layout.fill(memory.data_ptr(), rows))
    return y, finals, kept


BACKWARD_GIVEN = (
    "bounds sizes offsets x w_ih w_hh w_hr dy lddy dx add dh dextra after extra_after kept m "
    "h_first extra_first dw_ih dw_hh dw_hr sums_x sums_h sums_r"
).split()


@lru_cache(maxsize=256)
def _backward_layout(cell, shape, need_x, threads):
    dtype, T, B, N, D, I, H, S, projected = shape
    M, tile = cell.gates * H, compiled.tiles(cell.gates, dtype)
    size, item = compiled.wide(dtype).itemsize, dtype.itemsize
    columns, wide = tile.padded(S), tile.padded(M)
    block = max(1, min(T, CHUNK // B))
    capacity, groups = block * B, _groups(D, threads)
    parts = threads // groups
    row_parts, unit_parts = team_grid(B, tile.panels(S), parts, M * S * item, CACHE_BYTES)
    numbers = {
        "T": T, "B": B, "I": I, "H": H, "S": S, "block": block, "capacity": capacity,
        "lddh": columns, "loop_parts": row_parts * unit_parts,
        **_team(parts, unit_parts, groups, D, dtype),
    }  # fmt: skip
    scratch = {
        "tile": (size, parts, tile.rows, tile.panel),
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
    layout = Layout(BACKWARD, D, row_parts, numbers, scratch, BACKWARD_GIVEN)
    return layout, row_parts, groups


def backward(cell, x, steps, directions, states, kept, grads, need_x, need_weights):
    """The gradients of x (None if not needed), of the states, and of each direction's weights.

    All tensors are contiguous; the weights have their gates in the order of dgates, and so have
    their gradients, of which those are None that are not needed.
    """
    shape = Shape.of(cell, x, steps, directions, states)
    hidden, *extras = states
    states = [hidden.to(x.dtype), *extras]
    D, S, M, size, item = shape.D, shape.S, cell.gates * shape.H, hidden.itemsize, x.itemsize
    dy, *dfinals = grads
    tile = compiled.tiles(cell.gates, x.dtype)
    dh = pad(dfinals[0], (0, tile.padded(S) - S))
    dextra = [dfinal.clone() for dfinal in dfinals[1:]]
    sums = hidden.new_zeros(D, 3, tile.padded(max(M, S)))
    dweights = [
        Weights(
            empty(hidden, M, shape.I) if need.ih else None,
            empty(hidden, M, S) if need.hh else None,
            sums[d, 0, :M] if need.b_ih else None,
            sums[d, 1, :M] if need.b_hh else None,
            empty(hidden, S, shape.H) if need.hr else None,
        )
        for d, need in enumerate(need_weights)
    ]
    places, each = shape.record(cell)
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts, groups = _backward_layout(cell, shape, need_x, team.size)
        memory, bounds = empty(hidden, layout.size // size), steps.bounds(row_parts)
        # directions that take turns add to the same dx
        dxs = [empty(x, *x.shape) for _ in range(groups)] if need_x else [None] * groups
        rows = []
        for d, (weights, need, dw) in enumerate(
            zip(directions, need_weights, dweights, strict=True)
        ):
            base = kept.data_ptr() + d * each
            total = [sums.data_ptr() + (3 * d + i) * sums.stride(1) * size for i in range(3)]
            wanted = need.ih or need.b_ih, need.hh or need.b_hh, need.hr
            rows.append([
                address(bounds), *steps.addresses, at(x), at(weights.ih), at(weights.hh),
                at(weights.hr), at(dy) + d * S * item, D * S, at(dxs[d % groups]), d // groups,
                at(dh) + d * dh.stride(0) * size,
                at(dextra[0]) + d * dextra[0].stride(0) * size if dextra else 0,
                *[base + places[name] for name in ("after", "extra_after", "kept", "m")],
                *[at(t) + d * t.stride(0) * t.itemsize for t in states], *[0] * (2 - len(states)),
                at(dw.ih), at(dw.hh), at(dw.hr),
                *[t if w else 0 for t, w in zip(total, wanted, strict=True)],
            ])  # fmt: skip
        team.run(compiled.backward(cell, x.dtype), layout.fill(memory.data_ptr(), rows))
    if need_x and groups == 2:
        dxs[0].add_(dxs[1])
    return dxs[0], [dh[..., :S], *dextra], dweights


def _team(parts, unit_parts, groups, D, dtype):
    """The fields that say how threads divide the work."""
    return {
        "parts": parts,
        "unit_parts": unit_parts,
        "groups": groups,
        "directions": D,
        "zeros": compiled.zeros(dtype).data_ptr(),
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
