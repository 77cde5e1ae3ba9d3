"""The CPU engine: packs the weights, plans a call, runs the compiled loops on a team of threads."""

import torch

from ..weights import Weights
from . import compiled, loops, products
from .plan import Plan, row_bounds, team_grid
from .threads import TEAM

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay
CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too


def layer(cell, x, steps, directions, states, keep):
    """One layer, forward. x: (N, I); states: a (D, B, H or P) tensor for each of the cell's.

    Returns the output (N, D * H or P), the final states, and for each direction what ``gradients``
    wants to see again (all None unless ``keep``).
    """
    S = states[0].shape[2]
    x = x.contiguous()
    y = x.new_empty(steps.N, len(directions) * S)
    finals = tuple(s.clone(memory_format=torch.contiguous_format) for s in states)
    kept = [
        _forward(cell, x, steps, w, d, [s[d] for s in finals], y[:, d * S : (d + 1) * S], keep)
        for d, w in enumerate(directions)
    ]
    return y, finals, kept


def gradients(cell, x, steps, directions, states, y, kept, dy, dfinals, need_x):
    """One layer, backward: the gradients of x (None unless asked for), states and weights."""
    S = states[0].shape[2]
    x, dy = x.contiguous(), dy.contiguous()
    dx = x.new_empty(x.shape) if need_x else None
    dstates, dweights = [], []
    for d, weights in enumerate(directions):
        part = slice(d * S, (d + 1) * S)
        mine = [[s[d].contiguous() for s in group] for group in (states, dfinals)]
        dgates, ds, dp = _backward(cell, steps, weights, d, *mine, y[:, part], kept[d], dy[:, part])
        dstates.append(ds)
        before = _previous(steps, d, mine[0][0], y[:, part])
        dweights.append(_weight_gradients(cell, x, weights, before, dgates, dp, kept[d][2]))
        if need_x:
            gates, order = _run(cell.dx)
            H = dgates.shape[2]
            ih = weights.ih.reshape(cell.gates, H, -1)[order].flatten(0, 1)
            matmul(dgates[:, gates].flatten(1), ih, dx, add=d > 0)
    return dx, tuple(torch.stack(ds) for ds in zip(*dstates, strict=True)), dweights


def _threads(work):
    """How many threads ``work`` multiply-adds are worth."""
    return torch.get_num_threads() if work >= MIN_WORK else 1


def _run(places):
    """The slice of ``dgates`` that one side's gradients fill, and the gate that lies at each."""
    first = min(places)
    return slice(first, first + len(places)), [places.index(first + i) for i in range(len(places))]


def _common(like, steps, reverse, tile, row_parts, unit_parts):
    """The fields that forward's and backward's plans share."""
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
        "counters": torch.zeros(8 * (1 + row_parts), dtype=torch.int64),
        "tile": like.new_empty(threads, tile.rows * tile.width),
        "zeros": like.new_zeros(tile.width),
    }


