"""The operators that a trace records: a layer and its gradients, of any cell on any engine.

Only traces pass here (``tracing.tracing``): to an eager call an operator would add a hundred
microseconds. An operator is a layer, not a stack of them: so dropout between layers stays a random
operation of the trace's own, and a layer is what other formats have a node for.
"""

from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from . import backends, flops, onnx, profiling
from .autograd import differentiable, layer_by_reference, materialized, save, saved
from .kernels import reference
from .kernels import steps as layouts
from .kernels.cells import CELLS
from .kernels.gate import misfit
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.weights import Weights, expected, split


def run_layer(engine, cell, x, steps, directions, states, keep=Keep.ALL):
    """As autograd.run_layer, for a trace: ``steps`` are layouts.Traced."""
    if torch.onnx.is_in_onnx_export() and onnx.has_node(steps, directions):
        return onnx.layer(cell, x, steps, directions, states)
    if engine == "reference" or torch.onnx.is_in_onnx_export():
        return reference.layer(cell, x, steps, directions, states)
    weights = [w for each in directions for w in each if w is not None]
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    # an exported program is mostly for inference; what is not kept, backward computes anew
    keeps = trained and keep == Keep.ALL and engine in KEPT and not torch.compiler.is_exporting()
    keep = Keep.ALL if keeps else Keep.NOTHING
    operator = layer if steps.dense else layer_packed
    given = engine, cell.name, int(keep), x, steps.batch_sizes, list(states), weights
    y, *rest = operator(*given)
    return y, tuple(rest[: len(states)])


def _layer(
    engine: str,
    cell: str,
    keep: int,
    x: Tensor,  # (N, I)
    batch_sizes: Tensor | None,  # (T,) if packed
    states: list[Tensor],  # (D, B, H or P) each
    weights: list[Tensor],  # of direction after direction, those that are there
) -> list[Tensor]:
    """[output (N, D * H or P), *final states, *what backward wants to see again].

    Of packed rows their batch_sizes are the last of it.
    """
    steps, directions = _steps(x, batch_sizes, states), _directions(states, weights)
    run = _load(engine, x)
    _check(engine, CELLS[cell], x, states, directions)
    given = CELLS[cell], x, steps, directions, states, Keep(keep)
    y, finals, kept = profiling.layer(run.layer, "", *given)
    return [y, *finals, *kept, *_copied(batch_sizes)]


def _layer_shapes(engine, cell, keep, x, batch_sizes, states, weights):
    D, _, S = states[0].shape
    kept = KEPT[engine](CELLS[cell], x, _directions(states, weights), states) if keep else []
    results = [x.new_empty(x.shape[0], D * S), *(s.new_empty(s.shape) for s in states)]
    return [*results, *kept, *_copied(batch_sizes)]


def _copied(batch_sizes):
    """Backward's own, if there are any: whose they are may use them again."""
    return [] if batch_sizes is None else [batch_sizes.clone()]


def _gradients(
    engine: str,
    cell: str,
    keep: int,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    kept: list[Tensor],
    grads: list[Tensor],  # of the output and the final states
    needed: list[bool],  # for x, each of the states and each of the weights
) -> list[Tensor]:
    """The gradients that are needed, in that order."""
    steps, directions = _steps(x, batch_sizes, states), _directions(states, weights)
    run, rule = _load(engine, x), CELLS[cell]
    if not keep:
        keep = Keep.ALL
        given = rule, x, steps, directions, states, keep
        _, _, kept = profiling.layer(run.layer, " again", *given)
    need_weights = _directions(states, needed[1 + len(states) :])
    given = rule, x, steps, directions, states, Keep(keep), kept, grads, needed[0], need_weights
    dx, dstates, dweights, _ = profiling.layer(run.gradients, " backward", *given)
    found = [dx if needed[0] else None, *map(_own, dstates)]
    for each, theirs in zip(need_weights, dweights, strict=True):
        present = [g for g, need in zip(theirs, each, strict=True) if need is not None]
        found += [_own(g) if g is not None and g.dim() == 1 else g for g in present]
    return [g for g, need in zip(found, needed, strict=True) if need]


def _load(engine, x):
    """The engine's module, if x is where it works: a program may have been moved."""
    if engine == "numba" and x.device.type != "cpu":
        raise Refused(engine, f"the program was made for CPU: make it on {x.device.type}")
    return backends.load(engine)


def _check(engine, cell, x, states, directions):
    """Raise RuntimeError unless all fits together: a program may be given anything."""
    (D, B, _), (of_x, of_others) = states[0].shape, backends.dtypes(engine, x.dtype)
    shapes = [Weights(*(w if w is None else w.shape for w in each)) for each in directions]
    ends, sizes = expected(cell, D, x.shape[1], B, shapes)
    tensors = sum(directions, (x, *states))
    shapes, dtypes = sum(sizes, (x.shape, *ends)), [of_x] + [of_others] * (len(tensors) - 1)
    for tensor, shape, dtype in zip(tensors, shapes, dtypes, strict=True):
        fits = tensor is None or (tensor.shape == shape and tensor.dtype == dtype)
        if not (fits and (tensor is None or tensor.device == x.device)):
            raise misfit(tensor, shape, dtype, x.device)


