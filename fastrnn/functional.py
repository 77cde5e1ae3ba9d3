"""A whole stack of layers: directions, dropout between layers, packed sequences, half precision.

``sequence`` takes what torch's own ``_VF.lstm`` and its kin take, and returns what those return.
What no engine of ours serves, and what torch would refuse, goes to torch's function: its result or
its error is then the user's, to the letter.
"""

import warnings
from contextlib import nullcontext
from functools import cache, partial

import torch
from torch import _VF
from torch.nn.functional import dropout

from . import backends, operators
from .autograd import run_layer
from .kernels import autocast, projection
from .kernels import steps as layouts
from .kernels.cells import CELLS
from .kernels.gate import whole
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.weights import Weights, split
from .tracing import constant, tracing


def sequence(name, *arguments, keep=Keep.ALL):
    """torch._VF.<name>, in both of its forms.

    (input, hx, weights, bias, layers, p, training, bidirectional, batch_first) or, for packed rows,
    (data, batch_sizes, hx, weights, bias, layers, p, training, bidirectional). ``keep``: what to
    keep for backward.
    """
    packed = isinstance(arguments[3], (list, tuple))
    if packed:
        x, batch_sizes, hx, weights, bias, layers, p, training, bidirectional = arguments
        batch_first = False
    else:
        x, hx, weights, bias, layers, p, training, bidirectional, batch_first = arguments
    cell = CELLS[name]
    states = (hx,) if cell.states == 1 else hx
    flags = type(bias) is type(training) is type(bidirectional) is type(batch_first) is bool
    if not (flags and _typed(layers, p, states, x, weights)):
        return getattr(_VF, name)(*arguments)
    D = 2 if bidirectional else 1
    traced = tracing(x)
    T = batch_sizes.shape[0] if packed else x.shape[1 if batch_first else 0]
    engine = backends.choose((x, *states, *weights), False, (cell, T, D), traced).name
    directions = split(weights, layers * D)
    complete = directions is not None and (directions[0].b_ih is not None) == bias
    torch_serves = engine == "torch" or not complete or not x.numel()
    if torch_serves or len(states) != cell.states or (packed and not _counts(batch_sizes, traced)):
        return getattr(_VF, name)(*arguments)
    if packed:
        rows = x
    else:
        x = x.transpose(0, 1) if batch_first else x
        rows = x.reshape(-1, x.shape[-1])
    if traced:
        B = states[0].shape[1] if packed else x.shape[1]
        for state in states:  # of packed rows, a trace does not know how many sequences they are
            torch._check(state.shape[1] == B)
        steps = layouts.Traced(T, B, rows.shape[0], batch_sizes if packed else None)
    else:
        steps = layouts.packed(batch_sizes) if packed else layouts.dense(*x.shape[:2])
    if not _agree(cell, rows, steps, directions, states, layers, D):
        return getattr(_VF, name)(*arguments)
    dtype, dtypes = _dtypes(engine, name, steps, packed, rows, states, directions[0])
    p = p if training else 0.0
    try:
        with _cast_no_more(engine, x):
            y, finals = _stack(engine, cell, rows, steps, directions, states, D, p, dtype, keep)
    except Refused:
        if backends.asked():
            raise
        return getattr(_VF, name)(*arguments)
    if not packed:
        y = y.view(steps.T, steps.B, -1)
        y = y.transpose(0, 1) if batch_first else y
    return tuple(t.to(d) for t, d in zip((y, *finals), dtypes, strict=True))


def _typed(layers, p, states, x, weights):
    """Whether these are of the types, and the tensors of a kind, that torch's function takes."""
    if not isinstance(states, (tuple, list)) or not isinstance(p, (int, float)) or x.is_nested:
        return False
    for t in states:
        if not isinstance(t, torch.Tensor) or t.is_nested:
            return False
    for t in weights:
        if t is None or t.is_nested:
            return False
    return not isinstance(layers, bool)


def _cast_no_more(engine, x):
    """On GPU what is cast is computed without autocast, as torch does it for cuDNN."""
    if engine == "triton" and torch.is_autocast_enabled("cuda"):
        return autocast.off(x)
    return nullcontext()


_mkldnn_enabled = constant(torch._C._get_mkldnn_enabled)


