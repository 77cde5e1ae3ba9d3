"""torch.nn's RNN, LSTM, GRU and their cells, with our kernels under them.

Each class runs torch's own ``forward``: its checks, its errors, its handling of packed and
unbatched input. Only the name ``_VF``, through which that code reaches torch's kernels, is bound to
ours. So there is no second copy of torch's behaviour that could differ from it.
"""

from functools import lru_cache, partial, wraps
from types import FunctionType, SimpleNamespace

import torch
from torch import nn

from . import dynamo
from .accepting import accepting
from .cell_step import cell_step
from .functional import sequence
from .kernels.cells import CELLS
from .kernels.keep import Keep
from .known import at_once, usual
from .tracing import PLAIN


def _on(kernels, forward):
    """torch's ``forward``, with ``_VF`` bound to the namespace ``kernels``."""
    scope = {**forward.__globals__, "_VF": kernels}
    del scope["__name__"]  # by which torch.compile would find torch's module, and its _VF
    bound = FunctionType(
        forward.__code__,
        scope,
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    bound.__doc__, bound.__annotations__ = forward.__doc__, forward.__annotations__
    return bound


_CELLS = SimpleNamespace(**{f"{name}_cell": partial(cell_step, name) for name in CELLS})
_LAYERS = {
    keep: SimpleNamespace(**{name: partial(sequence, name, keep=keep) for name in CELLS})
    for keep in (Keep.ALL, Keep.STATES)
}


def _layer(forward):
    """torch's ``forward`` on our kernels, which keep for backward what ``self.recompute`` says."""
    bound = {keep: _on(kernels, forward) for keep, kernels in _LAYERS.items()}

    @accepting
    @wraps(bound[Keep.ALL])
    def choose(self, input, hx=None):
        again = self.__dict__.get("recompute") is True  # a user's class may have one of its own
        keep = Keep.STATES if again else Keep.ALL
        found = _in_short(self, keep, input, hx) if usual() else None
        return bound[keep](self, input, hx) if found is None else found

    return choose


def _in_short(module, keep, x, hx):
    """What torch's ``forward`` comes to where it has nothing to say: a dense batch, and sizes that
    are the module's. None where that is not sure. torch's code takes as long as a small layer.
    """
    own = module.__dict__
    known = own["mode"] in MODES.get(type(module), ())
    if not known or module._weights_have_changed():
        return None
    return in_short(module, keep, x, hx, module._flat_weights, own["bias"])


def in_short(module, keep, x, hx, weights, bias, form=None):
    """The same, of a layer with these weights; form: as known.at_once takes it."""
    own = module.__dict__
    if type(x) not in PLAIN or x.is_nested or not x.is_cpu:
        return None
    sizes = x.shape
    if len(sizes) != 3 or sizes[2] != own["input_size"]:
        return None
    H, layers, batch_first = own["hidden_size"], own["num_layers"], own["batch_first"]
    D, B = 2 if own["bidirectional"] else 1, sizes[0 if batch_first else 1]
    widths = (own["proj_size"] or H, H) if own["mode"] == "LSTM" else (H,)
    if hx is None:
        make = _zeros if layers * D * B * H <= SMALL else _zeros.__wrapped__
        hx = tuple([make(x.dtype, layers * D, B, width) for width in widths])
    else:
        hx = hx if type(hx) is tuple else (hx,)
        for state, width in zip(hx, widths, strict=False):
            if type(state) not in PLAIN or state.is_nested or state.shape != (layers * D, B, width):
                return None
    options = own["dropout"], own["training"], own["bidirectional"], batch_first
    found = at_once(own["mode"].lower(), keep, x, hx, weights, bias, layers, *options, form)
    return found if found is None or len(widths) == 1 else (found[0], found[1:])


SMALL = 4096  # numbers of a state that is worth remembering


@lru_cache(maxsize=64)
def _zeros(dtype, *sizes):
    """A state to begin with. It is read and never written: so one will do for many calls."""
    with torch._C.DisableTorchFunction(), torch.inference_mode(False):  # whatever is active now
        return torch.zeros(sizes, dtype=dtype, device="cpu")


class _Sequence:
    """What the three layers share."""

    recompute = False

    def __init__(self, *args, recompute=False, **kwargs):
        super().__init__(*args, **kwargs)
        if recompute:
            self.recompute = True

    def extra_repr(self):
        again = self.__dict__.get("recompute") is True
        return super().extra_repr() + ", recompute=True" * again

    def check_forward_args(self, input, hidden, batch_sizes):
        """As torch does; but how many sequences are packed, a trace cannot know: _VF will see."""
        if batch_sizes is None or not torch.compiler.is_compiling():
            super().check_forward_args(input, hidden, batch_sizes)
        else:
            self.check_input(input, batch_sizes)

    @property
    def _flat_weights(self):
        """What torch's forward takes for the weights; a trace must not see it assigned."""
        if not torch.compiler.is_compiling():
            if "_flat_weights" not in self.__dict__:
                raise AttributeError("_flat_weights")  # torch's __getattr__ says the rest
            return self.__dict__["_flat_weights"]
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights):
        self.__dict__["_flat_weights"] = weights

    @_flat_weights.deleter
    def _flat_weights(self):
        if "_flat_weights" not in self.__dict__:
            kind = type(self).__name__
            raise AttributeError(f"'{kind}' object has no attribute '_flat_weights'")
        del self.__dict__["_flat_weights"]

    def _weights_have_changed(self):
        """As torch's, which takes as long as a small layer; but parameters are looked up first
        where they mostly are.
        """
        parameters = self._parameters
        for ref, name in zip(self._flat_weight_refs, self._flat_weights_names, strict=True):
            if ref is None or ref() is not parameters.get(name, self):
                return super()._weights_have_changed()
        return False

    def _update_flat_weights(self):
        if not torch.compiler.is_compiling():
            super()._update_flat_weights()


