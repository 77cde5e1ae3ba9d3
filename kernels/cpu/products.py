"""The large matrix products of backward, on the same microkernel.

Specialised like loops.py; here ``gemm`` reads a row-major A, and ``gemm_packed`` an A packed in
blocks of ROWS columns.
"""

from numba import carray

from .loops import record, share, up
from .sync import ticket

# Specialised: bytes of an element, elements of a register, the tiling, and rows packed at a time.
SIZE = LANES = PANEL = ROWS = CHUNK = 0
load = store = gemm = gemm_packed = None

MATMUL = record("M K N a lda panels c ldc add zeros tile counters parts")
OUTER = record("M K N a lda b ldb c ldc zeros panels blocks counters parts")


def matmul(plan):
    """c = a @ panels, or c += where ``add`` is 1. Threads share the rows."""
    p = carray(plan, 1, MATMUL)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    low, high = share(p.M, rank, p.parts)
    blocks = up(high - low, ROWS)
    tile = p.tile + rank * ROWS * PANEL * SIZE
    for panel in range(up(p.N, PANEL)):
        left = p.N - panel * PANEL
        for i in range(blocks):
            r, end = share(high - low, i, blocks)
            a = p.a + (low + r) * p.lda * SIZE
            b = p.panels + panel * p.K * PANEL * SIZE
            gemm(end - r, p.K, a, p.lda * SIZE, b, p.zeros, 0, tile, PANEL * SIZE)
            for q in range(end - r):
                for v in range(0, min(PANEL, left), LANES):
                    at = p.c + ((low + r + q) * p.ldc + panel * PANEL + v) * SIZE
                    value = load(tile + (q * PANEL + v) * SIZE, LANES)
                    if p.add:
                        value = value + load(at, left - v)
                    store(value, at, left - v)


def pack_panels(p, first, depth, panels):
    """Rows first .. first+depth-1 of b as panels, zeros behind the last column."""
    for panel in range(up(p.N, PANEL)):
        for k in range(depth):
            for v in range(0, PANEL, LANES):
                column = panel * PANEL + v
                value = load(p.b + ((first + k) * p.ldb + column) * SIZE, p.N - column)
                store(value, panels + ((panel * depth + k) * PANEL + v) * SIZE, LANES)


def pack_block(p, first, depth, r, rows, block):
    """Columns r .. r+rows-1 of a, row after row, ROWS elements each."""
    for k in range(depth):
        for v in range(0, rows, LANES):
            value = load(p.a + ((first + k) * p.lda + r + v) * SIZE, rows - v)
            store(value, block + (k * ROWS + v) * SIZE, rows - v)


def outer(plan):
    """c = a.T @ b, in chunks of K. Threads share the columns of a, which are the rows of c.

    c is allocated with whole panels of columns.
    """
    p = carray(plan, 1, OUTER)[0]
    rank = ticket(p.counters)
    if rank >= p.parts:
        return
    low, high = share(up(p.M, ROWS), rank, p.parts)
    panels = p.panels + rank * CHUNK * up(p.N, PANEL) * PANEL * SIZE
    block = p.blocks + rank * CHUNK * ROWS * SIZE
    for first in range(0, p.K, CHUNK):
        depth = min(CHUNK, p.K - first)
        pack_panels(p, first, depth, panels)
        for i in range(low, high):
            r = i * ROWS
            rows = min(ROWS, p.M - r)
            pack_block(p, first, depth, r, rows, block)
            for panel in range(up(p.N, PANEL)):
                c = p.c + (r * p.ldc + panel * PANEL) * SIZE
                init, ldi = (c, p.ldc) if first else (p.zeros, 0)
                gemm_packed(
                    rows, depth, block, SIZE, panels + panel * depth * PANEL * SIZE,
                    init, ldi * SIZE, c, p.ldc * SIZE,
                )  # fmt: skip
