"""The time loops: one layer in one direction, a whole sequence, forward and backward.

These functions are specialised by rebinding their globals (compile.py): vector operations and
``gemm`` for the registers at hand, the cell's mathematics, and the sizes in capitals below. In a
plan addresses are in bytes, sizes and leading dimensions in elements.

A sequence is rows in time order: ``integer(p.sizes, t)`` of them at step t, starting at row ``integer(p.offsets, t)``. A
dense batch is the case of equal sizes, a PackedSequence that of falling ones. Row b of a step is row
b of the state buffers, and rows that are not active keep what is in theirs: so initial states wait
for rows that join late, and final states stay with rows that end early.

Threads form a grid of row parts x unit parts. Those with the same rows (``bounds`` says which) meet
at a barrier in every step; those with different rows never meet.
"""

import numpy as np
from numba import carray, njit

from .simd import integer
from .sync import barrier, ticket

# Specialised: bytes of an element, elements of a register, and the tiling (tiling.py) ...
SIZE = LANES = UNITS = WIDTH = PANEL = ROWS = 0
# ... and the cell's counts: gates, states beside the hidden one, what it keeps, gradients of gates.
GATES = EXTRA = KEPT = DGATES = 0
load = store = load_each = store_each = gemm = cell_forward = cell_backward = None


def record(fields):
    """The type of a plan: named int64s."""
    return np.dtype([(name, np.int64) for name in fields.split()])


COMMON = "T B I H S reverse parts unit_parts bounds sizes offsets counters tile zeros "
FORWARD = record(
    COMMON + "block x ldx w_ih b_ih w_hh b_hh w_hr xgates "
    "h h_next extra m y ldy h_last keep kept extras"
)
BACKWARD = record(
    COMMON + "dy lddy dh lddh dextra kept extras extra_0 y ldy h_0 dgates dh_gates depth w_hh w_hr dp"
)


@njit(forceinline=True)
def share(count, part, parts):
    """Where part ``part`` of ``count`` things begins, and where the next one does."""
    return count * part // parts, count * (part + 1) // parts


@njit(forceinline=True)
def up(count, block):
    """How many blocks hold ``count`` things."""
    return (count + block - 1) // block


