"""One function for each compiled function: allocates, plans, and runs it on a team of threads.

What a plan holds the address of, a variable here refers to until the call has come back. Sizes, and
the order of the tensors, are those of a Stack (engine.py); all tensors have passed the gate.
"""

from ctypes import memmove

import torch

from . import compiled
from .layouts import backward_layout, forward_layout
from .memory import at, at_each, empty, scratch
from .threads import TEAM


def forward(stack, steps, keep, tensors, found, gates, kept):
    """Layer after layer. found: the addresses of the tensors; gates: as from ``Shape.gates``.

    Returns the output in x's dtype, the final states in theirs, and what backward wants: a tensor
    for each of ``kept``, {name: (shape, dtype)} (none unless ``keep``).
    """
    cell, D, S, count = stack.cell, stack.D, stack.S, len(stack.places)
    x, hidden, *extras = tensors[: stack.first]
    y = empty(x, *stack.rows, stack.width)
    finals = [torch.empty_like(hidden)]
    for extra in extras:  # updated in place where no step's is kept
        finals.append(torch.empty_like(extra) if keep else extra.clone())
    like, item = {hidden.dtype: hidden, x.dtype: x}, x.itemsize
    kept = {name: empty(like[dtype], *sizes) for name, (sizes, dtype) in kept.items()}
    kept_at = _kept_at(stack, kept, gates) if keep else None
    first = _as_read(hidden, x.dtype)
    h0s, h_ns = at_each(first, count), at_each(finals[0], count)
    c0s = c_ns = ms = [0] * count
    if extras:
        c0s, c_ns = at_each(extras[0], count), at_each(finals[1], count)
    if not keep and stack.shapes[0].projected:
        step = empty(x, D, stack.shapes[0].B, stack.shapes[0].H)  # values before their projection
        ms = at_each(step, D) * stack.layers
    turns, between = kept.get("between"), []
    if stack.layers > 1:
        if not keep:  # two take turns
            turns = empty(x, min(stack.layers - 1, 2), stack.N, stack.width)
        between = at_each(turns, len(turns))
    from_at, found = found[0], [*found, 0]  # what is absent is at -1
    for i, shape in enumerate(stack.shapes):
        to = between[i % len(between)] if i < stack.layers - 1 else y.data_ptr()
        with TEAM.members(shape.threads(cell, stack.N)) as team:
            layout, row_parts = forward_layout(cell, shape, keep, team.size)
            memory = scratch(hidden, layout.size)
            rows = steps.T, steps.bounds(row_parts), *steps.addresses, from_at
            given = []
            for d, j in enumerate(range(i * D, i * D + D)):
                ih, hh, b_ih, b_hh, hr = stack.places[j]
                out, c_n = to + d * S * item, c_ns[j]
                row = [*rows, found[ih], found[b_ih], found[hh], found[b_hh], found[hr]]
                if keep:
                    after, extra_after, m, kept_gates, kept_from = kept_at[j]
                    row += after, S, h0s[j], h_ns[j], extra_after, c0s[j], c_n
                    row += out, D * S, kept_gates, kept_from, m
                else:
                    row += out, D * S, h0s[j], h_ns[j], c_n, c_n, c_n, out, D * S, 0, 0, ms[j]
                given.append(row)
            plan = layout.fill(memory.data_ptr(), given)
            team.run(compiled.forward(), plan)
        from_at = to
    return y, finals, tuple(kept.values())


