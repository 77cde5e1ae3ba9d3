"""torch.nn's RNN, LSTM, GRU and their cells, with our kernels under them.

Each class runs torch's own ``forward``: its checks, its errors, its handling of packed and
unbatched input. Only the name ``_VF``, through which that code reaches torch's kernels, is bound to
ours. So there is no second copy of torch's behaviour that could differ from it.
"""

import sys
from functools import cache, partial, wraps
from types import FunctionType, SimpleNamespace

import torch
from torch import nn

from .cell_step import cell_step
from .functional import sequence
from .kernels.cells import CELLS
from .kernels.keep import Keep

_disabled = cache(torch.compiler.disable)


def _call(function, *arguments, **keywords):
    """Call ``function`` where torch.compile does not look: it takes layers like these as they are.

    Only a process that has loaded dynamo pays for that (loading it takes seconds).
    """
    if "torch._dynamo" in sys.modules:
        function = _disabled(function)
    return function(*arguments, **keywords)


def _on(kernels, forward):
    """torch's ``forward``, with ``_VF`` bound to the namespace ``kernels``."""
    bound = FunctionType(
        forward.__code__,
        {**forward.__globals__, "_VF": kernels},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    bound.__doc__, bound.__annotations__ = forward.__doc__, forward.__annotations__
    return bound


_CELLS = SimpleNamespace(**{f"{name}_cell": partial(_call, cell_step, name) for name in CELLS})
_LAYERS = {
    keep: SimpleNamespace(**{name: partial(_call, sequence, name, keep=keep) for name in CELLS})
    for keep in (Keep.ALL, Keep.STATES)
}


def _layer(forward):
    """torch's ``forward`` on our kernels, which keep for backward what ``self.recompute`` says."""
    everything, states = _on(_LAYERS[Keep.ALL], forward), _on(_LAYERS[Keep.STATES], forward)

    @wraps(everything)
    def choose(self, input, hx=None):
        return (states if self.recompute else everything)(self, input, hx)

    return choose


class _Sequence:
    """What the three layers share."""

    recompute = False

    def __init__(self, *args, recompute=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.recompute = recompute

    def extra_repr(self):
        return super().extra_repr() + ", recompute=True" * self.recompute


def _documented(theirs):
    return f"""{theirs.__doc__}
    In fastrnn there is one argument more:

        recompute: if ``True``, forward keeps half as much memory for backward (LSTM, GRU), which
            computes the missing gates anew from the states, a block of steps at a time: the same
            results for up to a quarter more time. It is an attribute, too. Default: ``False``
    """


class RNN(_Sequence, nn.RNN):
    __doc__ = _documented(nn.RNN)
    forward = _layer(nn.RNN.forward)


class LSTM(_Sequence, nn.LSTM):
    __doc__ = _documented(nn.LSTM)
    forward = _layer(nn.LSTM.forward)


class GRU(_Sequence, nn.GRU):
    __doc__ = _documented(nn.GRU)
    forward = _layer(nn.GRU.forward)


class RNNCell(nn.RNNCell):
    __doc__ = nn.RNNCell.__doc__
    forward = _on(_CELLS, nn.RNNCell.forward)


class LSTMCell(nn.LSTMCell):
    __doc__ = nn.LSTMCell.__doc__
    forward = _on(_CELLS, nn.LSTMCell.forward)


class GRUCell(nn.GRUCell):
    __doc__ = nn.GRUCell.__doc__
    forward = _on(_CELLS, nn.GRUCell.forward)
