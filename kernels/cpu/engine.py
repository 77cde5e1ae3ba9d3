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
    S = dfinals[0].shape[2]
    dx = torch.empty_like(x) if need_x else None
    dstates, dweights = [], []
    for d, weights in enumerate(directions):
        weights = Weights(*(None if w is None else w.contiguous() for w in weights))
        gates, hh = _in_dgates_order(cell, cell.dh, weights.hh)
        mine, finals = dy[:, d * S : (d + 1) * S], [s[d] for s in dfinals]
        dgates, ds, dp = calls.backward(
            cell, steps, d, hh, gates.start, weights.hr, kept[d], mine, finals
        )
        dstates.append(ds)
        dweights.append(_weight_gradients(cell, x, kept[d], dgates, dp, need_weights[d]))
        if need_x:
            gates, ih = _in_dgates_order(cell, cell.dx, weights.ih)
            calls.matmul(dgates[:, gates].flatten(1), ih, dx, add=d > 0)
    return dx, tuple(torch.stack(ds) for ds in zip(*dstates, strict=True)), dweights


def _in_dgates_order(cell, places, weight):
    """The slice of ``dgates`` that one side's gates fill, and ``weight`` with its gates in order."""
    first = min(places)
    gates = slice(first, first + len(places))
    return gates, _reordered(cell, weight, [places.index(p) for p in range(gates.start, gates.stop)])


def _reordered(cell, tensor, order):
    """``tensor`` (G*H, ...) with its gates in another order."""
    if order == sorted(order):
        return tensor
    return tensor.view(cell.gates, -1, *tensor.shape[1:])[order].flatten(0, 1)


def _weight_gradients(cell, x, kept, dgates, dp, need):
    """A Weights of gradients, None where ``need`` (a Weights of bools) says no."""
    _, before, _, m = kept
    x = x if need.ih or need.b_ih else None
    before = before if need.hh or need.b_hh else None
    if cell.dx == cell.dh:  # one matrix of gradients times both
        ih, hh, b_ih = calls.outer(dgates.flatten(1), x, before)
        b_hh = b_ih.clone()
    else:
        ih, b_ih = _side(cell, cell.dx, dgates, x)
        hh, b_hh = _side(cell, cell.dh, dgates, before)
    hr = calls.outer(dp, m, None)[0] if need.hr else None
    return Weights(ih, hh, b_ih if need.b_ih else None, b_hh if need.b_hh else None, hr)


def _side(cell, places, dgates, other):
    """The gradients of one weight and one bias, whose gates are at ``places`` in dgates."""
    if other is None:
        return None, None
    first = min(places)
    mine = dgates[:, first : first + len(places)].flatten(1)
    weight, _, bias = calls.outer(mine, other, None)
    order = [p - first for p in places]
    return _reordered(cell, weight, order), _reordered(cell, bias, order)