def _dtypes(engine, name, steps, packed, x, states, weights):
    """In what dtype to compute, and the dtypes of the output and of the final states."""
    if engine == "triton":  # cuDNN's, whatever dtype autocast has
        dtype = torch.float16 if torch.is_autocast_enabled("cuda") else x.dtype
        return dtype, (dtype,) * (1 + len(states))
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype, (x.dtype,) * (1 + len(states))
    to, mkldnn = torch.get_autocast_dtype("cpu"), _mkldnn_enabled()
    given = tuple(t.dtype for t in (x, *states, weights.ih))
    sizes = (2, 1) if steps.N < steps.T * steps.B else (2,) if packed else ()
    return to, _autocast_dtypes(name, sizes, weights.hr is not None, given, to, mkldnn)


@constant
@cache
def _autocast_dtypes(name, sizes, projected, given, to, mkldnn):
    """The dtypes of torch's results under autocast: no rule tells them, so torch is asked.

    given: of x, the states and the weights; sizes: of packed steps. Its choice depends on these,
    and on where autocast goes ``to`` and whether oneDNN is allowed.
    """
    gates, H, S = CELLS[name].gates, 2, 1 if projected else 2
    x, *hx, weight = given
    shapes = [(gates * H, 1), (gates * H, S), (S, H)][: 3 if projected else 2]
    zeros = partial(torch.zeros, device="cpu")  # whatever torch's default device is now
    weights = [zeros(shape, dtype=weight) for shape in shapes]
    hx = [zeros(1, 2, width, dtype=d) for width, d in zip((S, H), hx, strict=False)]
    hx = hx[0] if len(hx) == 1 else hx
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        try:
            results = _probe(getattr(torch._VF, name), x, sizes, hx, weights)
        except RuntimeError:  # oneDNN has no LSTM in float16 here; for ragged ones torch has
            results = _probe(getattr(torch._VF, name), x, (2, 1), hx, weights)
    return tuple(result.dtype for result in results)


def _probe(function, dtype, sizes, hx, weights):
    """What torch's function makes of a batch of two."""
    rest = hx, weights, False, 1, 0.0, False, False
    if sizes:
        x = torch.zeros(sum(sizes), 1, dtype=dtype, device="cpu")
        return function(x, torch.tensor(sizes, device="cpu"), *rest)
    return function(torch.zeros(1, 2, 1, dtype=dtype, device="cpu"), *rest, False)


def _counts(batch_sizes, traced):
    """Whether these can be a packed sequence's sizes: what else there is, torch has words for."""
    return (
        batch_sizes.dtype == torch.int64
        and batch_sizes.dim() == 1
        and batch_sizes.layout == torch.strided
        and batch_sizes.device.type == "cpu"
        and (traced or not (batch_sizes.is_neg() or batch_sizes._is_zerotensor()))
    )


def _agree(cell, x, steps, directions, states, layers, D):
    """Whether all shapes fit together; where they do not, torch has the words for it."""
    H = directions[0].hh.shape[0] // cell.gates
    S = H if directions[0].hr is None else directions[0].hr.shape[0]
    if x.dim() != 2 or x.shape[0] != steps.N or not steps.falling:
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


def _stack(engine, cell, x, steps, directions, states, D, p, dtype, keep):
    """Layer after layer, computed in ``dtype``, or in what ``engine`` computes that in.

    x: (N, I); states: a (layers * D, B, H or P) tensor for each state.
    """
    traced = isinstance(steps, layouts.Traced)
    run = operators.run_layer if traced else run_layer
    if engine == "triton" and directions[0].hr is not None:
        run = partial(projection.layer, run)
    if engine != "reference":
        of_x, of_others = backends.dtypes(engine, dtype)
        x, states = _cast(x, of_x, traced), [_cast(s, of_others, traced) for s in states]
        directions = [Weights(*(_cast(w, of_others, traced) for w in ws)) for ws in directions]
    finals = []
    for first in range(0, len(directions), D):
        if first and p:
            x = dropout(x, p)
        mine = slice(first, first + D)
        x, final = run(
            engine, cell, x, steps, directions[mine], tuple(s[mine] for s in states), keep
        )
        finals.append(final)
    if len(finals) > 1:
        finals = [tuple(torch.cat(final) for final in zip(*finals, strict=True))]
    return x, finals[0]


def _cast(tensor, dtype, traced):
    """``tensor`` (or None) in ``dtype``; what is read for that passes the gate, but in a trace."""
    if tensor is None or tensor.dtype == dtype:
        return tensor
    if not traced:
        (tensor,) = whole((tensor,))
    return tensor.to(dtype)