def _own(tensor):
    """A copy: a result of an operator shares no memory with another."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _gradients_shapes(engine, cell, keep, x, batch_sizes, states, weights, kept, grads, needed):
    pairs = zip((x, *states, *weights), needed, strict=True)
    return [t.new_empty(t.shape) for t, need in pairs if need]


def _remember(ctx, inputs, output):
    ctx.engine, ctx.cell, ctx.keep, x, batch_sizes, states, weights = inputs
    kept = output[1 + len(states) :]
    if batch_sizes is not None:
        *kept, batch_sizes = kept
    ctx.counts = len(states), len(weights)
    ctx.mark_non_differentiable(*output[1 + len(states) :])
    ctx.set_materialize_grads(False)
    save(ctx, x, batch_sizes, *states, *weights, *kept)


def _backward(gradients, ctx, grads):
    x, batch_sizes, *rest = saved(ctx)
    count, weighing = ctx.counts
    states, weights, kept = rest[:count], rest[count:][:weighing], rest[count + weighing :]
    _, _, _, need_x, _, need_states, need_weights = ctx.needs_input_grad
    needed = [need_x, *need_states, *need_weights]
    grads = materialized(grads[: 1 + count], x, states)
    tensors = [x, *states, *weights]
    if torch.is_grad_enabled():  # create_graph
        steps = _steps(x, batch_sizes, states)

        def again(x, *rest):
            states, weights = rest[:count], rest[count:]
            directions = _directions(states, weights)
            return layer_by_reference(CELLS[ctx.cell], x, steps, directions, states)

        found = differentiable(again, tensors, needed, grads)
    else:
        given = (ctx.engine, ctx.cell, ctx.keep, x, batch_sizes, states, weights, kept, grads)
        computed = iter(gradients(*given, needed))
        found = [next(computed) if need else None for need in needed]
    return None, None, None, found[0], None, found[1 : 1 + count], found[1 + count :]


def _each_alone(operator):
    """The vmap rule: one call for each member of the batch."""

    def rule(info, in_dims, *arguments):
        def member(i):
            return lambda t, dim: t if dim is None else t.select(dim, i)

        results = [
            operator(*(tree_map(member(i), a, d) for a, d in zip(arguments, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        stacked = [torch.stack(members) for members in zip(*results, strict=True)]
        return stacked, [0] * len(stacked)

    operator.register_vmap(rule)


def _operators(name, tags=()):
    """The operator of a layer, and that of its gradients."""
    forward, backward = (
        torch.library.custom_op(f"fastrnn::{full}", function, mutates_args=(), tags=tags)
        for full, function in ((name, _layer), (f"{name}_gradients", _gradients))
    )
    forward.register_fake(_layer_shapes)
    backward.register_fake(_gradients_shapes)
    forward.register_autograd(partial(_backward, backward), setup_context=_remember)
    _each_alone(forward)
    _each_alone(backward)
    return forward, backward


def _steps(x, batch_sizes, states):
    """The Steps of the rows of ``x``."""
    (N, _), (_, B, _) = x.shape, states[0].shape
    if batch_sizes is None:
        return layouts.dense(N // B, B)
    steps = layouts.packed(batch_sizes)
    if not steps.falling or (steps.N, steps.B) != (N, B):
        raise RuntimeError(f"batch_sizes do not fall from {B}, or do not add up to {N} rows")
    return steps


def _directions(states, flat):
    """A Weights for each direction, from the tensors (or what belongs to each) that are there."""
    return split(flat, states[0].shape[0])


def _kept_by_numba(cell, x, directions, states):
    """As kernels/cpu/calls.py allocates them."""
    from .kernels.cpu.layouts import Shape

    steps = layouts.Traced(None, states[0].shape[1], x.shape[0])
    shape = Shape.of(cell, x, steps, directions, states)
    return [x.new_empty(size, dtype=dtype) for size, dtype in shape.kept(cell, steps.N).values()]


def _kept_by_triton(cell, x, directions, states):
    """As kernels/gpu/buffers.py allocates them."""
    from .kernels.gpu.buffers import Shape

    steps = layouts.Traced(None, states[0].shape[1], x.shape[0])
    parts = Shape.of(cell, x, steps, directions).parts(cell, Keep.ALL)
    return [x.new_empty(sizes, dtype=dtype) for sizes, dtype, kept in parts if kept]


# For each engine: empty tensors as it keeps them for backward (Keep.ALL).
KEPT = {"numba": _kept_by_numba, "triton": _kept_by_triton}


layer, layer_gradients = _operators("layer")
# A CUDA graph would go on with the sizes that it was made with, which are read on the host.
layer_packed, layer_packed_gradients = _operators("layer_packed", [torch.Tag.cudagraph_unsafe])

flops.count(
    [torch.ops.fastrnn.layer, torch.ops.fastrnn.layer_packed],
    [torch.ops.fastrnn.layer_gradients, torch.ops.fastrnn.layer_packed_gradients],
)
