"""One function for each compiled function: allocates, plans, and runs it on a team of threads."""

import torch
from torch.nn.functional import pad

from ..weights import Weights
from . import compiled
from .backward import BACKWARD
from .forward import FORWARD
from .plan import Plan, counters, scratch, team_grid
from .products import CHUNK, GROUP
from .threads import TEAM

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not


def forward(cell, x, steps, d, weights, finals, y, keep):
    """One direction; ``finals`` come as initial states and become the final ones.

    Returns, for backward (all None unless ``keep``): what the cell kept, the hidden and the extra
    states before each step, and the hidden states before projection.
    """
    (B, S), I, N = finals[0].shape, x.shape[1], steps.N
    ih, hh, b_ih, b_hh, hr = (None if w is None else w.contiguous() for w in weights)
    H = hh.shape[0] // cell.gates
    tile, single = compiled.tiles(cell.gates, x.dtype), compiled.tiles(1, x.dtype)
    width = tile.tiles(H) * tile.width
    block = max(1, min(steps.T, _rows_at_a_time(I, width, x.itemsize) // B))
    h = torch.stack([finals[0], finals[0]])
    kept = before = extra_before = None
    if keep:
        kept, before = x.new_empty(N, cell.kept, H), x.new_empty(N, S)
        extra_before = x.new_empty(N, cell.states - 1, H)
    m = None if hr is None else x.new_empty(N if keep else B, H)
    with TEAM.members(_threads(N * width * (I + S))) as team:
        grid = team_grid(B, tile.tiles(H), team.size, S * width * x.itemsize, CACHE_BYTES)
        plan = Plan(
            FORWARD,
            I=I, block=block, x=x, w_ih=ih, b_ih=b_ih, w_hh=hh, b_hh=b_hh, w_hr=hr,
            h=h[0], h_next=h[1], extra=finals[1] if cell.states > 1 else None, m=m, y=y,
            ldy=y.stride(0), h_last=finals[0], keep=keep, kept=kept, before=before,
            extra_before=extra_before,
            **_common(steps, d, grid, grid[0] * grid[1], H, S, x.dtype),
            **scratch(
                x, tile=(grid[0] * grid[1], tile.rows, tile.width),
                xgates=(grid[0], block * B, width),
                w_ih_panels=(I, width), w_hh_panels=(S, width), b_ih_panels=(width,),
                b_hh_panels=(width,),
                w_hr_panels=(H, single.tiles(S) * single.width if hr is not None else 0),
            ),
        )  # fmt: skip
        team.run(compiled.forward(cell, x.dtype), plan)
    return kept, before, extra_before, m


def backward(cell, x, steps, d, weights, kept, dy, dfinals, dx, need):
    """One direction; ``weights`` have their gates in the order of dgates; ``need``: which to do.

    Writes dx (adds to it where d is 1; None: not wanted). Returns the gradients of the initial
    states, and of the weights, their gates in that order too.
    """
    kept, before, extra_before, m = kept
    (B, S), I, H = dfinals[0].shape, x.shape[1], kept.shape[2]
    M = cell.gates * H
    tile = compiled.tiles(1, x.dtype)
    columns, wide = tile.tiles(S) * tile.width, tile.tiles(M) * tile.width
    block = max(1, min(steps.T, CHUNK // B))
    capacity = block * B
    dh = pad(dfinals[0], (0, columns - S))
    dextra = dfinals[1].clone() if cell.states > 1 else None
    sums_x, sums_h = x.new_zeros(2, wide)
    grads = Weights(
        x.new_empty(M, I) if need.ih else None,
        x.new_empty(M, S) if need.hh else None,
        sums_x[:M] if need.b_ih else None,
        sums_h[:M] if need.b_hh else None,
        x.new_empty(S, H) if need.hr else None,
    )
    with TEAM.members(_threads(steps.N * M * (S + I))) as team:
        grid = team_grid(B, tile.tiles(S), team.size, M * S * x.itemsize, CACHE_BYTES)
        threads = team.size
        plan = Plan(
            BACKWARD,
            loop_parts=grid[0] * grid[1], I=I, block=block, x=x, dy=dy, lddy=dy.stride(0),
            dx=dx, add=d, dh=dh, lddh=columns, dextra=dextra, kept=kept, before=before,
            extra_before=extra_before, m=m, capacity=capacity, w_ih=weights.ih,
            w_hh=weights.hh, w_hr=weights.hr, dw_ih=grads.ih,
            dw_hh=grads.hh, dw_hr=grads.hr,
            sums_x=sums_x if need.ih or need.b_ih else None,
            sums_h=sums_h if need.hh or need.b_hh else None, sums_r=x.new_zeros(wide),
            **_common(steps, d, grid, threads, H, S, x.dtype),
            **scratch(
                x, tile=(threads, tile.rows, tile.width), dgates=(2, capacity, cell.dgates, H),
                dp=(2, capacity, S if m is not None else 0), w_hh_panels=(M, columns),
                w_ih_panels=(M, tile.tiles(I) * tile.width if dx is not None else 0),
                w_hr_panels=(S, tile.tiles(H) * tile.width if m is not None else 0),
                strips_x=(wide, I), strips_h=(wide, S),
                strips_r=(columns, H if need.hr else 0), strip=(threads, GROUP, tile.panel),
                left=(threads, max(I, H) + 2 * tile.lanes, CHUNK),
                packed=(threads, CHUNK, tile.panel),
            ),
        )  # fmt: skip
        team.run(compiled.backward(cell, x.dtype), plan)
    return [dh[:, :S]] if dextra is None else [dh[:, :S], dextra], grads


def _threads(work):
    """How many threads ``work`` multiply-adds are worth."""
    return torch.get_num_threads() if work >= MIN_WORK else 1


def _rows_at_a_time(I, width, itemsize):
    """How many rows of x to project before their steps are taken."""
    rows = BLOCK_BYTES // (width * itemsize)
    if I * width * itemsize > CACHE_BYTES:  # W_ih comes from afar: many rows share the way
        rows = max(rows, FAR_ROWS)
    return rows


def _common(steps, reverse, grid, parts, H, S, dtype):
    """The fields that forward's and backward's plans share."""
    row_parts, unit_parts = grid
    return {
        "T": steps.T,
        "B": steps.B,
        "H": H,
        "S": S,
        "reverse": reverse,
        "parts": parts,
        "unit_parts": unit_parts,
        "bounds": steps.bounds(row_parts),
        "sizes": steps.sizes,
        "offsets": steps.offsets,
        "counters": counters(row_parts),
        "zeros": compiled.zeros(dtype),
    }
