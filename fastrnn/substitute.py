"""Who serves where an engine of ours cannot: torch's own function, or plain PyTorch."""

import warnings

import torch
from torch import _VF

from . import backends
from .kernels import autocast, reference
from .kernels.cells import CELLS
from .kernels.refused import Failed, Refused

_told = set()
_fixed = {}  # of recorded layers that are trained, for each size: whether their engine serves


def tell(refused, cell):
    """Warn, once, of a kernel that failed, and say who serves from now on.

    Of a layer that does not fit a GPU there is nothing to tell: that is what explain is for.
    """
    if isinstance(refused, Failed) and refused.args not in _told:
        _told.add(refused.args)
        who = "torch's own kernels serve"
        if not _torchs(cell):
            who = "plain PyTorch, step by step, serves"
        warnings.warn(
            f"fastrnn: {refused.args[1]}. From now on {who} such layers",
            RuntimeWarning,
            stacklevel=2,
        )


def _torchs(cell):
    return CELLS.get(cell.name) is cell


def forward(call, keep, tensors, words=""):
    """Call.forward of a recorded layer; on a GPU, whoever is faster, and can.

    T and B, that the trace may have left open, are known only here. What is kept is laid down in
    the graph: where others serve, nobody reads it, and backward begins anew (``reads``).
    """
    if call.engine != "triton" or backends.asked():
        return call.forward(keep, tensors, None, words)
    try:
        if _faster(call, keep, tensors):
            return call.forward(keep, tensors, None, words)
    except Refused as refused:
        tell(refused, call.cell)
    x, states, directions, inputs = call.apart(tensors)
    y, *finals = layer(call.cell, x, call.steps, directions, states, inputs, call.every)
    if not keep:
        return y, finals, ()
    sizes = backends.load(call.engine).kept_sizes(call.cell, x, call.steps, directions, states)
    return y, finals, [x.new_full(size, torch.nan, dtype=dtype) for size, dtype in sizes]


def _faster(call, keep, tensors):
    """Whether the GPU engine is to be chosen, now that all sizes are known. Where that is trained,
    the first answer stays, so that backward has the same one, whatever a flag says by then.
    """
    place = _place(call, tensors)
    if keep and place in _fixed:
        return _fixed[place]
    with autocast.off(tensors[0]):
        layer = call.cell, call.steps.T, call.D, not call.steps.dense, bool(keep)
        found = backends.choose(tensors, False, layer, False).name == call.engine
    return _fixed.setdefault(place, found) if keep else found


def reads(call, tensors):
    """Whether backward of a recorded layer reads what forward has kept: unless others have served
    such a layer, which keep nothing.
    """
    return call.engine != "triton" or _fixed.get(_place(call, tensors), True)


def _place(call, tensors):
    x, state, steps = tensors[0], tensors[call.cell.states], call.steps
    return call.cell, x.dtype, x.device, state.shape, steps.T, steps.dense


def layer(cell, x, steps, directions, states, inputs=None, every=False):
    """The results of a Call of one layer: torch's, where it has such a cell.

    In a mode with gradients autograd can follow it, once in torch's case.
    """
    with autocast.off(x):
        if every or not _torchs(cell):
            return layer_by_reference(cell, x, steps, directions, states, inputs, every)
        hx = tuple(states) if cell.states > 1 else states[0]
        weights = [w for each in directions for w in each if w is not None]
        options = directions[0].b_ih is not None, 1, 0.0, torch.is_grad_enabled()
        given, both = (hx, weights, *options), len(directions) == 2
        rows, run = x.reshape(-1, x.shape[-1]), getattr(_VF, cell.name)
        if steps.dense:
            y, *finals = run(rows.view(steps.T, steps.B, -1), *given, both, False)
        else:
            y, *finals = run(rows, steps.batch_sizes, *given, both)
        return y.reshape(*x.shape[:-1], -1).contiguous(), *[s.contiguous() for s in finals]


def layer_by_reference(cell, x, steps, directions, states, inputs=None, every=False):
    """The results of a Call, as an engine of ours computes them, in plain PyTorch."""
    rows, dtype = x.reshape(-1, x.shape[-1]), states[0].dtype
    inputs = inputs if inputs is None else inputs.to(dtype)
    given = cell, rows.to(dtype), steps, directions, states, inputs, every
    y, finals, *afters = reference.layer(*given)
    afters = afters[0][0 if cell.apart else 1 :] if every else ()
    return y.to(x.dtype).view(*x.shape[:-1], -1), *finals, *afters


def layers_by_reference(cell, x, steps, directions, states, inputs, layers, every=False):
    """As ``layer_by_reference``, of several layers."""
    if layers == 1:
        return layer_by_reference(cell, x, steps, directions, states, inputs, every)
    each, found = len(directions) // layers, []
    for i in range(0, len(directions), each):
        mine = slice(i, i + each)
        initial = [s[mine] for s in states]
        x, *final = layer_by_reference(cell, x, steps, directions[mine], initial, inputs)
        found.append(final)
    return x, *map(torch.cat, zip(*found, strict=True))


def differentiable(function, inputs, needed, grads):
    """The gradients of function(*inputs), plain PyTorch, in a way that autograd can follow.

    ``grads``: those of its outputs, None for an output that is None.
    """
    differentiable = torch.is_grad_enabled()
    grads = [g for g in grads if g is not None]
    with torch.enable_grad(), autocast.off(inputs[0]):
        # views, so that a tensor that serves twice (tied weights) has a gradient for each place
        aliases = [t.view_as(t) if n else t for t, n in zip(inputs, needed, strict=True)]
        outputs = [y for y in function(*aliases) if y is not None]
        wanted = [t for t, n in zip(aliases, needed, strict=True) if n]
        found = torch.autograd.grad(
            outputs, wanted, grads, create_graph=differentiable, allow_unused=True
        )
    found = iter(found)
    return [next(found) if n else None for n in needed]
