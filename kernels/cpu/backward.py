"""The backward time loop: one layer in one direction, a whole sequence.

Rows, state buffers and threads are as in forward.py. At each step the cell's derivative turns the
gradient of the new states into that of the gates, and the gates' gradients times W_hh are what the
step before receives. Initial states receive what is left in the buffers at the end.
"""

from numba import carray

from .blocks import meet_all, share, up
from .forward import COMMON, rendezvous
from .plan import record
from .simd import integer
from .sync import ticket

# Specialised (see blocks.py); of the cell: states beside the hidden one, values kept, gradients.
SIZE = LANES = PANEL = ROWS = 0
EXTRA = KEPT = DGATES = 0
load = store = load_each = store_each = gemm = multiply = pack = cell_backward = None

BACKWARD = record(
    COMMON + "dy lddy dh lddh dextra kept before extra_before dgates dh_gates depth "
    "w_hh w_hh_panels w_hr w_hr_panels dp"
)


def pack_weights(p, rank):
    """This thread's share of all the panels."""
    first, last = share(up(p.S, PANEL), rank, p.parts)
    pack(p.w_hh, p.S, False, p.depth, p.S, PANEL, PANEL, p.w_hh_panels, first, last)
    if p.w_hr:
        first, last = share(up(p.H, PANEL), rank, p.parts)
        pack(p.w_hr, p.H, False, p.S, p.H, PANEL, PANEL, p.w_hr_panels, first, last)


def differentiate(p, dh, b, row, unit):
    """The cell's derivative on one panel of units of one row, whose recurrent dh is at ``dh``."""
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
        store_each(dgates, p.dgates + (row * DGATES * p.H + u) * SIZE, p.H * SIZE, left)
        store_each(dstates[1:], dextra_at, p.B * p.H * SIZE, left)
        if not p.w_hr:
            store(dstates[0], dh + v * SIZE, LANES)


def gather_projected(p, first, rows, offset, low, high):
    """dp = dh + dy, the whole gradient of the projected state; dh is left zero."""
    for b in range(first, first + rows):
        row = offset + b
        for u in range(low * PANEL, min(high * PANEL, p.S), LANES):
            dh = p.dh + (b * p.lddh + u) * SIZE
            value = load(dh, LANES)
            store(value + load(p.dy + (row * p.lddy + u) * SIZE, p.S - u),
                  p.dp + (row * p.S + u) * SIZE, p.S - u)  # fmt: skip
            store(load(p.zeros, LANES), dh, LANES)


def backward(plan):
    p = carray(plan, 1, BACKWARD)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    pack_weights(p, rank)
    meet_all(p)
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    panel_low, panel_high = share(up(p.H, PANEL), unit_part, p.unit_parts)
    state_low, state_high = share(up(p.S, PANEL), unit_part, p.unit_parts)
    scratch = p.tile + rank * ROWS * WIDTH * SIZE
    turn = 1
    for s in range(p.T - 1, -1, -1):
        t = p.T - 1 - s if p.reverse else s
        offset = integer(p.offsets, t)
        rows = max(0, min(row_high, integer(p.sizes, t)) - row_low)
        if p.w_hr:
            gather_projected(p, row_low, rows, offset, state_low, state_high)
            turn = rendezvous(p, rank, turn)
        blocks = up(rows, ROWS)
        for panel in range(panel_low, panel_high):
            for i in range(blocks):
                r, end = share(rows, i, blocks)
                r, end = r + row_low, end + row_low
                dh, lddh = p.dh + (r * p.lddh + panel * PANEL) * SIZE, p.lddh
                if p.w_hr:
                    dh, lddh = scratch, PANEL
                    gemm(
                        end - r, p.S, p.dp + (offset + r) * p.S * SIZE, p.S * SIZE,
                        p.w_hr_panels + panel * p.S * PANEL * SIZE, p.zeros, 0, dh, lddh * SIZE,
                    )  # fmt: skip
                for b in range(r, end):
                    differentiate(p, dh + (b - r) * lddh * SIZE, b, offset + b, panel * PANEL)
        turn = rendezvous(p, rank, turn)
        ld = DGATES * p.H
        for panel in range(state_low, state_high):
            dh = p.dh + (row_low * p.lddh + panel * PANEL) * SIZE
            multiply(
                rows, p.depth, p.dgates + ((offset + row_low) * ld + p.dh_gates * p.H) * SIZE, ld,
                p.w_hh_panels + panel * p.depth * PANEL * SIZE, dh, p.lddh, dh, p.lddh,
            )  # fmt: skip
