"""The forward time loop: one layer in one direction, a whole sequence.

A sequence is rows in time order: ``sizes[t]`` of them at step t, starting at row ``offsets[t]``. A
dense batch is the case of equal sizes, a PackedSequence that of falling ones. The new hidden state
of a row goes to its row of ``trail`` (the output itself where nothing is kept for backward), and
the next step reads it there. A step's first rows go on from the step before; the others, which
join, begin with their initial states.

Threads form a grid of row parts x unit parts. Those with the same rows (``bounds`` says which) meet
at a barrier in every step; those with different rows never meet.
"""

from numba import njit

from .blocks import GROUPS, LINE, even, filled, meet_all, share, up
from .compile import inlined
from .plan import COMMON, record
from .simd import integer
from .sync import barrier

# Specialised (see blocks.py): the tiling of the gates, and the cell: its gates, the states beside
# the hidden one, and how many values it keeps for backward.
SIZE = ITEM = LANES = PANEL = ROWS = STEP = UNITS = WIDTH = 0
GATES = EXTRA = KEPT = 0
load = store = load_each = store_each = item_load = item_store = item_store_each = None
gemm = multiply = pack = spread = cell_forward = None

FORWARD = record(
    COMMON + "trail ld_trail h_first h_last extra extra_first extra_last y ldy kept kept_from m "
    "xgates keep"
)


