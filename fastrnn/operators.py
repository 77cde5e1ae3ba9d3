"""The operators that a trace records: a layer and its gradients, of any cell on any engine.

Only traces pass here (``tracing.tracing``): to an eager call an operator would add a hundred
microseconds. An operator is a layer, not a stack of them: so dropout between layers stays a random
operation of the trace's own, and a layer is what other formats have a node for.
"""

from functools import partial

import torch
from torch import Tensor

from . import backends, flops, onnx, shapes, substitute
from .autograd import Call, materialized, save, saved
from .batching import each_alone
from .kernels import reference, schedule
from .kernels.cells import cell_of, key_of
from .kernels.gate import misfit
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.weights import Weights, expected, split
from .tracing import constant


@constant
def for_onnx():
    """Whether torch.onnx.export records."""
    return torch.onnx.is_in_onnx_export()


def run_layer(
    engine, cell, x, steps, directions, states, keep=Keep.ALL, inputs=None, every=False
):  # fmt: skip
    """As autograd.run_layer, for a trace: ``steps`` are schedule.Traced."""
    if for_onnx():
        if onnx.has_node(cell, steps, directions) and not every:
            return onnx.layer(cell, x, steps, directions, states)
        onnx.check(cell, steps)
        engine = "reference"
    if engine == "reference":
        return reference.layer(cell, x, steps, directions, states, inputs, every)
    weights = [w for each in directions for w in each if w is not None]
    trained = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, inputs, *states, *weights)
    )
    # an exported program is mostly for inference; what is not kept, backward computes anew
    keeps = trained and keep == Keep.ALL and not torch.compiler.is_exporting()
    keep = Keep.ALL if keeps else Keep.NOTHING
    operator = layer if steps.dense else layer_packed
    given = engine, key_of(cell), int(keep), x, steps.batch_sizes, list(states), weights, inputs
    y, *rest = operator(*given, every)
    finals = tuple(rest[: len(states)])
    if not every:
        return y, finals
    first = () if cell.apart else (y,)
    return y, finals, (*first, *rest[len(states) :][: shapes.more(cell, every)])


def _layer(
    engine: str,
    cell: str,
    keep: int,
    x: Tensor,  # (N, I)
    batch_sizes: Tensor | None,  # (T,) if packed
    states: list[Tensor],  # (D, B, H or P) each
    weights: list[Tensor],  # of direction after direction, those that are there
    inputs: Tensor | None = None,  # (heads * N, number, H)
    every: bool = False,
) -> list[Tensor]:
    """[output (N, D * H or P), *final states, *what backward wants to see again].

    every: whether, behind the final states, all states after each step are results, too, but for
    the output. Of packed rows their batch_sizes are the last of it.
    """
    call, tensors = _call(engine, cell, x, batch_sizes, states, weights, inputs, every)
    _check(engine, call.cell, *call.apart(tensors))
    y, finals, kept = substitute.forward(call, Keep(keep), tensors)
    return [y, *finals, *(kept if keep else ()), *shapes.copied(batch_sizes)]


def _call(engine, cell, x, batch_sizes, states, weights, inputs, every):
    """The Call of these, and its tensors."""
    _load(engine, x)
    call = Call(engine, cell_of(cell), _steps(x, batch_sizes, states), states[0].shape[0], every)
    return call, [x, *states, *weights, *[inputs] * (inputs is not None)]


def _gradients(
    engine: str,
    cell: str,
    keep: int,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    kept: list[Tensor],
    grads: list[Tensor],  # of the results of _layer
    needed: list[bool],  # for x, each of the states, each of the weights, and the inputs if any
    inputs: Tensor | None = None,
    every: bool = False,
) -> list[Tensor]:
    """The gradients that are needed, in that order."""
    call, tensors = _call(engine, cell, x, batch_sizes, states, weights, inputs, every)
    if not keep:
        keep = Keep.ALL
        _, _, kept = substitute.forward(call, keep, tensors, " again")
    if substitute.reads(call, tensors):
        found = call.backward(Keep(keep), tensors, kept, grads, needed)
    else:
        found = call.in_its_place(tensors, needed, grads)
    states_end = 1 + len(states)
    return [
        _own(g) if 0 < i < states_end or g.dim() == 1 else g
        for i, (g, need) in enumerate(zip(found, needed, strict=True))
        if need
    ]


def _load(engine, x):
    """The engine's module, if x is where it works: a program may have been moved."""
    if engine == "numba" and x.device.type != "cpu":
        raise Refused(engine, f"the program was made for CPU: make it on {x.device.type}")
    return backends.load(engine)


