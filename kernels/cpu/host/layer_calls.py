"""One function for each compiled function: allocates, plans, and runs it on a team of threads.

What a plan holds the address of, a variable here refers to until the call has come back. Sizes, and
the order of the tensors, are those of a Stack (engine.py); all tensors have passed the gate.
"""

from ctypes import memmove

import torch

from ..compiled import of_loops
from .layouts import backward_layout, forward_layout
from .memory import at, at_each, empty, scratch
from .states import apart, as_read, to_begin_with, together
from .threads import TEAM


def forward(stack, steps, keep, tensors, found, gates, kept):
    """Layer after layer. found: the addresses of the tensors; gates: as from ``Shape.gates``.

    Returns the output in x's dtype, the final states in theirs, and what backward wants: a tensor
    for each of ``kept``, {name: (shape, dtype)} (none unless ``keep``).
    """
    cell, D, S, count = stack.cell, stack.D, stack.S, len(stack.places)
    x, hidden, *extras = tensors[: stack.first]
    y, h_n, c0 = empty(x, *stack.rows, stack.width), torch.empty_like(hidden), together(extras)
    # updated in place where no step's is kept
    c_n = c0 if c0 is None else torch.empty_like(c0) if keep else c0.clone()
    like, item = {hidden.dtype: hidden, x.dtype: x}, x.itemsize
    kept = {name: empty(like[dtype], *sizes) for name, (sizes, dtype) in kept.items()}
    first, passing = as_read(hidden, x.dtype), {}
    h0s, h_ns = at_each(first, count), at_each(h_n, count)
    c0s, c_ns = at_each(c0, count), at_each(c_n, count)
    if keep:
        kept_at, stages = _kept_at(stack, kept, gates), _stages_at(stack, kept, count, stack.N)
    else:
        passing = _passing(stack, x, hidden)
        ms, trails = (at_each(passing.get(n), D) * stack.layers for n in ("m", "trail"))
        stages = _stages_at(stack, passing, D, stack.shapes[0].B) * stack.layers
    turns, between = kept.get("between"), []
    if stack.layers > 1:
        if not keep:  # two take turns
            turns = empty(x, min(stack.layers - 1, 2), stack.N, stack.width)
        between = at_each(turns, len(turns))
    from_at, found = found[0], [*found, 0]  # what is absent is at -1
    for i, shape in enumerate(stack.shapes):
        to = between[i % len(between)] if i < stack.layers - 1 else y.data_ptr()
        beside = _beside(stack, found, i)
        with TEAM.members(shape.threads(cell, stack.N)) as team:
            layout, row_parts = forward_layout(cell, shape, keep, team.size)
            memory = scratch(hidden, layout.size)
            given, bounds = [], steps.bounds(row_parts)
            for d, j in enumerate(range(i * D, i * D + D)):
                out, c_n_at = to + d * S * item, c_ns[j]
                row = _given(steps, bounds, from_at, found, stack.places[j], beside[d], stages[j])
                row |= {"h_first": h0s[j], "h_last": h_ns[j], "extra_last": c_n_at, "ldy": D * S}
                row |= _ready(row) if shape.form else {}
                if keep:
                    after, extra_after, m, kept_gates, kept_from = kept_at[j]
                    row |= {
                        "trail": after, "ld_trail": S, "extra": extra_after, "extra_first": c0s[j],
                        "y": out, "kept": kept_gates, "kept_from": kept_from, "m": m,
                    }  # fmt: skip
                else:
                    row |= {"extra": c_n_at, "extra_first": c_n_at, "kept": 0, "kept_from": 0}
                    trail = (trails[j], S, out) if cell.apart else (out, D * S, 0)
                    row["trail"], row["ld_trail"], row["y"], row["m"] = *trail, ms[j]
                given.append(row)
            plan = layout.fill(memory.data_ptr(), given)
            team.run(of_loops.forward(), plan)
        from_at = to
    return y, [h_n, *apart(c_n, len(extras))], tuple(kept.values())


