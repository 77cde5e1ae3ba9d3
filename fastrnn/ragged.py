"""Padded batches whose sequences end early, or begin anew within: ``lengths`` and ``resets``.

A reset cuts a sequence into pieces, none of which depends on what is before it. So such a batch is
one of pieces, longest first: the rows of a PackedSequence, which every engine takes. Nothing is
computed for a step that is not there, and of a sequence that is cut all pieces run side by side.
"""

import numpy as np
import torch
from torch import nn
from torch._C import _functorch
from torch.nn.utils.rnn import PackedSequence

from .kernels import schedule
from .kernels.gate import PLAIN
from .pieces import Pieces, checked
from .places import Places
from .shapes import widths_of
from .tracing import RECORDED


class Batch:
    """A padded batch of a layer, cut into pieces. Raises TypeError or ValueError for lengths and
    resets that do not fit it.
    """

    def __init__(self, module, input, lengths, resets, reset_to):
        self.name, self.module = type(module).__name__, module
        lengths, resets = checked(module, input, lengths, resets, reset_to)
        self.input, self.single = input, input.dim() == 2
        x = input.unsqueeze(1) if self.single else input
        self.turned = module.batch_first and not self.single
        self.sizes = (x.shape[1], x.shape[0]) if self.turned else tuple(x.shape[:2])
        if isinstance(module, nn.RNNBase):
            module.check_input(x, None)
        self.x, self.reset_to = x, self._states(reset_to, "reset_to")
        lengths, resets = self._read(lengths, resets)
        self.whole = bool((lengths == self.sizes[0]).all() and not resets.any())
        self.pieces = None if self.whole else Pieces(lengths, resets)

    def _numbers(self, tensor, name):
        """numpy's array of a tensor."""
        if type(tensor) in RECORDED - PLAIN or tensor.is_meta or mapped(tensor):
            raise TypeError(
                f"{self.name}: {name} should have numbers that can be read: a trace and torch.vmap "
                f"hide them from a layer with a forward of its own, with proj_size, or whose step "
                f"no kernel can run"
            )
        return schedule.numbers(tensor)

    def _read(self, lengths, resets):
        """Both as numpy's, (B,) and (T, B): of what is on another device one copy comes here."""
        T, B = self.sizes
        if resets is not None:
            resets = resets.reshape(self.x.shape[:2])
            resets = resets.t() if self.turned else resets
        if lengths is not None and resets is not None and resets.device.type != "cpu":
            both = torch.cat([lengths.to(resets.device, torch.int64).view(1, B), resets]).cpu()
            lengths, resets = both[0], both[1:] > 0
        lengths = np.full(B, T) if lengths is None else self._numbers(lengths, "lengths")
        lengths = lengths.reshape(B).astype(np.int64)
        if B and not 0 <= lengths.min() <= lengths.max() <= T:
            raise ValueError(
                f"{self.name}: lengths should be from 0 to {T}, the steps there are; "
                f"they are from {lengths.min()} to {lengths.max()}"
            )
        no = np.zeros((T, B), bool)
        return lengths, no if resets is None else self._numbers(resets, "resets")

    def packed(self, hx, inputs):
        """(input, hx, inputs) of a call of the pieces."""
        (T, B), x, pieces = self.sizes, self.x, self.pieces
        numbers = pieces.places(*((1, T) if self.turned else (B, 1)))
        self.places = Places(numbers, T * B, self._index)
        rows, sizes = self._rows(x), pieces.sizes
        if not len(sizes):  # something runs, for the graph, and nothing is read
            sizes = np.ones(1, np.int64)
        inputs = {name: self._given(name, value) for name, value in inputs.items()}
        packed = PackedSequence(rows, torch.from_numpy(sizes))
        self.initial = self._states(hx, "hx")
        return packed, self._begin(self.initial, self.reset_to, int(sizes[0])), inputs

    def padded(self, y, finals, afters=None):
        """(output, final states) in the form of the input; the states after each step, if given."""
        if isinstance(finals, tuple):
            ends = zip(finals, self.initial or [None] * len(finals), strict=True)
            finals = tuple([self._end(*each) for each in ends])
        else:
            finals = self._end(finals, self.initial and self.initial[0])
        if afters is None:
            return self._spread(y), finals
        one = isinstance(afters, PackedSequence)
        return (
            self._spread(y),
            finals,
            self._spread(afters) if one else tuple(map(self._spread, afters)),
        )

    def _spread(self, rows):
        """Packed rows where they are in the batch; zeros elsewhere."""
        T, _ = self.sizes
        y = self.places.spread(rows.data)
        return y.view(T, -1) if self.single else y.view(*self.x.shape[:2], -1)

    def _index(self, numbers):
        found = torch.from_numpy(np.ascontiguousarray(numbers))
        if self.x.is_cuda:  # from pinned memory nobody waits for the copy
            return found.pin_memory().to(self.x.device, non_blocking=True)
        return found.to(self.x.device)

    def _rows(self, tensor):
        """The rows of a tensor (T, B, ...), or (B, T, ...), that are there."""
        rows = self.places.take(tensor.flatten(0, 1))
        # where nothing is there, a row of zeros is the sum of none, to autograd as well
        return rows if len(self.pieces.sizes) else rows.sum(0, keepdim=True)

    def _given(self, name, value):
        """What steps are given beside x: its rows, or what is the same for all of them."""
        if not isinstance(value, torch.Tensor) or not value.dim():
            return value
        if self.single:
            value = value.unsqueeze(1)
        elif value.dim() == 1:  # a number of each unit
            value = value.view(1, 1, -1)
        try:
            return self._rows(value.expand(*self.x.shape[:2], *value.shape[2:]))
        except RuntimeError:
            raise ValueError(
                f"{self.name}: the input {name} is of {tuple(value.shape[:2])} steps, "
                f"and not of {tuple(self.x.shape[:2])}"
            ) from None

    def _states(self, states, name):
        """A list of (layers * D, B, width); None for None."""
        if states is None:
            return None
        states = [states] if isinstance(states, torch.Tensor) else states
        several = isinstance(states, (tuple, list))
        if not (several and all(isinstance(s, torch.Tensor) for s in states)):
            kind = type(states).__name__
            raise TypeError(f"{self.name}: {name} should be a tensor or a tuple of some: {kind}")
        rows = self.module.num_layers * (1 + self.module.bidirectional)
        batch = () if self.single else (self.sizes[1],)
        want = [(rows, *batch, width) for width in widths_of(self.module)]
        if (found := [tuple(s.shape) for s in states]) != want:
            want, found = (", ".join(map(str, each)) for each in (want, found))
            raise RuntimeError(f"{self.name}: {name} should be of shape {want}; it is {found}")
        return [s.unsqueeze(1) for s in states] if self.single else list(states)

    def _begin(self, initial, given, count):
        """What the pieces begin with, as hx: the initial states, or what resets reset to."""
        if initial is None and given is None:
            return None
        if not len(self.pieces.sizes):
            states = [s.new_zeros(s.shape[0], count, s.shape[2]) for s in initial or given]
        else:
            pairs = zip(initial or given, given or initial, strict=True)
            states = [self._begin_with(*p, initial is None, given is None) for p in pairs]
        return states[0] if len(states) == 1 else tuple(states)

    def _begin_with(self, initial, given, no_initial, no_given):
        B, pieces = self.sizes[1], self.pieces
        ways = [pieces.sequence + B * cut for cut in (pieces.cut, ~pieces.ends)]
        if not any(map(np.any, (pieces.cut, ~pieces.ends))) and not no_initial:
            both = initial
        else:
            initial = torch.zeros_like(initial) if no_initial else initial
            given = torch.zeros_like(given) if no_given else given
            both = torch.cat([initial, given], 1)
        return self._picked(both, ways)

    def _end(self, final, initial):
        """The states after each sequence's last step, or, backward, its first."""
        ways = [self.pieces.last, self.pieces.first]
        if (empty := ways[0] < 0).any():
            if initial is None:
                initial = final.new_zeros(final.shape[0], self.sizes[1], final.shape[2])
            ways = [np.where(empty, final.shape[1] + np.arange(len(w)), w) for w in ways]
            final = torch.cat([final, initial.to(final.dtype)], 1)
        found = self._picked(final, ways)
        return found.squeeze(1) if self.single else found

    def _picked(self, states, ways):
        """(layers * D, n, width): of each direction the n that ``ways`` has the numbers of."""
        ways = ways[: 1 + self.module.bidirectional]
        if all(np.array_equal(way, ways[0]) for way in ways):
            return states.index_select(1, self._index(ways[0]))
        each = [states[d::2].index_select(1, self._index(way)) for d, way in enumerate(ways)]
        return torch.stack(each, 1).flatten(0, 1)


def mapped(tensor):
    """Whether torch.vmap has one of many in place of a tensor, whose numbers nobody can ask."""
    while isinstance(tensor, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False
