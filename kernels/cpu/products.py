"""The large matrix products of backward, on the same microkernel (specialised as blocks.py says)."""

from numba import carray

from .blocks import meet_all, share, up
from .plan import record
from .sync import ticket

GROUP = 96  # rows of a product at a time
# Specialised, as in blocks.py; CHUNK: rows of a sum over rows at a time.
SIZE = LANES = PANEL = CHUNK = 0
load = store = transpose = multiply = pack = None

MATMUL = record("M K N a lda b panels c ldc add zeros strips counters parts")
OUTER = record("K M a lda Na b ldb Nb d ldd da db sums zeros left strips panel counters parts")


def matmul(plan):
    """c = a @ b, or c += where ``add`` is 1. Threads share the rows."""
    p = carray(plan, 1, MATMUL)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    first, last = share(up(p.N, PANEL), rank, p.parts)
    pack(p.b, p.N, False, p.K, p.N, PANEL, PANEL, p.panels, first, last)
    meet_all(p)
    low, high = share(p.M, rank, p.parts)
    strip = p.strips + rank * GROUP * PANEL * SIZE
    for panel in range(up(p.N, PANEL)):
        b = p.panels + panel * p.K * PANEL * SIZE
        columns = min(PANEL, p.N - panel * PANEL)
        for first in range(low, high, GROUP):
            rows = min(GROUP, high - first)
            a = p.a + first * p.lda * SIZE
            multiply(rows, p.K, a, p.lda, b, p.zeros, 0, strip, PANEL)
            for r in range(rows):
                for v in range(0, columns, LANES):
                    at = p.c + ((first + r) * p.ldc + panel * PANEL + v) * SIZE
                    value = load(strip + (r * PANEL + v) * SIZE, LANES)
                    if p.add:
                        value = value + load(at, columns - v)
                    store(value, at, columns - v)


def stand_up(matrix, ld, rows, columns, out):
    """The transpose of ``rows`` rows of a matrix, one of its columns every CHUNK elements."""
    for column in range(0, columns, LANES):
        for k in range(0, rows, LANES):
            transpose(
                matrix + (k * ld + column) * SIZE, ld * SIZE, rows - k, columns - column,
                out + (column * CHUNK + k) * SIZE, CHUNK * SIZE, LANES,
            )  # fmt: skip


def lay_down(strip, rows, M, first, out):
    """A strip (rows, PANEL) of d.T products, transposed, as rows first ... of ``out`` (M, rows)."""
    for v in range(0, min(PANEL, M - first), LANES):
        for r in range(0, rows, LANES):
            transpose(
                strip + (r * PANEL + v) * SIZE, PANEL * SIZE, rows - r, M - first - v,
                out + ((first + v) * rows + r) * SIZE, rows * SIZE, rows - r,
            )  # fmt: skip


def pack_and_sum(d, ldd, depth, left, panel, sums):
    """One panel of ``depth`` rows of d, ``left`` columns wide, and their sum added to ``sums``."""
    for v in range(0, PANEL, LANES):
        total = load(sums + v * SIZE, LANES)
        for k in range(depth):
            value = load(d + (k * ldd + v) * SIZE, left - v)
            total = total + value
            store(value, panel + (k * PANEL + v) * SIZE, LANES)
        store(total, sums + v * SIZE, LANES)


def outer(plan):
    """da = d.T @ a, db = d.T @ b, sums = d.sum(0), over K rows; Nb = 0 where there is no b.

    Computed transposed, a strip of PANEL columns of d at a time: the wide matrix, d, is then packed
    by whole registers. Threads share the strips.
    """
    p = carray(plan, 1, OUTER)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    low, high = share(up(p.M, PANEL), rank, p.parts)
    rows = p.Na + p.Nb
    left = p.left + rank * (rows + 2 * LANES) * CHUNK * SIZE
    packed = p.panel + rank * CHUNK * PANEL * SIZE
    for first in range(0, p.K, CHUNK):
        depth = min(CHUNK, p.K - first)
        stand_up(p.a + first * p.lda * SIZE, p.lda, depth, p.Na, left)
        stand_up(p.b + first * p.ldb * SIZE, p.ldb, depth, p.Nb, left + p.Na * CHUNK * SIZE)
        for panel in range(low, high):
            d = p.d + (first * p.ldd + panel * PANEL) * SIZE
            sums = p.sums + panel * PANEL * SIZE
            pack_and_sum(d, p.ldd, depth, p.M - panel * PANEL, packed, sums)
            c = p.strips + panel * rows * PANEL * SIZE
            init, ldi = (c, PANEL) if first else (p.zeros, 0)
            multiply(rows, depth, left, CHUNK, packed, init, ldi, c, PANEL)
    for panel in range(low, high):
        c = p.strips + panel * rows * PANEL * SIZE
        lay_down(c, p.Na, p.M, panel * PANEL, p.da)
        lay_down(c + p.Na * PANEL * SIZE, p.Nb, p.M, panel * PANEL, p.db)
