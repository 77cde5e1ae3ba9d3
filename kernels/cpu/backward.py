"""Backward: one layer in one direction, a whole sequence, with the gradients of all its inputs.

Rows, state buffers and threads are as in forward.py. At each step the cell's derivative turns the
gradient of the new states into that of the gates (dgates), and dgates times W_hh is what the step
before receives; initial states receive what is left in the buffers at the end. The gradients of x
and of the weights are large products with dgates, made a block of steps at a time, so that dgates
is used where it is and never exists as a whole: two blocks of it take turns.
"""

from numba import carray

from .blocks import meet_all, share, up
from .forward import COMMON, rendezvous
from .plan import record
from .products import CHUNK, GROUP
from .simd import integer
from .sync import ticket

# Specialised (see blocks.py); of the cell: states beside the hidden one, values kept, gradients of
# gates, and where among these x's and h's begin.
SIZE = LANES = PANEL = ROWS = 0
GATES = EXTRA = KEPT = DGATES = FIRST_X = FIRST_H = 0
load = store = load_each = store_each = gemm = multiply = pack = cell_backward = None
accumulate = lay_down = matmul = None

BACKWARD = record(
    COMMON + "loop_parts I block x dy lddy dx add dh lddh dextra kept before extra_before m "
    "dgates dp capacity w_ih w_ih_panels w_hh w_hh_panels w_hr w_hr_panels dw_ih dw_hh dw_hr "
    "sums_x sums_h sums_r strips_x strips_h strips_r left packed strip"
)


def pack_weights(p, rank):
    """This thread's share of all the panels."""
    first, last = share(up(p.S, PANEL), rank, p.parts)
    pack(p.w_hh, p.S, False, GATES * p.H, p.S, PANEL, PANEL, p.w_hh_panels, first, last)
    if p.dx:
        first, last = share(up(p.I, PANEL), rank, p.parts)
        pack(p.w_ih, p.I, False, GATES * p.H, p.I, PANEL, PANEL, p.w_ih_panels, first, last)
    if p.w_hr:
        first, last = share(up(p.H, PANEL), rank, p.parts)
        pack(p.w_hr, p.H, False, p.S, p.H, PANEL, PANEL, p.w_hr_panels, first, last)


def differentiate(p, dh, b, row, slot, unit):
    """The cell's derivative on one panel of units of one row, whose recurrent dh is at ``dh``.

    ``slot`` is where in the blocks of dgates the row's gradients go.
    """
    for v in range(0, min(PANEL, p.H - unit), LANES):
        u = unit + v
        left = p.H - u
        dextra_at = p.dextra + (b * p.H + u) * SIZE
        d = load(dh + v * SIZE, LANES)
        if not p.w_hr:
            d = d + load(p.dy + (row * p.lddy + u) * SIZE, left)
        dextra = load_each(EXTRA, dextra_at, p.B * p.H * SIZE, left)
        kept = load_each(KEPT, p.kept + (row * KEPT * p.H + u) * SIZE, p.H * SIZE, left)
        hidden = load(p.before + (row * p.S + u) * SIZE, p.S - u)
        extra = load_each(EXTRA, p.extra_before + (row * EXTRA * p.H + u) * SIZE, p.H * SIZE, left)
        dgates, dstates = cell_backward((d,) + dextra, kept, (hidden,) + extra)
        store_each(dgates, p.dgates + (slot * DGATES * p.H + u) * SIZE, p.H * SIZE, left)
        store_each(dstates[1:], dextra_at, p.B * p.H * SIZE, left)
        if not p.w_hr:
            store(dstates[0], dh + v * SIZE, LANES)


def gather_projected(p, first, rows, offset, slot, low, high):
    """dp = dh + dy, the whole gradient of the projected state; dh is left zero."""
    for b in range(first, first + rows):
        for u in range(low * PANEL, min(high * PANEL, p.S), LANES):
            dh = p.dh + (b * p.lddh + u) * SIZE
            value = load(dh, LANES) + load(p.dy + ((offset + b) * p.lddy + u) * SIZE, p.S - u)
            store(value, p.dp + ((slot + b) * p.S + u) * SIZE, p.S - u)
            store(load(p.zeros, LANES), dh, LANES)


