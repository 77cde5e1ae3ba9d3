"""The CPU engine: plans a call and runs the compiled functions on a team of threads."""

import torch

from ..weights import Weights
from . import compiled
from .backward import BACKWARD
from .forward import FORWARD
from .plan import Plan, counters, row_bounds, team_grid
from .products import GROUP, MATMUL, OUTER
from .threads import TEAM

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not


def layer(cell, x, steps, directions, states, keep):
    """One layer, forward. x: (N, I); states: a (D, B, H or P) tensor for each of the cell's.

    Returns the output (N, D * H or P), the final states, and for each direction what ``gradients``
    wants to see again (all None unless ``keep``).
    """
    D, _, S = states[0].shape
    x = x.contiguous()
    y = x.new_empty(steps.N, D * S)
    finals = tuple(s.clone(memory_format=torch.contiguous_format) for s in states)
    kept = []
    for d, weights in enumerate(directions):
        part = y[:, d * S : (d + 1) * S]
        kept.append(_forward(cell, x, steps, weights, d, [s[d] for s in finals], part, keep))
    return y, finals, kept


def gradients(cell, x, steps, directions, states, kept, grads, need_x, need_weights):
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, and a Weights for each
    direction (None where nobody asked).
    """
    S = states[0].shape[2]
    x, dy, *dfinals = (t.contiguous() for t in (x, *grads))
    dx = torch.empty_like(x) if need_x else None
    dstates, dweights = [], []
    for d, weights in enumerate(directions):
        mine = dy[:, d * S : (d + 1) * S]
        finals = [s[d] for s in dfinals]
        dgates, ds, dp = _backward(cell, steps, weights, d, kept[d], mine, finals)
        dstates.append(ds)
        dweights.append(_weight_gradients(cell, x, weights, kept[d], dgates, dp, need_weights[d]))
        if need_x:
            gates, order = _run(cell.dx)
            matmul(dgates[:, gates].flatten(1), _reordered(cell, weights.ih, order), dx, add=d > 0)
    return dx, tuple(torch.stack(ds) for ds in zip(*dstates, strict=True)), dweights


def _threads(work):
    """How many threads ``work`` multiply-adds are worth."""
    return torch.get_num_threads() if work >= MIN_WORK else 1


def _run(places):
    """The slice of ``dgates`` that one side's gradients fill, and the gate that lies at each."""
    first = min(places)
    return slice(first, first + len(places)), [places.index(first + i) for i in range(len(places))]


def _reordered(cell, weight, order):
    """``weight`` (G*H, ...) with its gates in ``order``."""
    if order == sorted(order):
        return weight.contiguous()
    return weight.reshape(cell.gates, -1, *weight.shape[1:])[order].flatten(0, 1)


def _block_rows(I, width, itemsize):
    """How many rows of x to project at a time."""
    rows = BLOCK_BYTES // (width * itemsize)
    if I * width * itemsize > CACHE_BYTES:  # W_ih comes from afar: let many rows share the way
        rows = max(rows, FAR_ROWS)
    return rows


def _common(like, steps, reverse, tile, grid):
    """The fields that forward's and backward's plans share."""
    row_parts, unit_parts = grid
    threads = row_parts * unit_parts
    return {
        "T": steps.T,
        "B": steps.B,
        "reverse": reverse,
        "parts": threads,
        "unit_parts": unit_parts,
        "bounds": row_bounds(steps, row_parts),
        "sizes": steps.sizes,
        "offsets": steps.offsets,
        "counters": counters(row_parts),
        "tile": like.new_empty(threads, tile.rows * tile.width),
        "zeros": like.new_zeros(tile.width),
    }


