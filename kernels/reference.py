"""The reference engine: a cell over a sequence in plain PyTorch.

Slow, and right for whatever PyTorch can differentiate: it serves second derivatives, forward-mode
AD, torch.func and devices or dtypes that no other engine takes.
"""

import torch
from torch.nn.functional import linear


def layer(cell, x, steps, directions, states):
    """One layer. x: (N, I); directions: a Weights each; states: one (D, B, H or P) tensor a state.

    Returns the output (N, D * H or P) and the final states, shaped as the initial ones.
    """
    outputs, finals = [], []
    for d, weights in enumerate(directions):
        output, final = _direction(cell, x, steps, weights, [s[d] for s in states], d == 1)
        outputs.append(output)
        finals.append(final)
    return torch.cat(outputs, 1), tuple(torch.stack(final) for final in zip(*finals, strict=True))


def _direction(cell, x, steps, weights, states, reverse):
    xgates = linear(x, weights.ih, weights.b_ih)
    outputs = [None] * steps.T
    for t in steps.order(reverse):
        rows, first = steps.sizes[t], steps.offsets[t]
        active = [s[:rows] for s in states]
        hgates = linear(active[0], weights.hh, weights.b_hh)
        new, _ = cell.forward(
            xgates[first : first + rows].chunk(cell.gates, 1), hgates.chunk(cell.gates, 1), active
        )
        if weights.hr is not None:
            new = (linear(new[0], weights.hr), *new[1:])
        outputs[t] = new[0]
        if rows < steps.B:  # the other rows have not begun, or have ended
            new = [torch.cat([n, s[rows:]]) for n, s in zip(new, states, strict=True)]
        states = new
    return torch.cat(outputs), states
