"""One function for each compiled function: allocates, plans, and runs it on a team of threads.

What a plan holds the address of, a variable here refers to until the call has come back.
"""

from ctypes import memmove

import torch

from ..weights import Weights
from . import compiled
from .layouts import backward_layout, forward_layout
from .memory import at, at_each, empty, scratch
from .threads import TEAM


def forward(cell, shape, x, steps, directions, states, keep, inputs=None):
    """One layer. All tensors have passed the gate (engine.py).

    Returns the output in x's dtype, the final states in theirs, and what backward wants: a tensor
    for each entry of ``Shape.kept`` (none unless ``keep``).
    """
    D, S, item = shape.D, shape.S, x.itemsize
    hidden, *extras = states
    y, h_n = empty(x, *x.shape[:-1], D * S), torch.empty_like(hidden)
    c0, trail = _together(extras), None
    # updated in place where no step's is kept
    c_n = c0 if c0 is None else torch.empty_like(c0) if keep else c0.clone()
    kept, gates = {}, None
    if keep:
        gates = shape.gates(cell, keep, steps)
        like = {x.dtype: x, hidden.dtype: hidden}
        for name, (sizes, dtype) in shape.kept(cell, steps.N, gates).items():
            kept[name] = empty(like[dtype], *sizes)
    between = kept if keep or not cell.staged else _of_a_step(cell, shape, x, hidden)
    first = _as_read(hidden, x.dtype)
    with TEAM.members(shape.threads(cell, steps.N)) as team:
        layout, row_parts = forward_layout(cell, shape, keep, team.size)
        memory = scratch(hidden, layout.size)
        rows = steps.T, steps.bounds(row_parts), *steps.addresses, x.data_ptr()
        kept_at = _kept_at(cell, shape, kept, gates)
        stages = _stages_at(shape, between, steps.N if keep else shape.B)
        h0s, h_ns = at_each(first, D), at_each(h_n, D)
        c0s = c_ns = ms = trails = [0] * D
        if extras:
            c0s, c_ns = at_each(c0, D), at_each(c_n, D)
        if cell.apart and not keep:
            trail = empty(x, D, steps.N, S)
            trails = at_each(trail, D)
        if shape.projected and not keep:
            step = empty(x, D, shape.B, shape.H)  # the cell's values, before their projection
            ms = at_each(step, D)
        given = []
        for d, (ih, hh, b_ih, b_hh, hr, own) in enumerate(directions):
            out = y.data_ptr() + d * S * item
            row = [*rows, *at(ih, b_ih, hh, b_hh, hr, own, inputs), *stages[d]]
            if keep:
                after, extra_after, m, kept_gates, kept_from = kept_at[d]
                row += after, S, h0s[d], h_ns[d], extra_after, c0s[d], c_ns[d]
                row += out, D * S, kept_gates, kept_from, m
            else:
                row += (trails[d], S) if cell.apart else (out, D * S)
                row += h0s[d], h_ns[d], c_ns[d], c_ns[d], c_ns[d]
                row += out if cell.apart else 0, D * S, 0, 0, ms[d]
            given.append(row)
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.forward(), plan)
    return y, [h_n, *_apart(extras, c_n)], tuple(kept.values())


