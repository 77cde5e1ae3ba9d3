"""One function for each compiled function: allocates, plans, and runs it on a team of threads."""

import torch
from torch.nn.functional import pad

from ..weights import Weights
from . import compiled
from .layouts import Shape, backward_layout, forward_layout
from .memory import at, empty, scratch
from .threads import TEAM


def _gates(cell, shape, steps, d, start, rows):
    """Where row 0's gates would be, and from which step on they are kept, of ``rows`` rows."""
    if rows == shape.N:
        return start, 0
    step = steps.last(rows, d)
    first = steps.offsets[step] if step < shape.T and not d else 0
    return start - int(first) * cell.kept * shape.H * shape.dtype.itemsize, step


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
    kept = None
    if keep:
        places, each, gates = shape.record(cell, keep)
        kept = empty(hidden, D, each // size)
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts = forward_layout(cell, shape, keep, team.size)
        memory = scratch(hidden, layout.size)
        bounds = steps.bounds(row_parts)
        given = []
        for d, (ih, hh, b_ih, b_hh, hr) in enumerate(directions):
            h0, *c0 = (s.data_ptr() + d * s.stride(0) * s.itemsize for s in first)
            h_n, *c_n = (s.data_ptr() + d * s.stride(0) * size for s in finals)
            c0, c_n = (c0[0], c_n[0]) if c0 else (0, 0)
            out = y.data_ptr() + d * S * item
            row = [
                *steps.addresses,
                at(x),
                at(ih),
                at(b_ih),
                at(hh),
                at(b_hh),
                at(hr),
            ]
            if keep:
                base = kept.data_ptr() + d * each
                row += [base + places["after"], S, h0, h_n, base + places["extra_after"], c0, c_n]
                row += [out, D * S, *_gates(cell, shape, steps, d, base + places["kept"], gates)]
                row.append(base + places["m"])
            else:
                row += [out, D * S, h0, h_n, c_n, c_n, c_n, out, D * S, 0, 0, 0]
            given += [bounds, *row]
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.forward(cell, x.dtype), plan.buffer_info()[0])
    return y, finals, kept


def backward(cell, x, steps, directions, ordered, states, keep, kept, grads, need_x, need_weights):
    """The gradients of x (None if not needed), of the states, and of each direction's weights.

    All tensors are contiguous. ``ordered`` are the weights with their gates in the order of dgates,
    and so have their gradients, of which those are None that are not needed.
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
    places, each, gates = shape.record(cell, keep)
    with TEAM.members(shape.threads(cell)) as team:
        layout, row_parts, groups = backward_layout(cell, shape, keep, need_x, team.size)
        memory, bounds = scratch(hidden, layout.size), steps.bounds(row_parts)
        # Directions that take turns add to the same dx, unless that would round it twice: results
        # are the same for any number of threads.
        apart = groups if x.dtype == hidden.dtype else D
        dxs = [empty(x, *x.shape) for _ in range(apart)] if need_x else [None] * apart
        given = []
        for d, (weights, turned, need, dw) in enumerate(
            zip(directions, ordered, need_weights, dweights, strict=True)
        ):
            base = kept.data_ptr() + d * each
            total = [sums.data_ptr() + (3 * d + i) * sums.stride(1) * size for i in range(3)]
            wanted = need.ih or need.b_ih, need.hh or need.b_hh, need.hr
            given += [
                bounds, *steps.addresses, at(x), at(weights.ih), at(weights.hh),
                at(weights.hr), at(weights.b_ih), at(weights.b_hh), at(turned.ih), at(turned.hh),
                at(dy) + d * S * item, D * S, at(dxs[d % apart]), d // apart,
                at(dh) + d * dh.stride(0) * size,
                at(dextra[0]) + d * dextra[0].stride(0) * size if dextra else 0,
                *[base + places[name] for name in ("after", "extra_after", "m")],
                *[at(t) + d * t.stride(0) * t.itemsize for t in states], *[0] * (2 - len(states)),
                at(dw.ih), at(dw.hh), at(dw.hr),
                *[t if w else 0 for t, w in zip(total, wanted, strict=True)],
                *_gates(cell, shape, steps, d, base + places["kept"], gates),
            ]  # fmt: skip
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.backward(cell, x.dtype), plan.buffer_info()[0])
    if need_x and apart == 2:
        dxs[0].add_(dxs[1])
    return dxs[0], [dh[..., :S], *dextra], dweights
