"""What the compiled loops share: dividing work, and calling what computes on registers.

The loops are compiled once, for every cell and dtype. All that they have to know about these is in
the plan (fields.py): sizes, and the addresses of functions that are compiled for one dtype
(pieces.py, the microkernel) or for one cell (tiles.py).

Addresses are in bytes, sizes and leading dimensions in elements. An element is ``p.size`` bytes
where sums are made and states are carried on, and ``p.item`` bytes where there are many: rows of x,
y and hidden states, what is kept, gradients of these, and panels. The two differ in bfloat16 only.
"""

from ..compiler.front import inline
from ..compiler.integers import call, integer, quotient, smaller, viewed
from ..registers.microkernel import WIDTHS
from ..registers.narrow import HEAD
from .fields import FORWARD
from .sync import barrier, ticket

# Where counters lie (fields.py): tickets first, then one for all threads, then one a row part.
MEETING, GROUPS, LINE = 64, 128, 64
# Rows of a panel at a time: the next rows of A find these 64 KB near, and sums are not so long that
# they gather more rounding errors than torch's.
DEEP = 256
view_shared = viewed(FORWARD)  # what it shares with backward's plan lies at the same places
# Specialised: the plan's record.
view = direction = None
PLAN = 0


@inline
def share(count, part, parts):
    """Where part ``part`` of ``count`` things begins, and where the next one does."""
    if parts == 1:
        return 0, count
    return quotient(count * part, parts), quotient(count * (part + 1), parts)


@inline
def up(count, block):
    """How many blocks hold ``count`` things."""
    if count <= block:
        return smaller(count, 1)
    return quotient(count + block - 1, block)


@inline
def meet_all(p, turn):
    """Wait for every thread of the team; ``turn`` counts such meetings from 1."""
    if p.parts > 1:
        barrier(p.counters + MEETING, p.parts, turn)


@inline
def ragged(p, columns):
    """Whether the last register of a row reaches behind its end: such a matrix is packed."""
    return columns - quotient(columns, p.lanes) * p.lanes != 0


@inline
def panel_for(p, rows, columns):
    """Columns of a matrix that are multiplied at once; of one that lies, by one row, more."""
    return p.band if p.lying and rows == 1 and not ragged(p, columns) else p.panel


@inline
def filled(p, columns, i, panel):
    """How many registers of panel ``i`` hold some of the ``columns``."""
    return quotient(smaller(columns - i * panel, panel) + p.lanes - 1, p.lanes)


@inline
def panel_bytes(p, depth):
    """How far a panel of that depth is from the next: it is in whole steps of the microkernel."""
    return quotient(depth + p.k_step - 1, p.k_step) * line_bytes(p) + p.behind


@inline
def line_bytes(p):
    """How far a step of K is from the next in a panel."""
    return p.k_step * p.panel * p.w_item


@inline
def panel_at(p, panels, weights, columns, depth, column):
    """(address, bytes from one step of K to the next) of a column, where a panel begins, and those
    behind it of a (depth, columns) matrix: in ``panels``, or, where it is not packed, as
    ``weights`` lie.
    """
    if p.lying and not ragged(p, columns):
        return weights + column * p.size, columns * p.size
    return panels + quotient(column, p.panel) * panel_bytes(p, depth), line_bytes(p)


@inline
def room_of(p, rank):
    """Where a thread puts rows of A as the microkernel reads them, if that is not as they lie."""
    return p.room + rank * p.room_each


@inline
def read(p, a, lda, rows, depth, room):
    """(address, bytes from row to row) of rows of A as the microkernel reads them; lda: bytes."""
    if p.narrow:
        call(p.narrow, depth, rows, a, lda, room, p.room_line)
        return room + HEAD, p.room_line
    return a, lda


@inline
def gemm(p, rows, width, depth, a, lda, b, ldb, init, ldi, c, ldc):
    """c = init + a @ b, of a tile: see microkernel.py."""
    kernel = integer(p.kernels, rows * WIDTHS + width)
    call(kernel, depth, a, lda, b, ldb, init, ldi, c, ldc)


@inline
def multiply(p, rows, width, depth, a, lda, b, ldb, init, ldi, c, ldc):
    """c[:rows] = init + a @ b; see ``product``. lda is in bytes."""
    call(p.product, p.self, rows, width, depth, a, lda, b, ldb, init, ldi, c, ldc)


def product(plan, rows, width, depth, a, lda, b, ldb, init, ldi, c, ldc):
    """c[:rows] = init + a @ b, in even blocks of rows and even pieces of K.

    ``width``: registers of b that are wanted; ``ldb``: bytes from one step of K to the next. Called
    through its address: so it is compiled once, and not wherever there is a product.
    """
    p = view_shared(plan)
    size, item, k_step = p.size, p.item, p.k_step
    blocks, pieces = up(rows, p.tall), up(depth, p.deep)
    for piece in range(pieces):
        turn, stop = share(quotient(depth + k_step - 1, k_step), piece, pieces)
        k, stop = turn * k_step, min(stop * k_step, depth)
        if k:
            init, ldi = c, ldc
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            gemm(
                p, end - r, width, stop - k, a + r * lda + k * item, lda, b + turn * ldb, ldb,
                init + r * ldi * size, ldi * size, c + r * ldc * size, ldc * size,
            )  # fmt: skip


def as_they_lie(p, rows, depth, pieces, a, lda, weights, bias, out, ldo, zero, low, high):
    """out = a @ weights.T + bias for the tiles low .. high-1, in pieces of K; lda: bytes; ``zero``:
    the tile where a row of ``out`` begins.
    """
    size, units = p.size, p.units
    blocks = up(rows, p.lying_rows)
    for unit in range(low * units, min(high * units, p.H), p.lanes):
        place = quotient(unit, units) * (p.width - units) + unit - zero * p.width
        for gate in range(p.gates):
            row, at = gate * p.H + unit, out + (place + gate * units) * size
            for piece in range(pieces):
                k, stop = share(depth, piece, pieces)
                w = weights + (row * depth + k) * size
                for i in range(blocks):
                    r, end = share(rows, i, blocks)
                    c = at + r * ldo * size
                    init, ldi = c, ldo * size
                    if not k:
                        init, ldi = bias + row * size if bias else p.zeros, 0
                    call(
                        integer(p.lying, end - r), stop - k, a + r * lda + k * size, lda,
                        w, depth * size, p.H - unit, init, ldi, c, ldo * size,
                    )  # fmt: skip


def every_direction(plans):
    """What a compiled call does: each thread takes its part of the directions, some at once."""
    first = view(plans)
    rank = ticket(first.counters)
    if rank < first.parts * first.groups:
        for d in range(rank // first.parts, first.directions, first.groups):
            direction(view(plans + d * PLAN), rank % first.parts)
