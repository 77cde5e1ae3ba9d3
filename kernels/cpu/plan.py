"""A plan: what one compiled call is told, as named int64s; and how threads share its work."""

from math import prod

import numpy as np
import torch

ALIGNMENT = 64  # bytes, a cache line


def record(fields):
    """The type of a plan with these fields."""
    return np.dtype([(name, np.int64) for name in fields.split()])


class Plan:
    """Tensors and arrays go in as their addresses (None as 0), and live as long as the plan."""

    def __init__(self, record, **fields):
        self.alive = fields
        values = [v if type(v) is int else _number(v) for v in map(fields.get, record.names)]
        self.array = np.array(values, np.int64)
        self.address = _number(self.array)


def _number(value):
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if isinstance(value, np.ndarray):
        return value.__array_interface__["data"][0]
    return 0 if value is None else int(value)


def scratch(like, **shapes):
    """Addresses of uninitialised arrays of ``like``'s dtype, out of one allocation.

    The allocation itself is there too, as ``memory``, for the plan to keep alive.
    """
    places, end = {}, 0
    for name, shape in shapes.items():
        places[name] = end
        end += -(-prod(shape) * like.itemsize // ALIGNMENT) * ALIGNMENT
    memory = like.new_empty(end // like.itemsize + ALIGNMENT // like.itemsize)
    start = -(-memory.data_ptr() // ALIGNMENT) * ALIGNMENT
    return {name: start + place for name, place in places.items()} | {"memory": memory}


def counters(groups):
    """Zeroed int64s, a cache line each: tickets, a meeting of all, and of each of the groups."""
    return np.zeros(8 * (2 + groups), np.int64)


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
