"""One step of a cell, forward and backward, on weights as they lie in memory.

A sequence packs its weights once and uses them at every step; a single step uses them once, so
nothing is packed here. Threads share the hidden units forward, and backward, after all of them have
met, the rows or columns of each product. Specialised by rebinding globals, as blocks.py says.
"""

from ..compiler.integers import viewed
from ..registers.simd import zeros_like
from .blocks import DEEP, meet_all, share, up
from .fields import record
from .sync import ticket

# Specialised: bytes of an element, elements of a register; how dot and product are tiled; the cell,
# with whether a gate's two parts stand apart, in which order backward has them (pick_x and _h), and
# which new states it reads: pick_after takes these AFTER out, put_after puts them back.
SIZE = LANES = DOT_ROWS = DOT_COUNT = PANEL = ROWS = WIDE = 0
GATES = EXTRA = AFTER = KEPT = SLOTS = 0
APART = ()
load = store = load_each = store_each = dot = product = stack = None
cell_forward = cell_backward = pick_x = pick_h = pick_after = put_after = None

CHUNK = 64  # rows at a time whose pre-activations wait on the stack

COMMON = "B I H parts counters zeros x h extra w_ih w_hh kept after "
FORWARD = record(COMMON + "b_ih b_hh h_new extra_new")
BACKWARD = record(
    COMMON + "dh_new dextra_new dgates_x dgates_h dx dh dextra dw_ih dw_hh db_ih db_hh"
)
view_forward, view_backward = viewed(FORWARD), viewed(BACKWARD)


def bias_at(p, bias, place):
    """The address of an element of a bias; of zeros where the cell has none."""
    return bias + place * SIZE if bias else p.zeros


def preactivations(p, first, rows, unit, scratch):
    """The gates of LANES units from ``unit`` on, for rows first .. first+rows-1, in ``scratch``.

    A row has a register for each gate; where the two parts of any gate are wanted apart, SLOTS is
    twice that, and the recurrent parts come second.
    """
    line, blocks = SLOTS * LANES * SIZE, up(rows, DOT_ROWS)
    for gate in range(GATES):
        for v in range(0, min(LANES, p.H - unit), DOT_COUNT):
            place, left = gate * p.H + unit + v, p.H - unit - v
            w_ih, w_hh = p.w_ih + place * p.I * SIZE, p.w_hh + place * p.H * SIZE
            b_ih, b_hh = bias_at(p, p.b_ih, place), bias_at(p, p.b_hh, place)
            for i in range(blocks):
                low, high = share(rows, i, blocks)
                x, h = p.x + (first + low) * p.I * SIZE, p.h + (first + low) * p.H * SIZE
                out = scratch + low * line + (gate * LANES + v) * SIZE
                if APART[gate]:
                    dot(
                        high - low, p.I, x, p.I * SIZE, w_ih, p.I * SIZE, 0, h, 0, w_hh, 0,
                        left, b_ih, p.zeros, out, line,
                    )  # fmt: skip
                    dot(
                        high - low, p.H, h, p.H * SIZE, w_hh, p.H * SIZE, 0, x, 0, w_ih, 0,
                        left, b_hh, p.zeros, out + GATES * LANES * SIZE, line,
                    )  # fmt: skip
                else:
                    dot(
                        high - low, p.I, x, p.I * SIZE, w_ih, p.I * SIZE,
                        p.H, h, p.H * SIZE, w_hh, p.H * SIZE, left, b_ih, b_hh, out, line,
                    )  # fmt: skip


def apply_cell(p, b, unit, gates):
    """The cell on LANES units of row b, whose pre-activations are at ``gates``."""
    left, at = p.H - unit, (b * p.H + unit) * SIZE
    x = load_each(GATES, gates, LANES * SIZE, LANES)
    if SLOTS > GATES:
        h = load_each(GATES, gates + GATES * LANES * SIZE, LANES * SIZE, LANES)
    else:  # they are in x's
        h = load_each(GATES, p.zeros, 0, LANES)
    states = (load(p.h + at, left),) + load_each(EXTRA, p.extra + at, 0, left)
    _, new, kept = cell_forward(x, h, states, (), ())
    store(new[0], p.h_new + at, left)
    store_each(new[1:], p.extra_new + at, 0, left)
    if p.kept:
        store_each(kept, p.kept + (b * KEPT * p.H + unit) * SIZE, p.H * SIZE, left)
    if p.after:
        store_each(pick_after(new), p.after + (b * AFTER * p.H + unit) * SIZE, p.H * SIZE, left)


def forward(plan):
    p = view_forward(plan)
    rank = ticket(p.counters) if p.parts > 1 else 0
    if rank >= p.parts:
        return
    scratch = stack()
    if SLOTS > GATES:
        for place in range(0, min(p.B, CHUNK) * SLOTS * LANES, LANES):
            store(load(p.zeros, LANES), scratch + place * SIZE, LANES)
    low, high = share(up(p.H, LANES), rank, p.parts)
    for block in range(low, high):
        for first in range(0, p.B, CHUNK):
            rows = min(CHUNK, p.B - first)
            preactivations(p, first, rows, block * LANES, scratch)
            for r in range(rows):
                gates = scratch + r * SLOTS * LANES * SIZE
                apply_cell(p, first + r, block * LANES, gates)


