"""One autograd function for every cell and every engine that has a hand-written backward."""

import torch

from . import backends, profiling
from .kernels import autocast, reference
from .kernels.cells import key_of
from .kernels.keep import Keep
from .kernels.untraced import untraced
from .kernels.weights import Weights
from .tracing import plain

LEADING = 4  # arguments of Layer that are no tensors


def run_layer(engine, cell, x, steps, directions, states, keep=Keep.ALL, inputs=None):
    """One layer on the engine of that name, shapes as in its module: (output, final states).

    keep: how much of it to keep for backward, where there will be one.
    """
    if engine == "reference":
        return profiling.layer(reference.layer, "", cell, x, steps, directions, states, inputs)
    if torch.is_grad_enabled():
        tensors = (*sum(directions, (x, *states)), inputs)
        for t in tensors:
            if t is not None and t.requires_grad:
                y, *finals = Layer.apply(engine, cell, steps, keep, *tensors)
                return y, finals
    given = cell, x, steps, directions, states, Keep.NOTHING, inputs
    y, finals, _ = profiling.layer(backends.load(engine).layer, "", *given)
    return y, finals


def _unflatten(cell, tensors):
    """(x, states, a Weights for each direction, inputs) from the flat arguments of ``Layer``."""
    x, *rest, inputs = tensors
    states, flat = rest[: cell.states], rest[cell.states :]
    fields = len(Weights._fields)
    directions = [Weights(*flat[i : i + fields]) for i in range(0, len(flat), fields)]
    return x, states, directions, inputs


def save(ctx, *tensors):
    """ctx.save_for_backward, but for None: who looks at what is saved expects tensors."""
    ctx.absent = [i for i, t in enumerate(tensors) if t is None]
    ctx.save_for_backward(*[t for t in tensors if t is not None] if ctx.absent else tensors)


def saved(ctx):
    """What was given to ``save``, as a list."""
    tensors = list(ctx.saved_tensors)
    for i in ctx.absent:
        tensors.insert(i, None)
    return tensors


class Layer(torch.autograd.Function):
    """apply(engine, cell, steps, keep, x, *states, *weights, inputs) -> (output, *final states)."""

    @staticmethod
    @untraced
    def forward(ctx, engine, cell, steps, keep, *tensors):
        x, states, directions, inputs = _unflatten(cell, tensors)
        given = cell, x, steps, directions, states, keep, inputs
        y, finals, kept = profiling.layer(backends.load(engine).layer, "", *given)
        ctx.engine, ctx.cell, ctx.steps, ctx.keep = engine, cell, steps, keep
        ctx.count = len(tensors)
        ctx.set_materialize_grads(False)
        save(ctx, *tensors, *kept)
        return y, *finals

    @staticmethod
    @untraced
    def backward(ctx, *grads):
        cell = ctx.cell
        tensors = saved(ctx)
        given, kept = tensors[: ctx.count], tensors[ctx.count :]
        needed = ctx.needs_input_grad[LEADING:]
        x, states, directions, inputs = _unflatten(cell, given)
        # create_graph asks for a backward that can be differentiated; other gradients, as vmap's
        # and subclasses', know only torch's operations
        if torch.is_grad_enabled() or not plain(grads):
            grads = materialized(grads, x, states)

            def again(*tensors):
                x, states, directions, inputs = _unflatten(cell, tensors)
                return layer_by_reference(cell, x, ctx.steps, directions, states, inputs)

            return *[None] * LEADING, *differentiable(again, given, needed, grads)
        if torch._C._len_torch_dispatch_stack():
            grads = materialized(grads, x, states)
            return *[None] * LEADING, *_watched(ctx, given, kept, grads, needed)
        if ctx.engine != "numba":  # which makes its own zeros
            grads = materialized(grads, x, states)
        _, _, need_weights, need_inputs = _unflatten(cell, needed)
        given = cell, x, ctx.steps, directions, states, ctx.keep, kept, grads, needed[0]
        dx, dstates, dweights, dinputs = profiling.layer(
            backends.load(ctx.engine).gradients,
            " backward",
            *given,
            need_weights,
            inputs,
            need_inputs,
        )
        flat = (*sum(dweights, (dx, *dstates)), dinputs)
        found = [g if n else None for g, n in zip(flat, needed, strict=True)]
        return *[None] * LEADING, *found


def materialized(grads, x, states):
    """The gradients of the output and of the final states, with zeros for None: x's dtype for the
    first of them, and the states' for others.
    """
    D, _, S = states[0].shape
    results = [(x, (*x.shape[:-1], D * S)), *((s, s.shape) for s in states)]
    return [
        like.new_zeros(shape) if g is None else g
        for g, (like, shape) in zip(grads, results, strict=True)
    ]


def _watched(ctx, given, kept, grads, needed):
    """The gradients by the operator of operators.py, which is what a dispatch mode can see."""
    cell, steps = ctx.cell, ctx.steps
    *given, inputs = given
    flat = [t for t in given if t is not None]
    x, states, weights = flat[0], flat[1 : 1 + cell.states], flat[1 + cell.states :]
    there = [n for t, n in zip((*given, inputs), needed, strict=True) if t is not None]
    operators, sizes = torch.ops.fastrnn, None if steps.dense else steps.batch_sizes
    run = operators.layer_gradients if steps.dense else operators.layer_packed_gradients
    rest = sizes, states, weights, kept, [grads[0].flatten(0, -2), *grads[1:]], there, inputs
    found = iter(run(ctx.engine, key_of(cell), int(ctx.keep), x.flatten(0, -2), *rest))
    found = [next(found) if n else None for n in needed]
    return [found[0].view_as(x) if needed[0] else None, *found[1:]]


def layer_by_reference(cell, x, steps, directions, states, inputs=None):
    """(output, *final states), as an engine of ours computes them, in plain PyTorch."""
    rows, dtype = x.reshape(-1, x.shape[-1]), states[0].dtype
    inputs = inputs if inputs is None else inputs.to(dtype)
    y, finals = reference.layer(cell, rows.to(dtype), steps, directions, states, inputs)
    return y.to(x.dtype).view(*x.shape[:-1], -1), *finals


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