def _forward(cell, x, steps, weights, d, finals, y, keep):
    """One direction; ``finals`` come as initial states and become the final ones.

    Returns, for backward: what the cell kept, the hidden and the extra states before each step, and
    the hidden states before projection.
    """
    dtype, (B, S), I = x.dtype, finals[0].shape, x.shape[1]
    ih, hh, b_ih, b_hh, hr = (t if t is None else t.contiguous() for t in weights)
    H = hh.shape[0] // cell.gates
    tile, single = compiled.tiles(cell.gates, dtype), compiled.tiles(1, dtype)
    width = tile.tiles(H) * tile.width
    block = max(1, min(steps.T, _block_rows(I, width, x.itemsize) // B))
    h = torch.stack([finals[0], finals[0]])
    kept = x.new_empty(steps.N, cell.kept, H) if keep else None
    before = x.new_empty(steps.N, S) if keep else None
    extra_before = x.new_empty(steps.N, cell.states - 1, H) if keep else None
    m = None if hr is None else x.new_empty(steps.N if keep else B, H)
    with TEAM.members(_threads(steps.N * width * (I + S))) as team:
        plan = Plan(
            FORWARD,
            **_common(x, steps, d, tile, team_grid(
                B, tile.tiles(H), team.size, S * width * x.itemsize, CACHE_BYTES)),
            I=I, H=H, S=S, block=block, x=x, w_ih=ih, w_ih_panels=x.new_empty(I, width),
            b_ih=b_ih, b_ih_panels=x.new_zeros(width), w_hh=hh, w_hh_panels=x.new_empty(S, width),
            b_hh=b_hh, b_hh_panels=x.new_zeros(width), w_hr=hr,
            w_hr_panels=None if hr is None else x.new_empty(H, single.tiles(S) * single.width),
            xgates=x.new_empty(block * B, width), h=h[0], h_next=h[1],
            extra=finals[1] if cell.states > 1 else None, m=m, y=y, ldy=y.stride(0),
            h_last=finals[0], keep=keep, kept=kept, before=before,
            extra_before=extra_before,
        )  # fmt: skip
        team.run(compiled.forward(cell, dtype), plan)
    return kept, before, extra_before, m


def _backward(cell, steps, weights, d, kept, dy, dfinals):
    """One direction: (dgates (N, dgates, H), gradients of the initial states, of W_hr m or None)."""
    kept, before, extra_before, m = kept
    dtype, (B, S), H = dy.dtype, dfinals[0].shape, kept.shape[2]
    tile = compiled.tiles(1, dtype)
    gates, order = _run(cell.dh)
    hh = _reordered(cell, weights.hh, order)
    columns = tile.tiles(S) * tile.width
    dh = torch.nn.functional.pad(dfinals[0], (0, columns - S))
    dextra = dfinals[1].clone() if cell.states > 1 else None
    dgates = dy.new_empty(steps.N, cell.dgates, H)
    dp = None if m is None else dy.new_empty(steps.N, S)
    with TEAM.members(_threads(steps.N * hh.numel())) as team:
        plan = Plan(
            BACKWARD,
            **_common(dy, steps, d, tile, team_grid(
                B, tile.tiles(S), team.size, hh.numel() * dy.itemsize, CACHE_BYTES)),
            H=H, S=S, dy=dy, lddy=dy.stride(0), dh=dh, lddh=columns, dextra=dextra, kept=kept,
            before=before, extra_before=extra_before,
            dgates=dgates, dh_gates=gates.start, depth=hh.shape[0], w_hh=hh,
            w_hh_panels=dy.new_empty(hh.shape[0], columns), dp=dp,
            w_hr=None if m is None else weights.hr.contiguous(),
            w_hr_panels=None if m is None else dy.new_empty(S, tile.tiles(H) * tile.width),
        )  # fmt: skip
        team.run(compiled.backward(cell, dtype), plan)
    return dgates, [dh[:, :S]] if dextra is None else [dh[:, :S], dextra], dp


def _weight_gradients(cell, x, weights, kept, dgates, dp, need):
    """A Weights of gradients, None where ``need`` (a Weights of bools) says no."""
    _, before, _, m = kept
    a = x if need.ih or need.b_ih else None
    b = before if need.hh or need.b_hh else None
    if cell.dx == cell.dh:  # one matrix of gradients times both
        ih, hh, sums_x = outer(dgates.flatten(1), a, b)
        sums_h = sums_x.clone()
    else:
        ih, sums_x = _side(cell, cell.dx, dgates, a)
        hh, sums_h = _side(cell, cell.dh, dgates, b)
    hr = outer(dp, m, None)[0] if need.hr else None
    return Weights(ih, hh, sums_x if need.b_ih else None, sums_h if need.b_hh else None, hr)


def _side(cell, places, dgates, other):
    """The gradients of one weight and one bias, whose gates are at ``places`` in dgates."""
    if other is None:
        return None, None
    gates, _ = _run(places)
    order = [p - gates.start for p in places]
    grad, _, sums = outer(dgates[:, gates].flatten(1), other, None)
    return _reordered(cell, grad, order), _reordered(cell, sums, order)


def matmul(a, b, c, add):
    """c = a @ b, or c += a @ b. a: (M, K) with unit stride in K; b: (K, N); c: (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    tile = compiled.tiles(1, a.dtype)
    with TEAM.members(_threads(M * K * N)) as team:
        plan = Plan(
            MATMUL, M=M, K=K, N=N, a=a, lda=a.stride(0), b=b, c=c, ldc=c.stride(0), add=add,
            panels=a.new_empty(K, tile.tiles(N) * tile.width), zeros=a.new_zeros(tile.panel),
            strips=a.new_empty(team.size, GROUP * tile.panel),
            counters=counters(0), parts=team.size,
        )  # fmt: skip
        team.run(compiled.matmul(a.dtype), plan)


def outer(d, a, b):
    """(d.T @ a, d.T @ b, d.sum(0)); a or b may be None. All are (N, ...) with unit-stride rows."""
    K, M = d.shape
    Na, Nb = (0 if t is None else t.shape[1] for t in (a, b))
    tile = compiled.tiles(1, d.dtype)
    columns = tile.tiles(M) * tile.panel
    da, db = (None if t is None else d.new_empty(M, t.shape[1]) for t in (a, b))
    sums = d.new_zeros(columns)
    with TEAM.members(_threads(K * M * (Na + Nb))) as team:
        plan = Plan(
            OUTER, K=K, M=M, a=a, lda=0 if a is None else a.stride(0), Na=Na,
            b=b, ldb=0 if b is None else b.stride(0), Nb=Nb, d=d, ldd=d.stride(0),
            da=da, db=db, sums=sums, zeros=d.new_zeros(tile.panel),
            left=d.new_empty(team.size, Na + Nb + 2 * tile.lanes, compiled.CHUNK),
            strips=d.new_empty(columns, Na + Nb), panel=d.new_empty(team.size, compiled.CHUNK, tile.panel),
            counters=counters(0), parts=team.size,
        )  # fmt: skip
        team.run(compiled.outer(d.dtype), plan)
    return da, db, sums[:M]
