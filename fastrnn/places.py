"""Rows that are somewhere else in another tensor: taken from there, and put there again."""

import numpy as np
import torch

from .known import usual


class Places:
    """Where each of some rows is among ``count``. index: makes a tensor of numpy's numbers."""

    def __init__(self, numbers, count, index):
        back = np.full(count, -1)
        back[numbers] = np.arange(len(numbers))
        self.count, absent = count, np.flatnonzero(back < 0)
        self.there, self.back = index(numbers), index(np.maximum(back, 0))
        self.absent = index(absent) if len(absent) else None
        self.any = len(numbers) > 0

    def take(self, tensor):
        """The rows that are there, of all."""
        if self.any and usual():
            return Moved.apply(tensor, self, True)
        return tensor.index_select(0, self.there)

    def spread(self, rows):
        """All rows: those that are there, and zeros."""
        if self.any and usual():
            return Moved.apply(rows, self, False)
        rows = rows[: len(self.there)]
        return rows.new_zeros(self.count, rows.shape[-1]).index_add(0, self.there, rows)


class Moved(torch.autograd.Function):
    """apply(tensor, places, taken): one of these copies, whose gradient is the other. To autograd,
    to take rows is to add to them: slowly, as some row might be there twice.
    """

    @staticmethod
    def forward(ctx, tensor, places, taken):
        ctx.places, ctx.taken = places, taken
        if taken:
            return tensor.index_select(0, places.there)
        found = tensor.index_select(0, places.back)
        return found if places.absent is None else found.index_fill_(0, places.absent, 0)

    @staticmethod
    def backward(ctx, grad):
        return Moved.apply(grad, ctx.places, not ctx.taken), None, None