def backward(stack, steps, keep, tensors, found, gates, names, needed):
    """The gradients of the first of the tensors, None for those not ``needed``.

    tensors: those of forward, the gradients of the output and of the final states, and what forward
    has kept, of these ``names``; found, gates: as in ``forward``.
    """
    cell, D, S, count = stack.cell, stack.D, stack.S, len(stack.places)
    first, end = stack.first, stack.first + count * stack.each
    (x, *states), (dy, *dfinals) = tensors[:first], tensors[end : end + first]
    hidden, item = states[0], x.itemsize
    kept = dict(zip(names, tensors[end + first :], strict=True))
    if dy is None:
        dy = x.new_zeros(*stack.rows, stack.width)
    needed, before = [*needed, False], _as_read(hidden, x.dtype)  # what is absent is at -1
    lowest = max(0, needed.index(True) - first) // (stack.each * D)  # a layer
    grads = [None] * (end + 1)
    for i in range(first, end):
        if needed[i]:
            grads[i] = empty(hidden, *stack.inputs[i][0])
    dh, *dextra = map(_to_begin_with, dfinals, states, (stack.spare, 0))
    sums = hidden.new_zeros(3 * count, stack.sums)
    kept_at, between = _kept_at(stack, kept, gates), at_each(kept.get("between"), stack.layers - 1)
    h0s, dhs, c0s, dcs = at_each(before, count), at_each(dh, count), [0] * count, [0] * count
    if dextra:
        c0s, dcs = at_each(states[1], count), at_each(dextra[0], count)
    sums_at, to, found = at_each(sums, 3 * count), at(*grads), [*found, 0]
    for i in range(stack.layers - 1, lowest - 1, -1):
        shape, need_x = stack.shapes[i], i > lowest or needed[0]
        from_at = between[i - 1] if i else found[0]
        with TEAM.members(shape.threads(cell, stack.N)) as team:
            layout, row_parts, groups = backward_layout(cell, shape, keep, need_x, team.size)
            memory, bounds = scratch(hidden, layout.size), steps.bounds(row_parts)
            # Directions that take turns add to the same dx, unless that would round it twice:
            # results are the same for any number of threads.
            apart = groups if x.dtype == hidden.dtype else D
            dxs = [empty(x, *stack.rows, shape.I) if need_x else None for _ in range(apart)]
            dy_at, dxs_at, given = dy.data_ptr(), at(*dxs), []
            for d, j in enumerate(range(i * D, i * D + D)):
                ih, hh, b_ih, b_hh, hr = stack.places[j]
                after, extra_after, m, kept_gates, kept_from = kept_at[j]
                sum_x, sum_h, sum_r = sums_at[3 * j : 3 * j + 3]
                row = [
                    steps.T, bounds, *steps.addresses,
                    from_at, found[ih], found[b_ih], found[hh], found[b_hh], found[hr],
                    dy_at + d * S * item, D * S, dxs_at[d % apart], d // apart, dhs[j], dcs[j],
                    after, extra_after, m, h0s[j], c0s[j], to[ih], to[hh], to[hr],
                    sum_x if needed[ih] or needed[b_ih] else 0,
                    sum_h if needed[hh] or needed[b_hh] else 0,
                    sum_r if needed[hr] else 0, kept_gates, kept_from,
                ]  # fmt: skip
                given.append(row)
            plan = layout.fill(memory.data_ptr(), given)
            team.run(compiled.backward(), plan)
        if need_x and apart == 2:
            dxs[0].add_(dxs[1])
        dy = dxs[0]
    for j, (_, _, *biases, _) in enumerate(stack.places):
        for bias, total in zip(biases, sums_at[3 * j :], strict=False):
            if needed[bias]:
                memmove(to[bias], total, stack.inputs[bias][2])
    dh = dh.narrow(2, 0, S) if stack.spare else dh
    ends = [g if n else None for g, n in zip((dh, *dextra), needed[1:], strict=False)]
    return [dy if needed[0] else None, *ends, *grads[first:end]]


def _to_begin_with(dfinal, state, spare):
    """The gradient of a final state, zeros for None: memory of its own, ``spare`` zeros a row."""
    if dfinal is None:
        count, B, width = state.shape
        return state.new_zeros(count, B, width + spare)
    return torch.constant_pad_nd(dfinal, (0, spare)) if spare else dfinal.clone()


def _as_read(hidden, dtype):
    """The hidden state in the dtype of the sequence: as each step reads it."""
    return hidden if hidden.dtype == dtype else hidden.to(dtype)


def _kept_at(stack, kept, gates):
    """For each direction the addresses of what is kept, that of gates where row 0's would be; and
    from which step on these are.
    """
    shape, count = stack.shapes[0], len(stack.places)
    after, extra, m = [at_each(kept.get(n), count) for n in ("after", "extra_after", "m")]
    each, start = stack.cell.kept * shape.H * shape.dtype.itemsize, 0
    if "gates" in kept:
        start = kept["gates"].data_ptr()
    found = []
    for j in range(count):
        step, row, rows = gates[j % stack.D]
        found.append((after[j], extra[j], m[j], start - row * each, step))
        start += rows * each
    return found
