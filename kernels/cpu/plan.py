"""A plan: what one compiled call is told, as named int64s; and how threads share its work."""

import numpy as np
import torch


def record(fields):
    """The type of a plan with these fields."""
    return np.dtype([(name, np.int64) for name in fields.split()])


class Plan:
    """Tensors and arrays go in as their addresses (None as 0), and live as long as the plan."""

    def __init__(self, record, **fields):
        self.alive = fields
        self.array = np.array([tuple(_number(fields[name]) for name in record.names)], record)
        self.address = self.array.ctypes.data


def _number(value):
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return 0 if value is None else value


def counters(groups):
    """Zeroed int64s, a cache line each: tickets, a meeting of all, and of each of the groups."""
    return torch.zeros(8 * (2 + groups), dtype=torch.int64)


def team_grid(rows, tiles, threads, weight_bytes, cache_bytes):
    """(row parts, unit parts) for up to ``threads`` threads.

    Row parts need no barrier. Unit parts each read only their share of the recurrent weights, which
    pays where those do not fit a core's own cache.
    """
    by_rows, by_units = min(threads, rows // 8), min(threads, tiles)
    if by_rows >= threads and weight_bytes <= cache_bytes:
        return threads, 1
    if by_units >= threads:
        return 1, threads
    return max(1, min(by_rows, threads // by_units)), by_units


def row_bounds(steps, parts):
    """(parts + 1,) where each part's sequences begin: equal numbers of rows over the whole run."""
    if steps.dense or parts == 1:
        return np.arange(parts + 1) * steps.B // parts
    goal = np.arange(parts + 1) * steps.N / parts
    return np.searchsorted(steps.tokens_before, goal).astype(np.int64)