def backward(stack, steps, keep, tensors, found, gates, names, needed, dstates=None):
    """The gradients of the first of the tensors, None for those not ``needed``.

    tensors: those of forward, the gradients of the output and of the final states, and what forward
    has kept, of these ``names``; found, gates: as in ``forward``; dstates: those of every state
    after a step of the last layer, as they are kept: "after" and "extra_after", None for zeros.
    """
    cell, D, S, count = stack.cell, stack.D, stack.S, len(stack.places)
    first, end = stack.first, len(stack.inputs)
    (x, *states), (dy, *dfinals) = tensors[:first], tensors[end : end + first]
    hidden, item = states[0], x.itemsize
    kept = dict(zip(names, tensors[end + first :], strict=True))
    if dy is None:
        dy = x.new_zeros(*stack.rows, stack.width)
    needed, before = [*needed, False], as_read(hidden, x.dtype)  # what is absent is at -1
    lowest, grads = stack.lowest(needed), [None] * (end + 1)
    for i in range(first, end):
        if needed[i]:
            # each direction has its own of the inputs
            places = () if i < stack.end else (D // cell.heads,)
            grads[i] = empty(hidden if i < stack.end else x, *places, *stack.inputs[i][0])
    dh, *dextra = map(to_begin_with, dfinals, states, (stack.spare, *[0] * cell.states))
    dc, c0 = together(dextra), together(states[1:])
    sums = hidden.new_zeros(4 * count, stack.sums)
    kept_at, between = _kept_at(stack, kept, gates), at_each(kept.get("between"), stack.layers - 1)
    stages = _stages_at(stack, kept, count, stack.N)
    h0s, dhs, c0s, dcs = (at_each(t, count) for t in (before, dh, c0, dc))
    sums_at, to, found = at_each(sums, 4 * count), at(*grads), [*found, 0]
    dafters, dextras = (at_each(t, D) for t in dstates or (None, None))
    for i in range(stack.layers - 1, lowest - 1, -1):
        shape, need_x = stack.shapes[i], i > lowest or needed[0]
        every = dstates is not None and i == stack.layers - 1
        from_at, beside = between[i - 1] if i else found[0], _beside(stack, found, i)
        dinputs = at_each(grads[stack.end + i], D) if cell.inputs else [0] * D
        with TEAM.members(shape.threads(cell, stack.N)) as team:
            layout, row_parts, groups = backward_layout(cell, shape, keep, need_x, every, team.size)
            memory, bounds = scratch(hidden, layout.size), steps.bounds(row_parts)
            # Directions that take turns add to the same dx, unless that would round it twice, or
            # in another order: results are the same for any number of threads.
            ways = D if x.dtype != hidden.dtype else groups if D <= 2 else 2 - D % 2
            dxs = [empty(x, *stack.rows, shape.I) if need_x else None for _ in range(ways)]
            dy_at, dxs_at, given = dy.data_ptr(), at(*dxs), []
            for d, j in enumerate(range(i * D, i * D + D)):
                ih, hh, b_ih, b_hh, hr, own = place = stack.places[j]
                after, extra_after, m, kept_gates, kept_from = kept_at[j]
                sum_x, sum_h, sum_r, sum_own = sums_at[4 * j : 4 * j + 4]
                row = _given(steps, bounds, from_at, found, place, beside[d], stages[j])
                given.append(row | {
                    "dy": dy_at + d * S * item, "lddy": D * S, "dx": dxs_at[d % ways],
                    "add": d // ways, "dh": dhs[j], "dextra": dcs[j], "after": after,
                    "extra_after": extra_after, "m": m, "h_first": h0s[j], "extra_first": c0s[j],
                    "dw_ih": to[ih], "dw_hh": to[hh], "dw_hr": to[hr],
                    "sums_x": sum_x if needed[ih] or needed[b_ih] else 0,
                    "sums_h": sum_h if needed[hh] or needed[b_hh] else 0,
                    "sums_r": sum_r if needed[hr] else 0,
                    "kept": kept_gates, "kept_from": kept_from,
                    "sums_own": sum_own if needed[own] else 0, "dinputs": dinputs[d],
                    "dafter": dafters[d] if every else 0,
                    "dextra_after": dextras[d] if every else 0,
                })  # fmt: skip
            plan = layout.fill(memory.data_ptr(), given)
            team.run(of_loops.backward(), plan)
        for other in dxs[1:] if need_x else ():
            dxs[0].add_(other)
        dy = dxs[0]
    _put_sums(stack, needed, to, sums_at, hidden.itemsize)
    for i in range(stack.end, end):
        if needed[i]:
            grads[i] = grads[i][0] if cell.heads == D else grads[i].sum(0)
    dh = dh.narrow(2, 0, S).contiguous() if stack.spare and needed[1] else dh
    dstates = dh, *apart(dc, len(dextra))
    ends = [g if n else None for g, n in zip(dstates, needed[1:], strict=False)]
    return [dy if needed[0] else None, *ends, *grads[first:end]]


def _given(steps, bounds, x, found, place, inputs, stage):
    """The fields that forward and backward share (fields.GIVEN) of one direction."""
    sizes, offsets = steps.addresses
    w_ih, w_hh, b_ih, b_hh, w_hr, own = place
    means, factors, factor_stride = stage
    return {
        "T": steps.T, "bounds": bounds, "sizes": sizes, "offsets": offsets, "x": x,
        "w_ih": found[w_ih], "b_ih": found[b_ih], "w_hh": found[w_hh], "b_hh": found[b_hh],
        "w_hr": found[w_hr], "own": found[own], "inputs": inputs,
        "means": means, "factors": factors, "factor_stride": factor_stride,
    }  # fmt: skip


def _ready(row):
    """The fields of panels that come ready: what was given for weights are these."""
    return {
        "w_ih_tiles": row["w_ih"], "b_ih_tiles": row["b_ih"], "w_hh_tiles": row["w_hh"],
        "b_hh_tiles": row["b_hh"], "w_hr_panels": row["w_hr"],
    }  # fmt: skip


def _beside(stack, found, layer):
    """For each direction the address of what its steps are given beside x."""
    D, heads = stack.D, stack.cell.heads
    if not stack.cell.inputs:
        return [0] * D
    _, _, size = stack.inputs[stack.end + layer]
    start = found[stack.end + layer]
    return [start + d % heads * (size // heads) for d in range(D)]


def _put_sums(stack, needed, to, sums_at, size):
    """The sums over rows to where the gradients of biases and of a cell's own parameters are."""
    first = stack.shapes[0]
    products = of_loops.sums_of(stack.cell, first.dtype, first.H)
    for j, (_, _, b_ih, b_hh, _, own) in enumerate(stack.places):
        sum_x, sum_h, _, sum_own = sums_at[4 * j : 4 * j + 4]
        for found, total in ((b_ih, sum_x), (own, sum_own)):
            if needed[found]:
                memmove(to[found], total, stack.inputs[found][2])
        if needed[b_hh]:
            for number, count, column in products:
                memmove(to[b_hh] + number * size, sum_h + column * size, count * size)


def _passing(stack, x, hidden):
    """What one step, or one layer, leaves to the next where nothing is kept: {name: tensor}."""
    cell, first, found = stack.cell, stack.shapes[0], {}
    D, B, H = first.D, first.B, first.H
    if first.projected:
        found["m"] = empty(x, D, B, H)  # values before their projection
    if cell.apart:
        found["trail"] = empty(x, D, stack.N, first.S)
    if cell.staged:
        found["means"] = empty(hidden, D, B, len(cell.derivation.means))
        found["factors"] = empty(x, D, cell.factors, B, H)
    return found


def _stages_at(stack, kept, count, rows):
    """For each direction the addresses of the means and of the factors of products, and how far
    from one factor to the next.
    """
    if not stack.cell.staged:
        return [(0, 0, 0)] * count
    means, factors = (at_each(kept.get(name), count) for name in ("means", "factors"))
    stride = rows * stack.shapes[0].H * stack.shapes[0].dtype.itemsize
    return [(m, f, stride) for m, f in zip(means, factors, strict=True)]


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
