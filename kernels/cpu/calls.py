"""One function for each compiled function: allocates, plans, and runs it on a team of threads.

What a plan holds the address of, a variable here refers to until the call has come back.
"""

import torch
from torch.nn.functional import pad

from ..weights import Weights
from . import compiled, machine
from .layouts import backward_layout, forward_layout
from .memory import at, at_each, empty, scratch
from .threads import TEAM


def forward(cell, shape, x, steps, directions, states, keep):
    """One layer. All tensors have passed the gate (engine.py).

    Returns the output in x's dtype, the final states in theirs, and what backward wants: a tensor
    for each entry of ``Shape.kept`` (none unless ``keep``).
    """
    D, S, item = shape.D, shape.S, x.itemsize
    hidden, *extras = states
    first = [hidden.to(x.dtype), *extras]
    y = empty(x, shape.N, D * S)
    finals = [torch.empty_like(hidden)]
    for extra in extras:  # updated in place where no step's is kept
        finals.append(torch.empty_like(extra) if keep else extra.clone())
    kept, gates = {}, None
    if keep:
        gates = shape.gates(cell, keep, steps)
        like = {x.dtype: x, hidden.dtype: hidden}
        for name, (sizes, dtype) in shape.kept(cell, gates).items():
            kept[name] = empty(like[dtype], *sizes)
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts = forward_layout(cell, shape, keep, team.size)
        memory = scratch(hidden, layout.size)
        bounds = steps.bounds(row_parts)
        kept_at = _kept_at(cell, shape, kept, gates)
        h0s, *c0s = (at_each(s, D) for s in first)
        h_ns, *c_ns = (at_each(s, D) for s in finals)
        given = []
        for d, (ih, hh, b_ih, b_hh, hr) in enumerate(directions):
            c0, c_n = (c0s[0][d], c_ns[0][d]) if c0s else (0, 0)
            out = at(y) + d * S * item
            row = [bounds, *steps.addresses, *map(at, (x, ih, b_ih, hh, b_hh, hr))]
            if keep:
                after, extra_after, m, kept_gates, kept_from = kept_at[d]
                row += [after, S, h0s[d], h_ns[d], extra_after, c0, c_n]
                row += [out, D * S, kept_gates, kept_from, m]
            else:
                row += [out, D * S, h0s[d], h_ns[d], c_n, c_n, c_n, out, D * S, 0, 0, 0]
            given += row
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.forward(), plan)
    return y, finals, tuple(kept.values())


def backward(
    cell, shape, x, steps, directions, states, keep, kept, gates, grads, need_x, need_weights
):
    """The gradients of x (None if not needed), of the states, and of each direction's weights.

    kept: {name: tensor}; gates: as from ``Shape.gates``. All tensors have passed the gate.
    """
    hidden, *extras = states
    states = [hidden.to(x.dtype), *extras]
    D, S, M, size, item = shape.D, shape.S, cell.gates * shape.H, hidden.itemsize, x.itemsize
    dy, *dfinals = grads
    tile = machine.tiles(cell.gates, x.dtype)
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
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts, groups = backward_layout(cell, shape, keep, need_x, team.size)
        memory, bounds = scratch(hidden, layout.size), steps.bounds(row_parts)
        # Directions that take turns add to the same dx, unless that would round it twice: results
        # are the same for any number of threads.
        apart = groups if x.dtype == hidden.dtype else D
        dxs = [empty(x, *x.shape) for _ in range(apart)] if need_x else [None] * apart
        kept_at = _kept_at(cell, shape, kept, gates)
        h0s, *c0s = (at_each(s, D) for s in states)
        dhs, dcs, no = at_each(dh, D), at_each(dextra[0] if dextra else None, D), [0] * D
        given = []
        for d, (weights, need, dw) in enumerate(
            zip(directions, need_weights, dweights, strict=True)
        ):
            after, extra_after, m, kept_gates, kept_from = kept_at[d]
            total = [at(sums) + (3 * d + i) * sums.stride(1) * size for i in range(3)]
            wanted = need.ih or need.b_ih, need.hh or need.b_hh, need.hr
            given += [
                bounds, *steps.addresses, at(x), at(weights.ih), at(weights.hh),
                at(weights.hr), at(weights.b_ih), at(weights.b_hh),
                at(dy) + d * S * item, D * S, at(dxs[d % apart]), d // apart, dhs[d], dcs[d],
                after, extra_after, m, h0s[d], (c0s[0] if c0s else no)[d],
                at(dw.ih), at(dw.hh), at(dw.hr),
                *[t if w else 0 for t, w in zip(total, wanted, strict=True)],
                kept_gates, kept_from,
            ]  # fmt: skip
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.backward(), plan)
    if need_x and apart == 2:
        dxs[0].add_(dxs[1])
    return dxs[0], [dh[..., :S], *dextra], dweights


def _kept_at(cell, shape, kept, gates):
    """For each direction the addresses of what is kept, that of gates where row 0's would be; and
    from which step on these are.
    """
    if not kept:
        return None
    others = (at_each(kept.get(name), shape.D) for name in ("after", "extra_after", "m"))
    each, start, found = cell.kept * shape.H * shape.dtype.itemsize, at(kept.get("gates")), []
    for addresses, (step, row, rows) in zip(zip(*others, strict=True), gates, strict=True):
        found.append((*addresses, start - row * each, step))
        start += rows * each
    return found
