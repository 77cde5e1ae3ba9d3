"""A projected layer on an engine that knows none: as a layer without, between two products.

LSTM with recurrent projection is Sak et al. (2014): the output m = o * tanh(c) of H units is
projected to h = W_hr m, of P. Then

    gates = W_ih x + W_hh h = W_ih x + (W_hh W_hr) m

is a layer whose hidden state is m, and whose recurrent weights are W_hh W_hr. It begins with m = 0;
what the initial h adds to a sequence's first step comes in through x, as more columns of it. All is
plain PyTorch around that layer, so autograd has the gradients.
"""

import torch
from torch.nn.functional import linear

from .weights import Weights


def layer(run, engine, cell, x, steps, directions, states, keep):
    """``run(engine, cell, x, steps, directions, states, keep)``, which takes no projection.

    Shapes as in reference.py: (output (N, D * P), final states).
    """
    h, c = states
    ends = last_rows(steps, x.device), torch.arange(steps.B, device=x.device)
    columns, inner = [x], []
    for d, w in enumerate(directions):
        columns.append(x.new_zeros(steps.N, w.hr.shape[0]).index_copy(0, ends[d - 1], h[d]))
        others = [w.hh if i == d else torch.zeros_like(w.hh) for i in range(len(directions))]
        inner.append(Weights(torch.cat([w.ih, *others], 1), w.hh @ w.hr, w.b_ih, w.b_hh, None))
    x, states = torch.cat(columns, 1), (torch.zeros_like(c), c)
    m, (_, c) = run(engine, cell, x, steps, inner, states, keep)
    H = c.shape[2]
    outputs = [linear(m[:, d * H : (d + 1) * H], w.hr) for d, w in enumerate(directions)]
    h = torch.stack([y.index_select(0, ends[d]) for d, y in enumerate(outputs)])
    return torch.cat(outputs, 1), (h, c)


def last_rows(steps, device):
    """(B,) int64: the row of each sequence's last step."""
    if steps.dense:
        return torch.arange(steps.N - steps.B, steps.N, device=device)
    sizes, b = steps.batch_sizes, torch.arange(steps.B, device="cpu")
    lengths = steps.T - torch.searchsorted(sizes.flip(0), b, right=True)
    offsets = sizes.cumsum(0) - sizes
    return (offsets[lengths - 1] + b).to(device, non_blocking=True)
