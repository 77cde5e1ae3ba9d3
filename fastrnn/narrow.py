"""Layers with weights of eight or sixteen bits: on the CPU engine, in traces, in plain PyTorch.

``run_layer`` is as autograd.run_layer. Such a layer is for inference: its backward is an error.
"""

from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import backends, flops, heads, profiling
from .batching import each_alone
from .kernels import reference, schedule
from .kernels.cells import cell_of, key_of
from .kernels.form import Form, Matrix, remembered, tensors_of
from .kernels.keep import Keep
from .kernels.weights import Weights
from .tracing import constant

NO_GRADIENT = (
    "a quantized layer is for inference and has no gradient: call it under torch.no_grad(), or "
    "train the model before fastrnn.quantize, or after fastrnn.dequantize"
)
FIELDS = 9  # tensors of a direction, as an operator takes them


def are_narrow(directions):
    """Whether these are the weights of such a layer."""
    return isinstance(directions[0].ih, Matrix)


@constant
def refuse_jit():
    """Raise RuntimeError where torch.jit.trace records."""
    if torch._C._is_tracing():
        raise RuntimeError("torch.jit.trace cannot record a quantized layer: use torch.export")


def run_layer(engine, cell, x, steps, directions, states, keep=None, inputs=None, every=False):
    """One layer, all computed in float32: (output, final states), and, if ``every``, those after
    each step. x: (T, B, I) or (N, I); keep: there is no backward.
    """
    if engine == "triton":
        raise RuntimeError("quantized layers run on a CPU: move the model, or dequantize it")
    states = list(states)
    if forward_ad._current_level >= 0:
        raise RuntimeError(NO_GRADIENT)
    if any(s.dtype != x.dtype for s in states) and not torch.is_autocast_enabled("cpu"):
        found = ", ".join(str(s.dtype) for s in states)
        raise RuntimeError(f"{cell.name}: the input is of {x.dtype}, and its states of {found}")
    if isinstance(steps, schedule.Traced):
        given = engine, key_of(cell), *directions[0].ih.form, x, steps.batch_sizes, states
        found = layer(*given, _flat(directions), inputs, every)
    else:
        run = _on_cpu if engine == "numba" and x.numel() else _by_reference
        given = cell, x.float(), steps, directions, [s.float() for s in states]
        given = *given, inputs if inputs is None else inputs.float(), every
        with torch.no_grad():
            found = profiling.layer(run, " quantized", *given)
    beside = states[0 if cell.apart else 1 :] if every else []
    dtypes = [x.dtype, *[s.dtype for s in (*states, *beside)]]
    found = [t.to(dtype) for t, dtype in zip(found, dtypes, strict=True)]
    anchors = [t for t in (x, *states, inputs) if t is not None and t.requires_grad]
    if anchors and torch.is_grad_enabled() and not isinstance(steps, schedule.Traced):
        found = Inference.apply(len(found), *found, *anchors)
    y, *rest = found
    finals, afters = tuple(rest[: cell.states]), rest[cell.states :]
    if not every:
        return y, finals
    return y, finals, (*(() if cell.apart else (y,)), *afters)


def _on_cpu(cell, x, steps, directions, states, inputs, every):
    """[output, *final states, *others after each step, if ``every``]."""
    count = cell.heads
    if count == 1:
        return _on_engine(cell, x, steps, directions, states, inputs, every)
    if not heads.are_apart("numba", cell, states[0].shape[2]):
        return _on_engine(*_undivided(cell, x, steps, directions), states, inputs, every)
    beside = [] if inputs is None else [inputs]
    directions, states, beside = heads.apart(cell, directions, states, beside)
    found = _on_engine(cell, x, steps, directions, states, beside[0] if beside else None, every)
    y, finals, afters = found[0], found[1:][: cell.states], found[1 + cell.states :]
    return [y, *heads.together(finals, count), *afters]


def _undivided(cell, x, steps, directions):
    cell, directions = heads.undivided(cell, directions)
    return cell, x, steps, directions


def _on_engine(cell, x, steps, directions, states, inputs, every):
    engine, form, S = backends.load("numba"), directions[0].ih.form, states[0].shape[2]
    ready = [panels(cell, weights, S) for weights in directions]
    keep = Keep.ALL if every else Keep.NOTHING
    given = form, cell, x, steps, ready, states, keep, inputs
    y, finals, kept = engine.ready_layer(*given)
    afters = engine.every_state_of(*given, kept) if every else ()
    return [y, *finals, *_beside(cell, *afters)]


