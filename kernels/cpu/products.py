"""The large products of backward, on rows of gradients while they are still near the core.

Specialised as blocks.py says. d is (rows, M), one gradient a row; every product is one with d.
"""

from .blocks import even, filled, share, up
from .simd import zeros_like

GROUP = 96  # rows of a product at a time
CHUNK = 256  # rows of a sum over rows at a time
SIZE = ITEM = LANES = PANEL = STEP = 0
load = store = transpose = put_line = multiply = None
item_load = item_store = item_load_rows = item_transpose = None


def matmul(rows, depth, d, ldd, panels, columns, c, add, zeros, strip):
    """c = d @ panels, or c += where ``add`` is 1; c (rows, columns) is dense."""
    for panel in range(up(columns, PANEL)):
        b = panels + panel * even(depth, STEP) * PANEL * ITEM
        wide = min(PANEL, columns - panel * PANEL)
        for first in range(0, rows, GROUP):
            count = min(GROUP, rows - first)
            here = d + first * ldd * ITEM
            multiply(count, up(wide, LANES), depth, here, ldd, b, zeros, 0, strip, PANEL)
            for r in range(count):
                for v in range(0, wide, LANES):
                    at = c + ((first + r) * columns + panel * PANEL + v) * ITEM
                    value = load(strip + (r * PANEL + v) * SIZE, LANES)
                    if add:
                        value = value + item_load(at, wide - v)
                    item_store(value, at, wide - v)


def stand_up(matrix, rows, columns, out):
    """The transpose of ``rows`` rows of a dense matrix, one of its columns every CHUNK elements."""
    for column in range(0, columns, LANES):
        for k in range(0, rows, LANES):
            item_transpose(
                matrix + (k * columns + column) * ITEM, columns * ITEM, rows - k, columns - column,
                out + (column * CHUNK + k) * ITEM, CHUNK * ITEM, LANES,
            )  # fmt: skip


def pack_and_sum(d, ldd, rows, left, panel, sums):
    """One panel of ``rows`` rows of d, ``left`` columns wide, and their sum added to ``sums``.

    They are summed before they are added: a long sum in one go would gather rounding errors.
    """
    for v in range(0, PANEL, LANES):
        total = zeros_like(load(sums + v * SIZE, LANES))
        for k in range(0, rows, STEP):
            line = item_load_rows(STEP, d + (k * ldd + v) * ITEM, ldd * ITEM, rows - k, left - v)
            for value in line:
                total = total + value
            put_line(line, panel + (k * PANEL + v * STEP) * ITEM)
        store(load(sums + v * SIZE, LANES) + total, sums + v * SIZE, LANES)


def accumulate(part, parts, fresh, rows, d, ldd, M, a, columns, zeros, left, panel, strips, sums):
    """strips += a.T @ d and sums += d.sum(0) over ``rows`` rows; ``fresh``: strips = instead.

    A strip is PANEL columns of d wide: d, the wider matrix, is packed by whole registers, and a is
    transposed. Threads share the strips.
    """
    low, high = share(up(M, PANEL), part, parts)
    for first in range(0, rows, CHUNK):
        depth = min(CHUNK, rows - first)
        stand_up(a + first * columns * ITEM, depth, columns, left)
        for i in range(low, high):
            at = d + (first * ldd + i * PANEL) * ITEM
            pack_and_sum(at, ldd, depth, M - i * PANEL, panel, sums + i * PANEL * SIZE)
            c = strips + i * columns * PANEL * SIZE
            init, ldi = (zeros, 0) if fresh and first == 0 else (c, PANEL)
            wide = filled(M, i, PANEL, LANES)
            multiply(columns, wide, depth, left, CHUNK, panel, init, ldi, c, PANEL)


def lay_down(part, parts, M, strips, rows, out):
    """The strips (rows, PANEL each) transposed: ``out`` (M, rows)."""
    low, high = share(up(M, PANEL), part, parts)
    for i in range(low, high):
        for v in range(0, min(PANEL, M - i * PANEL), LANES):
            for r in range(0, rows, LANES):
                transpose(
                    strips + ((i * rows + r) * PANEL + v) * SIZE, PANEL * SIZE,
                    rows - r, M - i * PANEL - v,
                    out + ((i * PANEL + v) * rows + r) * SIZE, rows * SIZE, rows - r,
                )  # fmt: skip