@njit(forceinline=True)
def rendezvous(p, rank, turn):
    """Meet the threads that have the same rows."""
    if p.unit_parts > 1:
        barrier(p.counters + GROUPS + rank // p.unit_parts * LINE, p.unit_parts, turn)
    return turn + 1


@njit(forceinline=True)
def step_at(p, s):
    """(t, first row, rows) of the ``s``-th step that a direction takes; no rows before and after"""
    if s < 0 or s >= p.T:
        return 0, 0, 0
    t = p.T - 1 - s if p.reverse else s
    return t, integer(p.offsets, t), integer(p.sizes, t)


def pack_gates(p, rank):
    """This thread's share of all the panels."""
    first, last = share(up(p.H, UNITS) * WIDTH // PANEL, rank, p.parts)
    pack(p.w_ih, p.I, True, p.I, p.H, UNITS, WIDTH, p.w_ih_tiles, first, last)
    pack(p.w_hh, p.S, True, p.S, p.H, UNITS, WIDTH, p.w_hh_tiles, first, last)
    b_ih, b_hh = (p.b_ih, p.b_hh) if p.b_ih else (p.zeros, p.zeros)
    columns = p.H if p.b_ih else 0  # without biases: all of it lies behind the last column
    spread(b_ih, columns, UNITS, WIDTH, p.b_ih_tiles, first, last)
    spread(b_hh, columns, UNITS, WIDTH, p.b_hh_tiles, first, last)


def project_inputs(p, xgates, first, last, base, tile_low, tile_high):
    """xgates[row - base] = W_ih x[row] + b_ih for rows first .. last-1 and the given tiles."""
    width = up(p.H, UNITS) * WIDTH
    columns = p.H if GATES == 1 else width
    for panel in range(tile_low * WIDTH // PANEL, tile_high * WIDTH // PANEL):
        multiply(
            last - first, filled(columns, panel, PANEL, LANES), p.I, p.x + first * p.I * ITEM, p.I,
            p.w_ih_tiles + panel * even(p.I, STEP) * PANEL * ITEM,
            p.b_ih_tiles + panel * PANEL * SIZE, 0,
            xgates + ((first - base) * width + panel * PANEL) * SIZE, width,
        )  # fmt: skip


def project_block(p, xgates, s, steps, row_low, row_high, tile_low, tile_high):
    """The inputs of this thread's rows and tiles for ``steps`` steps from s; returns row 0."""
    early = p.T - s - steps if p.reverse else s
    base, end = integer(p.offsets, early), integer(p.offsets, early + steps - 1)
    end += integer(p.sizes, early + steps - 1)
    if row_high - row_low == p.B:
        project_inputs(p, xgates, base, end, base, tile_low, tile_high)
    else:
        for i in range(early, early + steps):
            offset, rows = integer(p.offsets, i), min(row_high, integer(p.sizes, i))
            if rows > row_low:
                first, last = offset + row_low, offset + rows
                project_inputs(p, xgates, first, last, base, tile_low, tile_high)
    return base


@inlined
def put_hidden(p, value, b, row, unit, left, ends):
    """A register of new hidden state: to its trail, the output and, at a row's end, h_n."""
    item_store(value, p.trail + (row * p.ld_trail + unit) * ITEM, left)
    if p.keep:
        item_store(value, p.y + (row * p.ldy + unit) * ITEM, left)
    if ends:
        store(value, p.h_last + (b * p.S + unit) * SIZE, left)


@inlined
def apply_cell(p, hidden, extra, xgates, hgates, b, row, unit, left, ends, keeping):
    """The cell on a register of units, ``left`` or more, of one row.

    hidden, extra: where its previous states are; xgates, hgates: its pre-activations.
    """
    H, wide = p.H, EXTRA * p.H * SIZE  # a row of extra states
    xs = load_each(GATES, xgates, UNITS * SIZE, LANES)
    hs = load_each(GATES, hgates, UNITS * SIZE, LANES)
    before = (item_load(hidden, left),) + load_each(EXTRA, extra, H * SIZE, left)
    states, kept = cell_forward(xs, hs, before)
    at = (row if p.keep else b) * wide + unit * SIZE
    store_each(states[1:], p.extra + at, H * SIZE, left)
    if keeping:
        # the values of a register of units side by side: backward reads them in one run
        kept_at = p.kept + KEPT * (row * H + unit) * ITEM
        item_store_each(kept, kept_at, min(left, LANES) * ITEM, left)
    if p.keep and ends:
        store_each(states[1:], p.extra_last + b * wide + unit * SIZE, H * SIZE, left)
    if p.w_hr:
        item_store(states[0], p.m + ((row if p.keep else b) * H + unit) * ITEM, left)
    else:
        put_hidden(p, states[0], b, row, unit, left, ends)


def project_hidden(p, scratch, first, rows, offset, lasting, part):
    """h = W_hr m for the rows first .. first+rows-1 of one step and this thread's share of S."""
    low, high = share(up(p.S, PANEL), part, p.unit_parts)
    blocks = up(rows, ROWS)
    for panel in range(low, high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            m = p.m + (first + r + (offset if p.keep else 0)) * p.H * ITEM
            gemm(
                end - r, filled(p.S, panel, PANEL, LANES), p.H, m, p.H * ITEM,
                p.w_hr_panels + panel * even(p.H, STEP) * PANEL * ITEM,
                p.zeros, 0, scratch, PANEL * SIZE,
            )  # fmt: skip
            for q in range(end - r):
                b = first + r + q
                for v in range(0, min(PANEL, p.S - panel * PANEL), LANES):
                    value = load(scratch + (q * PANEL + v) * SIZE, LANES)
                    unit = panel * PANEL + v
                    put_hidden(p, value, b, offset + b, unit, p.S - unit, b >= lasting)


def recurrent_gates(p, h, ldh, hgates, tile, rows):
    """hgates = W_hh h + b_hh for up to ROWS rows and one tile of units."""
    columns = p.H if GATES == 1 else up(p.H, UNITS) * WIDTH
    for v in range(WIDTH // PANEL):
        panel = tile * (WIDTH // PANEL) + v
        gemm(
            rows, filled(columns, panel, PANEL, LANES), p.S, h, ldh * ITEM,
            p.w_hh_tiles + panel * even(p.S, STEP) * PANEL * ITEM,
            p.b_hh_tiles + panel * PANEL * SIZE, 0, hgates + v * PANEL * SIZE, WIDTH * SIZE,
        )  # fmt: skip


def step(p, h, ldh, extra, xgates, scratch, tile, first, last, offset, lasting, keeping):
    """One step on one tile of units, for the rows first .. last-1 (h, extra, xgates: row 0's)."""
    width = up(p.H, UNITS) * WIDTH
    blocks = up(last - first, ROWS)
    for i in range(blocks):
        r, end = share(last - first, i, blocks)
        r, end = r + first, end + first
        recurrent_gates(p, h + r * ldh * ITEM, ldh, scratch, tile, end - r)
        for b in range(r, end):
            x, hg = xgates + (b * width + tile * WIDTH) * SIZE, scratch + (b - r) * WIDTH * SIZE
            for v in range(0, min(UNITS, p.H - tile * UNITS), LANES):
                unit, left, ends = tile * UNITS + v, p.H - tile * UNITS - v, b >= lasting
                hidden = h + (b * ldh + unit) * ITEM
                c = extra + (b * EXTRA * p.H + unit) * SIZE
                at, row = v * SIZE, offset + b
                if left >= LANES:  # said apart, so that whole registers are compiled without masks
                    apply_cell(p, hidden, c, x + at, hg + at, b, row, unit, LANES, ends, keeping)
                else:
                    apply_cell(p, hidden, c, x + at, hg + at, b, row, unit, left, ends, keeping)


def direction(p, rank):
    """All steps of one direction, this thread's part."""
    pack_gates(p, rank)
    if p.w_hr:
        first, last = share(up(p.S, PANEL), rank, p.parts)
        pack(p.w_hr, p.H, True, p.H, p.S, PANEL, PANEL, p.w_hr_panels, first, last)
    meet_all(p, 1)
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    tile_low, tile_high = share(up(p.H, UNITS), unit_part, p.unit_parts)
    scratch = p.tile + rank * ROWS * WIDTH * SIZE
    width, wide = up(p.H, UNITS) * WIDTH, EXTRA * p.H * SIZE
    xgates = p.xgates + part * p.block * p.B * width * SIZE  # parts do not wait for each other
    turn, base = 1, 0
    for s in range(p.T):
        if s % p.block == 0:
            steps = min(p.block, p.T - s)
            base = project_block(p, xgates, s, steps, row_low, row_high, tile_low, tile_high)
        _, before, rows_before = step_at(p, s - 1)
        _, offset, rows = step_at(p, s)
        _, _, lasting = step_at(p, s + 1)  # rows that go on after this step
        high = max(row_low, min(row_high, rows))
        joined = max(row_low, min(high, rows_before))
        here, keeping = xgates + (offset - base) * width * SIZE, p.kept and s >= p.kept_from
        for tile in range(tile_low, tile_high):
            for joining in range(2):
                h, ldh, extra = p.h_first, p.S, p.extra_first
                first, last = joined, high
                if not joining:
                    h, ldh = p.trail + before * p.ld_trail * ITEM, p.ld_trail
                    extra = p.extra + (before * wide if p.keep else 0)
                    first, last = row_low, joined
                step(p, h, ldh, extra, here, scratch, tile, first, last, offset, lasting, keeping)
        turn = rendezvous(p, rank, turn)
        if p.w_hr:
            project_hidden(p, scratch, row_low, high - row_low, offset, lasting, unit_part)
            turn = rendezvous(p, rank, turn)