def _check(engine, cell, x, states, directions, inputs):
    """Raise RuntimeError unless all fits together: a program may be given anything."""
    (D, B, _), (of_x, of_others) = states[0].shape, backends.dtypes(engine, x.dtype)
    shapes = [Weights(*(w if w is None else w.shape for w in each)) for each in directions]
    ends, sizes = expected(cell, D, x.shape[1], B, shapes)
    tensors = sum(directions, (x, *states))
    shapes, dtypes = sum(sizes, (x.shape, *ends)), [of_x] + [of_others] * (len(tensors) - 1)
    if inputs is not None:
        tensors, dtypes = (*tensors, inputs), [*dtypes, of_x]
        shapes = (*shapes, (cell.heads * x.shape[0], cell.inputs, sizes[0].ih[0] // cell.gates))
    for tensor, shape, dtype in zip(tensors, shapes, dtypes, strict=True):
        fits = tensor is None or (tensor.shape == shape and tensor.dtype == dtype)
        if not (fits and (tensor is None or tensor.device == x.device)):
            raise misfit(tensor, shape, dtype, x.device)


def _own(tensor):
    """A copy: a result of an operator shares no memory with another."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _remember(ctx, inputs, output):
    ctx.engine, ctx.cell, ctx.keep, x, batch_sizes, states, weights, beside, ctx.every = inputs
    results = 1 + len(states) + shapes.more(cell_of(ctx.cell), ctx.every)
    kept = output[results:]
    if batch_sizes is not None:
        *kept, batch_sizes = kept
    ctx.counts = len(states), len(weights)
    ctx.mark_non_differentiable(*output[results:])
    ctx.set_materialize_grads(False)
    save(ctx, x, batch_sizes, beside, *states, *weights, *kept)


def _backward(gradients, ctx, grads):
    x, batch_sizes, inputs, *rest = saved(ctx)
    count, weighing = ctx.counts
    states, weights, kept = rest[:count], rest[count:][:weighing], rest[count + weighing :]
    # what is None, as inputs may be, a dispatcher leaves out at the end
    _, _, _, need_x, _, need_states, need_weights, *rest_needed = ctx.needs_input_grad
    need_inputs = rest_needed[:1] if inputs is not None else []
    needed, tensors = [need_x, *need_states, *need_weights], [x, *states, *weights]
    if inputs is not None:
        needed, tensors = [*needed, *need_inputs], [*tensors, inputs]
    grads = materialized(grads[: 1 + count + shapes.more(cell_of(ctx.cell), ctx.every)], x, states)
    if torch.is_grad_enabled():  # create_graph
        steps, cell = _steps(x, batch_sizes, states), cell_of(ctx.cell)

        def again(x, *rest):
            states, weights, more = rest[:count], rest[count:][:weighing], rest[count + weighing :]
            directions = _directions(cell, states, weights)
            given = cell, x, steps, directions, states, *(more or [None]), ctx.every
            return substitute.layer_by_reference(*given)

        found = substitute.differentiable(again, tensors, needed, grads)
    else:
        given = (ctx.engine, ctx.cell, ctx.keep, x, batch_sizes, states, weights, kept, grads)
        computed = iter(gradients(*given, needed, inputs, ctx.every))
        found = [next(computed) if need else None for need in needed]
    dx, *found = found
    dinputs = None if inputs is None else found.pop()
    rest = [dinputs, None][: len(rest_needed)]
    return None, None, None, dx, None, found[:count], found[count:], *rest


def _operators(name, tags=()):
    """The operator of a layer, and that of its gradients."""
    forward, backward = (
        torch.library.custom_op(f"fastrnn::{full}", function, mutates_args=(), tags=tags)
        for full, function in ((name, _layer), (f"{name}_gradients", _gradients))
    )
    forward.register_fake(shapes.of_layer)
    backward.register_fake(shapes.of_gradients)
    forward.register_autograd(partial(_backward, backward), setup_context=_remember)
    each_alone(forward)
    each_alone(backward)
    return forward, backward


def _steps(x, batch_sizes, states):
    """The Steps of the rows of ``x``."""
    (N, _), (_, B, _) = x.shape, states[0].shape
    if batch_sizes is None:
        return schedule.dense(N // B, B)
    steps = schedule.packed(batch_sizes)
    if not steps.falling or (steps.N, steps.B) != (N, B):
        raise RuntimeError(f"batch_sizes do not fall from {B}, or do not add up to {N} rows")
    return steps


def _directions(cell, states, flat):
    """A Weights for each direction, from the tensors (or what belongs to each) that are there."""
    return split(flat, states[0].shape[0], cell)


layer, layer_gradients = _operators("layer")
# A CUDA graph would go on with the sizes that it was made with, which are read on the host.
layer_packed, layer_packed_gradients = _operators("layer_packed", [torch.Tag.cudagraph_unsafe])

flops.count(
    [torch.ops.fastrnn.layer, torch.ops.fastrnn.layer_packed],
    [torch.ops.fastrnn.layer_gradients, torch.ops.fastrnn.layer_packed_gradients],
)
