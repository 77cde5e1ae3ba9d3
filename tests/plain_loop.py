"""A plain loop over time and what GRU-D and QRNN make of their input: an oracle for fastrnn.zoo.

Nothing here goes through fastrnn, and nothing is shared with it but the names of the parameters.
Whole weights, torch's functions, autograd.
"""

from itertools import pairwise

import plain_cells
import torch
from torch import exp, relu
from torch.nn.functional import linear


def run(name, weights, x, states, layers, directions, inputs, **settings):
    """(output, final states) of a stack. x: (T, B, I); states: a (layers * directions, B, H) tensor
    each; weights: {name: tensor}; inputs: for each layer {name: (T, B, H) or what broadcasts}.
    """
    finals = [[] for _ in states]
    for layer in range(layers):
        outputs = []
        for d in range(directions):
            tail = f"_l{layer}" + "_reverse" * d
            p = {n.removesuffix(tail): w for n, w in weights.items() if n.endswith(tail)}
            p["H"] = states[0].shape[-1]
            state = [s[layer * directions + d] for s in states]
            cell, found = getattr(plain_cells, name), [None] * len(x)
            for t in reversed(range(len(x))) if d else range(len(x)):
                now = {n: v[t] for n, v in inputs[layer].items()}
                found[t], state = cell(p, x[t], *state, **now, **settings)
            outputs.append(torch.stack(found))
            for final, s in zip(finals, state, strict=True):
                final.append(s)
        x = torch.cat(outputs, -1)
    return x, [torch.stack(final) for final in finals]


def missing_values(weights, x, mask, delta, mean):
    """What GRU-D's loop sees: (x and mask, the decay of the state), step by step. (T, B, ...)."""
    last, seen, decays = mean.expand_as(x[0]), [], []
    for now, there, gap in zip(x, mask, delta, strict=True):
        last = there * now + (1 - there) * last
        keep = exp(-relu(weights["input_decay"] * gap + weights["input_bias"]))
        seen.append(there * now + (1 - there) * (keep * last + (1 - keep) * mean))
        decays.append(exp(-relu(linear(gap, weights["decay.weight"], weights["decay.bias"]))))
    return torch.cat([torch.stack(seen), mask], -1), torch.stack(decays)


def two_steps(x):
    """Each step of x beside the one before it."""
    found = [torch.cat([torch.zeros_like(x[0]), x[0]], -1)]
    for before, now in pairwise(x):
        found.append(torch.cat([before, now], -1))
    return torch.stack(found)
