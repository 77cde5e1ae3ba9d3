"""The large products before and after the time loop, which are torch's."""

from contextlib import contextmanager
from threading import RLock

import torch

from ..weights import Weights

ROWS = 8192  # computed anew at a time
_lock, _within, _before = RLock(), [], []  # a finalizer may call a layer meanwhile


def tf32():
    """Whether torch's flags let cuDNN's recurrent layers round float32 factors to TF32.

    They say so in every build of torch, also where the GPU has none and the compiler fails: AMD's.
    """
    return not torch.version.hip and torch.backends.cudnn.rnn.fp32_precision == "tf32"


def rounded(factors):
    """A float32 tensor to the nearest TF32 numbers, as blocks.rounded does on the chip."""
    bits = factors.view(torch.int32).add(0x1000).bitwise_and_(-0x2000)
    return torch.where(factors.isnan(), factors, bits.view(torch.float32))


@contextmanager
def as_cudnn_would(dtype, tf32):
    """Within this context torch's products are as exact as the flags say of recurrent layers.

    torch has one setting for all products of the process, and none for a single product. So of
    threads that are here at once the first one changes it, and the last one changes it back.
    """
    if dtype != torch.float32:
        yield
        return
    with _lock:
        _within.append(tf32)
        if len(_within) == 1:
            _before[:] = _change(tf32)
    try:
        yield
    finally:
        with _lock:
            _within.pop()
            if not _within:
                _change_back(*_before)


def _change(tf32):
    """(the setting as it was, whether its older name has been changed, too)."""
    matmul, wanted = torch.backends.cuda.matmul, "tf32" if tf32 else "ieee"
    before = matmul.fp32_precision
    both = before != wanted and tf32 and _allowed(matmul) is False
    if both:  # torch raises where somebody asks for the one and the other says otherwise
        matmul.allow_tf32 = True
    if before != wanted:
        matmul.fp32_precision = wanted
    return before, both


def _change_back(before, both):
    matmul = torch.backends.cuda.matmul
    if both:
        matmul.allow_tf32 = False
    if matmul.fp32_precision != before:
        matmul.fp32_precision = before


def _allowed(matmul):
    """The setting by its older name; None where the caller has set the two apart."""
    try:
        return matmul.allow_tf32
    except RuntimeError:
        return None


def linear(x, weight, bias, out):
    """x @ weight.T + bias."""
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)


def project(shape, x, weights, gates, out):
    """x's part of the pre-activations of a direction. out: (N, width, P)"""
    ih = shape.padded(weights.ih.unflatten(0, (gates, shape.H)), -2).flatten(0, 1)
    bias = weights.b_ih
    if bias is not None:
        bias = shape.padded(bias.unflatten(0, (gates, shape.H)), -1).flatten()
    linear(x, ih, bias, out.flatten(1)[:, : gates * shape.P])


def recall(cell, shape, x, weights, befores, inputs, out):
    """What the cell keeps, computed anew from the states before each step: out (N, width, P)."""
    own = () if weights.own is None else weights.own.float().unbind(0)
    for r in range(0, shape.N, ROWS):
        mine = slice(r, r + ROWS)
        states = [before[mine].float() for before in befores]
        xs = torch.nn.functional.linear(x[mine], weights.ih, weights.b_ih).float()
        hs, given = (), ()
        if cell.recurrent:
            hs = torch.nn.functional.linear(befores[0][mine], weights.hh, weights.b_hh).float()
            hs = hs.chunk(cell.gates, 1)
        if inputs is not None:
            given = inputs[mine].float().unbind(1)
        _, _, kept = cell.forward(xs.chunk(cell.gates, 1), hs, states, own, given)
        for i, value in enumerate(kept):  # of own parameters alone it may be one row
            out[mine, i, : shape.H] = value


def by_place(side):
    """The gates in the order in which their gradients lie in dgates."""
    return sorted(range(len(side)), key=side.__getitem__)


def _run(dgates, side):
    """The part of dgates (N, DGATES, H) that a side of the cell has, as a matrix."""
    return dgates[:, min(side) : max(side) + 1].flatten(1)


def _by_gates(tensor, order, H):
    """``tensor`` (GATES * H, ...) with the gates in another order."""
    if order == sorted(order):
        return tensor
    gates = tensor.split(H)
    return torch.cat([gates[place] for place in order])


def weight_gradients(cell, dgates, x, hidden, need):
    """The gradients of a direction's weights, where ``need`` says so.

    dgates: (N, DGATES, H), with those of the cell's own parameters behind them; hidden: (N, H), the
    hidden states before each step, if it is wanted
    """
    H = dgates.shape[2]

    def of(side, needed, value):
        if not needed:
            return None
        back = [place - min(side) for place in side]
        return _by_gates(value(_run(dgates, side)), back, H)

    ih = of(cell.dx, need.ih, lambda grads: grads.t() @ x)
    hh = of(cell.dh, need.hh, lambda grads: grads.t() @ hidden)
    b_ih = of(cell.dx, need.b_ih, lambda grads: grads.sum(0))
    own = dgates[:, cell.dgates : cell.dgates + cell.own].sum(0) if need.own else None
    if need.b_ih and need.b_hh and cell.dx == cell.dh:
        return Weights(ih, hh, b_ih, b_ih.clone(), None, own)
    return Weights(ih, hh, b_ih, of(cell.dh, need.b_hh, lambda grads: grads.sum(0)), None, own)


def input_gradient(cell, dgates, weight, dx):
    """dx (None at first) and what a direction adds to it."""
    grads = _run(dgates, cell.dx)
    weight = _by_gates(weight, by_place(cell.dx), dgates.shape[2])
    return grads @ weight if dx is None else torch.addmm(dx, grads, weight)
