"""The CPU engine: a layer forward, and its gradients, as a few calls of compiled functions."""

import torch

from ..gate import take
from ..untraced import untraced
from ..weights import Weights
from . import calls, compiled
from .layouts import Shape
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
def layer(cell, x, steps, directions, states, keep):
    """One layer, forward. x: (N, I), or (T, B, I) of a dense batch; states: a (D, B, H or P) tensor
    for each of the cell's.

    Their dtypes are as ``dtypes`` says. Returns the output (of x's form, D * H or P wide), the
    final states, and what ``gradients`` wants to see again. ``keep``: how much of it, a Keep.
    """
    shape = Shape.of(cell, x, steps, directions, states)
    x, directions, states, _ = _taken(cell, shape, steps, x, directions, states)
    return calls.forward(cell, shape, x, steps, directions, states, keep)


@untraced
def gradients(cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights):
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, and a Weights for each
    direction (None where nobody asked).
    """
    shape = Shape.of(cell, x, steps, directions, states)
    gates = shape.gates(cell, keep, steps)
    names = shape.kept(cell, steps.N, gates)
    given = x, directions, states, (*grads, *kept), names.values()
    x, directions, states, others = _taken(cell, shape, steps, *given)
    grads, kept = others[: len(grads)], dict(zip(names, others[len(grads) :], strict=True))
    given = x, steps, directions, states, keep, kept, gates, grads, need_x, need_weights
    return calls.backward(cell, shape, *given)


def _taken(cell, shape, steps, x, directions, states, others=(), kept=()):
    """x, the weights, the states and ``others``, through the gate.

    others: the gradients of the output and the final states, and what is kept; kept: (shape, dtype)
    of each of that.
    """
    dtype, wide, D = shape.dtype, compiled.wide(shape.dtype), shape.D
    M, rows = cell.gates * shape.H, (steps.N,)
    if steps.dense and x.dim() == 3:
        rows = steps.T, steps.B
    sizes = (M, shape.I), (M, shape.S), (M,), (M,), (shape.S, shape.H)
    ends = [(D, shape.B, width) for width in (shape.S, shape.H)[: cell.states]]
    tensors = sum(directions, (x, *states))
    shapes, dtypes = [(*rows, shape.I), *ends, *sizes * D], [dtype] + [wide] * (len(tensors) - 1)
    if others:
        tensors += others
        shapes += [(*rows, D * shape.S), *ends]
        dtypes += [dtype] + [wide] * len(ends)
        for size, kind in kept:
            shapes.append(size)
            dtypes.append(kind)
    found = take(tensors, shapes, dtypes)
    if found is tensors:
        return x, directions, states, others
    first = 1 + len(states)
    end = first + D * len(sizes)
    weights = [Weights(*found[i : i + len(sizes)]) for i in range(first, end, len(sizes))]
    return found[0], weights, found[1:first], found[end:]
