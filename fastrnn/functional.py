"""A whole stack of layers: directions, dropout between layers, packed sequences, half precision.

``sequence`` takes what torch's own ``_VF.lstm`` and its kin take, and returns what those return.
What no engine of ours serves, and what torch would refuse, goes to torch's function: its result or
its error is then the user's, to the letter.
"""

import torch
from torch import _VF
from torch.nn.functional import dropout

from . import backends
from .autograd import run_layer
from .kernels import steps as layouts
from .kernels.cells import CELLS
from .kernels.weights import Weights

HALF = (torch.bfloat16, torch.float16)


def sequence(name, *arguments):
    """torch._VF.<name>, in both of its forms.

    (input, hx, weights, bias, layers, p, training, bidirectional, batch_first) or, for packed rows,
    (data, batch_sizes, hx, weights, bias, layers, p, training, bidirectional).
    """
    packed = isinstance(arguments[3], (list, tuple))
    if packed:
        x, batch_sizes, hx, weights, bias, layers, p, training, bidirectional = arguments
        batch_first = False
    else:
        x, hx, weights, bias, layers, p, training, bidirectional, batch_first = arguments
    cell = CELLS[name]
    states = (hx,) if cell.states == 1 else tuple(hx)
    choice = backends.explain(x, *states, *weights)
    D = 2 if bidirectional else 1
    directions = _directions(weights, bias, layers * D)
    torch_serves = choice.name == "torch" or directions is None or not x.numel()
    if torch_serves or len(states) != cell.states or (packed and batch_sizes.dtype != torch.int64):
        return getattr(_VF, name)(*arguments)
    if packed:
        steps, rows = layouts.packed(batch_sizes), x
    else:
        x = x.transpose(0, 1) if batch_first else x
        steps, rows = layouts.dense(*x.shape[:2]), x.reshape(-1, x.shape[-1])
    if not _agree(cell, rows, steps, directions, states, layers, D):
        return getattr(_VF, name)(*arguments)
    engine = backends.load(choice.name)
    y, finals = _stack(engine, cell, rows, steps, directions, states, D, p if training else 0.0)
    if not packed:
        y = y.view(steps.T, steps.B, -1)
        y = y.transpose(0, 1) if batch_first else y
    return y, *finals


def _directions(weights, bias, count):
    """torch's flat list as a Weights for each layer and direction; None if it is incomplete."""
    each = len(weights) // count
    if each * count != len(weights) or each not in ((4, 5) if bias else (2, 3)):
        return None
    found = []
    for i in range(0, len(weights), each):
        ih, hh, *rest = weights[i : i + each]
        biases = rest[:2] if bias else (None, None)
        found.append(Weights(ih, hh, *biases, rest[-1] if each in (3, 5) else None))
    return found


def _agree(cell, x, steps, directions, states, layers, D):
    """Whether all shapes fit together; where they do not, torch has the words for it."""
    H = directions[0].hh.shape[0] // cell.gates
    S = H if directions[0].hr is None else directions[0].hr.shape[0]
    falling = steps.sizes[-1] >= 1 and (steps.sizes[1:] <= steps.sizes[:-1]).all()
    if x.dim() != 2 or x.shape[0] != steps.N or not falling:
        return False
    widths = (S, H)[: cell.states]
    for state, width in zip(states, widths, strict=True):
        if state.shape != (layers * D, steps.B, width):
            return False
    for i, w in enumerate(directions):
        I = x.shape[1] if i < D else S * D
        expected = Weights(
            (cell.gates * H, I), (cell.gates * H, S), (cell.gates * H,), (cell.gates * H,), (S, H)
        )
        if any(t is not None and t.shape != s for t, s in zip(w, expected, strict=True)):
            return False
    return True


def _stack(engine, cell, x, steps, directions, states, D, p):
    """Layer after layer. x: (N, I); states: a (layers * D, B, H or P) tensor for each state."""
    dtype = x.dtype
    if dtype in HALF and engine is not backends.load("reference"):
        x, *states = (t.float() for t in (x, *states))
        directions = [Weights(*(t if t is None else t.float() for t in w)) for w in directions]
    finals = []
    for first in range(0, len(directions), D):
        if first and p:
            x = dropout(x, p)
        mine = slice(first, first + D)
        x, final = run_layer(
            engine, cell, x, steps, directions[mine], tuple(s[mine] for s in states)
        )
        finals.append(final)
    if len(finals) > 1:
        finals = [tuple(torch.cat(final) for final in zip(*finals, strict=True))]
    return x.to(dtype), tuple(s.to(dtype) for s in finals[0])
