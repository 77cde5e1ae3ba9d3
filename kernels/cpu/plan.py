"""A plan: what a compiled call is told, as named int64s, a row of them for each direction."""

from functools import lru_cache
from math import prod

import numpy as np

ALIGNMENT = 64  # bytes, a cache line
# The fields that forward and backward share: sizes; how threads divide the work; where the
# sequence's rows are; the input and the weights; and weights in panels, or in tiles of all gates.
COMMON = (
    "T B I H S reverse parts unit_parts groups directions counters bounds sizes offsets zeros "
    "block tile x w_ih b_ih w_hh b_hh w_hr w_ih_tiles b_ih_tiles w_hh_tiles b_hh_tiles "
    "w_hr_panels "
)


def record(fields):
    """The type of a plan's row with these fields."""
    return np.dtype([(name, np.int64) for name in fields.split()])


class Layout:
    """What the plans of all calls of one shape have in common.

    numbers: fields that are known from the shape; scratch: {field: (bytes of an element, *shape)}
    of arrays that live as long as the call, one for each direction; the other fields are given to
    ``fill`` in the order of ``given``, and what is in neither is 0.
    """

    def __init__(self, record, directions, row_parts, numbers, scratch, given):
        self.record, names = record, record.names
        self.given = [names.index(name) for name in given]
        fields = np.zeros((directions, len(names)), np.int64)
        end = ALIGNMENT  # so that the first can begin at a multiple of it
        for d in range(directions):
            for name, value in numbers.items():
                fields[d, names.index(name)] = value
            fields[d, names.index("reverse")] = d
            for name, shape in scratch.items():
                fields[d, names.index(name)] = end
                end += -(-prod(shape) // ALIGNMENT) * ALIGNMENT
        self.size = end  # bytes of scratch memory
        # counters: a cache line each for the tickets, a meeting of all, and of each of the groups
        self.line = ALIGNMENT // 8
        self.counters = names.index("counters")
        self.each = self.line * (2 + row_parts)
        self.shape = fields.shape
        self.places = [names.index(name) for name in scratch]
        self.template = np.concatenate(
            [fields.ravel(), np.zeros(self.line + directions * self.each, np.int64)]
        )

    def fill(self, memory, rows):
        """A new plan as an array; memory: the address of the scratch; rows: ``given`` of each."""
        array = self.template.copy()
        start = address(array)
        D, width = self.shape
        fields = array[: D * width].reshape(D, width)
        fields[:, self.places] += -(-memory // ALIGNMENT) * ALIGNMENT - ALIGNMENT
        fields[:, self.given] = rows
        first = -(-(start + 8 * D * width) // ALIGNMENT) * ALIGNMENT
        for d in range(D):
            fields[d, self.counters] = first + 8 * d * self.each
        return array


def address(array):
    """Of a NumPy array's first element."""
    return array.__array_interface__["data"][0]


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
