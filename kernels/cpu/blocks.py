"""Pieces that the compiled functions share: dividing work, packing panels, multiplying by one.

Like all compiled functions here they are specialised by rebinding their globals (compile.py): the
vector operations and ``gemm`` for the registers at hand, and the sizes in capitals below.
Addresses are in bytes, sizes and leading dimensions in elements.

An element is SIZE bytes (``load``, ``store``) where sums are made and states are carried on, and
ITEM bytes (``item_load``, ``item_store``) where there are many: rows of x, y and hidden states,
what is kept, gradients of these, and panels. The two differ in bfloat16 only.
"""

from .front import inline
from .simd import smaller
from .sync import barrier, ticket

# Where counters lie (plan.py): tickets first, then one for all threads, then one a row part.
MEETING, GROUPS, LINE = 64, 128, 64
# Rows of a panel at a time: the next rows of A find these 64 KB near, and sums are not so long that
# they gather more rounding errors than torch's.
DEEP = 256
# Specialised: bytes of an element, elements of a register, columns of a panel, rows of a tile, and
# how much of K the microkernel takes in a step.
SIZE = ITEM = LANES = PANEL = ROWS = STEP = PLAN = 0
load = store = load_rows = put_line = stand = gemm = direction = view = None


@inline
def share(count, part, parts):
    """Where part ``part`` of ``count`` things begins, and where the next one does."""
    return count * part // parts, count * (part + 1) // parts


@inline
def up(count, block):
    """How many blocks hold ``count`` things."""
    return (count + block - 1) // block


@inline
def even(depth, step):
    """``depth`` in whole steps: how deep a panel is in memory."""
    return up(depth, step) * step


@inline
def meet_all(p, turn):
    """Wait for every thread of the team; ``turn`` counts such meetings from 1."""
    if p.parts > 1:
        barrier(p.counters + MEETING, p.parts, turn)


@inline
def filled(columns, panel, width, lanes):
    """How many registers of a panel, ``width`` columns wide, hold some of the ``columns``."""
    return up(smaller(width, columns - panel * width), lanes)


def multiply(rows, width, depth, a, lda, panel, init, ldi, c, ldc):
    """c[:rows] = init + a @ panel, in even blocks of rows and even pieces of K.

    ``width``: registers of the panel that are wanted.
    """
    blocks, pieces = up(rows, ROWS), up(depth, DEEP)
    for piece in range(pieces):
        k, stop = share(up(depth, STEP), piece, pieces)
        k, stop = k * STEP, min(stop * STEP, depth)
        if k:
            init, ldi = c, ldc
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            gemm(
                end - r, width, stop - k, a + (r * lda + k) * ITEM, lda * ITEM,
                panel + k * PANEL * ITEM, init + r * ldi * SIZE, ldi * SIZE,
                c + r * ldc * SIZE, ldc * SIZE,
            )  # fmt: skip


def pack(matrix, ld, by_rows, depth, columns, units, width, panels, first, last):
    """Panels first .. last-1 of a (depth, groups * columns) matrix; zeros behind the last column.

    A tile is ``units`` columns of every group side by side, ``width`` in all: a tile of the product
    then holds all the gates of its units. ``by_rows``: the matrix is given transposed, as weights
    are.
    """
    for panel in range(first, last):
        for v in range(0, PANEL, LANES):
            column = panel * PANEL + v
            unit = column // width * units + column % units
            source = column % width // units * columns + unit
            out = panels + (panel * even(depth, STEP) * PANEL + v * STEP) * ITEM
            if by_rows:
                for k in range(0, depth, LANES * STEP):
                    stand(
                        matrix + (source * ld + k) * SIZE, ld * SIZE, columns - unit, depth - k,
                        out + k * PANEL * ITEM, STEP * PANEL * ITEM,
                    )  # fmt: skip
            else:
                for k in range(0, depth, STEP):
                    at = matrix + (k * ld + source) * SIZE
                    line = load_rows(STEP, at, ld * SIZE, depth - k, columns - unit)
                    put_line(line, out + k * PANEL * ITEM)


def spread(row, columns, units, width, tiles, first, last):
    """``pack`` for one row that stays as it is: a bias."""
    for v in range(first * PANEL, last * PANEL, LANES):
        unit = v // width * units + v % units
        value = load(row + (v % width // units * columns + unit) * SIZE, columns - unit)
        store(value, tiles + v * SIZE, LANES)


def every_direction(plans):
    """What a compiled call does: each thread takes its part of the directions, some at once."""
    first = view(plans)
    rank = ticket(first.counters)
    if rank < first.parts * first.groups:
        for d in range(rank // first.parts, first.directions, first.groups):
            direction(view(plans + d * PLAN), rank % first.parts)
