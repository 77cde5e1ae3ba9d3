"""The recurrent products of a cell, as the loops find them: a table of int64s.

First how many there are; then a row for each, with what stands below. A product is a run of gates
that has one factor: mostly there is one, of all gates and the hidden state.
"""

from array import array

from ..compiler.front import inline
from ..compiler.integers import call, integer, quotient
from .blocks import gemm, line_bytes, panel_bytes, read, share, up

FACTOR = 0  # of those that the cell computes; -1: the hidden state
GATE = 1  # its first gate
COUNT = 2  # how many gates
STAGE = 3  # forward: before which stage it is made; backward, after which its factor's gradient is
FRESH = 4  # backward: whether it is the first that adds to its factor's gradient
PANELS = 5  # backward: where its panels of W_hh begin, in bytes
SUMS = 6  # backward: where the columns of its weights' gradient begin
ROW = 7


@inline
def product_at(p, i):
    """The address of the ``i``-th row."""
    return p.products + (1 + i * ROW) * 8


def staged(p, h, ldh, extra, xgates, hgates, first, last, offset, lasting, keeping, room):
    """One step of a cell with several stages, on rows of all units; arguments as those of ``step``.

    hgates: where row 0's would be. A stage has the products that it needs made before.
    """
    line, rows = p.padded * p.size, last - first
    for stage in range(p.stages + 1):
        for i in range(integer(p.products, 0)):
            at = product_at(p, i)
            if integer(at, STAGE) == stage:
                a, lda, factor = h + first * ldh * p.item, ldh, integer(at, FACTOR)
                if factor >= 0:
                    row = first + (offset if p.keep else 0)
                    a, lda = p.factors + factor * p.factor_stride + row * p.H * p.item, p.H
                low = integer(at, GATE) * p.units
                a, lda = read(p, a, lda * p.item, rows, p.S, room)
                gates_of(p, a, lda, hgates + first * line, low, integer(at, COUNT) * p.units, rows)
        call(
            integer(p.cell, stage), p.self, h, ldh, extra, xgates, hgates, line, 0, 1, first, last,
            offset, lasting, keeping,
        )  # fmt: skip


def gates_of(p, a, lda, hgates, first, columns, rows):
    """The columns of W_hh a + b_hh, in whole panels, for all of these rows; lda: bytes."""
    apart, blocks, low = panel_bytes(p, p.S), up(rows, p.tall), quotient(first, p.panel)
    for panel in range(low, low + quotient(columns, p.panel)):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            at = panel * p.panel * p.size
            gemm(
                p, end - r, p.vectors, p.S, a + r * lda, lda,
                p.w_hh_tiles + panel * apart, line_bytes(p), p.b_hh_tiles + at, 0,
                hgates + r * p.padded * p.size + at, p.padded * p.size,
            )  # fmt: skip


def table(products, panel_bytes, columns):
    """The table of stages.Products; panel_bytes(gates), columns(gates): what so many take."""
    found, seen, at, sums = array("q", [len(products)]), set(), 0, 0
    for p in products:
        fresh = p.factor >= 0 and p.factor not in seen
        found.extend([p.factor, p.first, p.count, p.stage, fresh, at, sums])
        seen.add(p.factor)
        at, sums = at + panel_bytes(p.count), sums + columns(p.count)
    return found
