"""What forward did not keep for backward, computed anew for a block of steps.

Specialised as blocks.py says; the plan is backward's.
"""

from .blocks import share, up
from .compile import inlined

SIZE = ITEM = LANES = ROWS = UNITS = WIDTH = 0
GATES = EXTRA = KEPT = 0
load_each = item_load = item_store_each = None
project_inputs = recurrent_gates = cell_forward = None


@inlined
def recall(p, xgates, hgates, b, slot, unit, left):
    """What the cell keeps of a register of units, ``left`` or more, of the block's row ``b``."""
    H, wide = p.H, EXTRA * p.H
    xs = load_each(GATES, xgates, UNITS * SIZE, LANES)
    hs = load_each(GATES, hgates, UNITS * SIZE, LANES)
    hidden = item_load(p.hidden + (slot * p.S + unit) * ITEM, left)
    extra = load_each(EXTRA, p.extra + (slot * wide + unit) * SIZE, H * SIZE, left)
    _, kept = cell_forward(xs, hs, (hidden,) + extra)
    kept_at = p.recalled + KEPT * (b * H + unit) * ITEM
    item_store_each(kept, kept_at, min(left, LANES) * ITEM, left)


def recompute(p, rank, first, rows, slot, scratch):
    """What forward would have kept of the ``rows`` rows of a block, from the states before them.

    No row waits for another, so a block is one large product.
    """
    width = up(p.H, UNITS) * WIDTH
    low, high = share(up(p.H, UNITS), rank, p.parts)
    project_inputs(p, p.xgates, first, first + rows, first, low, high)
    blocks = up(rows, ROWS)
    for tile in range(low, high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            recurrent_gates(p, p.hidden + (slot + r) * p.S * ITEM, p.S, scratch, tile, end - r)
            for b in range(r, end):
                x = p.xgates + (b * width + tile * WIDTH) * SIZE
                hg = scratch + (b - r) * WIDTH * SIZE
                for v in range(0, min(UNITS, p.H - tile * UNITS), LANES):
                    unit, left, at = tile * UNITS + v, p.H - tile * UNITS - v, v * SIZE
                    if left >= LANES:  # as in forward
                        recall(p, x + at, hg + at, b, slot + b, unit, LANES)
                    else:
                        recall(p, x + at, hg + at, b, slot + b, unit, left)
