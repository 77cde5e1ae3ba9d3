"""A whole sequence forward in one launch; the recurrent weights stay on the chip all the while.

A program has BU hidden units, with all their gates, of a lane: BB sequences of a direction.

    gates (GATES * BU, BB) = weights (GATES * BU, H) @ h (H, BB)

Every step it stores its units of h, waits for those of the lane's other programs, and loads all of
h. A program that has all units (BU >= H) waits for nobody, and keeps h to itself; so does any where
the cell has no such product. Lanes need nothing of each other: those for which there is no room at
once have a launch of their own.

The names in capitals are set by kernels.py, which binds this function to a cell.
"""

import triton.language as tl

from .blocks import (
    LINE,
    arrive,
    by_gate,
    each,
    given_to,
    own_of,
    product,
    rounded,
    rows_of,
    select,
    unless_late,
    wait,
)

GATES = ROW_GROUPS = PRODUCT = APART = STATES = OWN = INPUTS = HEADS = KEPT = cell_forward = None


def forward(
    gates,  # (D, N, WIDTH, H): x's part of the pre-activations; what the cell keeps replaces it
    weights,  # (D, GATES, H, H); None without a product, and so are biases and hidden
    biases,  # (D, GATES, H)
    parameters,  # (D, OWN, H): the cell's own; None if it has none
    inputs,  # (HEADS * N, INPUTS, H): what a step is given beside x; None if nothing
    hidden,  # (2, D, B, H): h before the even and before the odd steps, as factors are rounded;
    #          the first is given
    after,  # (N, D, H): h after each step
    extra,  # (STATES - 1, N, D, H): and the other states
    output,  # (N, D, H), where it is no state; else None
    start,  # (STATES, D, B, H): the states before step s0
    end,  # (STATES, D, B, H): and before s1
    steps,  # (2, T + 2): sizes and offsets of the steps, an empty one at either end; None if dense
    counters,  # (ceil(B / BB), D, LINE)
    failed,  # (1,), set if patience ran out
    block0: tl.int32,  # the first block of sequences in this launch
    s0: tl.int32,  # which steps to take, in the order of each direction
    s1: tl.int32,
    patience: tl.int32,  # looks at a counter
    T: tl.int32,
    D: tl.int32,
    B: tl.int32,
    N: tl.int64,
    H: tl.constexpr,  # with its padding
    UNITS: tl.constexpr,  # and without
    WIDTH: tl.constexpr,
    BU: tl.constexpr,
    BB: tl.constexpr,
    KC: tl.constexpr,  # so many of H in one piece of the weights
    AHEAD: tl.constexpr,  # so many pieces of h are on their way while one is multiplied
    KEEP: tl.constexpr,  # a Keep
    FIRST: tl.constexpr,  # direction in this launch
    PRECISION: tl.constexpr,
):
    MEET: tl.constexpr = PRODUCT and BU < H
    PIECES: tl.constexpr = (H + KC - 1) // KC if PRODUCT else 0
    dtype = gates.dtype.element_ty
    block, group = block0 + tl.program_id(0), tl.program_id(1)
    d = (FIRST + tl.program_id(2)).to(tl.int64)
    u = group * BU + tl.arange(0, BU)
    b = block * BB + tl.arange(0, BB)
    sequence = b.to(tl.int64)
    inside = (u < H)[:, None] & (b < B)[None, :]
    own = (d * B + sequence)[None, :] * H + u[:, None]  # in (D, B, H)
    plane = D.to(tl.int64) * B * H
    counter = counters + (block * D + d) * LINE

    r = tl.arange(0, ROW_GROUPS * BU)
    row_unit = group * BU + r % BU
    row = (r // BU) * H + row_unit
    is_row = (r // BU < GATES) & (row_unit < H)
    k = tl.arange(0, KC)
    held = ()
    for i in tl.static_range(PIECES):
        place = weights + d * GATES * H * H + row[:, None] * H + (i * KC + k)[None, :]
        is_weight = is_row[:, None] & (i * KC + k < H)[None, :]
        held = held + (rounded(tl.load(place, mask=is_weight, other=0.0), PRECISION),)
    if PRODUCT:
        bias = tl.load(biases + d * GATES * H + row, mask=is_row, other=0.0).to(tl.float32)
        bias = tl.broadcast_to(bias[:, None], (ROW_GROUPS * BU, BB))
    owned = own_of(parameters, d, u, H, BB, OWN)
    states = each(start + own, plane, inside, STATES)

    share = (d % HEADS) * N  # each head has rows of its own of the inputs
    # What the next step needs is loaded before this one waits, and where that lies a step before.
    t, onward = tl.where(d < HEADS, s0, T - 1 - s0) + 1, tl.where(d < HEADS, 1, -1)
    size, first = rows_of(steps, t, T, B)
    next_size, next_first = rows_of(steps, t + onward, T, B)
    x_rows = gates + d * N * (WIDTH * H) + row[:, None]
    is_x = is_row[:, None] & (b < size)[None, :]
    x = tl.load(x_rows + (first + sequence)[None, :] * (WIDTH * H), mask=is_x, other=0.0)
    given = given_to(inputs, share + first + sequence, u, inside & (b < size)[None, :], H, INPUTS)
    for s in range(s0, s1):
        active, line = b < size, first + sequence
        is_x = is_row[:, None] & (b < next_size)[None, :]
        next_x = x_rows + (next_first + sequence)[None, :] * (WIDTH * H)
        next_x = tl.load(next_x, mask=is_x, other=0.0)
        is_given = inside & (b < next_size)[None, :]
        next_given = given_to(inputs, share + next_first + sequence, u, is_given, H, INPUTS)
        size, first = next_size, next_first
        next_size, next_first = rows_of(steps, t + 2 * onward, T, B)
        t += onward
        if MEET:
            total = bias
            patience = wait(counter, tl.num_programs(1) * s, patience, s > s0)
            h_row = hidden + (s % 2) * plane + (d * B + sequence) * H
            hs = ()
            for i in tl.static_range(PIECES):
                is_h = (b < B)[:, None] & (i * KC + k < H)[None, :]
                at = h_row[:, None] + (i * KC + k)[None, :]
                hs = hs + (tl.load(at, mask=is_h, other=0.0, cache_modifier=".cg"),)
                if i >= AHEAD:
                    total = product(held[i - AHEAD], tl.trans(hs[i - AHEAD]), total, PRECISION)
            for i in tl.static_range(PIECES - AHEAD, PIECES):
                total = product(held[i], tl.trans(hs[i]), total, PRECISION)
        elif PRODUCT:
            total = product(held[0], rounded(states[0], PRECISION).to(dtype), bias, PRECISION)
        xs, hs = by_gate(x.to(tl.float32), GATES, ROW_GROUPS, BU, BB), ()
        if PRODUCT:
            hs = by_gate(total, GATES, ROW_GROUPS, BU, BB)
        y, new, kept = cell_forward(xs, hs, states, owned, given)
        x, given = next_x, next_given
        alive = (u < UNITS)[:, None] & active[None, :]  # the padding stays zero, come what may
        states = select(alive, new, states, STATES)
        if MEET:
            states = unless_late(patience, states, STATES)
            slot = hidden + ((s + 1) % 2) * plane
            tl.store(slot + own, rounded(states[0], PRECISION).to(dtype), mask=inside)
            arrive(counter)
        out = (line * D + d)[None, :] * H + u[:, None]
        stored = inside & active[None, :]
        if KEEP >= 1 or not APART:
            tl.store(after + out, states[0].to(dtype), mask=stored)
        if APART:
            if MEET:
                y = tl.where(patience > 0, y, float("nan"))
            tl.store(output + out, y.to(dtype), mask=alive)
        if KEEP >= 1:
            for i in tl.static_range(1, STATES):
                tl.store(extra + (i - 1) * N * D * H + out, states[i], mask=stored)
        if KEEP == 2:
            for i in tl.static_range(KEPT):
                keep = gates + ((d * N + line) * (WIDTH * H))[None, :] + i * H + u[:, None]
                tl.store(keep, kept[i].to(dtype), mask=alive)
    if MEET:
        tl.store(failed, 1, mask=patience == 0)
    for i in tl.static_range(STATES):
        tl.store(end + i * plane + own, states[i], mask=inside)
