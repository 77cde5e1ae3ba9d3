"""The tensors that the kernels work on: their shapes, their padding, and what is kept of them."""

from itertools import pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import pad

from ..gate import misfit
from ..keep import Keep

UNITS = 8  # of which H is made up to a multiple: rows of halves then begin at 16 bytes
_tables = WeakKeyDictionary()


class Shape(NamedTuple):
    """The sizes of a call."""

    dtype: torch.dtype
    device: torch.device
    T: int
    B: int
    N: int  # rows, T * B if dense
    D: int
    H: int
    P: int  # H and its padding
    width: int  # so many times P for a row's pre-activations, and for what the cell keeps

    @classmethod
    def of(cls, cell, x, steps, directions):
        H = directions[0].ih.shape[0] // cell.gates
        sizes = steps.T, steps.B, steps.N, len(directions), H, -(-H // UNITS) * UNITS
        return cls(x.dtype, x.device, *sizes, max(cell.gates, cell.kept))

    def padded(self, tensor, *dims):
        """``tensor`` with zeros after the units in these dimensions (of which each counts H)."""
        spare = [0] * (2 * tensor.dim())
        for dim in dims:
            spare[2 * (-dim - 1) + 1] = self.P - self.H
        return pad(tensor, spare) if self.P > self.H else tensor

    def states(self, states):
        """(STATES, D, B, P) float32, from a (D, B, H) tensor for each."""
        return self.padded(torch.stack(states).float(), -1)

    def weights(self, directions, gates):
        """(D, GATES, P, P), from each direction's (GATES * H, H); None if there are none."""
        if directions[0].hh is None:
            return None
        found = stacked([w.hh for w in directions])
        return self.padded(found.unflatten(1, (gates, self.H)), -1, -2)

    def biases(self, directions, gates):
        """(D, GATES, P): what is added to the recurrent part; None if there is none."""
        if directions[0].hh is None:
            return None
        if directions[0].b_hh is None:
            return torch.zeros(self.D, gates, self.P, dtype=self.dtype, device=self.device)
        found = stacked([w.b_hh for w in directions])
        return self.padded(found.unflatten(1, (gates, self.H)), -1)

    def parameters(self, directions):
        """(D, OWN, P), from each direction's (OWN, H); None if there are none."""
        if directions[0].own is None:
            return None
        return self.padded(stacked([w.own for w in directions]), -1)

    def inputs(self, tensor):
        """(heads * N, INPUTS, P) from (heads * N, INPUTS, H), or None."""
        return None if tensor is None else self.padded(tensor.contiguous(), -1)

    def parts(self, cell, keep):
        """(shape, dtype, whether it is kept) of h, the other states and gates, of all rows."""
        others = bool(keep and cell.states > 1)
        return (
            ((self.N, self.D, self.P), self.dtype, bool(keep)),
            ((cell.states - 1, self.N * others, self.D, self.P), torch.float32, others),
            (
                (self.D, self.N, self.width, self.P),
                self.dtype,
                bool(keep == Keep.ALL and cell.kept),
            ),
        )

    def memory(self, cell, keep, kept=None):
        """[h, the other states, gates] of all rows, and those of them that are kept.

        h: (N, D, P), the others (STATES - 1, N, D, P), in float32; gates: (D, N, width, P). They
        are empty as yet, but for those that were ``kept``.
        """
        parts, given = self.parts(cell, keep), iter(kept or ())
        found = [
            self._given(next(given), shape, dtype)
            if kept and mine
            else torch.empty(shape, dtype=dtype, device=self.device)
            for shape, dtype, mine in parts
        ]
        mine = tuple(t for t, (_, _, is_kept) in zip(found, parts, strict=True) if is_kept)
        return found, mine

    def _given(self, tensor, shape, dtype):
        """What was kept, unless a hook of saved tensors has made something else of it."""
        if tensor.shape != shape or tensor.dtype != dtype or tensor.device != self.device:
            raise misfit(tensor, shape, dtype, self.device)
        return tensor.contiguous()


def stacked(tensors):
    """Of one tensor a view, if it lies as the kernels were compiled for."""
    first = tensors[0]
    if len(tensors) == 1 and first.is_contiguous() and first.data_ptr() % 16 == 0:
        return first[None]
    return torch.stack(tensors)


def table(steps, device):
    """(2, T + 2) int64: the sizes and the offsets of the steps, with an empty one at either end.

    Of packed rows; a dense batch needs none. Remembered for each stream, whose order is what makes
    it safe to use again; but not for a graph, whose memory is its own.
    """
    cuda = device.type == "cuda"
    if cuda and torch.cuda.is_current_stream_capturing():
        return _made_there(steps, device)
    found = _tables.setdefault(steps, {})
    key = device, torch.cuda.current_stream(device) if cuda else None
    if key not in found:
        found[key] = _copied(steps, device)
    return found[key]


def _made_there(steps, device):
    """With nothing to copy, which a graph cannot do; a kernel for each size."""
    made = torch.zeros(2, steps.T + 2, dtype=torch.int64, device=device)
    changes = np.flatnonzero(np.diff(steps.sizes)) + 1
    for begin, end in pairwise([0, *changes.tolist(), steps.T]):
        made[0, 1 + begin : 1 + end].fill_(int(steps.sizes[begin]))
    torch.cumsum(made[0, :-1], 0, out=made[1, 1:])
    return made


def _copied(steps, device):
    made = torch.zeros(2, steps.T + 2, dtype=torch.int64, device="cpu")
    made[0, 1:-1], made[1, 1:-1] = map(torch.from_numpy, (steps.sizes, steps.offsets))
    return made.to(device, non_blocking=True)


def before(steps, after, initial, reverse):
    """(N, H): a state before each step, from that after each, and the initial one (B, H)."""
    if steps.dense:
        others = after[steps.B :] if reverse else after[: steps.N - steps.B]
        return torch.cat((others, initial) if reverse else (initial, others))
    rows = _rows_before(steps, after.device, reverse)
    return torch.cat((initial, after)).index_select(0, rows)


def _rows_before(steps, device, reverse):
    """(N,) int64: for each row that of the step before in cat(initial states, all rows)."""
    sizes, offsets = table(steps, device)
    t = torch.repeat_interleave(
        torch.arange(steps.T + 2, device=device), sizes, output_size=steps.N
    )
    b = torch.arange(steps.N, device=device) - offsets[t]
    before = t + 1 if reverse else t - 1
    return torch.where(b < sizes[before], steps.B + offsets[before] + b, b)
