"""The early stages of a cell that has several, on rows of all units: see symbolic/stages.py.

Specialised as tiles.py is, once for each stage, and called as its functions are.
"""

from ..compiler.front import inlined
from ..compiler.integers import viewed
from .fields import BACKWARD, FORWARD

# Specialised, beside what tiles.py has: the stage, how many means it makes, and where these and its
# factors, or gates, have their places.
SIZE = ITEM = LANES = AVERAGED = MEANS = BACK = PLANES = 0
stage = no_sums = add_each = put_means = put_places = forward_values = backward_values = None
view_forward, view_backward = viewed(FORWARD), viewed(BACKWARD)


@inlined
def early_at(p, hidden, extra, xgates, hgates, row, at, unit, left, sums):
    """The stage on a register of units, ``left`` or more; at: the row's among factors and means."""
    xs, hs, before, own, inputs = forward_values(
        p, hidden, extra, xgates, hgates, row, at, unit, left
    )
    factors, averaged = stage(xs, hs, before, own, inputs)
    put_places(factors, p.factors + (at * p.H + unit) * ITEM, p.factor_stride, left)
    return add_each(sums, averaged, left)


def early(
    plan, h, ldh, extra, xgates, hgates, ldg, low, high, first, last, offset, lasting, keeping
):
    """The stage on the rows first .. last-1; arguments as those of tiles.apply."""
    p = view_forward(plan)
    for b in range(first, last):
        row = offset + b
        at = row if p.keep else b
        x, hg = xgates + b * p.padded * SIZE, hgates + b * ldg
        hidden, c = h + b * ldh * ITEM, extra + b * p.extras * p.H * SIZE
        sums = no_sums(AVERAGED)
        for unit in range(0, p.H, LANES):
            sums = early_at(
                p, hidden + unit * ITEM, c + unit * SIZE, x + unit * SIZE, hg + unit * SIZE, row,
                at, unit, p.H - unit, sums,
            )  # fmt: skip
        put_means(sums, p.H, p.means + at * MEANS * SIZE)


def differentiate_early(plan, dh, lddh, kept, slot, offset, low, high, first, last):
    """The stage on the rows first .. last-1; arguments as those of tiles.differentiate."""
    p = view_backward(plan)
    for b in range(first, last):
        at, row = dh + b * lddh * SIZE, offset + b
        sums = no_sums(AVERAGED)
        for unit in range(0, p.H, LANES):
            left = p.H - unit
            dout, d, values, before, after, own, inputs = backward_values(
                p, at + unit * SIZE, kept, b, row, slot + b, unit, left
            )
            gates, averaged = stage(dout, d, values, before, after, own, inputs)
            put_places(
                gates, p.dgates + ((slot + b) * PLANES * p.H + unit) * ITEM, p.H * ITEM, left
            )
            sums = add_each(sums, averaged, left)
        put_means(sums, p.H, p.back_means + b * BACK * SIZE)