@njit(forceinline=True)
def rendezvous(p, rank, turn):
    """Meet the threads that have the same rows."""
    if p.unit_parts > 1:
        barrier(p.counters + (1 + rank // p.unit_parts) * 64, p.unit_parts, turn)
    return turn + 1


def multiply(rows, depth, a, lda, panels, init, ldi, c, ldc):
    """c[:rows] = init + a @ panel for one panel, in even blocks of rows."""
    blocks = up(rows, ROWS)
    for i in range(blocks):
        r, end = share(rows, i, blocks)
        gemm(
            end - r, depth, a + r * lda * SIZE, lda * SIZE, panels,
            init + r * ldi * SIZE, ldi * SIZE, c + r * ldc * SIZE, ldc * SIZE,
        )  # fmt: skip


def project_inputs(p, first, last, base, tile_low, tile_high):
    """xgates[row - base] = W_ih x[row] + b_ih for rows first .. last-1 and the given tiles."""
    width = up(p.H, UNITS) * WIDTH
    for panel in range(tile_low * WIDTH // PANEL, tile_high * WIDTH // PANEL):
        multiply(
            last - first, p.I, p.x + first * p.ldx * SIZE, p.ldx,
            p.w_ih + panel * p.I * PANEL * SIZE, p.b_ih + panel * PANEL * SIZE, 0,
            p.xgates + ((first - base) * width + panel * PANEL) * SIZE, width,
        )  # fmt: skip


def put_hidden(p, value, h_next, b, row, unit, ends):
    """A register of new hidden state: to the state buffer, the output and, at a row's end, h_n."""
    left = p.S - unit
    store(value, h_next + (b * p.S + unit) * SIZE, left)
    store(value, p.y + (row * p.ldy + unit) * SIZE, left)
    if ends:
        store(value, p.h_last + (b * p.S + unit) * SIZE, left)


def apply_cell(p, h, h_next, xgates, hgates, b, row, tile, ends):
    """The cell on one tile of one row, whose pre-activations are at xgates and hgates."""
    for v in range(0, min(UNITS, p.H - tile * UNITS), LANES):
        unit = tile * UNITS + v
        left = p.H - unit
        extra_at = p.extra + (b * p.H + unit) * SIZE
        xs = load_each(GATES, xgates + v * SIZE, UNITS * SIZE, LANES)
        hs = load_each(GATES, hgates + v * SIZE, UNITS * SIZE, LANES)
        hidden = load(h + (b * p.S + unit) * SIZE, p.S - unit)
        extra = load_each(EXTRA, extra_at, p.B * p.H * SIZE, left)
        states, kept = cell_forward(xs, hs, (hidden,) + extra)
        store_each(states[1:], extra_at, p.B * p.H * SIZE, left)
        if p.keep:
            store_each(kept, p.kept + (row * KEPT * p.H + unit) * SIZE, p.H * SIZE, left)
            store_each(states[1:], p.extras + (row * EXTRA * p.H + unit) * SIZE, p.H * SIZE, left)
        if p.w_hr:
            store(states[0], p.m + ((row if p.keep else b) * p.H + unit) * SIZE, left)
        else:
            put_hidden(p, states[0], h_next, b, row, unit, ends)


def project_hidden(p, h_next, scratch, first, rows, offset, lasting, part):
    """h = W_hr m for the rows first .. first+rows-1 of one step and this thread's share of S."""
    low, high = share(up(p.S, PANEL), part, p.unit_parts)
    blocks = up(rows, ROWS)
    for panel in range(low, high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            m = p.m + (first + r + (offset if p.keep else 0)) * p.H * SIZE
            gemm(
                end - r, p.H, m, p.H * SIZE, p.w_hr + panel * p.H * PANEL * SIZE,
                p.zeros, 0, scratch, PANEL * SIZE,
            )  # fmt: skip
            for q in range(end - r):
                b = first + r + q
                for v in range(0, min(PANEL, p.S - panel * PANEL), LANES):
                    value = load(scratch + (q * PANEL + v) * SIZE, LANES)
                    unit = panel * PANEL + v
                    put_hidden(p, value, h_next, b, offset + b, unit, b >= lasting)


def forward(plan):
    p = carray(plan, 1, FORWARD)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    tile_low, tile_high = share(up(p.H, UNITS), unit_part, p.unit_parts)
    width = up(p.H, UNITS) * WIDTH
    scratch = p.tile + rank * ROWS * WIDTH * SIZE
    ahead = -1 if p.reverse else 1
    h, h_next, turn, base = p.h, p.h_next, 1, 0
    for s in range(p.T):
        t = p.T - 1 - s if p.reverse else s
        if s % p.block == 0:  # this thread's part of the inputs of the next steps
            final = t + ahead * (min(p.block, p.T - s) - 1)
            early, late = min(t, final), max(t, final)
            base = integer(p.offsets, early)
            if row_high - row_low == p.B:
                project_inputs(p, base, integer(p.offsets, late) + integer(p.sizes, late), base, tile_low, tile_high)
            else:
                for i in range(early, late + 1):
                    first, last = integer(p.offsets, i) + row_low, integer(p.offsets, i) + min(row_high, integer(p.sizes, i))
                    project_inputs(p, first, max(first, last), base, tile_low, tile_high)
        rows = max(0, min(row_high, integer(p.sizes, t)) - row_low)
        lasting = integer(p.sizes, t + ahead) if s + 1 < p.T else 0  # rows that go on after this step
        blocks = up(rows, ROWS)
        for tile in range(tile_low, tile_high):
            for i in range(blocks):
                r, end = share(rows, i, blocks)
                r, end = r + row_low, end + row_low
                for v in range(WIDTH // PANEL):
                    panel = tile * (WIDTH // PANEL) + v
                    gemm(
                        end - r, p.S, h + r * p.S * SIZE, p.S * SIZE,
                        p.w_hh + panel * p.S * PANEL * SIZE, p.b_hh + panel * PANEL * SIZE, 0,
                        scratch + v * PANEL * SIZE, WIDTH * SIZE,
                    )  # fmt: skip
                for b in range(r, end):
                    row = integer(p.offsets, t) + b
                    xgates = p.xgates + ((row - base) * width + tile * WIDTH) * SIZE
                    hgates = scratch + (b - r) * WIDTH * SIZE
                    apply_cell(p, h, h_next, xgates, hgates, b, row, tile, b >= lasting)
        turn = rendezvous(p, rank, turn)
        if p.w_hr:
            project_hidden(p, h_next, scratch, row_low, rows, integer(p.offsets, t), lasting, unit_part)
            turn = rendezvous(p, rank, turn)
        h, h_next = h_next, h


def differentiate(p, dh, b, row, earlier, unit):
    """The cell's derivative on one panel of units of one row, whose recurrent dh is at ``dh``.

    ``earlier`` is the row that holds the previous states, or -1 where they are the initial ones.
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
        if earlier >= 0:
            h_at, stride = p.y + (earlier * p.ldy + u) * SIZE, p.H * SIZE
            extra_at = p.extras + (earlier * EXTRA * p.H + u) * SIZE
        else:
            h_at, stride = p.h_0 + (b * p.S + u) * SIZE, p.B * p.H * SIZE
            extra_at = p.extra_0 + (b * p.H + u) * SIZE
        states = (load(h_at, p.S - u),) + load_each(EXTRA, extra_at, stride, left)
        dgates, dstates = cell_backward((d,) + dextra, kept, states)
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
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    panel_low, panel_high = share(up(p.H, PANEL), unit_part, p.unit_parts)
    state_low, state_high = share(up(p.S, PANEL), unit_part, p.unit_parts)
    scratch = p.tile + rank * ROWS * WIDTH * SIZE
    ahead = -1 if p.reverse else 1
    turn = 1
    for s in range(p.T - 1, -1, -1):
        t = p.T - 1 - s if p.reverse else s
        offset = integer(p.offsets, t)
        rows = max(0, min(row_high, integer(p.sizes, t)) - row_low)
        before = integer(p.sizes, t - ahead) if s else 0  # rows that were active in the step before
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
                        p.w_hr + panel * p.S * PANEL * SIZE, p.zeros, 0, dh, lddh * SIZE,
                    )  # fmt: skip
                for b in range(r, end):
                    earlier = integer(p.offsets, t - ahead) + b if b < before else -1
                    at = dh + (b - r) * lddh * SIZE
                    differentiate(p, at, b, offset + b, earlier, panel * PANEL)
        turn = rendezvous(p, rank, turn)
        ld = DGATES * p.H
        for panel in range(state_low, state_high):
            dh = p.dh + (row_low * p.lddh + panel * PANEL) * SIZE
            multiply(
                rows, p.depth, p.dgates + ((offset + row_low) * ld + p.dh_gates * p.H) * SIZE, ld,
                p.w_hh + panel * p.depth * PANEL * SIZE, dh, p.lddh, dh, p.lddh,
            )  # fmt: skip
