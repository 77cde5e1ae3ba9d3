"""torch.nn's RNN, LSTM, GRU and their cells, with our kernels under them.

Each class runs torch's own ``forward``: its checks, its errors, its handling of packed and
unbatched input. Only the name ``_VF``, through which that code reaches torch's kernels, is bound to
ours. So there is no second copy of torch's behaviour that could differ from it.
"""

import sys
from functools import cache, partial
from types import FunctionType, SimpleNamespace

import torch
from torch import nn

from .cell_step import cell_step
from .functional import sequence
from .kernels.cells import CELLS

_disabled = cache(torch.compiler.disable)


def _call(function, *arguments):
    """Call ``function`` where torch.compile does not look: it takes layers like these as they are.

    Only a process that has loaded dynamo pays for that (loading it takes seconds).
    """
    if "torch._dynamo" in sys.modules:
        function = _disabled(function)
    return function(*arguments)


_OURS = SimpleNamespace(
    **{name: partial(_call, sequence, name) for name in CELLS},
    **{f"{name}_cell": partial(_call, cell_step, name) for name in CELLS},
)


def _on_our_kernels(forward):
    """torch's ``forward``, with ``_VF`` bound to our kernels."""
    bound = FunctionType(
        forward.__code__,
        {**forward.__globals__, "_VF": _OURS},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    bound.__doc__, bound.__annotations__ = forward.__doc__, forward.__annotations__
    return bound


class _Sequence:
    """What the three layers share."""

    def _update_flat_weights(self):
        """Read the weights anew: whatever a parametrisation, a hook or an update made of them."""
        self._flat_weights = [getattr(self, name, None) for name in self._flat_weights_names]


class RNN(_Sequence, nn.RNN):
    __doc__ = nn.RNN.__doc__
    forward = _on_our_kernels(nn.RNN.forward)


class LSTM(_Sequence, nn.LSTM):
    __doc__ = nn.LSTM.__doc__
    forward = _on_our_kernels(nn.LSTM.forward)


class GRU(_Sequence, nn.GRU):
    __doc__ = nn.GRU.__doc__
    forward = _on_our_kernels(nn.GRU.forward)


class RNNCell(nn.RNNCell):
    __doc__ = nn.RNNCell.__doc__
    forward = _on_our_kernels(nn.RNNCell.forward)


class LSTMCell(nn.LSTMCell):
    __doc__ = nn.LSTMCell.__doc__
    forward = _on_our_kernels(nn.LSTMCell.forward)


class GRUCell(nn.GRUCell):
    __doc__ = nn.GRUCell.__doc__
    forward = _on_our_kernels(nn.GRUCell.forward)
