"""A plan: what a compiled call is told, as named int64s, a row of them for each direction."""

from array import array
from functools import lru_cache
from math import prod

import numpy as np

ALIGNMENT = 64  # bytes, a cache line
ITEM = 8  # bytes of a field


def record(fields):
    """The type of a plan's row with these fields."""
    return np.dtype([(name, np.int64) for name in fields.split()])


# The fields that forward and backward share: sizes; how threads divide the work; weights in panels,
# or in tiles of all gates; how this machine computes with the dtype (bytes of an element where sums
# are made, and of an item where there are many; a register's elements, a tile's rows and registers,
# how much of K is a step); the cell's gates in tiles, its extra states, and the gradients of its
# gates and its own parameters; its early stages, and its recurrent products (products.py says how
# these lie); the functions that compute on registers (``lying``, if not 0, says that weights are
# multiplied as they lie); and where this plan is.
SHARED = (
    "B I H S reverse parts unit_parts groups directions counters zeros block tile w_ih_tiles "
    "b_ih_tiles w_hh_tiles b_hh_tiles w_hr_panels xgates "
    "size item lanes tall vectors panel k_step "
    "gates units width padded gates_last extras keeps dgates_each first_h owns first_own "
    "stages products "
    "kernels product cell pack spread lying lying_rows band self "
)
# Then, first of those that differ from call to call, steps and where the sequence's rows are; the
# input and the weights.
GIVEN = "T bounds sizes offsets x w_ih b_ih w_hh b_hh w_hr own inputs means factors factor_stride "
FORWARD = record(
    SHARED + "keep put_projected stage_gates "
    + GIVEN + "trail ld_trail h_first h_last extra extra_first extra_last y ldy kept kept_from m"
)  # fmt: skip
BACKWARD = record(
    SHARED + "dfactors back_means recompute recalled loop_parts lddh dgates hidden extra dp "
    "capacity w_ih_panels w_hh_panels strips_x strips_h strips_r left packed strip left_each "
    "packed_each few recall "
    "pack_again compute_again "
    "take_projected put_rows stand_up pack_and_sum lay_down "
    + GIVEN + "dy lddy dx add dh dextra after extra_after m h_first extra_first dw_ih dw_hh dw_hr "
    "sums_x sums_h sums_r kept kept_from sums_own dinputs"
)  # fmt: skip


class Layout:
    """What the plans of all calls of one shape have in common.

    numbers: fields that are known from the shape; scratch: {field: (bytes of an element, *shape)}
    of arrays that live as long as the call, one for each direction; the fields from ``T`` on
    are given to ``fill``, and what is in none of these is 0.
    """

    def __init__(self, record, directions, row_parts, numbers, scratch):
        names, size = record.names, len(record.names)
        fields, end = array("q", [int(numbers.get(name, 0)) for name in names]), 0
        self.template, self.scratch = fields * directions, []
        self.first, self.last = names.index("T"), size
        self.rows = range(0, directions * size, size)
        for d, row in enumerate(self.rows):
            self.template[row + names.index("reverse")] = d
            for name, shape in scratch.items():
                self.scratch.append((row + names.index(name), end))
                end += -(-prod(shape) // ALIGNMENT) * ALIGNMENT
        self.size = end + ALIGNMENT  # bytes of scratch memory: it begins at a multiple
        # counters: a cache line each for the tickets, a meeting of all, and of each of the groups
        self.behind, self.each = len(self.template) * ITEM, ALIGNMENT * (2 + row_parts)
        self.counters, self.own = names.index("counters"), names.index("self")
        self.template.extend([0] * ((directions * self.each + ALIGNMENT) // ITEM))
        self.placed = None, None

    def fill(self, memory, given):
        """A new plan; memory: the address of the scratch; given: a list for each direction."""
        seen, template = self.placed  # mostly the scratch is where it was
        if seen != memory:
            start, template = _aligned(memory), self.template[:]
            for field, offset in self.scratch:
                template[field] = start + offset
            self.placed = memory, template
        plan = template[:]
        start = plan.buffer_info()[0]
        counters = _aligned(start + self.behind)
        for row, values in zip(self.rows, given, strict=True):
            if len(values) != self.last - self.first:
                raise ValueError(f"{len(values)} fields for {self.last - self.first}")
            plan[row + self.first : row + self.last] = array("q", values)
            plan[row + self.counters] = counters
            plan[row + self.own] = start + row * ITEM
            counters += self.each
        return plan


def _aligned(address):
    return -(-address // ALIGNMENT) * ALIGNMENT


@lru_cache(maxsize=1024)
def team_grid(rows, tiles, threads, weight_bytes, cache_bytes):
    """(row parts, unit parts) for up to ``threads`` threads.

    Row parts need no barrier. Unit parts each read only their share of the recurrent weights, which
    pays where those do not fit a core's own cache.
    """
    if threads == 1:
        return 1, 1
    by_rows, by_units = min(threads, rows // 8), min(threads, tiles)
    if by_rows >= threads and weight_bytes <= cache_bytes:
        return threads, 1
    if by_units >= threads:
        return 1, threads
    return max(1, min(by_rows, threads // by_units)), by_units
