"""Backward: one layer in one direction, a whole sequence, with the gradients of all its inputs.

Rows and threads are as in forward.py. At each step the cell's derivative turns the gradient of the
new states into that of the gates (dgates), and dgates times W_hh is what the step before receives;
initial states receive what is left in the buffers at the end. The gradients of x and of the weights
are large products with dgates, made a block of steps at a time, so that dgates is used where it is
and never exists as a whole: two blocks of it take turns. What forward did not keep of the cell (it
kept the steps from ``kept_from`` on) is computed anew, a block at a time.
"""

from ..compiler.integers import call, copy, integer
from .blocks import (
    filled,
    gemm,
    line_bytes,
    meet_all,
    multiply,
    panel_at,
    panel_bytes,
    panel_for,
    ragged,
    share,
    up,
)
from .forward import rendezvous, step_at
from .large_products import GROUP
from .recurrent import COUNT, FACTOR, FRESH, GATE, PANELS, STAGE, SUMS, product_at

# specialised
accumulate = at_once = lay_down = matmul = None


def pack_weights(p, rank):
    """This thread's share of all the panels."""
    if p.recompute:
        call(p.pack_again, p.self, rank)
    panel, depth = p.panel, p.gates * p.H
    for i in range(integer(p.products, 0)):
        at = product_at(p, i)
        weights = p.w_hh + integer(at, GATE) * p.H * p.S * p.size
        panels = p.w_hh_panels + integer(at, PANELS)
        pack_where_wanted(p, rank, weights, integer(at, COUNT) * p.H, p.S, panels)
    if p.dx:
        pack_where_wanted(p, rank, p.w_ih, depth, p.I, p.w_ih_panels)
    if p.w_hr:
        first, last = share(up(p.H, panel), rank, p.parts)
        call(p.pack, p.w_hr, p.H, 0, p.S, p.H, panel, panel, panel, p.w_hr_panels, first, last)


def pack_where_wanted(p, rank, weights, depth, columns, panels):
    """This thread's share of the panels of a (depth, columns) matrix, if it needs them."""
    if p.lying and not ragged(p, columns):
        return
    first, last, panel = *share(up(columns, p.panel), rank, p.parts), p.panel
    call(p.pack, weights, columns, 0, depth, columns, panel, panel, panel, panels, first, last)


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
    wide = p.extras * p.H
    for joining in range(2):
        first, last = (joined, high) if joining else (row_low, joined)
        h, extra = p.h_first, p.extra_first
        if not joining:
            h, extra = p.after + before * p.S * p.item, p.extra_after + before * wide * p.size
        low, stop = share(up(p.S, p.panel), part, p.unit_parts)
        low, stop = low * p.panel * p.item, min(stop * p.panel, p.S) * p.item
        at, ld = first * p.S * p.item, p.S * p.item
        copy_rows(h + at, p.hidden + slot * ld + at, ld, last - first, low, stop)
        low, stop = share(up(p.H, p.panel), part, p.unit_parts)
        for e in range(p.extras):
            at = (first * wide + e * p.H) * p.size
            target, ld = p.extra + slot * wide * p.size + at, wide * p.size
            begin, end = low * p.panel * p.size, min(stop * p.panel, p.H) * p.size
            copy_rows(extra + at, target, ld, last - first, begin, end)


def project_back(p, first, last, low, high, kept, slot, offset, scratch):
    """The cell's derivative where the gradient of its output comes through the projection."""
    blocks, apart = up(last - first, p.tall), panel_bytes(p, p.S)
    for panel in range(low, high):
        for i in range(blocks):
            r, end = share(last - first, i, blocks)
            r, end, unit = r + first, end + first, panel * p.panel
            gemm(
                p, end - r, filled(p, p.H, panel, p.panel), p.S, p.dp + (slot + r) * p.S * p.item,
                p.S * p.item, p.w_hr_panels + panel * apart, line_bytes(p), p.zeros, 0,
                scratch, p.panel * p.size,
            )  # fmt: skip
            call(
                p.cell, p.self, scratch - (r * p.panel + unit) * p.size, p.panel, kept, slot,
                offset, unit, min(unit + p.panel, p.H), r, end,
            )  # fmt: skip


def step(p, rank, turn, first, last, offset, kept, slot, scratch):
    """One step back, on this thread's rows first .. last-1 and its units."""
    unit_part = rank % p.unit_parts
    low, high = share(up(p.H, p.panel), unit_part, p.unit_parts)
    state_low, state_high = share(up(p.S, p.panel), unit_part, p.unit_parts)
    units_low, units_high = low * p.panel, min(high * p.panel, p.H)
    # its own units and no others: nobody waits before the next step reads them
    begin, end = state_low * p.panel, min(state_high * p.panel, p.S)
    if p.take_states:
        call(p.take_states, p.self, first, last, offset, units_low, units_high)
    if p.w_hr:
        call(p.take_projected, p.self, first, last, offset, slot, state_low, state_high)
        turn = rendezvous(p, rank, turn)
        project_back(p, first, last, low, high, kept, slot, offset, scratch)
    for stage in range(p.stages + 1):
        if not p.w_hr:
            cell = integer(p.cell, stage) if p.stages else p.cell
            call(
                cell, p.self, p.dh, p.lddh, kept, slot, offset, units_low, units_high, first, last
            )  # fmt: skip
        turn = rendezvous(p, rank, turn)
        for i in range(integer(p.products, 0)):
            at = product_at(p, i)
            if integer(at, STAGE) == stage:
                multiply_back(p, at, first, last, slot, begin, end)
    return turn


