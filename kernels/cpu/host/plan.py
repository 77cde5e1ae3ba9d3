"""A plan: what a compiled call is told, a row of named int64s (fields.py) for each direction."""

from array import array
from functools import lru_cache
from math import prod
from operator import itemgetter

ALIGNMENT = 64  # bytes, a cache line
ITEM = 8  # bytes of a field


class Layout:
    """What the plans of all calls of one shape have in common.

    reverse: for each direction whether it begins with the last step; numbers: fields that are known
    from the shape; scratch: {field: (bytes of an element, *shape)} of arrays that live as long as
    the call, one for each direction; the fields from ``given`` on are given to ``fill``, and what
    is in none of these is 0.
    """

    def __init__(self, record, reverse, row_parts, numbers, scratch, given="T"):
        names, size, directions = record.names, len(record.names), len(reverse)
        fields, end = array("q", [int(numbers.get(name, 0)) for name in names]), 0
        self.template, self.scratch = fields * directions, []
        self.first, self.last = names.index(given), size
        self.given = itemgetter(*names[self.first :])
        self.rows = range(0, directions * size, size)
        for d, row in enumerate(self.rows):
            self.template[row + names.index("reverse")] = reverse[d]
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
        """A new plan; memory: the address of the scratch; given: {field: value} for each direction,
        with all fields from the first given on, or KeyError.
        """
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
            plan[row + self.first : row + self.last] = array("q", self.given(values))
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