def step(p, rank, turn, rows, first, offset, slot, scratch):
    """One step back, on this thread's rows first .. first+rows-1 and its units."""
    unit_part = rank % p.unit_parts
    panel_low, panel_high = share(up(p.H, PANEL), unit_part, p.unit_parts)
    state_low, state_high = share(up(p.S, PANEL), unit_part, p.unit_parts)
    if p.w_hr:
        gather_projected(p, first, rows, offset, slot, state_low, state_high)
        turn = rendezvous(p, rank, turn)
    blocks = up(rows, ROWS)
    for panel in range(panel_low, panel_high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            r, end = r + first, end + first
            dh, lddh = p.dh + (r * p.lddh + panel * PANEL) * SIZE, p.lddh
            if p.w_hr:
                dh, lddh = scratch, PANEL
                gemm(
                    end - r, p.S, p.dp + (slot + r) * p.S * SIZE, p.S * SIZE,
                    p.w_hr_panels + panel * p.S * PANEL * SIZE, p.zeros, 0, dh, lddh * SIZE,
                )  # fmt: skip
            for b in range(r, end):
                at = dh + (b - r) * lddh * SIZE
                differentiate(p, at, b, offset + b, slot + b, panel * PANEL)
    turn = rendezvous(p, rank, turn)
    depth, ld = GATES * p.H, DGATES * p.H
    dgates = p.dgates + ((slot + first) * ld + FIRST_H * p.H) * SIZE
    for panel in range(state_low, state_high):
        dh = p.dh + (first * p.lddh + panel * PANEL) * SIZE
        panels = p.w_hh_panels + panel * depth * PANEL * SIZE
        multiply(rows, depth, dgates, ld, panels, dh, p.lddh, dh, p.lddh)
    return turn


def products(p, rank, fresh, first, rows, slot):
    """What the rows of a block add to the gradients of x and of the weights."""
    M, ld = GATES * p.H, DGATES * p.H
    d_x = p.dgates + (slot * ld + FIRST_X * p.H) * SIZE
    d_h = p.dgates + (slot * ld + FIRST_H * p.H) * SIZE
    left = p.left + rank * (max(p.I, p.H) + 2 * LANES) * CHUNK * SIZE
    packed = p.packed + rank * CHUNK * PANEL * SIZE
    if p.dx:
        low, high = share(rows, rank, p.parts)
        dx = p.dx + (first + low) * p.I * SIZE
        strip = p.strip + rank * GROUP * PANEL * SIZE
        d = d_x + low * ld * SIZE
        matmul(high - low, M, d, ld, p.w_ih_panels, p.I, dx, p.add, p.zeros, strip)
    if p.sums_x:
        x, columns = p.x + first * p.I * SIZE, p.I if p.dw_ih else 0
        accumulate(
            rank, p.parts, fresh, rows, d_x, ld, M, x, columns, p.zeros, left, packed,
            p.strips_x, p.sums_x,
        )  # fmt: skip
    if p.sums_h:
        before, columns = p.before + first * p.S * SIZE, p.S if p.dw_hh else 0
        accumulate(
            rank, p.parts, fresh, rows, d_h, ld, M, before, columns, p.zeros, left, packed,
            p.strips_h, p.sums_h,
        )  # fmt: skip
    if p.dw_hr:
        dp, m = p.dp + slot * p.S * SIZE, p.m + first * p.H * SIZE
        accumulate(
            rank, p.parts, fresh, rows, dp, p.S, p.S, m, p.H, p.zeros, left, packed,
            p.strips_r, p.sums_r,
        )  # fmt: skip


def backward(plan):
    p = carray(plan, 1, BACKWARD)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    pack_weights(p, rank)
    meet_all(p, 1)
    stepping = rank < p.loop_parts  # the others only help with the products
    part = rank // p.unit_parts if stepping else 0
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    scratch = p.tile + rank * ROWS * PANEL * SIZE
    turn, meetings = 1, 1
    for last in range(p.T - 1, -1, -p.block):  # the steps, in blocks from the last one taken on
        begin = max(0, last - p.block + 1)
        early, late = (p.T - 1 - last, p.T - 1 - begin) if p.reverse else (begin, last)
        base = integer(p.offsets, early)
        slot = p.capacity if meetings % 2 else 0
        for s in range(last, begin - 1 if stepping else last, -1):
            t = p.T - 1 - s if p.reverse else s
            offset = integer(p.offsets, t)
            rows = max(0, min(row_high, integer(p.sizes, t)) - row_low)
            turn = step(p, rank, turn, rows, row_low, offset, slot + offset - base, scratch)
        meetings += 1
        meet_all(p, meetings)  # all of this block is there; nobody reads the one before any more
        rows = integer(p.offsets, late) + integer(p.sizes, late) - base
        products(p, rank, last == p.T - 1, base, rows, slot)
    if p.dw_ih:
        lay_down(rank, p.parts, GATES * p.H, p.strips_x, p.I, p.dw_ih)
    if p.dw_hh:
        lay_down(rank, p.parts, GATES * p.H, p.strips_h, p.S, p.dw_hh)
    if p.dw_hr:
        lay_down(rank, p.parts, p.S, p.strips_r, p.H, p.dw_hr)
