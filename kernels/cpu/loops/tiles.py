"""The cell, on tiles of pre-activations or of gradients: compiled for each cell and dtype.

Specialised as pieces.py says. A loop (forward.py, backward.py, recompute.py) calls these through
their address, which the plan has as ``cell`` and ``recall``.
"""

from ..compiler.front import inlined
from ..compiler.integers import quotient, viewed
from ..registers.simd import zeros_like
from .fields import BACKWARD, FORWARD

# Specialised (see pieces.py); of the cell: its gates and those of the recurrent product, the states
# beside the hidden one, its own parameters and inputs, the values that it keeps for backward, and
# how many gradients of gates: x's, and h's if these differ, each in the order of the gates. A row
# of ``dgates`` has these, and then the gradients of the cell's own parameters. Of a cell that has
# several stages (early.py): the means of a row that forward makes and backward makes, and the
# values that products are made of; then one tile has all units, and UNITS and WIDTH are 0.
SIZE = ITEM = LANES = UNITS = WIDTH = 0
GATES = HGATES = EXTRA = OWN = INPUTS = KEPT = DGATES = PLANES = MEANS = BACK = FACTORS = 0
spread_each = load = store = load_each = store_each = None
item_load = item_store = item_load_each = item_store_each = None
put_hidden = put_output = cell_forward = cell_backward = pick_x = pick_h = None
view_forward, view_backward = viewed(FORWARD), viewed(BACKWARD)


@inlined
def place_of(unit):
    """Where the first gate of a unit is in a row of tiles, in bytes."""
    if UNITS == 0:
        return unit * SIZE
    tile = quotient(unit, UNITS)
    return (tile * (WIDTH - UNITS) + unit) * SIZE


@inlined
def end_of(p, tile):
    """The unit behind those of the tiles before ``tile``."""
    return min(tile * UNITS, p.H) if UNITS else tile * p.H


@inlined
def given_to(p, row, at, unit, left):
    """The cell's own parameters, and its inputs and means of a row, on a register of units.

    at: the row's place among the means.
    """
    own = load_each(OWN, p.own + unit * SIZE, p.H * SIZE, left)
    inputs = item_load_each(INPUTS, p.inputs + (row * INPUTS * p.H + unit) * ITEM, p.H * ITEM, left)
    return own, inputs + spread_each(MEANS, p.means + at * MEANS * SIZE)


@inlined
def forward_values(p, hidden, extra, xgates, hgates, row, at, unit, left):
    """What the cell is given of a register of units, ``left`` or more, of one row."""
    stride = (UNITS if UNITS else p.units) * SIZE
    xs = load_each(GATES, xgates, stride, LANES)
    hs = load_each(HGATES, hgates, stride, LANES)
    before = (item_load(hidden, left),) + load_each(EXTRA, extra, p.H * SIZE, left)
    own, inputs = given_to(p, row, at, unit, left)
    return xs, hs, before, own, inputs


@inlined
def apply_to(p, hidden, extra, xgates, hgates, b, row, unit, left, ends, keeping):
    """The cell on a register of units, ``left`` or more, of one row.

    hidden, extra: where its previous states are; xgates, hgates: its pre-activations.
    """
    H, wide = p.H, EXTRA * p.H * SIZE  # a row of extra states
    at = row if p.keep else b
    xs, hs, before, own, inputs = forward_values(
        p, hidden, extra, xgates, hgates, row, at, unit, left
    )
    output, states, kept = cell_forward(xs, hs, before, own, inputs)
    store_each(states[1:], p.extra + at * wide + unit * SIZE, H * SIZE, left)
    if keeping:
        # the values of a register of units side by side: backward reads them in one run
        kept_at = p.kept + KEPT * (row * H + unit) * ITEM
        item_store_each(kept, kept_at, min(left, LANES) * ITEM, left)
    if p.keep and ends:
        store_each(states[1:], p.extra_last + b * wide + unit * SIZE, H * SIZE, left)
    if p.w_hr:
        item_store(states[0], p.m + (at * H + unit) * ITEM, left)
    else:
        put_hidden(p, states[0], b, row, unit, left, ends)
        put_output(p, output, row, unit, left)


def apply(
    plan, h, ldh, extra, xgates, hgates, ldg, low, high, first, last, offset, lasting, keeping
):
    """The cell on the tiles low .. high-1 of the rows first .. last-1.

    h, extra, xgates, hgates are where row 0, tile 0 would be; ``ldg``: a row of hgates, in bytes.
    """
    p = view_forward(plan)
    for b in range(first, last):
        x, hg, ends = xgates + b * p.padded * SIZE, hgates + b * ldg, b >= lasting
        hidden, c = h + b * ldh * ITEM, extra + b * EXTRA * p.H * SIZE
        for unit in range(end_of(p, low), end_of(p, high), LANES):
            left, at, row = p.H - unit, place_of(unit), offset + b
            before, e = hidden + unit * ITEM, c + unit * SIZE
            if left >= LANES:  # said apart, so that whole registers are compiled without masks
                apply_to(p, before, e, x + at, hg + at, b, row, unit, LANES, ends, keeping)
            else:
                apply_to(p, before, e, x + at, hg + at, b, row, unit, left, ends, keeping)


