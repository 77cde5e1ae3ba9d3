"""The CPU engine: a layer forward, and its gradients, as a few calls of compiled functions."""

import torch

from ..weights import Weights
from . import calls


def layer(cell, x, steps, directions, states, keep):
    """One layer, forward. x: (N, I); states: a (D, B, H or P) tensor for each of the cell's.

    Returns the output (N, D * H or P), the final states, and for each direction what ``gradients``
    wants to see again (all None unless ``keep``).
    """
    D, _, S = states[0].shape
    x = x.contiguous()
    y = x.new_empty(steps.N, D * S)
    finals = tuple(s.clone(memory_format=torch.contiguous_format) for s in states)
    kept = []
    for d, weights in enumerate(directions):
        mine = [s[d] for s in finals]
        part = y[:, d * S : (d + 1) * S]
        kept.append(calls.forward(cell, x, steps, d, weights, mine, part, keep))
    return y, finals, kept


def gradients(cell, x, steps, directions, kept, grads, need_x, need_weights):
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, and a Weights for each
    direction (None where nobody asked).
    """
    x, dy, *dfinals = (t.contiguous() for t in (x, *grads))
    S, H = dfinals[0].shape[2], kept[0][0].shape[2]
    dx = torch.empty_like(x) if need_x else None
    dstates, dweights = [], []
    for d, weights in enumerate(directions):
        mine, finals = dy[:, d * S : (d + 1) * S], [s[d] for s in dfinals]
        weights = _by_gates(weights, H, _places(cell.dx), _places(cell.dh))
        ds, dw = calls.backward(
            cell, x, steps, d, weights, kept[d], mine, finals, dx, need_weights[d]
        )
        dstates.append(ds)
        dweights.append(_by_gates(dw, H, _back(cell.dx), _back(cell.dh)))
    return dx, tuple(torch.stack(ds) for ds in zip(*dstates, strict=True)), dweights


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
            return tensor if tensor is None else tensor.contiguous()
        return tensor.reshape(len(order), H, -1)[order].reshape(tensor.shape).contiguous()

    ih, hh, b_ih, b_hh, hr = weights
    return Weights(
        ordered(ih, order_x),
        ordered(hh, order_h),
        ordered(b_ih, order_x),
        ordered(b_hh, order_h),
        hr if hr is None else hr.contiguous(),
    )
