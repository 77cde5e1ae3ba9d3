"""Sequences that are cut: which of the steps of a padded batch belong together."""

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

INTEGERS = (
    torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8,
)  # fmt: skip


def checked(module, input, lengths, resets, reset_to):
    """(lengths, resets) as tensors, or None. Raises TypeError or ValueError where these are not of
    the types and shapes that the input asks for.
    """
    name = type(module).__name__
    if isinstance(input, PackedSequence):
        raise ValueError(f"{name}: a PackedSequence has lengths of its own")
    if not isinstance(input, torch.Tensor):
        raise TypeError(f"{name} takes a tensor, not a {type(input).__name__}")
    if reset_to is not None and resets is None:
        raise ValueError(f"{name}: reset_to says what resets reset to: give these, too")
    if torch.jit.is_tracing():
        raise TypeError(
            f"{name}: torch.jit.trace would take these lengths and resets for all that follow; "
            f"torch.export records them"
        )
    if input.dim() not in (2, 3):
        raise ValueError(f"{name}: expected 2 or 3 dimensions, got {input.dim()}")
    single = input.dim() == 2
    if lengths is not None:
        lengths = torch.as_tensor(lengths)
        B = 1 if single else input.shape[0 if module.batch_first else 1]
        if lengths.dtype not in INTEGERS:
            raise TypeError(f"{name}: lengths should be integers, not {lengths.dtype}")
        if lengths.shape != (B,) and not (single and lengths.dim() == 0):
            raise ValueError(
                f"{name}: lengths should be ({B},), one of each sequence, "
                f"not {tuple(lengths.shape)}"
            )
    if resets is not None:
        resets = torch.as_tensor(resets)
        if resets.dtype != torch.bool:
            raise TypeError(f"{name}: resets should be booleans, not {resets.dtype}")
        if resets.shape != input.shape[:-1]:
            raise ValueError(
                f"{name}: resets should be {tuple(input.shape[:-1])}, one of each step, "
                f"not {tuple(resets.shape)}"
            )
    return lengths, resets


class Pieces:
    """Where the steps of (T, B) are that are there: pieces of sequences, longest first.

    lengths: (B,), resets: (T, B), both numpy's. sequence, start, count: of each piece; sizes: how
    many have a first, a second ... step; first, last: of each sequence, -1 if it has none.
    """

    def __init__(self, lengths, resets):
        T, B = resets.shape
        step = np.arange(T)[:, None]
        begins = (step < lengths) & ((step == 0) | resets)
        sequence, start = np.nonzero(begins.T)
        goes_on = np.append(sequence[1:], -1) == sequence
        stop = np.where(goes_on, np.append(start[1:], 0), lengths[sequence])
        order = np.argsort(start - stop, kind="stable")
        self.sequence, self.start = sequence[order], start[order]
        self.count, self.ends = (stop - start)[order], ~goes_on[order]
        self.cut = (self.start > 0) | resets[0][self.sequence]  # it begins with a reset
        longest = self.count[0] if len(order) else 0
        self.sizes = np.searchsorted(-self.count, -np.arange(longest))
        self.first, self.last = np.full(B, -1), np.full(B, -1)
        for found, which in ((self.first, self.start == 0), (self.last, self.ends)):
            found[self.sequence[which]] = np.flatnonzero(which)

    def places(self, stride_t, stride_b):
        """For each row, in the order of packed rows, which one of the batch it is."""
        step, piece = np.nonzero(np.arange(len(self.sizes))[:, None] < self.count)
        return (self.start[piece] + step) * stride_t + self.sequence[piece] * stride_b
