"""Backward: one layer in one direction, a whole sequence, with the gradients of all its inputs.

Rows and threads are as in forward.py. At each step the cell's derivative turns the gradient of the
new states into that of the gates (dgates), and dgates times W_hh is what the step before receives;
initial states receive what is left in the buffers at the end. The gradients of x and of the weights
are large products with dgates, made a block of steps at a time, so that dgates is used where it is
and never exists as a whole: two blocks of it take turns. What forward did not keep of the cell (it
kept the steps from ``kept_from`` on) is computed anew, a block at a time.
"""

from .blocks import even, filled, meet_all, share, up
from .compile import inlined
from .forward import rendezvous, step_at
from .plan import COMMON, record
from .products import CHUNK, GROUP
from .simd import copy, integer

# Specialised (see blocks.py); of the cell: states beside the hidden one, values kept, gradients of
# gates, and where among these x's and h's begin.
SIZE = ITEM = LANES = PANEL = ROWS = STEP = UNITS = WIDTH = 0
GATES = EXTRA = KEPT = DGATES = FIRST_X = FIRST_H = 0
load = store = load_each = store_each = None
item_load = item_store = item_load_each = item_store_each = None
gemm = multiply = pack = accumulate = lay_down = matmul = None
pack_gates = recompute = cell_backward = None

BACKWARD = record(
    COMMON
    + "v_ih v_hh dy lddy dx add dh dextra after extra_after m h_first extra_first dw_ih dw_hh "
    "dw_hr sums_x sums_h sums_r kept kept_from "
    "recompute recalled xgates loop_parts lddh dgates hidden extra dp capacity w_ih_panels "
    "w_hh_panels strips_x strips_h strips_r left packed strip"
)


def pack_weights(p, rank):
    """This thread's share of all the panels; v_ih, v_hh: their gates in the order of dgates."""
    if p.recompute:
        pack_gates(p, rank)
    first, last = share(up(p.S, PANEL), rank, p.parts)
    pack(p.v_hh, p.S, False, GATES * p.H, p.S, PANEL, PANEL, p.w_hh_panels, first, last)
    if p.dx:
        first, last = share(up(p.I, PANEL), rank, p.parts)
        pack(p.v_ih, p.I, False, GATES * p.H, p.I, PANEL, PANEL, p.w_ih_panels, first, last)
    if p.w_hr:
        first, last = share(up(p.H, PANEL), rank, p.parts)
        pack(p.w_hr, p.H, False, p.S, p.H, PANEL, PANEL, p.w_hr_panels, first, last)


def copy_rows(source, target, stride, rows, low, high):
    """Bytes low .. high-1 of ``rows`` rows, copied."""
    for b in range(rows):
        at = b * stride + low
        copy(source + at, target + at, high - low)


def gather(p, s, slot, row_low, row_high, part):
    """The states before the ``s``-th step, of this thread's rows and units, to the block's rows."""
    _, _, rows = step_at(p, s)
    _, before, rows_before = step_at(p, s - 1)
    high = max(row_low, min(row_high, rows))
    joined = max(row_low, min(high, rows_before))
    wide = EXTRA * p.H
    for joining in range(2):
        first, last = (joined, high) if joining else (row_low, joined)
        h, extra = p.h_first, p.extra_first
        if not joining:
            h, extra = p.after + before * p.S * ITEM, p.extra_after + before * wide * SIZE
        low, stop = share(up(p.S, PANEL), part, p.unit_parts)
        low, stop = low * PANEL * ITEM, min(stop * PANEL, p.S) * ITEM
        at, ld = first * p.S * ITEM, p.S * ITEM
        copy_rows(h + at, p.hidden + slot * ld + at, ld, last - first, low, stop)
        low, stop = share(up(p.H, PANEL), part, p.unit_parts)
        for e in range(EXTRA):
            at = (first * wide + e * p.H) * SIZE
            target, ld = p.extra + slot * wide * SIZE + at, wide * SIZE
            begin, end = low * PANEL * SIZE, min(stop * PANEL, p.H) * SIZE
            copy_rows(extra + at, target, ld, last - first, begin, end)


