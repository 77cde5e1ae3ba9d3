"""The large products of backward, on rows of gradients while they are still near the core.

d is (rows, M), one gradient a row; every product is one with d.
"""

from ..compiler.integers import call
from .blocks import filled, line_bytes, multiply, panel_at, panel_for, ragged, share, up
from .pieces import CHUNK

GROUP = 96  # rows of a product at a time


def matmul(p, rows, depth, d, ldd, panels, matrix, columns, c, add, strip):
    """c = d @ matrix (depth, columns), or c += where ``add`` is 1; c (rows, columns) is dense."""
    panel = panel_for(p, rows, columns)
    # of a short product, what is written counts; a thread may have no row at all
    block = GROUP if depth <= GROUP else max(rows, 1)
    for begin in range(0, rows, block):
        end = min(begin + block, rows)
        for i in range(up(columns, panel)):
            wide, at = min(panel, columns - i * panel), c + i * panel * p.item
            b, ldb = panel_at(p, panels, matrix, columns, depth, i * panel)
            for first in range(begin, end, GROUP):
                count, here = min(GROUP, end - first), d + first * ldd * p.item
                multiply(
                    p, count, filled(p, columns, i, panel), depth, here, ldd * p.item, b, ldb,
                    p.zeros, 0, strip, panel,
                )  # fmt: skip
                out = at + first * columns * p.item
                call(p.put_rows, strip, panel, count, wide, columns, add, out)


def accumulate(p, rank, fresh, rows, d, ldd, M, a, columns, left, packed, strips, sums):
    """strips += a.T @ d and sums += d.sum(0) over ``rows`` rows; ``fresh``: strips = instead.

    A strip is a panel of d: d, the wider matrix, is packed by whole registers, and a is transposed.
    Threads share the strips.
    """
    panel, size, item = p.panel, p.size, p.item
    low, high = share(up(M, panel), rank, p.parts)
    for first in range(0, rows, CHUNK):
        depth = min(CHUNK, rows - first)
        call(p.stand_up, a + first * columns * item, columns, depth, columns, left, CHUNK)
        for i in range(low, high):
            at, sum_at = d + (first * ldd + i * panel) * item, sums + i * panel * size
            call(p.pack_and_sum, at, ldd, depth, M - i * panel, panel, packed, sum_at)
            c = strips + i * columns * panel * size
            init, ldi = (p.zeros, 0) if fresh and first == 0 else (c, panel)
            wide = filled(p, M, i, panel)
            line = line_bytes(p)
            lda = CHUNK * item
            multiply(p, columns, wide, depth, left, lda, packed, line, init, ldi, c, panel)


def at_once(p, rank, rows, d, ldd, M, a, columns, left, packed, strip, sums, dw):
    """dw = d.T @ a and sums += d.sum(0) where these are all the rows there are, and few.

    d is transposed instead of dw. Threads share the rows of dw.
    """
    panel, size, item = p.panel, p.size, p.item
    low, high = share(up(M, panel), rank, p.parts)
    for i in range(low, high):
        at, sum_at = d + i * panel * item, sums + i * panel * size
        call(p.pack_and_sum, at, ldd, rows, M - i * panel, panel, packed, sum_at)
    if columns and high > low:
        first, last, ld = low * panel, min(high * panel, M), up(rows, p.lanes) * p.lanes
        if not p.lying or ragged(p, columns):
            count = up(columns, panel)
            call(p.pack, a, columns, 0, rows, columns, panel, panel, panel, packed, 0, count)
        call(p.stand_up, d + first * item, ldd, rows, last - first, left, ld)
        out = dw + first * columns * size
        matmul(p, last - first, rows, left, ld, packed, a, columns, out, 0, strip)


def lay_down(p, rank, M, strips, rows, out):
    """This thread's share of the strips transposed: ``out`` (M, rows)."""
    first, last = share(up(M, p.panel), rank, p.parts)
    call(p.lay_down, M, p.panel, strips, rows, out, first, last)
