"""The forward time loop: one layer in one direction, a whole sequence.

A sequence is rows in time order: ``sizes[t]`` of them at step t, starting at row ``offsets[t]``. A
dense batch is the case of equal sizes, a PackedSequence that of falling ones. The new hidden state
of a row goes to its row of ``trail`` (the output itself where nothing is kept for backward), and
the next step reads it there. A step's first rows go on from the step before; the others, which
join, begin with their initial states.

Threads form a grid of row parts x unit parts. Those with the same rows (``bounds`` says which) meet
at a barrier in every step; those with different rows never meet.
"""

from ..compiler.front import inline
from ..compiler.integers import call, integer
from .blocks import (
    DEEP,
    GROUPS,
    LINE,
    as_they_lie,
    filled,
    gemm,
    line_bytes,
    meet_all,
    multiply,
    panel_bytes,
    read,
    room_of,
    share,
    up,
)
from .recurrent import staged
from .sync import barrier


@inline
def rendezvous(p, rank, turn):
    """Meet the threads that have the same rows; where no unit reads another's, nobody waits."""
    if p.unit_parts > 1 and p.w_hh:
        barrier(p.counters + GROUPS + rank // p.unit_parts * LINE, p.unit_parts, turn)
    return turn + 1


@inline
def step_at(p, s):
    """(t, first row, rows) of the ``s``-th step that a direction takes; no rows before and after"""
    if s < 0 or s >= p.T:
        return 0, 0, 0
    t = p.T - 1 - s if p.reverse else s
    return t, integer(p.offsets, t), integer(p.sizes, t)


@inline
def gates_filled(p, panel):
    """How many registers of a panel of gates hold some: of one gate the last may have fewer."""
    return p.gates_last if (panel + 1) * p.panel == p.padded else p.vectors


def pack_gates(p, rank):
    """This thread's share of all the panels; none where the weights are multiplied as they lie, or
    came as panels.
    """
    if p.lying or p.ready:
        return
    first, last = share(p.padded // p.panel, rank, p.parts)
    H, units, width = p.H, p.units, p.width
    call(p.pack, p.w_ih, p.I, 1, p.I, H, units, width, p.panel, p.w_ih_tiles, first, last)
    b_ih, b_hh = (p.b_ih, p.b_hh) if p.b_ih else (p.zeros, p.zeros)
    columns = H if p.b_ih else 0  # without biases: all of it lies behind the last column
    call(p.spread, b_ih, columns, units, width, p.panel, p.b_ih_tiles, first, last)
    if p.w_hh:
        call(p.pack, p.w_hh, p.S, 1, p.S, H, units, width, p.panel, p.w_hh_tiles, first, last)
        call(p.spread, b_hh, columns, units, width, p.panel, p.b_hh_tiles, first, last)


def project_inputs(p, xgates, first, last, base, low, high, room):
    """xgates[row - base] = W_ih x[row] + b_ih for rows first .. last-1 and tiles low .. high-1."""
    line, rows = p.I * p.item, last - first
    x, out = p.x + first * line, xgates + (first - base) * p.padded * p.size
    if p.lying:
        pieces = up(p.I, DEEP)
        as_they_lie(p, rows, p.I, pieces, x, line, p.w_ih, p.b_ih, out, p.padded, 0, low, high)
        return
    x, line = read(p, x, line, rows, p.I, room)
    each, apart = p.width // p.panel, panel_bytes(p, p.I)
    for panel in range(low * each, high * each):
        multiply(
            p, rows, gates_filled(p, panel), p.I, x, line, p.w_ih_tiles + panel * apart,
            line_bytes(p), p.b_ih_tiles + panel * p.panel * p.size, 0,
            out + panel * p.panel * p.size, p.padded,
        )  # fmt: skip


def project_block(p, xgates, s, steps, row_low, row_high, low, high, room):
    """The inputs of this thread's rows and tiles for ``steps`` steps from s; returns row 0."""
    early = p.T - s - steps if p.reverse else s
    base, end = integer(p.offsets, early), integer(p.offsets, early + steps - 1)
    end += integer(p.sizes, early + steps - 1)
    if row_high - row_low == p.B:
        project_inputs(p, xgates, base, end, base, low, high, room)
    else:
        for i in range(early, early + steps):
            offset, rows = integer(p.offsets, i), min(row_high, integer(p.sizes, i))
            if rows > row_low:
                first, last = offset + row_low, offset + rows
                project_inputs(p, xgates, first, last, base, low, high, room)
    return base


def project_hidden(p, scratch, first, rows, offset, lasting, part, room):
    """h = W_hr m for the rows first .. first+rows-1 of one step and this thread's share of S."""
    low, high = share(up(p.S, p.panel), part, p.unit_parts)
    blocks, apart, line = up(rows, p.tall), panel_bytes(p, p.H), p.H * p.item
    m, line = read(p, p.m + (first + (offset if p.keep else 0)) * line, line, rows, p.H, room)
    for panel in range(low, high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            gemm(
                p, end - r, filled(p, p.S, panel, p.panel), p.H, m + r * line, line,
                p.w_hr_panels + panel * apart, line_bytes(p), p.zeros, 0, scratch,
                p.panel * p.size,
            )  # fmt: skip
            call(
                p.put_projected, p.self, scratch, first + r, end - r, offset, lasting, panel
            )  # fmt: skip


def recurrent_gates(p, h, ldh, hgates, low, high, rows):
    """hgates = W_hh h + b_hh for up to ``tall`` rows and the tiles low .. high-1; ldh: bytes."""
    if p.lying:
        ld = (high - low) * p.width
        as_they_lie(p, rows, p.S, 1, h, ldh, p.w_hh, p.b_hh, hgates, ld, low, low, high)
        return
    wide, each = p.panel * p.size, p.width // p.panel
    line, apart = (high - low) * p.width * p.size, panel_bytes(p, p.S)
    for panel in range(low * each, high * each):
        gemm(
            p, rows, gates_filled(p, panel), p.S, h, ldh, p.w_hh_tiles + panel * apart,
            line_bytes(p), p.b_hh_tiles + panel * wide, 0,
            hgates + (panel - low * each) * wide, line,
        )  # fmt: skip


def step(
    p,
    h,
    ldh,
    extra,
    xgates,
    hgates,
    tiles_low,
    tiles_high,
    first,
    last,
    offset,
    lasting,
    keeping,
    room,
):
    """One step on these tiles, for a range of rows (h, extra, xgates: row 0's).

    A few rows at a time: all their gates, and then the cell once. More: tile by tile, while its
    weights are near.
    """
    blocks = up(last - first, p.tall)
    groups = tiles_high - tiles_low if blocks > 1 else 1
    a, lda = read(p, h + first * ldh * p.item, ldh * p.item, last - first, p.S, room)
    for group in range(groups):
        low, high = tiles_low, tiles_high
        if blocks > 1:
            low = tiles_low + group
            high = low + 1
        wide = p.width * p.size
        line = (high - low) * wide
        for i in range(blocks):
            r, end = share(last - first, i, blocks)
            if p.w_hh:
                recurrent_gates(p, a + r * lda, lda, hgates, low, high, end - r)
            r, end = r + first, end + first
            call(
                p.cell, p.self, h, ldh, extra, xgates, hgates - r * line - low * wide, line,
                low, high, r, end, offset, lasting, keeping,
            )  # fmt: skip


def direction(p, rank):
    """All steps of one direction, this thread's part."""
    pack_gates(p, rank)
    if p.w_hr and not p.ready:
        first, last = share(up(p.S, p.panel), rank, p.parts)
        panel, panels = p.panel, p.w_hr_panels
        call(p.pack, p.w_hr, p.H, 1, p.H, p.S, panel, panel, panel, panels, first, last)
    meet_all(p, 1)
    part, unit_part = rank // p.unit_parts, rank % p.unit_parts
    row_low, row_high = integer(p.bounds, part), integer(p.bounds, part + 1)
    low, high = share(p.padded // p.width, unit_part, p.unit_parts)
    scratch, room = p.tile + rank * p.tall * p.padded * p.size, room_of(p, rank)
    wide, wide_extra = p.padded * p.size, p.extras * p.H * p.size
    gates = p.stage_gates + (part * p.B - row_low) * wide
    xgates = p.xgates + part * p.block * p.B * wide  # parts do not wait for each other
    turn, base = 1, 0
    for s in range(p.T):
        if s % p.block == 0:
            steps = min(p.block, p.T - s)
            base = project_block(p, xgates, s, steps, row_low, row_high, low, high, room)
        _, before, rows_before = step_at(p, s - 1)
        _, offset, rows = step_at(p, s)
        _, _, lasting = step_at(p, s + 1)  # rows that go on after this step
        end = max(row_low, min(row_high, rows))
        joined = max(row_low, min(end, rows_before))
        here, keeping = xgates + (offset - base) * wide, p.kept and s >= p.kept_from
        if joined > row_low:
            h, extra = p.trail + before * p.ld_trail * p.item, p.extra
            if p.keep:
                extra = p.extra + before * wide_extra
            if p.stage_gates:
                ld = p.ld_trail
                staged(
                    p, h, ld, extra, here, gates, row_low, joined, offset, lasting, keeping, room
                )
            else:
                step(
                    p, h, p.ld_trail, extra, here, scratch, low, high, row_low, joined, offset,
                    lasting, keeping, room,
                )  # fmt: skip
        if end > joined:
            h, extra = p.h_first, p.extra_first
            if p.stage_gates:
                staged(p, h, p.S, extra, here, gates, joined, end, offset, lasting, keeping, room)
            else:
                step(
                    p, h, p.S, extra, here, scratch, low, high, joined, end, offset, lasting,
                    keeping, room,
                )  # fmt: skip
        turn = rendezvous(p, rank, turn)
        if p.w_hr:
            project_hidden(p, scratch, row_low, end - row_low, offset, lasting, unit_part, room)
            turn = rendezvous(p, rank, turn)