@inlined
def differentiate(p, dh, kept, b, row, slot, unit, left):
    """The cell's derivative on a register of units, ``left`` or more, of one row.

    dh: its recurrent gradient, at ``unit``; kept: where row 0's values are; ``slot``: the row's
    place in the block.
    """
    H, S, wide = p.H, p.S, EXTRA * p.H
    dextra_at = p.dextra + (b * wide + unit) * SIZE
    d = load(dh, LANES)
    if not p.w_hr:
        d = d + item_load(p.dy + (row * p.lddy + unit) * ITEM, left)
    dextra = load_each(EXTRA, dextra_at, H * SIZE, left)
    kept_at = kept + KEPT * (row * H + unit) * ITEM
    values = item_load_each(KEPT, kept_at, min(left, LANES) * ITEM, left)
    hidden = item_load(p.hidden + (slot * S + unit) * ITEM, left)
    extra = load_each(EXTRA, p.extra + (slot * wide + unit) * SIZE, H * SIZE, left)
    after = item_load(p.after + (row * S + unit) * ITEM, left)
    extra_after = load_each(EXTRA, p.extra_after + (row * wide + unit) * SIZE, H * SIZE, left)
    before, after = (hidden,) + extra, (after,) + extra_after
    dgates, dstates = cell_backward((d,) + dextra, values, before, after)
    item_store_each(dgates, p.dgates + (slot * DGATES * H + unit) * ITEM, H * ITEM, left)
    store_each(dstates[1:], dextra_at, H * SIZE, left)
    if not p.w_hr:
        store(dstates[0], dh, LANES)


def gather_projected(p, first, last, offset, slot, low, high):
    """dp = dh + dy, the whole gradient of the projected state; dh is left zero."""
    for b in range(first, last):
        for u in range(low * PANEL, min(high * PANEL, p.S), LANES):
            dh = p.dh + (b * p.lddh + u) * SIZE
            value = load(dh, LANES) + item_load(p.dy + ((offset + b) * p.lddy + u) * ITEM, p.S - u)
            item_store(value, p.dp + ((slot + b) * p.S + u) * ITEM, p.S - u)
            store(load(p.zeros, LANES), dh, LANES)


def step(p, rank, turn, first, last, offset, kept, slot, scratch):
    """One step back, on this thread's rows first .. last-1 and its units."""
    unit_part = rank % p.unit_parts
    panel_low, panel_high = share(up(p.H, PANEL), unit_part, p.unit_parts)
    state_low, state_high = share(up(p.S, PANEL), unit_part, p.unit_parts)
    if p.w_hr:
        gather_projected(p, first, last, offset, slot, state_low, state_high)
        turn = rendezvous(p, rank, turn)
    blocks = up(last - first, ROWS)
    for panel in range(panel_low, panel_high):
        for i in range(blocks):
            r, end = share(last - first, i, blocks)
            r, end = r + first, end + first
            dh, lddh = p.dh + (r * p.lddh + panel * PANEL) * SIZE, p.lddh
            if p.w_hr:
                dh, lddh = scratch, PANEL
                gemm(
                    end - r, filled(p.H, panel, PANEL, LANES), p.S,
                    p.dp + (slot + r) * p.S * ITEM, p.S * ITEM,
                    p.w_hr_panels + panel * even(p.S, STEP) * PANEL * ITEM,
                    p.zeros, 0, dh, lddh * SIZE,
                )  # fmt: skip
            for b in range(r, end):
                at, row = dh + (b - r) * lddh * SIZE, offset + b
                for v in range(0, min(PANEL, p.H - panel * PANEL), LANES):
                    unit, left = panel * PANEL + v, p.H - panel * PANEL - v
                    if left >= LANES:  # as in forward
                        differentiate(p, at + v * SIZE, kept, b, row, slot + b, unit, LANES)
                    else:
                        differentiate(p, at + v * SIZE, kept, b, row, slot + b, unit, left)
    turn = rendezvous(p, rank, turn)
    depth, ld = GATES * p.H, DGATES * p.H
    dgates = p.dgates + ((slot + first) * ld + FIRST_H * p.H) * ITEM
    for panel in range(state_low, state_high):
        dh = p.dh + (first * p.lddh + panel * PANEL) * SIZE
        panels = p.w_hh_panels + panel * even(depth, STEP) * PANEL * ITEM
        wide = filled(p.S, panel, PANEL, LANES)
        multiply(last - first, wide, depth, dgates, ld, panels, dh, p.lddh, dh, p.lddh)
    return turn


