"""Calls that are known: of a dense batch on the CPU, where only the numbers are new.

A call of one step takes microseconds, so it must ask few questions. What follows from its sizes and
options is found once, and remembered; what is asked each time is whether something watches or
changes what torch computes, what kind of tensors these are, and where their numbers lie. A stack of
layers is one call of the engine. Whatever is unusual goes the long way, through functional.py.
"""

from functools import lru_cache

import torch
from torch.autograd import forward_ad

from . import backends, heads, profiling
from .autograd import Call, Layer
from .kernels import gate, schedule
from .kernels.cells import CELLS
from .kernels.form import Matrix
from .kernels.keep import Keep


class Known(Call):
    """A stack of layers on the CPU engine, with no dropout between them."""

    def __init__(self, cell, steps, D, layers, stack):
        super().__init__("numba", cell, steps, D)
        self.layers, self.stack = layers, stack
        self.second = stack.first + stack.each * D  # where the second layer's weights begin

    def forward(self, keep, tensors, through):
        """As Call's; through: what the gate says of the tensors."""
        return backends.load("numba").forward(self.stack, self.steps, keep, tensors, through)

    def backward(self, keep, tensors, *rest):
        """As Call's."""
        run = backends.load("numba").backward
        given = self.stack, self.steps, keep, tensors, *rest
        if not profiling.flag._is_profiler_enabled:
            return run(*given)
        with profiling.row(self.cell, " backward", self.steps, self.D, self.stack.shapes[0].H):
            return run(*given)


def usual():
    """Whether torch just computes, on the engine that is best for plain tensors: nothing traces,
    transforms, watches or casts, nobody asks for another engine, or records each layer.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
        or torch.is_autocast_enabled("cpu")
        or backends.asked() not in (None, "numba")
        or profiling.flag._is_profiler_enabled
    )


def at_once(
    name, keep, x, hx, weights, bias, layers, p, training, bidirectional, batch_first, form=None
):  # fmt: skip
    """(output, *final states), as torch._VF.<name> returns them; None for the long way.

    For where all is ``usual``. form: of weights of fewer bits, which are panels then, with biases.
    """
    states = hx if type(hx) is tuple else (hx,)
    if not (
        type(bias) is type(training) is type(bidirectional) is type(batch_first) is bool
        and type(layers) is int
        and type(p) in (float, int)
        and not (p and training and layers > 1)
    ):
        return None
    for t in (x, *states):
        if type(t) not in gate.PLAIN or t.is_nested:
            return None
    if not x.is_cpu:
        return None
    sizes = x.shape
    if batch_first and 1 not in sizes[:2]:  # rows that do not lie as the steps take them
        turned = x.transpose(0, 1) if len(sizes) == 3 else x
        options = bias, layers, p, training, bidirectional, False, form
        found = at_once(name, keep, turned, hx, weights, *options)
        return found and (found[0].transpose(0, 1), *found[1:])
    given = sizes, tuple([s.shape for s in states]), len(weights)
    call = _known(name, x.dtype, *given, bias, layers, bidirectional, batch_first, form)
    if call is None:
        return None
    return _run(call, keep, (x, *states, *weights))


def of_own_cell(cell, keep, call):
    """(output, *final states) of a Call of sequences.py, dense, of a cell of a user's own; None for
    the long way. For where all is ``usual``, and there is no dropout between layers.
    """
    x, states, directions, planes = call.x, call.states, call.directions, call.planes
    H, count = call.module.hidden_size, cell.heads
    if not x.numel() or isinstance(directions[0].ih, Matrix):
        return None
    if count > 1:
        if not heads.are_apart("numba", cell, H):
            return None
        directions, states, planes = heads.apart(cell, directions, states, planes)
        H = H // count
    weights = [w for each in directions for w in each if w is not None]
    sizes, layers = tuple(x.shape), call.module.num_layers
    D, each = len(directions) // layers, len(weights) // len(directions)
    known = _made(cell, x.dtype, sizes, H, H, D, layers, each, sizes[:2])
    found = known and _run(known, keep, (x, *states, *weights, *planes))
    if found is None or count == 1:
        return found
    return found[0], *heads.together(found[1:], count)


def _run(call, keep, tensors):
    """(output, *final states) of a Known; None for the long way."""
    through = gate.passed(tensors, call.stack.inputs)
    if through is None or 0 in through[1]:
        return None
    if torch.is_grad_enabled():
        trained = [t.requires_grad for t in tensors]
        if True in trained:
            if call.stack.shapes[0].form:  # which has no backward
                return None
            # where the first layers are frozen, nothing is kept of them: layer after layer
            if call.layers > 1 and True not in trained[: call.second]:
                return None
            return Layer.apply(call, keep, through, *tensors)
    y, finals, _ = call.forward(Keep.NOTHING, tensors, through)
    return y, *finals


@lru_cache(maxsize=256)
def _known(name, dtype, sizes, states, count, bias, layers, bidirectional, batch_first, form):
    """The Known of a call with ``count`` weights of these shapes; None if there is none."""
    cell, D = CELLS[name], 2 if bidirectional else 1
    if layers < 1 or len(states) != cell.states or any(len(s) != 3 for s in (sizes, *states)):
        return None
    (first, second, I), S, H = sizes, states[0][2], states[-1][2]
    B, T = (first, second) if batch_first else (second, first)
    each, rest = divmod(count, layers * D)
    projected = each in (3, 5)
    if rest or not 2 <= each <= 5 or bias != (each >= 4) or projected != (S != H):
        return None
    if 0 in (B, T, I, S, H):  # nothing to compute
        return None
    return _made(cell, dtype, (T, B, I), S, H, D, layers, each, sizes[:2], form)


@lru_cache(maxsize=256)
def _made(cell, dtype, sizes, S, H, D, layers, each, rows, form=None):
    """The Known of these sizes, (T, B, I) and so on; None if the CPU engine does not serve it.

    each: weights of a direction; rows: the form of x without its columns.
    """
    choice = backends.served(dtype, False)
    if (
        choice is None
        or choice.name != "numba"
        or backends.dtypes("numba", dtype) != (dtype, dtype)
        or (form and dtype != torch.float32)
    ):
        return None
    engine, (T, B, I) = backends.load("numba"), sizes
    steps = schedule.dense(T, B)
    shape = engine.Shape(dtype, steps.rounded, B, D, I, H, S, S != H, form)
    return Known(cell, steps, D, layers, engine.stack(cell, shape, rows, layers, each))
