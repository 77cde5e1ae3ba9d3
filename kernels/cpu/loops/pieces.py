"""What moves numbers between rows and panels, a register at a time: compiled for each dtype.

Like all that computes on registers it is specialised by rebinding globals (build.py): the vector
operations of this machine, and the sizes in capitals below. ``load`` and ``store`` are for elements
of SIZE bytes, ``item_load`` and ``item_store`` for those of ITEM bytes (blocks.py says which).
Each function here is called through its address, which the plan has under the function's name.
"""

from ..compiler.front import inlined
from ..compiler.integers import quotient, viewed
from ..registers.simd import zeros_like
from .blocks import up
from .fields import BACKWARD, FORWARD

CHUNK = 256  # rows of a sum over rows at a time
# Specialised: bytes of an element, elements of a register, and how much of K the microkernel takes
# in a step. ``panel``, where it is a number, is how many columns of a matrix a panel has.
SIZE = ITEM = LANES = STEP = 0
load = store = load_rows = put_line = stand = transpose = None
item_load = item_store = item_load_rows = item_transpose = None
view_forward, view_backward = viewed(FORWARD), viewed(BACKWARD)


def pack(matrix, ld, by_rows, depth, columns, units, width, panel, panels, first, last):
    """Panels first .. last-1 of a (depth, groups * columns) matrix; zeros behind the last column.

    A tile is ``units`` columns of every group side by side, ``width`` in all: a tile of the product
    then holds all the gates of its units. ``by_rows``: the matrix is given transposed, as weights
    are.
    """
    deep = up(depth, STEP) * STEP
    for i in range(first, last):
        for v in range(0, panel, LANES):
            column = i * panel + v
            tile = quotient(column, width)
            group = quotient(column - tile * width, units)
            unit = tile * units + column - tile * width - group * units
            source = group * columns + unit
            out = panels + (i * deep * panel + v * STEP) * ITEM
            if by_rows:
                for k in range(0, depth, LANES * STEP):
                    stand(
                        matrix + (source * ld + k) * SIZE, ld * SIZE, columns - unit, depth - k,
                        out + k * panel * ITEM, STEP * panel * ITEM,
                    )  # fmt: skip
            else:
                for k in range(0, depth, STEP):
                    at = matrix + (k * ld + source) * SIZE
                    line = load_rows(STEP, at, ld * SIZE, depth - k, columns - unit)
                    put_line(line, out + k * panel * ITEM)


def spread(row, columns, units, width, panel, tiles, first, last):
    """``pack`` for one row that stays as it is: a bias."""
    for v in range(first * panel, last * panel, LANES):
        tile = quotient(v, width)
        group = quotient(v - tile * width, units)
        unit = tile * units + v - tile * width - group * units
        value = load(row + (group * columns + unit) * SIZE, columns - unit)
        store(value, tiles + v * SIZE, LANES)


@inlined
def put_hidden(p, value, b, row, unit, left, ends):
    """A register of new hidden state: to its trail and, at a row's end, to h_n."""
    item_store(value, p.trail + (row * p.ld_trail + unit) * ITEM, left)
    if ends:
        store(value, p.h_last + (b * p.S + unit) * SIZE, left)


@inlined
def put_output(p, value, row, unit, left):
    """A register of the output to its place, unless that is the trail."""
    if p.y:
        item_store(value, p.y + (row * p.ldy + unit) * ITEM, left)


def put_projected(plan, rows, first, count, offset, lasting, panel):
    """Projected hidden states of ``count`` rows from a panel at ``rows``: to their places."""
    p = view_forward(plan)
    for q in range(count):
        b = first + q
        for v in range(0, min(p.panel, p.S - panel * p.panel), LANES):
            value, unit = load(rows + (q * p.panel + v) * SIZE, LANES), panel * p.panel + v
            put_hidden(p, value, b, offset + b, unit, p.S - unit, b >= lasting)
            put_output(p, value, offset + b, unit, p.S - unit)


def take_projected(plan, first, last, offset, slot, low, high):
    """dp = dh + dy, the whole gradient of the projected state; dh is left zero."""
    p = view_backward(plan)
    for b in range(first, last):
        for u in range(low * p.panel, min(high * p.panel, p.S), LANES):
            dh = p.dh + (b * p.lddh + u) * SIZE
            value = load(dh, LANES) + item_load(p.dy + ((offset + b) * p.lddy + u) * ITEM, p.S - u)
            item_store(value, p.dp + ((slot + b) * p.S + u) * ITEM, p.S - u)
            store(load(p.zeros, LANES), dh, LANES)


def take_states(plan, first, last, offset, low, high):
    """dh and dextra, of the units low .. high-1: what reaches the states of rows first .. last-1
    from the next step, and what the states after each step, which are given out, have of their own.
    """
    p = view_backward(plan)
    for b in range(first, last):
        row = offset + b
        for u in range(low, high if p.dafter else low, LANES):
            dh = p.dh + (b * p.lddh + u) * SIZE
            store(
                load(dh, LANES) + item_load(p.dafter + (row * p.S + u) * ITEM, p.S - u), dh, LANES
            )
        for e in range(p.extras if p.dextra_after else 0):
            mine = p.dextra + (b * p.extras + e) * p.H * SIZE
            given = p.dextra_after + (row * p.extras + e) * p.H * SIZE
            for u in range(low, high, LANES):
                left = p.H - u
                value = load(mine + u * SIZE, left) + load(given + u * SIZE, left)
                store(value, mine + u * SIZE, left)


def put_rows(strip, panel, rows, wide, columns, add, c):
    """The first ``wide`` columns of a panel: to ``c``, a dense matrix, or added to it."""
    for r in range(rows):
        for v in range(0, wide, LANES):
            at, value = c + (r * columns + v) * ITEM, load(strip + (r * panel + v) * SIZE, LANES)
            if add:
                value = value + item_load(at, wide - v)
            item_store(value, at, wide - v)


def stand_up(matrix, ld, rows, columns, out, ldo):
    """The transpose of ``rows`` rows of a matrix: one of its columns every ``ldo`` elements."""
    for column in range(0, columns, LANES):
        for k in range(0, rows, LANES):
            item_transpose(
                matrix + (k * ld + column) * ITEM, ld * ITEM, rows - k, columns - column,
                out + (column * ldo + k) * ITEM, ldo * ITEM, LANES,
            )  # fmt: skip


def pack_and_sum(d, ldd, rows, left, panel, packed, sums):
    """One panel of ``rows`` rows of d, ``left`` columns wide, and their sum added to ``sums``.

    They are summed before they are added: a long sum in one go would gather rounding errors.
    """
    for v in range(0, panel, LANES):
        total = zeros_like(load(sums + v * SIZE, LANES))
        for k in range(0, rows, STEP):
            line = item_load_rows(STEP, d + (k * ldd + v) * ITEM, ldd * ITEM, rows - k, left - v)
            for value in line:
                total = total + value
            put_line(line, packed + (k * panel + v * STEP) * ITEM)
        store(load(sums + v * SIZE, LANES) + total, sums + v * SIZE, LANES)


def lay_down(M, panel, strips, rows, out, first, last):
    """The strips first .. last-1 (rows, panel each) transposed: ``out`` (M, rows)."""
    for i in range(first, last):
        for v in range(0, min(panel, M - i * panel), LANES):
            for r in range(0, rows, LANES):
                transpose(
                    strips + ((i * rows + r) * panel + v) * SIZE, panel * SIZE,
                    rows - r, M - i * panel - v,
                    out + ((i * panel + v) * rows + r) * SIZE, rows * SIZE, rows - r,
                )  # fmt: skip
