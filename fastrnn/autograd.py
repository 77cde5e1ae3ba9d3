"""One autograd function for every cell and every engine that has a hand-written backward."""

import torch

from . import backends, profiling
from .kernels import autocast, reference
from .kernels.keep import Keep
from .kernels.untraced import untraced
from .kernels.weights import Weights
from .tracing import plain

LEADING = 4  # arguments of Layer that are no tensors


def run_layer(engine, cell, x, steps, directions, states, keep=Keep.ALL):
    """One layer on the engine of that name, shapes as in its module: (output, final states).

    keep: how much of it to keep for backward, where there will be one.
    """
    if engine == "reference":
        return profiling.layer(reference.layer, "", cell, x, steps, directions, states)
    if torch.is_grad_enabled():
        tensors = sum(directions, (x, *states))
        for t in tensors:
            if t is not None and t.requires_grad:
                y, *finals = Layer.apply(engine, cell, steps, keep, *tensors)
                return y, finals
    given = cell, x, steps, directions, states, Keep.NOTHING
    y, finals, _ = profiling.layer(backends.load(engine).layer, "", *given)
    return y, finals


def _unflatten(cell, tensors):
    """(x, states, a Weights for each direction) from the flat arguments of ``Layer``."""
    x, *rest = tensors
    states, flat = rest[: cell.states], rest[cell.states :]
    fields = len(Weights._fields)
    return x, states, [Weights(*flat[i : i + fields]) for i in range(0, len(flat), fields)]


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
    """apply(engine, cell, steps, keep, x, *states, *weights) -> (output, *final states)."""

    @staticmethod
    @untraced
    def forward(ctx, engine, cell, steps, keep, *tensors):
        x, states, directions = _unflatten(cell, tensors)
        given = cell, x, steps, directions, states, keep
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
        inputs, kept = tensors[: ctx.count], tensors[ctx.count :]
        needed = ctx.needs_input_grad[LEADING:]
        x, states, directions = _unflatten(cell, inputs)
        # create_graph asks for a backward that can be differentiated; other gradients, as vmap's
        # and subclasses', know only torch's operations
        if torch.is_grad_enabled() or not plain(grads):
            grads = materialized(grads, x, states)

            def again(*tensors):
                x, states, directions = _unflatten(cell, tensors)
                return layer_by_reference(cell, x, ctx.steps, directions, states)

            return *[None] * LEADING, *differentiable(again, inputs, needed, grads)
        if torch._C._len_torch_dispatch_stack():
            grads = materialized(grads, x, states)
            return *[None] * LEADING, *_watched(ctx, inputs, kept, grads, needed)
        if ctx.engine != "numba":  # which makes its own zeros
            grads = materialized(grads, x, states)
        _, _, need_weights = _unflatten(cell, needed)
        given = cell, x, ctx.steps, directions, states, ctx.keep, kept, grads
        dx, dstates, dweights, _ = profiling.layer(
            backends.load(ctx.engine).gradients, " backward", *given, needed[0], need_weights
        )
        flat = sum(dweights, (dx, *dstates))
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


def _watched(ctx, inputs, kept, grads, needed):
    """The gradients by the operator of operators.py, which is what a dispatch mode can see."""
    cell, steps = ctx.cell, ctx.steps
    given = [t for t in inputs if t is not None]
    x, states, weights = given[0], given[1 : 1 + cell.states], given[1 + cell.states :]
    there = [n for t, n in zip(inputs, needed, strict=True) if t is not None]
    operators, sizes = torch.ops.fastrnn, None if steps.dense else steps.batch_sizes
    run = operators.layer_gradients if steps.dense else operators.layer_packed_gradients
    rest = sizes, states, weights, kept, [grads[0].flatten(0, -2), *grads[1:]], there
    found = iter(run(ctx.engine, cell.name, int(ctx.keep), x.flatten(0, -2), *rest))
    found = [next(found) if n else None for n in needed]
    return [found[0].view_as(x) if needed[0] else None, *found[1:]]


def layer_by_reference(cell, x, steps, directions, states):
    """(output, *final states), as an engine of ours computes them, in plain PyTorch."""
    rows = x.reshape(-1, x.shape[-1]).to(states[0].dtype)
    y, finals = reference.layer(cell, rows, steps, directions, states)
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
