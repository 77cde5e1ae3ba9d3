"""The CPU engine: a layer forward, and its gradients, as a few calls of compiled functions."""

import torch

from ..weights import Weights
from . import calls
from .target import registers

HALF = (torch.bfloat16, torch.float16)


def dtypes(dtype):
    """In what tensors of ``dtype`` are computed: x and the output; states and weights.

    bfloat16 as it is only where the CPU multiplies it: there it is twice as fast, elsewhere slower.
    """
    if dtype == torch.bfloat16 and registers().bfloat16:
        return torch.bfloat16, torch.float32
    return (torch.float32, torch.float32) if dtype in HALF else (dtype, dtype)


def layer(cell, x, steps, directions, states, keep):
    """One layer, forward. x: (N, I); states: a (D, B, H or P) tensor for each of the cell's.

    Their dtypes are as ``dtypes`` says. Returns the output (N, D * H or P), the final states, and
    what ``gradients`` wants to see again. ``keep``: how much of it, a Keep.
    """
    return calls.forward(cell, x.contiguous(), steps, directions, states, keep)


def gradients(cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights):
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, and a Weights for each
    direction (None where nobody asked).
    """
    x, *grads = (t.contiguous() for t in (x, *grads))
    H = directions[0].hh.shape[0] // cell.gates
    directions = [Weights(*(t if t is None else t.contiguous() for t in w)) for w in directions]
    ordered = [_by_gates(w, H, _places(cell.dx), _places(cell.dh)) for w in directions]
    states = [s.contiguous() for s in states]
    dx, dstates, dweights = calls.backward(
        cell, x, steps, directions, ordered, states, keep, kept, grads, need_x, need_weights
    )
    return dx, dstates, [_by_gates(dw, H, _back(cell.dx), _back(cell.dh)) for dw in dweights]


def _places(side):
    """The gates in the order in which their gradients lie in ``dgates``."""
    return sorted(range(len(side)), key=side.__getitem__)


def _back(side):
    """Where in that order each gate is."""
    return [place - min(side) for place in side]


def _by_gates(weights, H, order_x, order_h):
    """Weights (contiguous) with the gates of x's and of h's side in other orders."""

    def ordered(tensor, order):
        if tensor is None or order == sorted(order):
            return tensor
        return tensor.reshape(len(order), H, -1)[order].reshape(tensor.shape)

    ih, hh, b_ih, b_hh, hr = weights
    sides = ordered(ih, order_x), ordered(hh, order_h), ordered(b_ih, order_x)
    return Weights(*sides, ordered(b_hh, order_h), hr)