@inlined
def recall_of(p, xgates, hgates, b, row, slot, unit, left):
    """What the cell keeps of a register of units, ``left`` or more, of the block's row ``b``."""
    hidden = p.hidden + (slot * p.S + unit) * ITEM
    extra = p.extra + (slot * EXTRA * p.H + unit) * SIZE
    xs, hs, before, own, inputs = forward_values(
        p, hidden, extra, xgates, hgates, row, row, unit, left
    )
    _, _, kept = cell_forward(xs, hs, before, own, inputs)
    kept_at = p.recalled + KEPT * (b * p.H + unit) * ITEM
    item_store_each(kept, kept_at, min(left, LANES) * ITEM, left)


def recall(plan, hgates, ldg, slot, base, low, high, first, last):
    """What the cell keeps of the tiles low .. high-1, for the block's rows first .. last-1.

    base: which row of the sequence the block's first is.
    """
    p = view_backward(plan)
    for b in range(first, last):
        x, hg = p.xgates + b * p.padded * SIZE, hgates + b * ldg
        for unit in range(end_of(p, low), end_of(p, high), LANES):
            left, at = p.H - unit, place_of(unit)
            if left >= LANES:
                recall_of(p, x + at, hg + at, b, base + b, slot + b, unit, LANES)
            else:
                recall_of(p, x + at, hg + at, b, base + b, slot + b, unit, left)


@inlined
def backward_values(p, dh, kept, b, row, slot, unit, left):
    """What the cell's derivative is given of a register of units, ``left`` or more, of one row."""
    H, S, wide = p.H, p.S, EXTRA * p.H
    d, dout = load(dh, LANES), zeros_like(load(dh, LANES))
    if not p.w_hr:
        dout = item_load(p.dy + (row * p.lddy + unit) * ITEM, left)
    dextra = load_each(EXTRA, p.dextra + (b * wide + unit) * SIZE, H * SIZE, left)
    kept_at = kept + KEPT * (row * H + unit) * ITEM
    values = item_load_each(KEPT, kept_at, min(left, LANES) * ITEM, left)
    hidden = item_load(p.hidden + (slot * S + unit) * ITEM, left)
    extra = load_each(EXTRA, p.extra + (slot * wide + unit) * SIZE, H * SIZE, left)
    after = item_load(p.after + (row * S + unit) * ITEM, left)
    extra_after = load_each(EXTRA, p.extra_after + (row * wide + unit) * SIZE, H * SIZE, left)
    before, after = (hidden,) + extra, (after,) + extra_after
    own, inputs = given_to(p, row, row, unit, left)
    inputs = inputs + spread_each(BACK, p.back_means + b * BACK * SIZE)
    dfactors = load_each(
        FACTORS, p.dfactors + (b * p.lddh + unit) * SIZE, p.B * p.lddh * SIZE, LANES
    )
    return dout, (d,) + dextra, values + dfactors, before, after, own, inputs


@inlined
def differentiate_at(p, dh, kept, b, row, slot, unit, left):
    """The cell's derivative on a register of units, ``left`` or more, of one row.

    dh: its recurrent gradient, at ``unit``; kept: where row 0's values are; ``slot``: the row's
    place in the block.
    """
    H = p.H
    dout, d, values, before, after, own, inputs = backward_values(
        p, dh, kept, b, row, slot, unit, left
    )
    dgates, down, dinputs, dstates = cell_backward(dout, d, values, before, after, own, inputs)
    at = p.dgates + (slot * PLANES * H + unit) * ITEM
    item_store_each(pick_x(dgates), at, H * ITEM, left)
    if DGATES > GATES:  # h's are others
        item_store_each(pick_h(dgates), at + GATES * H * ITEM, H * ITEM, left)
    item_store_each(down, at + DGATES * H * ITEM, H * ITEM, left)
    if p.dinputs:
        at = p.dinputs + (row * INPUTS * H + unit) * ITEM
        item_store_each(dinputs, at, H * ITEM, left)
    store_each(dstates[1:], p.dextra + (b * EXTRA * H + unit) * SIZE, H * SIZE, left)
    if not p.w_hr:
        store(dstates[0], dh, LANES)


def differentiate(plan, dh, lddh, kept, slot, offset, low, high, first, last):
    """The cell's derivative on the units low .. high-1 of the rows first .. last-1.

    dh: where row 0, unit 0 would be; slot, offset: where row 0 is in the block, in the sequence.
    """
    p = view_backward(plan)
    for b in range(first, last):
        at, row = dh + b * lddh * SIZE, offset + b
        for unit in range(low, high, LANES):
            left = p.H - unit
            if left >= LANES:
                differentiate_at(p, at + unit * SIZE, kept, b, row, slot + b, unit, LANES)
            else:
                differentiate_at(p, at + unit * SIZE, kept, b, row, slot + b, unit, left)
