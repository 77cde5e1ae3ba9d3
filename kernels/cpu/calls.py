"""One function for each compiled function: allocates, plans, and runs it on a team of threads."""

import torch
from torch.nn.functional import pad

from . import compiled
from .backward import BACKWARD
from .forward import FORWARD
from .plan import Plan, counters, scratch, team_grid
from .products import GROUP, MATMUL, OUTER
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
            **_common(steps, d, grid, H, S, x.dtype),
            **scratch(
                x, tile=(grid[0] * grid[1], tile.rows, tile.width), xgates=(block * B, width),
                w_ih_panels=(I, width), w_hh_panels=(S, width), b_ih_panels=(width,),
                b_hh_panels=(width,), w_hr_panels=(H, single.tiles(S) * single.width if S != H else 0),
            ),
        )  # fmt: skip
        team.run(compiled.forward(cell, x.dtype), plan)
    return kept, before, extra_before, m


def backward(cell, steps, d, hh, first_gate, hr, kept, dy, dfinals):
    """One direction. hh: W_hh with its gates in the order of dgates, from ``first_gate`` on.

    Returns dgates (N, dgates, H), the gradients of the initial states, and of W_hr m (or None).
    """
    kept, before, extra_before, m = kept
    (B, S), H = dfinals[0].shape, kept.shape[2]
    tile = compiled.tiles(1, dy.dtype)
    columns = tile.tiles(S) * tile.width
    dh = pad(dfinals[0], (0, columns - S))
    dextra = dfinals[1].clone() if cell.states > 1 else None
    dgates = dy.new_empty(steps.N, cell.dgates, H)
    dp = None if hr is None else dy.new_empty(steps.N, S)
    with TEAM.members(_threads(steps.N * hh.numel())) as team:
        grid = team_grid(B, tile.tiles(S), team.size, hh.numel() * dy.itemsize, CACHE_BYTES)
        plan = Plan(
            BACKWARD,
            dy=dy, lddy=dy.stride(0), dh=dh, lddh=columns, dextra=dextra, kept=kept, before=before,
            extra_before=extra_before, dgates=dgates, dh_gates=first_gate, depth=hh.shape[0],
            w_hh=hh, w_hr=hr, dp=dp,
            **_common(steps, d, grid, H, S, dy.dtype),
            **scratch(
                dy, tile=(grid[0] * grid[1], tile.rows, tile.width),
                w_hh_panels=(hh.shape[0], columns),
                w_hr_panels=(S, tile.tiles(H) * tile.width if hr is not None else 0),
            ),
        )  # fmt: skip
        team.run(compiled.backward(cell, dy.dtype), plan)
    dh = dh[:, :S]
    return dgates, [dh] if dextra is None else [dh, dextra], dp


def matmul(a, b, c, add):
    """c = a @ b, or c += a @ b. a: (M, K) with unit stride in K; b: (K, N); c: (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    tile = compiled.tiles(1, a.dtype)
    with TEAM.members(_threads(M * K * N)) as team:
        plan = Plan(
            MATMUL, M=M, K=K, N=N, a=a, lda=a.stride(0), b=b, c=c, ldc=c.stride(0), add=add,
            zeros=compiled.zeros(a.dtype), counters=counters(0), parts=team.size,
            **scratch(
                a, panels=(K, tile.tiles(N) * tile.width), strips=(team.size, GROUP, tile.panel)
            ),
        )  # fmt: skip
        team.run(compiled.matmul(a.dtype), plan)


def outer(d, a, b):
    """(d.T @ a, d.T @ b, d.sum(0)); a or b may be None. All are (N, ...) with unit-stride rows."""
    K, M = d.shape
    (Na, lda), (Nb, ldb) = ((0, 0) if t is None else (t.shape[1], t.stride(0)) for t in (a, b))
    tile = compiled.tiles(1, d.dtype)
    columns = tile.tiles(M) * tile.panel
    da, db = (None if t is None else d.new_empty(M, t.shape[1]) for t in (a, b))
    sums = d.new_zeros(columns)
    with TEAM.members(_threads(K * M * (Na + Nb))) as team:
        plan = Plan(
            OUTER, K=K, M=M, a=a, lda=lda, Na=Na, b=b, ldb=ldb, Nb=Nb, d=d, ldd=d.stride(0),
            da=da, db=db, sums=sums, zeros=compiled.zeros(d.dtype), counters=counters(0),
            parts=team.size,
            **scratch(
                d, left=(team.size, Na + Nb + 2 * tile.lanes, compiled.CHUNK),
                strips=(columns, Na + Nb), panel=(team.size, compiled.CHUNK, tile.panel),
            ),
        )  # fmt: skip
        team.run(compiled.outer(d.dtype), plan)
    return da, db, sums[:M]


def _threads(work):
    """How many threads ``work`` multiply-adds are worth."""
    return torch.get_num_threads() if work >= MIN_WORK else 1


def _rows_at_a_time(I, width, itemsize):
    """How many rows of x to project before their steps are taken."""
    rows = BLOCK_BYTES // (width * itemsize)
    if I * width * itemsize > CACHE_BYTES:  # W_ih comes from afar: many rows share the way
        rows = max(rows, FAR_ROWS)
    return rows


def _common(steps, reverse, grid, H, S, dtype):
    """The fields that forward's and backward's plans share."""
    row_parts, unit_parts = grid
    return {
        "T": steps.T,
        "B": steps.B,
        "H": H,
        "S": S,
        "reverse": reverse,
        "parts": row_parts * unit_parts,
        "unit_parts": unit_parts,
        "bounds": steps.bounds(row_parts),
        "sizes": steps.sizes,
        "offsets": steps.offsets,
        "counters": counters(row_parts),
        "zeros": compiled.zeros(dtype),
    }
