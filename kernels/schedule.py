"""How a sequence's rows lie in memory: what every engine's time loop takes besides the numbers."""

from array import array
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch._C import _functorch


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
        self._remember()

    def _remember(self):
        self.rounded = 1 << (self.T - 1).bit_length()  # T, up to a power of two
        self.addresses = self.sizes.ctypes.data, self.offsets.ctypes.data
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
        found = self._bounds.get(parts)
        if found is None:  # of threads that come at once all take what the first has put there
            found = self._bounds.setdefault(parts, array("q", self._begins(parts)))
        return found.buffer_info()[0]

    def _begins(self, parts):
        lengths = np.searchsorted(-self.sizes, -np.arange(self.B))  # steps with size > b
        before = np.concatenate([[0], np.cumsum(lengths)])
        goal = np.arange(parts + 1) * self.N / parts
        return np.searchsorted(before, goal).tolist()


class Dense(Steps):
    """B sequences of T steps each. They may differ in T at every call: no question is asked."""

    falling = dense = True

    def __init__(self, T, B):
        self.T, self.B, self.N = T, B, T * B
        self.sizes = np.full(T, B, np.int64)
        self.offsets = np.arange(T, dtype=np.int64) * B
        self._remember()

    def _begins(self, parts):
        return [-(-i * self.B // parts) for i in range(parts + 1)]


@lru_cache(maxsize=256)
def dense(T, B):
    """The Steps of a batch of B sequences of T steps each."""
    return Dense(T, B)


def packed(batch_sizes):
    """The Steps of a PackedSequence's batch_sizes (a CPU tensor)."""
    return Steps(numbers(batch_sizes))


def numbers(tensor):
    """numpy's array of a tensor of integers or booleans, on any device, also within torch.func."""
    while _functorch.is_gradtrackingtensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    if not torch._C._are_functorch_transforms_active():
        return tensor.cpu().numpy()
    kind = bool if tensor.dtype == torch.bool else np.int64
    return np.array(tensor.tolist(), kind).reshape(tensor.shape)


class Traced:
    """Steps as a trace knows them: their numbers may be symbols, and are checked later.

    batch_sizes: (T,), of values unknown; None if dense.
    """

    falling, rounded = True, None

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
