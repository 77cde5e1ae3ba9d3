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


# The fields that forward and backward share: sizes; how threads divide the work; where the
# sequence's rows are; the input and the weights; weights in panels, or in tiles of all gates; how
# this machine computes with the dtype (bytes of an element where sums are made, and of an item
# where there are many; a register's elements, a tile's rows and registers, how much of K is a
# step); the cell's gates in tiles, its extra states, and the gradients of its gates; the functions
# that compute on registers (``lying``, if not 0, says that weights are multiplied as they lie); and
# where this plan is.
COMMON = (
    "T B I H S reverse parts unit_parts groups directions counters bounds sizes offsets zeros "
    "block tile x w_ih b_ih w_hh b_hh w_hr w_ih_tiles b_ih_tiles w_hh_tiles b_hh_tiles "
    "w_hr_panels "
    "size item lanes tall vectors panel k_step "
    "gates units width padded gates_last extras keeps dgates_each first_h "
    "kernels cell pack spread lying lying_rows band self "
)
FORWARD = record(
    COMMON + "xgates trail ld_trail h_first h_last extra extra_first extra_last m y ldy keep kept "
    "kept_from put_projected"
)
BACKWARD = record(
    COMMON + "recompute recalled kept kept_from xgates loop_parts dy lddy dx add dh lddh "
    "dextra after extra_after h_first extra_first m dgates hidden extra dp capacity w_ih_panels "
    "w_hh_panels dw_ih dw_hh dw_hr sums_x sums_h sums_r strips_x strips_h strips_r left packed "
    "strip left_each packed_each few recall take_projected put_rows stand_up pack_and_sum lay_down"
)


class Layout:
    """What the plans of all calls of one shape have in common.

    numbers: fields that are known from the shape; scratch: {field: (bytes of an element, *shape)}
    of arrays that live as long as the call, one for each direction; the other fields are given to
    ``fill`` in the order of ``given``, and what is in neither is 0.
    """

    def __init__(self, record, directions, row_parts, numbers, scratch, given):
        self.record, names = record, record.names
        self.template, self.scratch, self.given = array("q"), [], []
        end = 0
        for d in range(directions):
            fields = {name: int(numbers.get(name, 0)) for name in names} | {"reverse": d}
            first = len(self.template)
            self.template.extend(fields.values())
            self.given += [first + names.index(name) for name in given]
            for name, shape in scratch.items():
                self.scratch.append((first + names.index(name), end))
                end += -(-prod(shape) // ALIGNMENT) * ALIGNMENT
        self.size = end + ALIGNMENT  # bytes of scratch memory: it begins at a multiple
        # counters: a cache line each for the tickets, a meeting of all, and of each of the groups
        self.behind = len(self.template) * ITEM
        each = ALIGNMENT * (2 + row_parts)
        places = range(0, directions * len(names), len(names))
        self.counters = [
            (first + names.index("counters"), d * each) for d, first in enumerate(places)
        ]
        self.own = [(first + names.index("self"), first * ITEM) for first in places]
        self.template.extend([0] * ((directions * each + ALIGNMENT) // ITEM))

    def fill(self, memory, given):
        """A new plan; memory: the address of the scratch; given: of all directions, in order."""
        plan = self.template[:]
        start_of_plan = plan.buffer_info()[0]
        start, counters = _aligned(memory), _aligned(start_of_plan + self.behind)
        for field, value in zip(self.given, given, strict=True):
            plan[field] = value
        for field, offset in self.scratch:  # also what was given as 0
            plan[field] = start + offset
        for field, offset in self.counters:
            plan[field] = counters + offset
        for field, offset in self.own:
            plan[field] = start_of_plan + offset
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
