"""How a sequence's rows lie in memory: what every engine's time loop takes besides the numbers."""

from functools import cached_property, lru_cache

import numpy as np


class Steps:
    """``sizes[t]`` rows are active at step t, and start at row ``offsets[t]``.

    A dense (T, B) batch has equal sizes; torch's PackedSequence has falling ones.
    """

    def __init__(self, sizes, dense):
        self.sizes = np.ascontiguousarray(sizes, dtype=np.int64)  # (T,)
        self.offsets = np.cumsum(self.sizes) - self.sizes  # (T,)
        self.T, self.B, self.N = len(self.sizes), int(self.sizes[0]), int(self.sizes.sum())
        self.dense = dense

    @cached_property
    def tokens_before(self):
        """(B + 1,) how many of the N rows belong to the sequences before sequence b."""
        lengths = (self.sizes[:, None] > np.arange(self.B)).sum(0)
        return np.concatenate([[0], np.cumsum(lengths)])

    def order(self, reverse):
        """The steps, in the order in which a direction takes them."""
        return range(self.T - 1, -1, -1) if reverse else range(self.T)


@lru_cache(maxsize=256)
def dense(T, B):
    """The Steps of a batch of B sequences of T steps each."""
    return Steps(np.full(T, B), dense=True)


def packed(batch_sizes):
    """The Steps of a PackedSequence's batch_sizes (a CPU tensor)."""
    return Steps(batch_sizes.numpy(), dense=False)
