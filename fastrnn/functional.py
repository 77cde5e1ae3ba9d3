"""A whole stack of layers: directions, dropout between layers, packed sequences, half precision.

``sequence`` takes what torch's own ``_VF.lstm`` and its kin take, and returns what those return.
What no engine of ours serves, and what torch would refuse, goes to torch's function: its result or
its error is then the user's, to the letter.
"""

import warnings
from contextlib import nullcontext
from functools import cache, lru_cache, partial

import torch
from torch import _VF
from torch.nn.functional import dropout

from . import autograd, backends, heads, narrow, operators, substitute
from .kernels import autocast, projection, schedule
from .kernels.cells import CELLS
from .kernels.gate import whole
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.weights import Weights, fit, split
from .known import at_once, usual
from .tracing import constant, tracing


def sequence(name, *arguments, keep=Keep.ALL):
    """torch._VF.<name>, in both of its forms.

    (input, hx, weights, bias, layers, p, training, bidirectional, batch_first) or, for packed rows,
    (data, batch_sizes, hx, weights, bias, layers, p, training, bidirectional). ``keep``: what to
    keep for backward.
    """
    found = at_once(name, keep, *arguments) if usual() else None
    if found is None:
        found = _ours(name, arguments, keep)
    return getattr(_VF, name)(*arguments) if found is None else found


def _ours(name, arguments, keep):
    """What an engine of ours makes of the call; None where it is for torch's function."""
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
        return None
    sizes, D, traced = x.shape, 2 if bidirectional else 1, tracing(x)
    if len(sizes) != (2 if packed else 3):
        return None
    T, I = batch_sizes.shape[0] if packed else sizes[1 if batch_first else 0], sizes[-1]
    engine = backends.choose((x, *states, *weights), False, (cell, T, D), traced).name
    torch_serves = engine == "torch" or not x.numel()
    if torch_serves or len(states) != cell.states or (packed and not _counts(batch_sizes, traced)):
        return None
    if batch_first:
        x = x.transpose(0, 1)
    steps = steps_of(T, x, batch_sizes if packed else None, states, traced)
    if packed and (x.shape[0] != steps.N or not steps.falling):
        return None
    shapes = tuple([s.shape for s in states]), tuple([w.shape for w in weights])
    ask = _fit if traced else _known_to_fit
    if not ask(cell, layers, D, bias, I, steps.B, *shapes):
        return None
    directions = split(weights, layers * D)
    dtype, dtypes = autocast_dtypes(engine, name, steps, packed, x, states, directions[0])
    # the CPU engine takes a dense batch as it is; the others, and traces, its rows
    whole_batch = packed or (engine == "numba" and not traced)
    rows = x.contiguous() if whole_batch else x.reshape(-1, I)
    p = p if training else 0.0
    try:
        run = stack_on_gpu if engine == "triton" else stack
        y, finals = run(engine, cell, rows, steps, directions, states, D, p, dtype, keep)
    except Refused as refused:
        if backends.asked():
            raise
        substitute.tell(refused, cell)
        return None
    if not packed:
        y = y if y.dim() == 3 else y.view(T, steps.B, -1)
        y = y.transpose(0, 1) if batch_first else y
    if dtypes is None:
        dtype = x.dtype
        return tuple([t if t.dtype == dtype else t.to(dtype) for t in (y, *finals)])
    return tuple([t.to(d) for t, d in zip((y, *finals), dtypes, strict=True)])


def steps_of(T, x, batch_sizes, states, traced):
    """The Steps of a dense batch x, or of packed rows."""
    if not traced:
        if batch_sizes is None:
            return schedule.dense(T, x.shape[1])
        return schedule.packed(batch_sizes)
    B = x.shape[1] if batch_sizes is None else states[0].shape[1]
    for state in states:  # of packed rows, a trace does not know how many sequences they are
        torch._check(state.shape[1] == B)
    return schedule.Traced(T, B, T * B if batch_sizes is None else x.shape[0], batch_sizes)


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


_mkldnn_enabled = constant(torch._C._get_mkldnn_enabled)


