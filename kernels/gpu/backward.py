"""Backward through a whole sequence in one launch; the recurrent weights stay on the chip.

Programs divide the recurrent weights in two dimensions, by groups of GU units: program (i, j) has
what the gates of group j weigh the units of group i by. Each step it

- adds up what reaches group j's states from the step after: partial sums of the programs (j, .);
- computes the gradients of group j's gates, as all programs (., j) do, each for itself;
- stores their product with its weights: a partial sum for group i.

Of a cell without such a product there are programs (0, .) alone, which need nothing of each other.

The order of every sum is fixed. Partial sums of three steps have a place each, and a counter each:
a program may be a step ahead of another, whose reads and arrivals it must not disturb. With one
group there is one program, and nothing to exchange.

The names in capitals are set by kernels.py, which binds this function to a cell.
"""

import triton.language as tl

from .blocks import (
    LINE,
    arrivals_by,
    arrive,
    counter_of,
    each,
    given_to,
    of_gates,
    own_of,
    product,
    rounded,
    rows_of,
    select,
    sum_of,
    unless_late,
    wait,
)

GATES = PRODUCT = APART = STATES = OWN = INPUTS = HEADS = KEPT = DH = cell_backward = None


def backward(
    kept,  # (D, N, WIDTH, H)
    weights,  # (D, GATES, H, H); None without a product, and so is partials
    parameters,  # (D, OWN, H); None if there are none
    inputs,  # (HEADS * N, INPUTS, H); None if there are none
    dy,  # (N, D, H)
    after,  # (N, D, H): h after each step
    extra,  # (STATES - 1, N, D, H): and the other states
    first,  # (STATES, D, B, H): the states before the first step
    start,  # (STATES, D, B, H): the gradients of the states after step s0, counted from the last
    end,  # (STATES, D, B, H): and after s1, where partial sums are still to be added to that of h
    dgates,  # (D, N, PLANES, H): of the gates, of the parameters, of the inputs
    partials,  # (RING, D, ceil(H / GU), B, H): the last is zero at first
    steps,  # (2, T + 2) or None: as in forward
    counters,  # (ceil(B / BB), D, ceil(H / GU), RING, LINE)
    failed,  # (1,), set if patience ran out
    block0: tl.int32,
    s0: tl.int32,
    s1: tl.int32,
    patience: tl.int32,
    T: tl.int32,
    D: tl.int32,
    B: tl.int32,
    N: tl.int64,
    H: tl.constexpr,
    UNITS: tl.constexpr,
    WIDTH: tl.constexpr,
    PLANES: tl.constexpr,  # of the gradients, so many as are wanted
    GU: tl.constexpr,
    BB: tl.constexpr,
    RING: tl.constexpr,  # steps whose partial sums have a place each
    FIRST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    dtype = kept.dtype.element_ty
    GROUPS: tl.constexpr = (H + GU - 1) // GU
    MEET: tl.constexpr = PRODUCT and GROUPS > 1
    TAKERS: tl.constexpr = GROUPS if PRODUCT else 1
    MULTIPLIED: tl.constexpr = GATES if PRODUCT else 0
    # So many gates in one product: threads wait less often for each other, and need more registers.
    HALF: tl.constexpr = dtype.primitive_bitwidth == 16
    MOST: tl.constexpr = 4 if HALF and GROUPS > 1 and GU * BB <= 2048 else 1
    RUN: tl.constexpr = MOST if GATES % MOST == 0 else 1
    lane, i, j = block0 * D + FIRST + tl.program_id(0), tl.program_id(1), tl.program_id(2)
    d = (lane % D).to(tl.int64)
    to, u = i * GU + tl.arange(0, GU), j * GU + tl.arange(0, GU)
    b = (lane // D) * BB + tl.arange(0, BB)
    sequence = b.to(tl.int64)
    inside = (u < H)[:, None] & (b < B)[None, :]
    own = (d * B + sequence)[None, :] * H + u[:, None]  # in (D, B, H)
    plane = D.to(tl.int64) * B * H
    counter = counters + lane * (GROUPS * RING * LINE)
    if MEET:
        partial = partials + d * GROUPS * B * H + sequence[None, :] * H
        read, written = partial + u[:, None], partial + to[:, None] + j.to(tl.int64) * B * H

    held = ()
    for g in tl.static_range(0, MULTIPLIED, RUN):
        r = tl.arange(0, RUN * GU)
        unit = j * GU + r % GU
        weight = weights + ((d * GATES + g + r // GU) * H + unit)[None, :] * H + to[:, None]
        is_weight = (unit < H)[None, :] & (to < H)[:, None]
        held = held + (rounded(tl.load(weight, mask=is_weight, other=0.0), PRECISION),)
    owned = own_of(parameters, d, u, H, BB, OWN)
    earliest = each(first + own, plane, inside, STATES)
    carried = each(start + own, plane, inside, STATES)

    share = (d % HEADS) * N  # each head has rows of its own of the inputs
    t, onward = tl.where(d < HEADS, T - 1 - s0, s0) + 1, tl.where(d < HEADS, -1, 1)
    size, row = rows_of(steps, t, T, B)
    size_before, row_before = rows_of(steps, t + onward, T, B)
    for s in range(s0, s1):
        line, line_before = row + sequence, row_before + sequence
        alive = (u < UNITS)[:, None] & (b < size)[None, :]
        begun = alive & (b < size_before)[None, :]
        size, row = size_before, row_before
        size_before, row_before = rows_of(steps, t + 2 * onward, T, B)
        t += onward
        at, at_before = (line * D + d)[None, :] * H, (line_before * D + d)[None, :] * H
        news = (tl.load(after + at + u[:, None], mask=alive, other=0.0).to(tl.float32),)
        olds = (tl.load(after + at_before + u[:, None], mask=begun, other=0.0).to(tl.float32),)
        news = news + each(extra + at + u[:, None], N * D * H, alive, STATES - 1)
        olds = olds + each(extra + at_before + u[:, None], N * D * H, begun, STATES - 1)
        olds = select(begun, olds, earliest, STATES)
        recalled = ()
        for n in tl.static_range(KEPT):
            recall = kept + ((d * N + line) * (WIDTH * H))[None, :] + n * H + u[:, None]
            recalled = recalled + (tl.load(recall, mask=alive, other=0.0).to(tl.float32),)
        given = given_to(inputs, share + line, u, alive, H, INPUTS)
        dout = tl.load(dy + at + u[:, None], mask=alive, other=0.0).to(tl.float32)

        dh = carried[0]
        if MEET:
            due = s + RING - 1  # the step before, counted from RING
            enough = arrivals_by(due, GROUPS, RING)
            patience = wait(counter_of(due, j, counter, RING), enough, patience, s > s0)
            place = read + (due % RING) * GROUPS * plane
            dh += sum_of(place, B.to(tl.int64) * H, inside, 0, GROUPS)
        reached = (dh,) + carried[1:]
        if MEET:
            reached = unless_late(patience, reached, STATES)
        grads, down, dinputs, passed = cell_backward(
            dout, reached, recalled, olds, news, owned, given
        )
        grads = grads + down + dinputs
        carried = select(alive, passed, reached, STATES)
        total = tl.zeros((GU, BB), tl.float32)
        for g in tl.static_range(0, MULTIPLIED, RUN):
            run = ()
            for n in tl.static_range(RUN):
                grad = tl.where(alive, grads[DH[g + n]], 0.0)
                run = run + (rounded(grad, PRECISION).to(dtype),)
            total = product(held[g // RUN], of_gates(run, 0, RUN, GU, BB), total, PRECISION)
        if MEET:
            place = written + (s % RING) * GROUPS * plane
            tl.store(place, total, mask=(to < H)[:, None] & (b < B)[None, :])
            arrive(counter_of(s, i, counter, RING))
        elif PRODUCT:
            carried = (carried[0] + total,) + carried[1:]
        if i == s % TAKERS:  # they take turns
            for n in tl.static_range(PLANES):
                out = dgates + ((d * N + line) * (PLANES * H))[None, :] + n * H + u[:, None]
                tl.store(out, grads[n].to(dtype), mask=alive)
    if MEET:
        tl.store(failed, 1, mask=patience == 0)
    if i == 0:
        for n in tl.static_range(STATES):
            tl.store(end + n * plane + own, carried[n], mask=inside)
