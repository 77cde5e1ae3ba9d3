"""The reference engine: a cell over a sequence in plain PyTorch.

Slow, and right for whatever PyTorch can differentiate: it serves second derivatives, forward-mode
AD, torch.func and devices or dtypes that no other engine takes.
"""

from functools import partial

import torch

from .form import linear


def layer(cell, x, steps, directions, states, inputs=None, every=False):
    """One layer. x: (N, I); directions: a Weights each; states: one (D, B, H or P) tensor a state;
    inputs: (heads * N, number, H), what each step is given beside x.

    Returns the output (N, D * H or P) and the final states, shaped as the initial ones; and, if
    ``every``, the states after each step, shaped as the output.
    """
    inputs, found = [None] if inputs is None else inputs.chunk(cell.heads), []
    for d, weights in enumerate(directions):
        given = inputs[d % len(inputs)], steps, weights, [s[d] for s in states]
        found.append(_direction(cell, x, *given, cell.reverse(d), every))
    outputs, finals, afters = zip(*found, strict=True)
    y, finals = torch.cat(outputs, 1), [torch.stack(each) for each in zip(*finals, strict=True)]
    if not every:
        return y, tuple(finals)
    afters = [[torch.cat(state) for state in zip(*each, strict=True)] for each in afters]
    return y, tuple(finals), tuple([torch.cat(each, 1) for each in zip(*afters, strict=True)])


def _made(cell):
    """Whether the cell's function on tensors is there: from now on it is."""
    return callable(cell.whole)


_made._dynamo_marked_constant = True  # torch.compile does not see it made, only that it is there


def _direction(cell, x, inputs, steps, weights, states, reverse, every):
    xgates = linear(x, weights.ih, weights.b_ih)
    own = () if weights.own is None else weights.own.unbind(0)
    outputs, afters, given = [None] * steps.T, [()] * steps.T, ()
    product = partial(_product, weights, weights.ih.shape[0] // cell.gates)
    assert _made(cell)
    for t in steps.order(reverse):
        rows, first = steps.sizes[t], steps.offsets[t]
        active = [s[:rows] for s in states]
        if inputs is not None:
            given = inputs[first : first + rows].unbind(1)
        gates = xgates[first : first + rows].chunk(cell.gates, 1)
        output, new = cell.whole(gates, product, active, own, given)
        if weights.hr is not None:
            output = linear(output, weights.hr)
            new = (output, *new[1:])
        outputs[t] = output
        if every:
            afters[t] = new
        if rows < steps.B:  # the other rows have not begun, or have ended
            new = [torch.cat([n, s[rows:]]) for n, s in zip(new, states, strict=True)]
        states = new
    return torch.cat(outputs), states, afters


def _product(weights, H, value, first, count):
    """``count`` gates of W_hh value + b_hh, from the ``first`` one on."""
    hh, bias = weights.hh, weights.b_hh
    if count * H < hh.shape[0]:
        rows = slice(first * H, (first + count) * H)
        hh, bias = hh[rows], None if bias is None else bias[rows]
    return linear(value, hh, bias).chunk(count, 1)


def _product(weights, H, value, first, count):
    """``count`` gates of W_hh value + b_hh, from the ``first`` one on."""
    hh, bias = weights.hh, weights.b_hh
    if count * H < hh.shape[0]:
        rows = slice(first * H, (first + count) * H)
        hh, bias = hh[rows], None if bias is None else bias[rows]
    return linear(value, hh, bias).chunk(count, 1)
