"""How a sequence's rows lie in memory: what every engine's time loop takes besides the numbers."""

from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch


class Steps:
    """``sizes[t]`` rows are active at step t, and start at row ``offsets[t]``.

    A dense (T, B) batch has equal sizes; torch's PackedSequence has falling ones.
    """

    def __init__(self, sizes):
        self.sizes = np.array(sizes, dtype=np.int64)  # (T,), a copy: backward will read it again
        self.offsets = np.cumsum(self.sizes) - self.sizes  # (T,)
        self.T, self.N = len(self.sizes), int(self.sizes.sum())
        self.B = int(self.sizes[0]) if self.T else 0
        # anything else is no packed sequence, and no engine may look at its rows
        self.falling = self.T > 0 and self.sizes[-1] >= 1 and (np.diff(self.sizes) <= 0).all()
        self.dense = self.N == self.T * self.B
        self.addresses = [_address(self.sizes), _address(self.offsets)]
        self._bounds = {}

    @property
    def batch_sizes(self):
        """``sizes`` as a tensor."""
        return torch.from_numpy(self.sizes)

    def order(self, reverse):
        """The steps, in the order in which a direction takes them."""
        return range(self.T - 1, -1, -1) if reverse else range(self.T)

    def last(self, rows, reverse):
        """The step of a direction from which on there are at most ``rows`` rows."""
        if reverse:
            return self.T - int(np.searchsorted(self.offsets + self.sizes, rows, side="right"))
        return int(np.searchsorted(self.offsets, self.N - rows))

    def bounds(self, parts):
        """The address of (parts + 1,) int64s: where the sequences of each part begin.

        Each part has as many rows in all.
        """
        if parts not in self._bounds:
            lengths = np.searchsorted(-self.sizes, -np.arange(self.B))  # steps with size > b
            before = np.concatenate([[0], np.cumsum(lengths)])
            goal = np.arange(parts + 1) * self.N / parts
            bounds = np.searchsorted(before, goal).astype(np.int64)
            self._bounds[parts] = bounds, _address(bounds)
        return self._bounds[parts][1]


def _address(array):
    return array.__array_interface__["data"][0]


@lru_cache(maxsize=256)
def dense(T, B):
    """The Steps of a batch of B sequences of T steps each."""
    return Steps(np.full(T, B))


def packed(batch_sizes):
    """The Steps of a PackedSequence's batch_sizes (a CPU tensor)."""
    return Steps(batch_sizes.numpy())


class Traced:
    """Steps as a trace knows them: their numbers may be symbols, and are checked later.

    batch_sizes: (T,), of values unknown; None if dense.
    """

    falling = True

    def __init__(self, T, B, N, batch_sizes=None):
        self.T, self.B, self.N, self.batch_sizes = T, B, N, batch_sizes
        self.dense = batch_sizes is None

    @property
    def sizes(self):
        return [self.B] * self.T if self.batch_sizes is None else self.batch_sizes.tolist()

    @property
    def offsets(self):
        return [0, *accumulate(self.sizes[:-1])]

    def order(self, reverse):
        """As in Steps."""
        return range(self.T - 1, -1, -1) if reverse else range(self.T)
