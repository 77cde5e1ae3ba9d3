"""A step on tensors, by autograd and by what is derived from it."""

import torch

from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.gates import Gates

PORTS = {"gates": 2, "states": 2, "own": 1, "inputs": 1}


def cell_of_values(function, count=1):
    """A cell whose output is a function of ``count`` inputs of the step."""

    def step(wx, uh, states, own, inputs):
        return function(*inputs), states

    return Cell("values", step, gates=1, states=1, recurrent=False, inputs=count)


def given_to(cell, *shape, low=-2.0, high=2.0):
    """Random x, h, states, own and inputs for a cell: a list of tensors each, of float64."""
    counts = cell.gates, cell.hgates, cell.states, cell.own, cell.inputs
    return [
        [torch.empty(shape, dtype=torch.float64).uniform_(low, high) for _ in range(count)]
        for count in counts
    ]


def on_tensors(cell, given):
    """[output, *new states] of the step as it stands, in plain PyTorch."""
    x, h, *rest = given
    result = cell.step(Gates(x), Gates(h), *map(tuple, rest))
    output, new = result if isinstance(result[-1], tuple) else (result[0], result)
    return [output, *new]


def by_autograd(cell, given, grads):
    """(results, gradients of all that is given, as a flat list; zeros where none arrives)."""
    leaves = [[t.clone().requires_grad_() for t in each] for each in given]
    results = [torch.as_tensor(r, dtype=torch.float64) for r in on_tensors(cell, leaves)]
    flat = [t for each in leaves for t in each]
    pairs = [(r.expand_as(d), d) for r, d in zip(results, grads, strict=True) if r.requires_grad]
    found = [None] * len(flat)
    if pairs:
        results_reached, theirs = zip(*pairs, strict=True)
        found = torch.autograd.grad(results_reached, flat, theirs, allow_unused=True)
    zeros = [torch.zeros_like(t) if d is None else d for t, d in zip(flat, found, strict=True)]
    return [r.detach() for r in results], zeros


def by_derivation(cell, given, grads):
    """As ``by_autograd``, by forward and backward of a cell of one stage."""
    x, h, states, own, inputs = given
    output, new, kept = cell.forward(x, h, states, own, inputs)
    assert len(kept) == cell.kept
    after = [t if i in cell.after else None for i, t in enumerate(new)]  # no other is there
    dout, *dnew = grads
    dgates, down, dinputs, dstates = cell.backward(dout, dnew, kept, states, after, own, inputs)
    assert len(dgates) == cell.dgates
    dx, dh = [dgates[i] for i in cell.dx], [dgates[i] for i in cell.dh]
    return [output, *new], [*dx, *dh, *dstates, *down, *dinputs]


def same(a, b):
    """Equal to the bit, but for which NaN it is."""
    nan = a.isnan() & b.isnan()
    return bool((nan | ((a == b) & (a.signbit() == b.signbit()))).all())