def backward(
    cell, shape, x, steps, directions, states, keep, kept, gates, grads, need_x, need_weights,
    inputs=None, need_inputs=False,
):  # fmt: skip
    """The gradients of x (None if not needed), of the states, of each direction's weights, of which
    those are None that are not needed, and of the inputs (None if not needed).

    kept: {name: tensor}; gates: as from ``Shape.gates``. All tensors have passed the gate.
    """
    hidden, *extras = states
    first = _as_read(hidden, x.dtype)
    D, S, item = shape.D, shape.S, x.itemsize
    dy, *dfinals = grads
    dy = x.new_zeros(*x.shape[:-1], D * S) if dy is None else dy
    dweights = [_empty_gradients(cell, shape, hidden, need) for need in need_weights]
    with TEAM.members(shape.threads(cell, steps.N)) as team:
        found = backward_layout(cell, shape, keep, need_x, team.size)
        layout, row_parts, groups, spare, width = found
        dh = _to_begin_with(dfinals[0], hidden, spare)
        dc = _together(
            [_to_begin_with(d, extra, 0) for d, extra in zip(dfinals[1:], extras, strict=True)]
        )
        sums = hidden.new_zeros(4 * D, width)
        memory, bounds = scratch(hidden, layout.size), steps.bounds(row_parts)
        # Directions that take turns add to the same dx, unless that would round it twice: results
        # are the same for any number of threads.
        apart = groups if x.dtype == hidden.dtype else D
        dxs = [empty(x, *x.shape) for _ in range(apart)] if need_x else [None] * apart
        kept_at, stages = _kept_at(cell, shape, kept, gates), _stages_at(shape, kept, steps.N)
        h0s, dhs, c0s, dcs = at_each(first, D), at_each(dh, D), [0] * D, [0] * D
        if extras:
            c0 = _together(extras)
            c0s, dcs = at_each(c0, D), at_each(dc, D)
        dinputs = empty(x, D, *inputs.shape) if need_inputs else None
        sums_at, dinputs_at = at_each(sums, 4 * D), at_each(dinputs, D)
        given = []
        for d, (weights, need, dw) in enumerate(
            zip(directions, need_weights, dweights, strict=True)
        ):
            after, extra_after, m, kept_gates, kept_from = kept_at[d]
            sum_x, sum_h, sum_r, sum_own = sums_at[4 * d : 4 * d + 4]
            row = [
                steps.T, bounds, *steps.addresses,
                *at(x, weights.ih, weights.b_ih, weights.hh, weights.b_hh, weights.hr),
                *at(weights.own, inputs), *stages[d],
                dy.data_ptr() + d * S * item, D * S,
                *at(dxs[d % apart]), d // apart, dhs[d], dcs[d],
                after, extra_after, m, h0s[d], c0s[d], *at(dw.ih, dw.hh, dw.hr),
                sum_x if need.ih or need.b_ih else 0, sum_h if need.hh or need.b_hh else 0,
                sum_r if need.hr else 0, kept_gates, kept_from,
                sum_own if need.own else 0, dinputs_at[d],
            ]  # fmt: skip
            given.append(row)
        plan = layout.fill(memory.data_ptr(), given)
        team.run(compiled.backward(), plan)
    if need_x and apart == 2:
        dxs[0].add_(dxs[1])
    for d, dw in enumerate(dweights):
        sum_x, sum_h, _, sum_own = sums_at[4 * d : 4 * d + 4]
        pieces = [(dw.b_ih, 0, None, sum_x), (dw.own, 0, None, sum_own)]
        for first, count, place in compiled.sums_of(cell, x.dtype, shape.H):
            pieces.append((dw.b_hh, first, count, sum_h + place * hidden.itemsize))
        for found, first, count, total in pieces:
            if found is not None:
                size = found.nbytes if count is None else count * hidden.itemsize
                memmove(found.data_ptr() + first * hidden.itemsize, total, size)
    if need_inputs:
        dinputs = dinputs[0] if D == 1 else dinputs.sum(0)
    dstates = [dh.narrow(2, 0, S) if spare else dh, *_apart(extras, dc)]
    return dxs[0], dstates, dweights, dinputs


def _empty_gradients(cell, shape, like, need):
    """Tensors for the gradients of a direction's weights that are needed."""
    M, S = cell.gates * shape.H, shape.S
    return Weights(
        empty(like, M, shape.I) if need.ih else None,
        empty(like, M, S) if need.hh else None,
        empty(like, M) if need.b_ih else None,
        empty(like, M) if need.b_hh else None,
        empty(like, S, shape.H) if need.hr else None,
        empty(like, cell.own, shape.H) if need.own else None,
    )


def _together(extras):
    """The states beside the hidden one, as the loops have them: (D, B, number, H); None if none."""
    if len(extras) < 2:
        return extras[0] if extras else None
    return torch.stack(extras, 2)


def _apart(extras, together):
    """``_together`` undone; a tensor each, of which none is a view of another."""
    return (
        [together]
        if len(extras) == 1
        else [t.clone() for t in together.unbind(2)]
        if extras
        else []
    )


def _to_begin_with(dfinal, state, spare):
    """The gradient of a final state, zeros for None: memory of its own, ``spare`` zeros a row."""
    if dfinal is None:
        D, B, width = state.shape
        return state.new_zeros(D, B, width + spare)
    return torch.constant_pad_nd(dfinal, (0, spare)) if spare else dfinal.clone()


def _as_read(hidden, dtype):
    """The hidden state in the dtype of the sequence: as each step reads it."""
    return hidden if hidden.dtype == dtype else hidden.to(dtype)


def _of_a_step(cell, shape, x, hidden):
    """What the stages of one step leave each other, where nothing is kept."""
    D, B, H = shape.D, shape.B, shape.H
    return {
        "means": empty(hidden, D, B, len(cell.derivation.means)),
        "factors": empty(x, D, cell.factors, B, H),
    }


def _stages_at(shape, kept, rows):
    """For each direction the addresses of the means and of the factors of products, and how far
    from one factor to the next.
    """
    means, factors = (at_each(kept.get(name), shape.D) for name in ("means", "factors"))
    stride = rows * shape.H * shape.dtype.itemsize
    return [(m, f, stride) for m, f in zip(means, factors, strict=True)]


def _kept_at(cell, shape, kept, gates):
    """For each direction the addresses of what is kept, that of gates where row 0's would be; and
    from which step on these are.
    """
    if not kept:
        return None
    each, start, found = cell.kept * shape.H * shape.dtype.itemsize, at(kept.get("gates"))[0], []
    after, extra_after, m = [at_each(kept.get(n), shape.D) for n in ("after", "extra_after", "m")]
    for d, (step, row, rows) in enumerate(gates):
        found.append((after[d], extra_after[d], m[d], start - row * each, step))
        start += rows * each
    return found