dynamo.admit(_Sequence)


def _documented(theirs, source):
    return f"""{theirs.__doc__}
    The formula is torch's, after {source}; errors are torch's, too.

    In fastrnn there is one argument more, and there are four more of a call:

        recompute: if ``True``, forward keeps half as much memory for backward (LSTM, GRU), which
            computes the missing gates anew from the states, a block of steps at a time: the same
            results for up to a quarter more time. It is an attribute, too. Default: ``False``.
            Under torch.compile forward keeps nothing, and backward runs all of it again

        layer(input, hx=None, *, lengths=None, resets=None, reset_to=None, return_states=False)
        lengths: (B,) integers from 0 to T, in any order: how many steps each sequence has. Behind
            its end the output is zero; its final state is that of its last step.
        resets: booleans, (T, B), or (B, T) if batch_first: before which steps the state is zero,
            or ``reset_to``, a state like hx. No gradient passes them.
        return_states: whether the result has a third part: every state after every step of the
            last layer, (T, B, D * H) each as the output is, of an LSTM (h, c).
        Lengths and resets are read on the host: where they are on a GPU, the call waits for it
        once. Raises TypeError or ValueError for what does not fit
    """


class RNN(_Sequence, nn.RNN):
    __doc__ = _documented(nn.RNN, "Elman (1990)")
    forward = _layer(nn.RNN.forward)


class LSTM(_Sequence, nn.LSTM):
    __doc__ = _documented(nn.LSTM, "Hochreiter & Schmidhuber (1997) and Gers et al. (2000)")
    forward = _layer(nn.LSTM.forward)


class GRU(_Sequence, nn.GRU):
    __doc__ = _documented(nn.GRU, "Cho et al. (2014)")
    forward = _layer(nn.GRU.forward)


# Derived classes may have checks of their own.
MODES = {RNN: ("RNN_TANH", "RNN_RELU"), LSTM: ("LSTM",), GRU: ("GRU",)}


class RNNCell(nn.RNNCell):
    __doc__ = nn.RNNCell.__doc__
    forward = _on(_CELLS, nn.RNNCell.forward)


class LSTMCell(nn.LSTMCell):
    __doc__ = nn.LSTMCell.__doc__
    forward = _on(_CELLS, nn.LSTMCell.forward)


class GRUCell(nn.GRUCell):
    __doc__ = nn.GRUCell.__doc__
    forward = _on(_CELLS, nn.GRUCell.forward)
