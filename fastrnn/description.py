"""What the call of a recurrent module comes to: the tensors, and what else an engine asks of it."""

from contextvars import ContextVar

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from .kernels.cells import CELLS

THEIRS = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)


asking = ContextVar("fastrnn_explains", default=False)  # whether forward shall say who serves it


class Explained(BaseException):
    """No fault, but what such a forward raises: its argument is the Choice."""


def explained(module, input, hx, *, return_states=False, **inputs):
    """The Choice for a call of a Recurrent, whose class may have a forward of its own: what that
    makes of the input is what an engine is chosen for.
    """
    token = asking.set(True)
    try:
        module.forward(input, hx, **inputs)
    except Explained as found:
        return found.args[0]
    finally:
        asking.reset(token)
    raise RuntimeError(f"{type(module).__name__}.forward does not call that of fastrnn.Recurrent")


def is_torchs(module):
    """Whether the module runs torch.nn's own code."""
    return type(module).forward in {cls.forward for cls in THEIRS}


def describe(
    module, input, hx=None, *, lengths=None, resets=None, reset_to=None, return_states=False
):
    """(tensors, step, layer) of a call of a module, as ``backends.explain`` takes them; lengths and
    what else only a call has are no reason to choose another engine.
    """
    states = (hx,) if isinstance(hx, torch.Tensor) else hx
    if isinstance(module, nn.RNNCellBase):
        count = 2 if isinstance(module, nn.LSTMCell) else 1
        states = states or [input.new_zeros(*input.shape[:-1], module.hidden_size)] * count
        return (input, *states, *module.parameters()), True, None
    if not isinstance(module, nn.RNNBase):
        raise TypeError(f"expected a recurrent layer or cell, got {type(module).__name__}")
    cell, D = CELLS[module.mode.lower()], 1 + module.bidirectional
    if isinstance(input, PackedSequence):
        x, T, B = input.data, len(input.batch_sizes), int(input.batch_sizes[0])
    else:
        batch = 0 if module.batch_first else 1
        x = input if input.dim() == 3 else input.unsqueeze(batch)
        T, B = x.shape[1 - batch], x.shape[batch]
    widths = (module.proj_size or module.hidden_size, module.hidden_size)[: cell.states]
    states = states or [x.new_zeros(module.num_layers * D, B, width) for width in widths]
    states = [s if s.dim() == 3 else s.unsqueeze(1) for s in states]  # of unbatched input
    return (x, *states, *module.parameters()), False, (cell, T, D)
