"""The CPU engine: a layer forward, and its gradients, as a few calls of compiled functions."""

import torch

from ..gate import take
from ..untraced import untraced
from ..weights import Weights
from . import calls, machine
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
    """One layer, forward. x: (N, I); states: a (D, B, H or P) tensor for each of the cell's.

    Their dtypes are as ``dtypes`` says. Returns the output (N, D * H or P), the final states, and
    what ``gradients`` wants to see again. ``keep``: how much of it, a Keep.
    """
    shape = Shape.of(cell, x, steps, directions, states)
    x, directions, states = _taken(cell, shape, x, directions, states)
    return calls.forward(cell, shape, x, steps, directions, states, keep)


@untraced
def gradients(cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights):
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, and a Weights for each
    direction (None where nobody asked).
    """
    shape = Shape.of(cell, x, steps, directions, states)
    x, directions, states = _taken(cell, shape, x, directions, states)
    grads = _taken_gradients(shape, states, grads)
    gates = shape.gates(cell, keep, steps)
    kept = _taken_kept(shape.kept(cell, gates), kept)
    given = x, steps, directions, states, keep, kept, gates, grads, need_x, need_weights
    return calls.backward(cell, shape, *given)


def _taken(cell, shape, x, directions, states):
    """x, the weights and the states, through the gate."""
    dtype, D, I, H, S = machine.wide(shape.dtype), shape.D, shape.I, shape.H, shape.S
    M = cell.gates * H
    sizes = (M, I), (M, S), (M,), (M,), (S, H)
    (x,) = take((x,), ((shape.N, I),), shape.dtype)
    directions = [Weights(*take(weights, sizes, dtype)) for weights in directions]
    widths = (S, H)[: cell.states]
    return x, directions, take(states, [(D, shape.B, width) for width in widths], dtype)


def _taken_gradients(shape, states, grads):
    """Those of the output and the final states, through the gate."""
    dy, *dfinals = grads
    (dy,) = take((dy,), ((shape.N, shape.D * shape.S),), shape.dtype)
    return dy, *take(dfinals, [s.shape for s in states], states[0].dtype)


def _taken_kept(expected, kept):
    """{name: tensor} of what forward kept, through the gate; expected: as from ``Shape.kept``."""
    found = {}
    for (name, (size, dtype)), tensor in zip(expected.items(), kept, strict=True):
        (found[name],) = take((tensor,), (size,), dtype)
    return found
