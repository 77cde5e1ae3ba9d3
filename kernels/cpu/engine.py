"""The CPU engine: a layer forward, and its gradients, as a few calls of compiled functions."""

from functools import lru_cache

import torch

from ..gate import take, whole
from ..keep import Keep
from ..untraced import untraced
from ..weights import Weights
from . import calls, machine
from .shape import Shape
from .target import registers

HALF = (torch.bfloat16, torch.float16)


def dtypes(dtype):
    """In what tensors of ``dtype`` are computed: x and the output; states and weights.

    bfloat16 as it is only where the CPU multiplies it: there it is twice as fast, elsewhere slower.
    """
    if dtype == torch.bfloat16 and registers().bfloat16:
        return torch.bfloat16, torch.float32
    return (torch.float32, torch.float32) if dtype in HALF else (dtype, dtype)


@untraced
def layer(cell, x, steps, directions, states, keep, inputs=None):
    """One layer, forward. x: (N, I), or (T, B, I) of a dense batch; states: a (D, B, H or P) tensor
    for each of the cell's; inputs: (N, number, H), in x's dtype, what its steps are given beside x.

    Their dtypes are as ``dtypes`` says, and all shapes fit together. Returns the output (of x's
    form, D * H or P wide), the final states, and what ``gradients`` wants to see again. ``keep``:
    how much of it, a Keep.
    """
    shape, keep = Shape.of(cell, x, steps, directions, states), _keep(cell, keep)
    tensors = sum(directions, (x, *states)) + (inputs,)
    found = whole(tensors)
    if found is not tensors:
        x, directions, states, (inputs,) = _apart(cell, shape, found)
    return calls.forward(cell, shape, x, steps, directions, states, keep, inputs)


@untraced
def gradients(
    cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights,
    inputs=None, need_inputs=False,
):  # fmt: skip
    """One layer, backward. grads: those of the output and the final states, None for zeros.

    Returns the gradients of x (None unless asked for), of the states, a Weights for each direction
    (None where nobody asked), and the gradient of the inputs (None unless asked for).
    """
    shape, keep = Shape.of(cell, x, steps, directions, states), _keep(cell, keep)
    gates = shape.gates(cell, keep, steps)
    rows = (steps.T, steps.B) if steps.dense and x.dim() == 3 else (steps.N,)
    names, *expected = _expected(cell, shape, steps.N, rows, gates)
    tensors = (*sum(directions, (x, *states)), inputs, *grads, *kept)
    found = take(tensors, *expected)
    if found is not tensors:
        x, directions, states, others = _apart(cell, shape, found)
        inputs, *others = others
        grads, kept = others[: len(grads)], others[len(grads) :]
    kept = dict(zip(names, kept, strict=True))
    given = x, steps, directions, states, keep, kept, gates, grads, need_x, need_weights
    return calls.backward(cell, shape, *given, inputs, need_inputs)


def _keep(cell, keep):
    """How much of a layer is kept: a cell of several stages computes nothing anew."""
    return Keep.ALL if cell.staged and keep else keep


@lru_cache(maxsize=256)
def _expected(cell, shape, N, rows, gates):
    """(names of what is kept, shapes, dtypes), the latter two of x, the states, the weights, the
    inputs, the gradients of the output and of the final states, and what is kept.

    rows: the shape of x without its columns; gates: as from ``Shape.gates``.
    """
    dtype, wide, D, M = shape.dtype, machine.wide(shape.dtype), shape.D, cell.gates * shape.H
    ends = [(D, shape.B, width) for width in (shape.S, *[shape.H] * (cell.states - 1))]
    weights = (M, shape.I), (M, shape.S), (M,), (M,), (shape.S, shape.H), (cell.own, shape.H)
    kept = shape.kept(cell, N, gates)
    sizes, kinds = zip(*kept.values(), strict=True)
    shapes = [(*rows, shape.I), *ends, *weights * D, (N, cell.inputs, shape.H)]
    shapes += [(*rows, D * shape.S), *ends, *sizes]
    count = len(ends) + len(weights) * D
    return tuple(kept), shapes, [dtype, *[wide] * count, dtype, dtype, *[wide] * len(ends), *kinds]


def _apart(cell, shape, tensors):
    """(x, a Weights for each direction, the states, the rest) from what has passed the gate."""
    first, each = 1 + cell.states, len(Weights._fields)
    end = first + shape.D * each
    directions = [Weights(*tensors[i : i + each]) for i in range(first, end, each)]
    return tensors[0], directions, tensors[1:first], tensors[end:]