def products(p, rank, fresh, first, rows, slot):
    """What the rows of a block add to the gradients of x and of the weights."""
    M, ld = GATES * p.H, DGATES * p.H
    d_x = p.dgates + (slot * ld + FIRST_X * p.H) * ITEM
    d_h = p.dgates + (slot * ld + FIRST_H * p.H) * ITEM
    left = p.left + rank * (max(p.I, p.H) + 2 * LANES) * CHUNK * ITEM
    packed = p.packed + rank * CHUNK * PANEL * ITEM
    if p.dx:
        low, high = share(rows, rank, p.parts)
        dx = p.dx + (first + low) * p.I * ITEM
        strip = p.strip + rank * GROUP * PANEL * SIZE
        d = d_x + low * ld * ITEM
        matmul(high - low, M, d, ld, p.w_ih_panels, p.I, dx, p.add, p.zeros, strip)
    for d, ldd, wide, a, columns, strips, sums in (
        (d_x, ld, M, p.x + first * p.I * ITEM, p.I if p.dw_ih else 0, p.strips_x, p.sums_x),
        (d_h, ld, M, p.hidden + slot * p.S * ITEM, p.S if p.dw_hh else 0, p.strips_h, p.sums_h),
        (p.dp + slot * p.S * ITEM, p.S, p.S, p.m + first * p.H * ITEM, p.H, p.strips_r, p.sums_r),
    ):
        if sums:
            accumulate(
                rank, p.parts, fresh, rows, d, ldd, wide, a, columns, p.zeros, left, packed,
                strips, sums,
            )  # fmt: skip


def direction(p, rank):
    """All steps of one direction, this thread's part."""
    pack_weights(p, rank)
    meet_all(p, 1)
    stepping = rank < p.loop_parts  # the others only help with the products
    part = rank // p.unit_parts if stepping else 0
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    scratch = p.tile + rank * ROWS * max(PANEL, WIDTH) * SIZE
    turn, meetings, slot = 1, 1, 0
    for last in range(p.T - 1, -1, -p.block):  # the steps, in blocks from the last one taken on
        begin = max(0, last - p.block + 1)
        early, late = (p.T - 1 - last, p.T - 1 - begin) if p.reverse else (begin, last)
        base = integer(p.offsets, early)
        slot = p.capacity - slot
        block_rows = integer(p.offsets, late) + integer(p.sizes, late) - base
        for s in range(last, begin - 1 if stepping else last, -1):
            _, offset, _ = step_at(p, s)
            gather(p, s, slot + offset - base, row_low, row_high, rank % p.unit_parts)
        kept = p.kept
        if p.recompute and begin < p.kept_from:
            kept = p.recalled - base * KEPT * p.H * ITEM  # that row 0 would have
            meet_all(p, meetings + 1)  # the states before the block's rows are there
            recompute(p, rank, base, block_rows, slot, scratch)
            meet_all(p, meetings + 2)
            meetings += 2
        for s in range(last, begin - 1 if stepping else last, -1):
            _, offset, rows = step_at(p, s)
            high, here = max(row_low, min(row_high, rows)), slot + offset - base
            turn = step(p, rank, turn, row_low, high, offset, kept, here, scratch)
        meetings += 1
        meet_all(p, meetings)  # all of this block is there; nobody reads the one before any more
        products(p, rank, last == p.T - 1, base, block_rows, slot)
    if p.dw_ih:
        lay_down(rank, p.parts, GATES * p.H, p.strips_x, p.I, p.dw_ih)
    if p.dw_hh:
        lay_down(rank, p.parts, GATES * p.H, p.strips_h, p.S, p.dw_hh)
    if p.dw_hr:
        lay_down(rank, p.parts, p.S, p.strips_r, p.H, p.dw_hr)
