"""What forward did not keep for backward, computed anew for a block of steps."""

from ..compiler.integers import call, viewed
from .blocks import share, up
from .fields import BACKWARD

pack_gates = project_inputs = recurrent_gates = None  # specialised
view_backward = viewed(BACKWARD)


def pack_again(plan, rank):
    """This thread's share of forward's panels."""
    pack_gates(view_backward(plan), rank)


def compute_again(plan, rank, first, rows, slot, scratch):
    """What forward would have kept of the ``rows`` rows of a block, from the states before them.

    No row waits for another, so a block is one large product.
    """
    p = view_backward(plan)
    low, high = share(p.padded // p.width, rank, p.parts)
    project_inputs(p, p.xgates, first, first + rows, first, low, high, 0)
    blocks, wide = up(rows, p.tall), p.width * p.size
    for tile in range(low, high):
        for i in range(blocks):
            r, end = share(rows, i, blocks)
            h, hgates = p.hidden + (slot + r) * p.S * p.item, scratch - r * wide - tile * wide
            if p.w_hh:
                recurrent_gates(p, h, p.S * p.item, scratch, tile, tile + 1, end - r)
            call(p.recall, p.self, hgates, wide, slot, first, tile, tile + 1, r, end)