def _forward(cell, x, steps, weights, d, finals, y, keep):
    """One direction; ``finals`` come as initial states and become the final ones.

    Returns what backward needs: what the cell kept, the extra states, the states before projection.
    """
    dtype, (B, S), I = x.dtype, finals[0].shape, x.shape[1]
    H = weights.hh.shape[0] // cell.gates
    tile, single = compiled.tiles(cell.gates, dtype), compiled.tiles(1, dtype)
    width = tile.tiles(H) * tile.width
    block = max(1, min(steps.T, BLOCK_BYTES // (B * width * x.itemsize)))
    h = torch.stack([finals[0], finals[0]])
    kept = x.new_empty(steps.N, cell.kept, H) if keep else None
    extras = x.new_empty(steps.N, cell.states - 1, H) if keep else None
    m = x.new_empty(steps.N if keep else B, H) if weights.hr is not None else None
    with TEAM.members(_threads(steps.N * width * (I + S))) as team:
        row_parts, unit_parts = team_grid(
            B, tile.tiles(H), team.size, S * width * x.itemsize, CACHE_BYTES
        )
        plan = Plan(
            loops.FORWARD,
            **_common(x, steps, d, tile, row_parts, unit_parts),
            I=I, H=H, S=S, block=block, x=x, ldx=I,
            w_ih=tile.pack(weights.ih.t()), b_ih=tile.pack_bias(weights.b_ih, H, x),
            w_hh=tile.pack(weights.hh.t()), b_hh=tile.pack_bias(weights.b_hh, H, x),
            w_hr=None if m is None else single.pack(weights.hr.t()),
            xgates=x.new_empty(block * B, width), h=h[0], h_next=h[1],
            extra=finals[1] if cell.states > 1 else None, m=m, y=y, ldy=y.stride(0),
            h_last=finals[0], keep=keep, kept=kept, extras=extras,
        )  # fmt: skip
        team.run(compiled.forward(cell, dtype), plan)
    return kept, extras, m


def _backward(cell, steps, weights, d, states, dfinals, y, kept, dy):
    """One direction: (dgates (N, dgates, H), gradients of the initial states, of W_hr m or None)."""
    kept, extras, m = kept
    dtype, (B, S), H = dy.dtype, states[0].shape, kept.shape[2]
    tile = compiled.tiles(1, dtype)
    gates, order = _run(cell.dh)
    hh = weights.hh.reshape(cell.gates, H, S)[order].flatten(0, 1)
    dh = torch.nn.functional.pad(dfinals[0], (0, tile.tiles(S) * tile.width - S)).contiguous()
    dextra = dfinals[1].clone() if cell.states > 1 else None
    dgates = dy.new_empty(steps.N, cell.dgates, H)
    dp = None if m is None else dy.new_empty(steps.N, S)
    with TEAM.members(_threads(steps.N * hh.numel())) as team:
        row_parts, unit_parts = team_grid(
            B, tile.tiles(S), team.size, hh.numel() * dy.itemsize, CACHE_BYTES
        )
        plan = Plan(
            loops.BACKWARD,
            **_common(dy, steps, d, tile, row_parts, unit_parts),
            I=0, H=H, S=S, dy=dy, lddy=dy.stride(0), dh=dh, lddh=dh.shape[1], dextra=dextra,
            kept=kept, extras=extras, extra_0=states[1] if cell.states > 1 else None,
            y=y, ldy=y.stride(0), h_0=states[0], dgates=dgates, dh_gates=gates.start,
            depth=hh.shape[0], w_hh=tile.pack(hh),
            w_hr=None if m is None else tile.pack(weights.hr), dp=dp,
        )  # fmt: skip
        team.run(compiled.backward(cell, dtype), plan)
    dstates = [dh[:, :S]] if dextra is None else [dh[:, :S], dextra]
    return dgates, dstates, dp


def _previous(steps, reverse, h_0, y):
    """(N, S) for each row, the hidden state that its step began with."""
    if not steps.dense:
        return torch.cat([h_0, y])[torch.from_numpy(steps.previous(reverse))]
    B = steps.B
    return torch.cat([y[B:], h_0]) if reverse else torch.cat([h_0, y[:-B]])


def _weight_gradients(cell, x, weights, before, dgates, dp, m):
    sums = dgates.sum(0)  # (dgates, H)

    def side(places, other):
        gates, _ = _run(places)
        grad = outer(dgates[:, gates].flatten(1), other)
        return grad.view(cell.gates, -1, grad.shape[1])[[p - gates.start for p in places]].flatten(0, 1)

    def bias(places, given):
        return None if given is None else sums[list(places)].flatten()

    return Weights(
        side(cell.dx, x),
        side(cell.dh, before),
        bias(cell.dx, weights.b_ih),
        bias(cell.dh, weights.b_hh),
        None if m is None else outer(dp, m),
    )


def matmul(a, b, c, add):
    """c = a @ b, or c += a @ b. a: (M, K) with unit stride in K; b: (K, N); c: (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    tile = compiled.tiles(1, a.dtype)
    with TEAM.members(_threads(M * K * N)) as team:
        plan = Plan(
            products.MATMUL, M=M, K=K, N=N, a=a, lda=a.stride(0), panels=tile.pack(b), c=c,
            ldc=c.stride(0), add=add, zeros=a.new_zeros(tile.panel), parts=team.size,
            tile=a.new_empty(team.size, tile.rows * tile.panel),
            counters=torch.zeros(1, dtype=torch.int64),
        )  # fmt: skip
        team.run(compiled.matmul(a.dtype), plan)


def outer(a, b):
    """a.T @ b. a: (K, M), b: (K, N), each with unit stride in its rows."""
    (K, M), N = a.shape, b.shape[1]
    tile = compiled.tiles(1, a.dtype)
    columns = tile.tiles(N) * tile.panel
    c = a.new_empty(M, columns)
    with TEAM.members(_threads(M * K * N)) as team:
        plan = Plan(
            products.OUTER, M=M, K=K, N=N, a=a, lda=a.stride(0), b=b, ldb=b.stride(0), c=c,
            ldc=columns, zeros=a.new_zeros(tile.panel), parts=team.size,
            panels=a.new_empty(team.size, compiled.CHUNK, columns),
            blocks=a.new_empty(team.size, compiled.CHUNK, tile.rows),
            counters=torch.zeros(1, dtype=torch.int64),
        )  # fmt: skip
        team.run(compiled.outer(a.dtype), plan)
    return c[:, :N]