def _beside(cell, after=None, extra=None):
    """All states after each step but the output, as rows (N, D * width)."""
    found = [after] if cell.apart and after is not None else []
    found += [] if extra is None else extra.unbind(2)
    return [torch.cat(state.unbind(), 1) for state in found]


def _by_reference(cell, x, steps, directions, states, inputs, every):
    """As ``_on_cpu``."""
    if cell.heads > 1:
        cell, x, steps, directions = _undivided(cell, x, steps, directions)
    y, finals, *afters = reference.layer(
        cell, x.flatten(0, -2), steps, directions, states, inputs, every
    )
    afters = afters[0][not cell.apart :] if every else ()
    return [y.view(*x.shape[:-1], y.shape[-1]), *finals, *afters]


def panels(cell, weights, S):
    """The weights of a direction as the CPU engine reads them: packed once, and again when one of
    them has changed.
    """
    shared = weights._replace(own=None)
    make = partial(backends.load("numba").pack, cell, shared, S)
    found = remembered(("panels", cell), weights.ih, tensors_of(shared), make)
    return found._replace(own=None if weights.own is None else weights.own.float())


class Inference(torch.autograd.Function):
    """apply(count, *results, *what they were made of) -> results, whose backward is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(count, *tensors):
        return tuple([t.view_as(t) for t in tensors[:count]])

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(NO_GRADIENT)


def _flat(directions):
    """FIELDS tensors, or None, of each direction."""
    found = []
    for ih, hh, b_ih, b_hh, hr, own in directions:
        for matrix in (ih, hh, hr):
            found += [None, None] if matrix is None else [matrix.values, matrix.scales]
        found += [b_ih, b_hh, own]
    return found


def _apart(form, flat):
    """``_flat`` undone."""

    def matrix(values, scales):
        return None if values is None else Matrix(form, values, scales)

    found = []
    for i in range(0, len(flat), FIELDS):
        *pairs, b_ih, b_hh, own = flat[i : i + FIELDS]
        ih, hh, hr = (matrix(*pairs[2 * j : 2 * j + 2]) for j in range(3))
        found.append(Weights(ih, hh, b_ih, b_hh, hr, own))
    return found


def _layer(
    engine: str,
    cell: str,
    weights: str,  # what they are of, and what they are multiplied with
    activations: str,
    x: Tensor,  # (N, I)
    batch_sizes: Tensor | None,  # (T,) if packed
    states: list[Tensor],  # (D, B, H or P) each
    tensors: list[Tensor | None],  # FIELDS of each direction
    inputs: Tensor | None = None,
    every: bool = False,
) -> list[Tensor]:
    """[output (N, D * H or P), *final states, and all states after each step but the output, if
    ``every``], in float32.
    """
    B, run = states[0].shape[1], _on_cpu if engine == "numba" else _by_reference
    if not x.numel():
        return _shapes(engine, cell, weights, activations, x, None, states, tensors, inputs, every)
    packed = batch_sizes is not None
    steps = schedule.packed(batch_sizes) if packed else schedule.dense(x.shape[0] // B, B)
    if not (steps.falling and x.shape[0] == steps.N and steps.B == B):
        raise RuntimeError(f"batch_sizes do not fall from {B}, or do not add up to {len(x)} rows")
    directions = _apart(Form(weights, activations), tensors)
    states, inputs = [s.float() for s in states], inputs if inputs is None else inputs.float()
    found = run(cell_of(cell), x.float(), steps, directions, states, inputs, every)
    return [t.clone() for t in found]


def _shapes(
    engine, cell, weights, activations, x, batch_sizes, states, tensors, inputs=None, every=False
):  # fmt: skip
    N, (D, _, S), rule = x.shape[0], states[0].shape, cell_of(cell)
    beside = states[not rule.apart :] if every else ()
    sizes = [(N, D * S), *[s.shape for s in states], *[(N, D * s.shape[2]) for s in beside]]
    return [x.new_empty(size, dtype=torch.float32) for size in sizes]


def _refuse(ctx, grads):
    raise RuntimeError(NO_GRADIENT)


layer = torch.library.custom_op("fastrnn::quantized_layer", _layer, mutates_args=())
layer.register_fake(_shapes)
layer.register_autograd(_refuse, setup_context=lambda ctx, inputs, output: None)
each_alone(layer)
flops.count_quantized(torch.ops.fastrnn.quantized_layer, FIELDS)