def autocast_dtypes(engine, name, steps, packed, x, states, weights):
    """In what dtype to compute, and the dtypes of the output and of the final states.

    None for both without autocast: all are of x's.
    """
    if engine == "triton":  # cuDNN's, whatever dtype autocast has
        if not torch.is_autocast_enabled("cuda"):
            return None, None
        return torch.float16, (torch.float16,) * (1 + len(states))
    if not torch.is_autocast_enabled("cpu"):
        return None, None
    to, mkldnn = torch.get_autocast_dtype("cpu"), _mkldnn_enabled()
    given = tuple(t.dtype for t in (x, *states, weights.ih))
    sizes = (2, 1) if steps.N < steps.T * steps.B else (2,) if packed else ()
    return to, _of_torchs(name, sizes, weights.hr is not None, given, to, mkldnn)


@constant
@cache
def _of_torchs(name, sizes, projected, given, to, mkldnn):
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


def _fit(cell, layers, D, bias, I, B, states, weights):
    """Whether all is there and all shapes fit together; where not, torch has the words for it."""
    directions = split(weights, layers * D)
    complete = directions is not None and (directions[0].b_ih is not None) == bias
    return complete and fit(cell, D, I, B, states, directions)


_known_to_fit = lru_cache(maxsize=256)(_fit)


def stack(
    engine, cell, x, steps, directions, states, D, p, dtype, keep, inputs=None, every=False
):  # fmt: skip
    """As ``_layers``, of a cell that may have heads: narrow.py sees to them itself."""
    count, more = 1 if narrow.are_narrow(directions) else cell.heads, (p, dtype, keep)
    if count == 1 or not heads.are_apart(engine, cell, states[0].shape[2]):
        if count > 1:
            cell, directions = heads.undivided(cell, directions)
        return _layers(engine, cell, x, steps, directions, states, D, *more, inputs, every)
    directions, states, inputs = heads.apart(cell, directions, states, inputs)
    given = engine, cell, x, steps, directions, states, D * count, *more, inputs, every
    y, finals, *afters = _layers(*given)
    return y, heads.together(finals, count), *afters


def _layers(engine, cell, x, steps, directions, states, D, p, dtype, keep, inputs, every):
    """(output, final states), and, if ``every``, those after each step of the last layer.

    Layer after layer, computed in ``dtype`` (None: x's), or in what ``engine`` computes that in.

    x: (N, I); states: a (layers * D, B, H or P) tensor for each state; inputs: None, or for each
    layer what its steps are given beside x, (heads * N, number, H).
    """
    traced = isinstance(steps, schedule.Traced)
    narrowed = narrow.are_narrow(directions)  # which are computed in float32, whatever x is
    run = (narrow if narrowed else operators if traced else autograd).run_layer
    if engine == "triton" and directions[0].hr is not None:
        run = partial(projection.layer, run)
    if engine != "reference" and not narrowed:
        of_x, of_others = backends.dtypes(engine, dtype or x.dtype)
        if dtype or not of_x == of_others == x.dtype:
            x, states = _cast(x, of_x, traced), [_cast(s, of_others, traced) for s in states]
            directions = [Weights(*(_cast(w, of_others, traced) for w in ws)) for ws in directions]
            inputs = inputs and [_cast(each, of_x, traced) for each in inputs]
    if len(directions) == D and not every:
        return run(engine, cell, x, steps, directions, states, keep, *(inputs or ()))
    finals, last = [], len(directions) // D - 1
    for i, initial in enumerate(zip(*[s.split(D) for s in states], strict=True)):
        if i and p:
            x = dropout(x, p)
        mine = directions[i * D : (i + 1) * D]
        given = engine, cell, x, steps, mine, initial, keep, *(inputs or ())[i : i + 1]
        x, final, *afters = run(*given, every=True) if every and i == last else run(*given)
        finals.append(final)
    return x, tuple([torch.cat(final) for final in zip(*finals, strict=True)]), *afters


def stack_on_gpu(engine, cell, x, *rest):
    """What is cast is computed without autocast, as torch does it for cuDNN."""
    with autocast.off(x) if torch.is_autocast_enabled("cuda") else nullcontext():
        return stack(engine, cell, x, *rest)


def _cast(tensor, dtype, traced):
    """``tensor`` (or None) in ``dtype``; what is read for that passes the gate, but in a trace."""
    if tensor is None or tensor.dtype == dtype:
        return tensor
    if not traced:
        (tensor,) = whole((tensor,))
    return tensor.to(dtype)
