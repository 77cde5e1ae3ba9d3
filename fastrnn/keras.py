"""Keras's LSTM, GRU and SimpleRNN on our kernels, where its back end is torch.

Keras calls ``inner_loop`` of a layer for what lies between its states before and after: that alone
is replaced, in the classes, so layers that exist already are served too. Whatever a fused kernel
does not do goes to the method that was there before.
"""

from functools import wraps
from inspect import signature

import numpy as np
import torch

from .functional import sequence
from .pieces import Pieces
from .tracing import plain, tracing

# {layer: [(the activations of its cell, by Keras's names; the cell of ours)]}
KINDS = {
    "LSTM": [(("tanh", "sigmoid"), "lstm")],
    "GRU": [(("tanh", "sigmoid"), "gru")],
    "SimpleRNN": [(("tanh",), "rnn_tanh"), (("relu",), "rnn_relu")],
}
TAKEN = ["self", "sequences", "initial_state", "mask", "training"]  # by inner_loop
ASKED = {"activation", "dropout", "recurrent_dropout", "go_backwards", "stateful", "unroll"}
DTYPES = (torch.float32, torch.float64)
_before = {}  # {class of Keras's: the inner_loop of its own that it had, or None}


def accelerate_keras():
    """Let Keras's LSTM, GRU and SimpleRNN run on our kernels: all of them, on CPU, from now on.

    For Keras 3 with the torch back end. Layers made before are served as well as those made later,
    in ``Bidirectional`` too; weights, results and saved models are Keras's. Masks of any form cost
    only the steps that are there. What our kernels do not do runs as Keras runs it: other
    activations, ``reset_after=False``, ``unroll=True``, ``use_cudnn=True``, ``recurrent_dropout``
    in training, ``dropout`` in training with ``implementation=1``, cells of your own, other devices
    than the CPU, and other dtypes than float32 and float64. A second call does nothing.

    Raises:
        ImportError: Keras is not installed.
        RuntimeError: Keras runs on another back end, or is a version that has no such layers as
            these. Nothing is changed then.

    Example::

        >>> fastrnn.accelerate_keras()
        >>> y = keras.layers.LSTM(64)(x)
    """
    import keras

    if _before:
        return
    if (name := keras.backend.backend()) != "torch":
        raise RuntimeError(
            f"accelerate_keras is for Keras's torch back end, and Keras runs on {name}: "
            "set KERAS_BACKEND=torch before keras is imported"
        )
    try:
        planned = {getattr(keras.layers, kind): _serving(keras, kind) for kind in KINDS}
    except (AttributeError, ValueError, TypeError) as error:
        raise RuntimeError(
            f"accelerate_keras does not know the recurrent layers of Keras {keras.__version__}, "
            f"and has changed nothing: {error}"
        ) from error
    for layer, inner_loop in planned.items():
        _before[layer] = vars(layer).get("inner_loop")
        layer.inner_loop = inner_loop


def restore_keras():
    """Undo ``accelerate_keras``: Keras's layers run as Keras runs them. Else it does nothing."""
    while _before:
        layer, inner_loop = _before.popitem()
        if inner_loop is None:  # it had inherited its own
            del layer.inner_loop
        else:
            layer.inner_loop = inner_loop


def _serving(keras, kind):
    """An ``inner_loop`` for Keras's layer of that name. Raises AttributeError, TypeError or
    ValueError where that is not as it is known here.
    """
    layer, get = getattr(keras.layers, kind), keras.activations.get
    theirs, cell_class = layer.inner_loop, getattr(keras.layers, f"{kind}Cell")
    known = [([get(each) for each in activations], name) for activations, name in KINDS[kind]]
    if [*signature(theirs).parameters] != TAKEN:
        raise TypeError(f"{kind}.inner_loop takes {signature(theirs)}")
    if missing := ASKED - signature(layer.__init__).parameters.keys():
        raise TypeError(f"{kind} has no {', '.join(sorted(missing))}")

    @wraps(theirs)
    def inner_loop(self, sequences, initial_state, mask, training=False):
        found = None
        if type(self.cell) is cell_class:
            found = _served(known, self, sequences, initial_state, mask, training)
        return theirs(self, sequences, initial_state, mask, training) if found is None else found

    return inner_loop


