"""The forward time loop: one layer in one direction, a whole sequence.

A sequence is rows in time order: ``sizes[t]`` of them at step t, starting at row ``offsets[t]``. A
dense batch is the case of equal sizes, a PackedSequence that of falling ones. Row b of a step is
row b of the state buffers, and rows that are not active keep what is in theirs: so initial states
wait for rows that join late, and final states stay with rows that end early.

Threads form a grid of row parts x unit parts. Those with the same rows (``bounds`` says which) meet
at a barrier in every step; those with different rows never meet.
"""

from numba import carray, njit

from .blocks import GROUPS, LINE, meet_all, share, up
from .plan import record
from .simd import integer
from .sync import barrier, ticket

# Specialised (see blocks.py): the tiling of the gates, and the cell: its gates, the states beside
# the hidden one, and how many values it keeps for backward.
SIZE = LANES = PANEL = ROWS = UNITS = WIDTH = 0
GATES = EXTRA = KEPT = 0
load = store = load_each = store_each = gemm = multiply = pack = cell_forward = None

COMMON = "T B H S reverse parts unit_parts bounds sizes offsets counters tile zeros "
FORWARD = record(
    COMMON + "I block x w_ih w_ih_panels b_ih b_ih_panels w_hh w_hh_panels b_hh b_hh_panels "
    "w_hr w_hr_panels xgates h h_next extra m y ldy h_last keep kept before extra_before"
)


@njit(forceinline=True)
def rendezvous(p, rank, turn):
    """Meet the threads that have the same rows."""
    if p.unit_parts > 1:
        barrier(p.counters + GROUPS + rank // p.unit_parts * LINE, p.unit_parts, turn)
    return turn + 1


def pack_weights(p, rank):
    """This thread's share of all the panels."""
    first, last = share(up(p.H, UNITS) * WIDTH // PANEL, rank, p.parts)
    pack(p.w_ih, p.I, True, p.I, p.H, UNITS, WIDTH, p.w_ih_panels, first, last)
    pack(p.w_hh, p.S, True, p.S, p.H, UNITS, WIDTH, p.w_hh_panels, first, last)
    b_ih, b_hh = (p.b_ih, p.b_hh) if p.b_ih else (p.zeros, p.zeros)
    columns = p.H if p.b_ih else 0  # without biases: all of it lies behind the last column
    pack(b_ih, 0, False, 1, columns, UNITS, WIDTH, p.b_ih_panels, first, last)
    pack(b_hh, 0, False, 1, columns, UNITS, WIDTH, p.b_hh_panels, first, last)
    if p.w_hr:
        first, last = share(up(p.S, PANEL), rank, p.parts)
        pack(p.w_hr, p.H, True, p.H, p.S, PANEL, PANEL, p.w_hr_panels, first, last)


def project_inputs(p, xgates, first, last, base, tile_low, tile_high):
    """xgates[row - base] = W_ih x[row] + b_ih for rows first .. last-1 and the given tiles."""
    width = up(p.H, UNITS) * WIDTH
    for panel in range(tile_low * WIDTH // PANEL, tile_high * WIDTH // PANEL):
        multiply(
            last - first, p.I, p.x + first * p.I * SIZE, p.I,
            p.w_ih_panels + panel * p.I * PANEL * SIZE, p.b_ih_panels + panel * PANEL * SIZE, 0,
            xgates + ((first - base) * width + panel * PANEL) * SIZE, width,
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
            store(hidden, p.before + (row * p.S + unit) * SIZE, p.S - unit)
            store_each(extra, p.extra_before + (row * EXTRA * p.H + unit) * SIZE, p.H * SIZE, left)
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
                end - r, p.H, m, p.H * SIZE, p.w_hr_panels + panel * p.H * PANEL * SIZE,
                p.zeros, 0, scratch, PANEL * SIZE,
            )  # fmt: skip
            for q in range(end - r):
                b = first + r + q
                for v in range(0, min(PANEL, p.S - panel * PANEL), LANES):
                    value = load(scratch + (q * PANEL + v) * SIZE, LANES)
                    unit = panel * PANEL + v
                    put_hidden(p, value, h_next, b, offset + b, unit, b >= lasting)


def project_block(p, xgates, t, steps, row_low, row_high, tile_low, tile_high):
    """The inputs of this thread's rows and tiles for ``steps`` steps from t; returns row 0."""
    final = t - steps + 1 if p.reverse else t + steps - 1
    early, late = min(t, final), max(t, final)
    base = integer(p.offsets, early)
    if row_high - row_low == p.B:
        end = integer(p.offsets, late) + integer(p.sizes, late)
        project_inputs(p, xgates, base, end, base, tile_low, tile_high)
    else:
        for i in range(early, late + 1):
            offset, rows = integer(p.offsets, i), min(row_high, integer(p.sizes, i))
            if rows > row_low:
                first, last = offset + row_low, offset + rows
                project_inputs(p, xgates, first, last, base, tile_low, tile_high)
    return base


def step(p, h, h_next, xgates, scratch, tile, first, rows, offset, lasting):
    """One step on one tile of units, for the rows first .. first+rows-1 (xgates: row 0's)."""
    width = up(p.H, UNITS) * WIDTH
    blocks = up(rows, ROWS)
    for i in range(blocks):
        r, end = share(rows, i, blocks)
        r, end = r + first, end + first
        for v in range(WIDTH // PANEL):
            panel = tile * (WIDTH // PANEL) + v
            gemm(
                end - r, p.S, h + r * p.S * SIZE, p.S * SIZE,
                p.w_hh_panels + panel * p.S * PANEL * SIZE,
                p.b_hh_panels + panel * PANEL * SIZE, 0,
                scratch + v * PANEL * SIZE, WIDTH * SIZE,
            )  # fmt: skip
        for b in range(r, end):
            mine = xgates + (b * width + tile * WIDTH) * SIZE
            hgates = scratch + (b - r) * WIDTH * SIZE
            apply_cell(p, h, h_next, mine, hgates, b, offset + b, tile, b >= lasting)


def forward(plan):
    p = carray(plan, 1, FORWARD)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    pack_weights(p, rank)
    meet_all(p, 1)
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    tile_low, tile_high = share(up(p.H, UNITS), unit_part, p.unit_parts)
    scratch = p.tile + rank * ROWS * WIDTH * SIZE
    width = up(p.H, UNITS) * WIDTH
    xgates = p.xgates + part * p.block * p.B * width * SIZE  # parts do not wait for each other
    h, h_next, turn, base = p.h, p.h_next, 1, 0
    for s in range(p.T):
        t = p.T - 1 - s if p.reverse else s
        if s % p.block == 0:
            steps = min(p.block, p.T - s)
            base = project_block(p, xgates, t, steps, row_low, row_high, tile_low, tile_high)
        offset = integer(p.offsets, t)
        rows = max(0, min(row_high, integer(p.sizes, t)) - row_low)
        lasting = 0  # rows that go on after this step
        if s + 1 < p.T:
            lasting = integer(p.sizes, t - 1 if p.reverse else t + 1)
        for tile in range(tile_low, tile_high):
            here = xgates + (offset - base) * width * SIZE
            step(p, h, h_next, here, scratch, tile, row_low, rows, offset, lasting)
        turn = rendezvous(p, rank, turn)
        if p.w_hr:
            project_hidden(p, h_next, scratch, row_low, rows, offset, lasting, unit_part)
            turn = rendezvous(p, rank, turn)
        h, h_next = h_next, h