def multiply_back(p, at, first, last, slot, begin, end):
    """What a recurrent product's gates add to the gradient of its factor, in these columns."""
    gate, factor, depth = integer(at, GATE), integer(at, FACTOR), integer(at, COUNT) * p.H
    ld, rows = p.dgates_each * p.H, last - first
    dgates = p.dgates + ((slot + first) * ld + (p.first_h + gate) * p.H) * p.item
    weights, panels = p.w_hh + gate * p.H * p.S * p.size, p.w_hh_panels + integer(at, PANELS)
    out = p.dfactors + factor * p.B * p.lddh * p.size if factor >= 0 else p.dh
    panel = panel_for(p, rows, p.S)
    for column in range(begin, end, panel):
        wide, c = up(min(panel, end - column), p.lanes), out + (first * p.lddh + column) * p.size
        b, ldb = panel_at(p, panels, weights, p.S, depth, column)
        init, ldi = (p.zeros, 0) if integer(at, FRESH) else (c, p.lddh)
        multiply(p, rows, wide, depth, dgates, ld * p.item, b, ldb, init, ldi, c, p.lddh)


def products(p, rank, fresh, first, rows, slot):
    """What the rows of a block add to the gradients of x and of the weights."""
    M, ld, item, size = p.gates * p.H, p.dgates_each * p.H, p.item, p.size
    d_x = p.dgates + slot * ld * item
    d_h = p.dgates + (slot * ld + p.first_h * p.H) * item
    left, packed = p.left + rank * p.left_each * item, p.packed + rank * p.packed_each * item
    strip = p.strip + rank * GROUP * p.panel * size
    if p.dx:
        low, high = share(rows, rank, p.parts)
        dx, d = p.dx + (first + low) * p.I * item, d_x + low * ld * item
        matmul(p, high - low, M, d, ld, p.w_ih_panels, p.w_ih, p.I, dx, p.add, strip)
    x, m = p.x + first * p.I * item, p.m + first * p.H * item
    d_own = p.dgates + (slot * ld + p.first_own * p.H) * item
    for d, ldd, wide, a, columns, strips, sums, dw in (
        (d_x, ld, M, x, p.I, p.strips_x, p.sums_x, p.dw_ih),
        (p.dp + slot * p.S * item, p.S, p.S, m, p.H, p.strips_r, p.sums_r, p.dw_hr),
        (d_own, ld, p.owns * p.H, x, 0, p.strips_x, p.sums_own, 0),
    ):
        columns = columns if dw else 0
        if sums and p.few:
            at_once(p, rank, rows, d, ldd, wide, a, columns, left, packed, strip, sums, dw)
        elif sums:
            accumulate(p, rank, fresh, rows, d, ldd, wide, a, columns, left, packed, strips, sums)
    for i in range(integer(p.products, 0) if p.sums_h else 0):
        at = product_at(p, i)
        gate, factor, wide = integer(at, GATE), integer(at, FACTOR), integer(at, COUNT) * p.H
        d, a = d_h + gate * p.H * item, p.hidden + slot * p.S * item
        if factor >= 0:
            a = p.factors + factor * p.factor_stride + first * p.H * item
        columns, dw = p.S if p.dw_hh else 0, p.dw_hh + gate * p.H * p.S * size
        sums, strips = p.sums_h + integer(at, SUMS) * size, strips_of(p, at)
        if p.few:
            at_once(p, rank, rows, d, ld, wide, a, columns, left, packed, strip, sums, dw)
        else:
            accumulate(p, rank, fresh, rows, d, ld, wide, a, columns, left, packed, strips, sums)


def strips_of(p, at):
    """Where the strips of a recurrent product's weights are."""
    return p.strips_h + integer(at, SUMS) * p.S * p.size


def direction(p, rank):
    """All steps of one direction, this thread's part."""
    pack_weights(p, rank)
    meet_all(p, 1)
    stepping = rank < p.loop_parts  # the others only help with the products
    part = rank // p.unit_parts if stepping else 0
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    scratch = p.tile + rank * p.tall * max(p.panel, p.width) * p.size
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
            kept = p.recalled - base * p.keeps * p.H * p.item  # that row 0 would have
            meet_all(p, meetings + 1)  # the states before the block's rows are there
            call(p.compute_again, p.self, rank, base, block_rows, slot, scratch)
            meet_all(p, meetings + 2)
            meetings += 2
        for s in range(last, begin - 1 if stepping else last, -1):
            _, offset, rows = step_at(p, s)
            high, here = max(row_low, min(row_high, rows)), slot + offset - base
            turn = step(p, rank, turn, row_low, high, offset, kept, here, scratch)
        meetings += 1
        meet_all(p, meetings)  # all of this block is there; nobody reads the one before any more
        products(p, rank, last == p.T - 1, base, block_rows, slot)
    if p.few:
        return
    if p.dw_ih:
        lay_down(p, rank, p.gates * p.H, p.strips_x, p.I, p.dw_ih)
    for i in range(integer(p.products, 0) if p.dw_hh else 0):
        at = product_at(p, i)
        out = p.dw_hh + integer(at, GATE) * p.H * p.S * p.size
        lay_down(p, rank, integer(at, COUNT) * p.H, strips_of(p, at), p.S, out)
    if p.dw_hr:
        lay_down(p, rank, p.S, p.strips_r, p.H, p.dw_hr)