def _served(known, layer, x, states, mask, training):
    """(last output, outputs, final states), as ``inner_loop`` returns them; None if it is not for
    our kernels.

    x: (B, T, I); states: (B, H) each, or one alone; mask: (B, T), a list of one, or None.
    """
    name = _name(known, layer, training)
    if name is None:
        return None
    cell, states = layer.cell, list(states) if isinstance(states, (list, tuple)) else [states]
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    weights = [w.value for w in (cell.kernel, cell.recurrent_kernel, cell.bias) if w is not None]
    if not _fit(x, states, weights, mask):
        return None
    if training and cell.dropout:
        x = x * cell.get_dropout_mask(x[:, 0]).unsqueeze(1)
    if layer.go_backwards:
        x, mask = x.flip(1), None if mask is None else mask.flip(1)
    if layer.stateful:  # Keras writes the new states over these, which backward reads
        states = [s.clone() for s in states]
    given = [s.unsqueeze(0) for s in states], _weights(name, weights), len(weights) == 3
    there = None if mask is None else mask.bool().numpy()
    if there is None or there.all():
        y, *finals = _run(name, (x,), *given, True)
        finals = [s.squeeze(0) for s in finals]
        return finals[0], y, finals
    if not there.any():
        return None
    y, finals = _masked(name, x, there, layer.zero_output_for_mask, *given)
    return y[:, -1], y, finals


def _name(known, layer, training):
    """The cell of ours that does what the layer's does; None if none does.

    A cell of ``implementation=1`` drops other inputs for each gate.
    """
    cell = layer.cell
    if (
        layer.unroll
        or getattr(layer, "use_cudnn", None) is True
        or (training and cell.recurrent_dropout)
        or (training and cell.dropout and getattr(cell, "implementation", 2) == 1)
        or not getattr(cell, "reset_after", True)
    ):
        return None
    mine = [cell.activation]
    if hasattr(cell, "recurrent_activation"):
        mine.append(cell.recurrent_activation)
    return next((name for activations, name in known if activations == mine), None)


def _fit(x, states, weights, mask):
    """Whether all are tensors of a kind and of shapes that our kernels take."""
    tensors = [x, *states, *weights]
    if mask is not None:
        if not isinstance(mask, torch.Tensor) or not isinstance(x, torch.Tensor):
            return False
        if mask.shape != x.shape[:2] or not mask.is_cpu:
            return False
        # its numbers are read, and decide what runs: a trace would keep them as they are today
        if tracing(x) or torch.jit.is_tracing() or not plain((*tensors, mask)):
            return False
    for t in tensors:
        if not isinstance(t, torch.Tensor) or not t.is_cpu or t.dtype != x.dtype:
            return False
    return (
        x.dtype in DTYPES
        and x.dim() == 3
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and all(s.shape == (x.shape[0], weights[1].shape[0]) for s in states)
    )


def _weights(name, weights):
    """Keras's (I, G * H), (H, G * H) and bias as torch.nn has them, a row for each gate's unit."""
    kernel, recurrent, *bias = weights
    if name == "gru":  # whose gates are z, r, n in Keras, and r, z, n here; it has both biases
        bias = [_z_after_r(b) for each in bias for b in each.unbind(0)]
        return [_z_after_r(kernel.T), _z_after_r(recurrent.T), *bias]
    return [kernel.T, recurrent.T, *bias, *map(torch.zeros_like, bias)]


def _z_after_r(rows):
    z, r, n = rows.chunk(3)
    return torch.cat((r, z, n))


def _run(name, rows, states, weights, bias, *form):
    hx = states[0] if len(states) == 1 else tuple(states)
    return sequence(name, *rows, hx, weights, bias, 1, 0.0, False, False, *form)


def _masked(name, x, there, zeros, states, weights, bias):
    """(outputs (B, T, H), final states (B, H)) of the steps that are ``there``, (B, T) of numpy's.

    At the others nothing is computed: the states stay as they are, and so does the output, or it is
    ``zeros``. Before a sequence's first step it is zero.
    """
    (B, T), count = there.shape, there.sum(1)
    pieces = Pieces(count, np.zeros((T, B), bool))
    # row by row the n-th step of a sequence, and where that is among its steps
    numbers = pieces.places(1, T)
    steps = np.argsort(~there, 1, kind="stable") + T * np.arange(B)[:, None]
    rows = x.flatten(0, 1).index_select(0, _index(steps.ravel()[numbers]))
    begin = [s.index_select(1, _index(pieces.sequence)) for s in states]
    y, *finals = _run(name, (rows, torch.from_numpy(pieces.sizes)), begin, weights, bias)
    row, N = np.zeros(B * T, np.int64), len(numbers)
    row[numbers] = np.arange(N)
    seen = there.cumsum(1)
    shown = np.take_along_axis(row.reshape(B, T), np.maximum(seen - 1, 0), 1)
    shown[~there if zeros else seen == 0] = N
    y = torch.cat([y, y.new_zeros(1, y.shape[1])]).index_select(0, _index(shown.ravel()))
    last = _index(np.where(count > 0, pieces.last, len(pieces.sequence) + np.arange(B)))
    ends = [
        torch.cat([final[0], s[0]]).index_select(0, last)
        for final, s in zip(finals, states, strict=True)
    ]
    return y.view(B, T, -1), ends


def _index(numbers):
    return torch.from_numpy(np.ascontiguousarray(numbers))
