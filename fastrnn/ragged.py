"""Padded batches whose sequences end early, or begin anew within: ``lengths`` and ``resets``.

A reset cuts a sequence into pieces, none of which depends on what is before it. So such a batch is
one of pieces, longest first: the rows of a PackedSequence, which every engine takes. Nothing is
computed for a step that is not there, and of a sequence that is cut all pieces run side by side.
"""

from functools import partial, wraps

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from . import masked, states
from .kernels.untraced import untraced
from .pieces import Pieces, told
from .tracing import tracing


def accepting(forward, base=True):
    """``forward``, of a layer, that takes ``lengths``, ``resets``, ``reset_to`` and
    ``return_states`` too.

    base: whether it is the layer's, and not that of a class derived from it, which hands
    ``return_states`` on to it.
    """

    @wraps(forward)
    def with_lengths(
        self, input, hx=None, *, lengths=None, resets=None, reset_to=None, return_states=False,
        **inputs,
    ):  # fmt: skip
        go = forward
        if return_states:
            go = states.forward if base else partial(forward, return_states=True)
        if lengths is None and resets is None and reset_to is None:
            return go(self, input, hx, **inputs)
        given = self, input, hx, lengths, resets, reset_to, inputs
        if not tracing(input):
            return _in_pieces(go, *given)
        if base and masked.serves(self):
            return masked.call(*given, return_states)
        return _uncompiled(go, *given)

    return with_lengths


def _in_pieces(forward, module, input, hx, lengths, resets, reset_to, inputs):
    batch = Batch(module, input, lengths, resets, reset_to)
    if batch.whole:
        return forward(module, input, hx, **inputs)
    packed, hx, inputs = batch.packed(hx, inputs)
    return batch.padded(*forward(module, packed, hx, **inputs))


@untraced
def _uncompiled(*given):
    """``_in_pieces``: a graph of torch.compile ends here."""
    return _in_pieces(*given)


_uncompiled._torchdynamo_disable_msg = "lengths or resets of a layer that cannot be masked"


class Batch:
    """A padded batch of a layer, cut into pieces. Raises TypeError or ValueError for lengths and
    resets that do not fit it.
    """

    def __init__(self, module, input, lengths, resets, reset_to):
        self.name, self.module = type(module).__name__, module
        if isinstance(input, PackedSequence):
            raise ValueError(f"{self.name}: a PackedSequence has lengths of its own")
        self.input, self.single = input, input.dim() == 2
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.name}: expected 2 or 3 dimensions, got {input.dim()}")
        x = input.unsqueeze(1) if self.single else input
        self.turned = module.batch_first and not self.single
        T, B = self.sizes = (x.shape[1], x.shape[0]) if self.turned else tuple(x.shape[:2])
        self.x, self.reset_to = x, reset_to
        lengths, resets = self._read(*told(self.name, input, B, lengths, resets, reset_to))
        self.whole = bool((lengths == T).all() and not resets.any())
        self.pieces = Pieces(lengths, resets)

    def _read(self, lengths, resets):
        """Both as numpy's, (B,) and (T, B): of what is on another device one copy comes here."""
        T, B = self.sizes
        if resets is not None:
            resets = resets.reshape(self.x.shape[:2])
            resets = resets.t() if self.turned else resets
        if lengths is not None and resets is not None and resets.device.type != "cpu":
            both = torch.cat([lengths.to(resets.device, torch.int64).view(1, B), resets]).cpu()
            lengths, resets = both[0], both[1:] > 0
        lengths = np.full(B, T) if lengths is None else lengths.to("cpu", torch.int64).numpy()
        if B and not 0 <= lengths.min() <= lengths.max() <= T:
            raise ValueError(
                f"{self.name}: lengths should be from 0 to {T}, the steps there are; "
                f"they are from {lengths.min()} to {lengths.max()}"
            )
        return lengths, np.zeros((T, B), bool) if resets is None else resets.cpu().numpy()

    def packed(self, hx, inputs):
        """(input, hx, inputs) of a call of the pieces."""
        (T, B), x, pieces = self.sizes, self.x, self.pieces
        self.places = self._index(pieces.places(*((1, T) if self.turned else (B, 1))))
        rows, sizes = self._rows(x), pieces.sizes
        if not len(sizes):  # nothing is there: something runs, for the graph, and nothing is read
            rows, sizes = x.new_zeros(1, x.shape[-1]), np.ones(1, np.int64)
        inputs = {name: self._given(name, value) for name, value in inputs.items()}
        packed = PackedSequence(rows, torch.from_numpy(sizes))
        self.initial, given = self._states(hx, "hx"), self._states(self.reset_to, "reset_to")
        return packed, self._begin(self.initial, given, int(sizes[0])), inputs

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
        (T, B), rows = self.sizes, rows.data[: len(self.places)]
        y = rows.new_zeros(T * B, rows.shape[-1]).index_add(0, self.places, rows)
        return y.view(T, -1) if self.single else y.view(*self.x.shape[:2], -1)

    def _index(self, numbers):
        found = torch.from_numpy(np.ascontiguousarray(numbers))
        if self.x.is_cuda:  # from pinned memory nobody waits for the copy
            return found.pin_memory().to(self.x.device, non_blocking=True)
        return found.to(self.x.device)

    def _rows(self, tensor):
        """The rows of a tensor (T, B, ...), or (B, T, ...), that are there."""
        return tensor.flatten(0, 1).index_select(0, self.places)

    def _given(self, name, value):
        """What steps are given beside x: its rows, or what is the same for all of them."""
        if not isinstance(value, torch.Tensor) or value.dim() < 2 - self.single:
            return value
        value = value.unsqueeze(1) if self.single else value
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
        states = [states] if isinstance(states, torch.Tensor) else list(states)
        if self.single:
            states = [s.unsqueeze(1) for s in states]
        for state in states:
            if state.dim() != 3 or state.shape[1] != self.sizes[1]:
                raise RuntimeError(
                    f"{self.name}: {name} should be of {self.sizes[1]} sequences, (layers * "
                    f"directions, batch, width); it is {tuple(state.shape)}"
                )
        return states

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