def differentiate(p, b, unit):
    """The cell's derivative on LANES units of row b."""
    left, at = p.H - unit, (b * p.H + unit) * SIZE
    kept = load_each(KEPT, p.kept + (b * KEPT * p.H + unit) * SIZE, p.H * SIZE, left)
    after = load_each(AFTER, p.after + (b * AFTER * p.H + unit) * SIZE, p.H * SIZE, left)
    after = put_after(after + (load(p.zeros, LANES),))
    before = (load(p.h + at, left),) + load_each(EXTRA, p.extra + at, 0, left)
    d = (load(p.dh_new + at, left),) + load_each(EXTRA, p.dextra_new + at, 0, left)
    dgates, _, _, dstates = cell_backward(zeros_like(d[0]), d, kept, before, after, (), ())
    gates = (b * GATES * p.H + unit) * SIZE
    store_each(pick_x(dgates), p.dgates_x + gates, p.H * SIZE, left)
    if p.dgates_h != p.dgates_x:
        store_each(pick_h(dgates), p.dgates_h + gates, p.H * SIZE, left)
    if p.dh:
        store(dstates[0], p.dh + at, left)
    if p.dextra:
        store_each(dstates[1:], p.dextra + at, 0, left)


def sum_rows(p, dgates, unit, out):
    """The gradient of a bias for LANES units: the sum of the gates' gradients over all rows."""
    left = p.H - unit
    for gate in range(GATES):
        place = (gate * p.H + unit) * SIZE
        total = zeros_like(load(p.zeros, LANES))
        for first in range(0, p.B, DEEP):
            part = zeros_like(total)
            for b in range(first, min(first + DEEP, p.B)):
                part = part + load(dgates + b * GATES * p.H * SIZE + place, left)
            total = total + part
        store(total, out + place, left)


def multiply(rows, depth, a, a_row, a_k, b, ldb, low, high, zeros, add, c, ldc):
    """c = a @ b, or c += where ``add``, for the columns low .. high-1. All strides in elements.

    Sums are in pieces of K, so that they gather fewer rounding errors and b's rows stay near.
    """
    pieces, column = up(depth, DEEP), low
    while column < high:
        width, tall, tile = PANEL, ROWS, 0
        if rows == 1 and high - column >= WIDE:
            width, tall, tile = WIDE, 1, 2 * ROWS
        elif high - column < PANEL:
            width, tile = LANES, ROWS
        blocks = up(rows, tall)
        for piece in range(pieces):
            k, stop = share(depth, piece, pieces)
            for i in range(blocks):
                r, end = share(rows, i, blocks)
                out = c + (r * ldc + column) * SIZE
                init, ldi = (out, ldc) if k or add else (zeros, 0)
                product(
                    tile + end - r, stop - k, a + (r * a_row + k * a_k) * SIZE, a_row * SIZE,
                    a_k * SIZE, b + (k * ldb + column) * SIZE, ldb * SIZE, init, ldi * SIZE,
                    out, ldc * SIZE, high - column,
                )  # fmt: skip
        column += width


def to_inputs(p, rank, dgates, weight, columns, add, out):
    """out = dgates @ weight (columns wide), or out += ; threads share the columns."""
    low, high = share(up(columns, PANEL), rank, p.parts)
    M, end = GATES * p.H, min(high * PANEL, columns)
    multiply(p.B, M, dgates, M, 1, weight, columns, low * PANEL, end, p.zeros, add, out, columns)


def to_weights(p, rank, dgates, a, columns, out):
    """out = dgates.T @ a (columns wide); threads share the rows."""
    M = GATES * p.H
    low, high = share(M, rank, p.parts)
    multiply(
        high - low, p.B, dgates + low * SIZE, 1, M, a, columns, 0, columns, p.zeros, 0,
        out + low * columns * SIZE, columns,
    )  # fmt: skip


def backward(plan):
    p = view_backward(plan)
    rank = ticket(p.counters) if p.parts > 1 else 0
    if rank >= p.parts:
        return
    low, high = share(up(p.H, LANES), rank, p.parts)
    for block in range(low, high):
        for b in range(p.B):
            differentiate(p, b, block * LANES)
        if p.db_ih and p.db_ih != p.dgates_x:
            sum_rows(p, p.dgates_x, block * LANES, p.db_ih)
        if p.db_hh and p.db_hh != p.dgates_h:
            sum_rows(p, p.dgates_h, block * LANES, p.db_hh)
    meet_all(p, 1)
    if p.dx:
        to_inputs(p, rank, p.dgates_x, p.w_ih, p.I, 0, p.dx)
    if p.dh:
        to_inputs(p, rank, p.dgates_h, p.w_hh, p.H, 1, p.dh)
    if p.dw_ih:
        to_weights(p, rank, p.dgates_x, p.x, p.I, p.dw_ih)
    if p.dw_hh:
        to_weights(p, rank, p.dgates_h, p.h, p.H, p.dw_hh)
