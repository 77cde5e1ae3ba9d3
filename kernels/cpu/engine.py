"""The CPU engine: layers forward, and their gradients, as a few calls of compiled functions.

A ``Stack`` is what is known of layers from their sizes alone, found once and remembered. Its
tensors come in one flat list: x (its rows, and I columns), the cell's states, (layers * D, B, H or
P) each, direction after direction the weights that there are, in the order of Weights, and for each
layer what its steps are given beside x, (heads * N, number, H), if they are given anything.
"""

from functools import lru_cache
from math import prod

import torch

from ..gate import passed, take, whole
from ..keep import Keep
from ..untraced import untraced
from ..weights import Weights, expected, split
from .compiled import machine
from .compiler.target import registers
from .host import layer_calls, ready
from .host.layouts import sums_width
from .host.memory import at
from .host.shape import Shape

HALF = (torch.bfloat16, torch.float16)
pack = ready.pack


def dtypes(dtype):
    """In what tensors of ``dtype`` are computed: x and the output; states and weights.

    bfloat16 as it is only where the CPU multiplies it: there it is twice as fast, elsewhere slower.
    """
    if dtype == torch.bfloat16 and registers().bfloat16:
        return torch.bfloat16, torch.float32
    return (torch.float32, torch.float32) if dtype in HALF else (dtype, dtype)


class Stack:
    """Layers of one shape; only the first may have other columns of input.

    first: the first one's Shape; rows: the shape of x without its columns; each: how many weights
    a direction has.
    """

    def __init__(self, cell, first, rows, layers, each):
        self.cell, self.rows, self.N, self.layers = cell, rows, prod(rows), layers
        self.D, self.S, self.width = first.D, first.S, first.D * first.S
        self.first, self.each = 1 + cell.states, each  # the first of the weights
        self.shapes = [first, *[first._replace(I=self.width)] * (layers - 1)]
        count = layers * first.D
        # where the weights of each direction are among the tensors; absent ones at -1
        self.end = self.first + count * each
        places = split(range(self.first, self.end), count, cell)
        self.places = [Weights(*(-1 if i is None else i for i in place)) for place in places]
        M, hr = cell.gates * first.H, (first.S, first.H) if first.projected else None
        known = [Weights((M, first.I), (M, first.S), None, None, hr, (cell.own, first.H))] * count
        wide = machine.wide(first.dtype)
        states, weights = expected(cell, first.D, first.I, first.B, known)
        weights = [Weights(*[(size, wide) for size in each]) for each in weights]
        if first.form:
            weights = [ready.sizes(cell, shape) for shape in self.shapes for _ in range(first.D)]
        shapes, dtypes = [(*rows, first.I), *states], [first.dtype] + [wide] * len(states)
        for place, sizes in zip(self.places, weights, strict=True):
            there = [size for i, size in zip(place, sizes, strict=True) if i >= 0]
            shapes += [shape for shape, _ in there]
            dtypes += [dtype for _, dtype in there]
        lanes = machine.tiles(cell.gates, first.dtype).lanes
        self.spare = -first.S % lanes  # numbers behind each gradient of a hidden state
        self.sums = sums_width(cell, first)
        if cell.inputs:
            shapes += [(cell.heads * self.N, cell.inputs, first.H)] * layers
            dtypes += [first.dtype] * layers
        self.inputs = _as_expected(shapes, dtypes)
        results = [(*rows, self.width), *states]
        self.results = _as_expected(results, [first.dtype] + [wide] * len(states))

    def lowest(self, needed):
        """The lowest layer that backward has to go to, for the gradients that are needed."""
        if True in needed[: self.first]:
            return 0
        found, each = self.layers - 1, self.each * self.D
        for i in range(self.layers):
            weights = needed[self.first + i * each :][:each]
            if True in weights or (self.cell.inputs and needed[self.end + i]):
                return i
        return found


def _as_expected(shapes, dtypes):
    """What the gate is told of each tensor: its shape, dtype, and bytes."""
    return [
        (torch.Size(shape), dtype, prod(shape) * dtype.itemsize)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


stack = lru_cache(maxsize=256)(Stack)


def stack_of(cell, x, steps, directions, states, inputs):
    """The Stack of one layer, and its tensors."""
    shape = Shape.of(cell, x, steps, directions, states)
    weights = [w for each in directions for w in each if w is not None]
    each = len(weights) // len(directions)
    tensors = [x, *states, *weights, *[inputs] * bool(cell.inputs)]
    return stack(cell, shape, x.shape[:-1], 1, each), tensors


@untraced
def ready_layer(form, cell, x, steps, directions, states, keep, inputs=None):
    """As ``layer``, of float32, with weights of fewer bits: those that ``pack`` has made panels."""
    shape = _shape_of_ready(form, x, steps, directions, states)
    weights = [w for each in directions for w in each if w is not None]
    found = stack(cell, shape, x.shape[:-1], 1, len(weights) // len(directions))
    return forward(found, steps, keep, [x, *states, *weights, *[inputs] * bool(cell.inputs)])


def _shape_of_ready(form, x, steps, directions, states):
    S, H, I = states[0].shape[2], states[-1].shape[2], x.shape[-1]
    D, projected = len(directions), directions[0].hr is not None
    return Shape(x.dtype, steps.rounded, steps.B, D, I, H, S, projected, form)


def _keep(cell, keep):
    """How much of a layer is kept: a cell of several stages computes nothing anew."""
    return Keep.ALL if keep and cell.staged else keep


def kept_sizes(cell, x, steps, directions, states):
    """The shapes and dtypes of what forward keeps of one layer for backward (Keep.ALL)."""
    return Shape.of(cell, x, steps, directions, states).kept(cell, steps.N).values()


@lru_cache(maxsize=256)
def kept_by(stack, gates):
    """({name: (shape, dtype)} of what forward keeps for backward, as the gate is told of it).

    Of all layers in one, with what there is ``between`` them: the outputs of all but the last.
    gates: as from ``Shape.gates``.
    """
    last, found = stack.shapes[-1], {}
    for name, ((count, *rest), dtype) in last.kept(stack.cell, stack.N, gates).items():
        found[name] = (stack.layers * count, *rest), dtype
    if stack.layers > 1:
        found["between"] = (stack.layers - 1, stack.N, stack.width), last.dtype
    return found, _as_expected(*zip(*found.values(), strict=True))


@untraced
def forward(stack, steps, keep, tensors, through=None):
    """The layers, forward. through: the tensors and their addresses, if they have passed the gate.

    Returns the output (the rows of x, D * H or P wide), the final states, and what ``backward``
    wants to see again. ``keep``: how much of it, a Keep.
    """
    if through is None:
        tensors = whole(tensors)
        through = tensors, at(*tensors)
    keep = _keep(stack.cell, keep)
    gates = stack.shapes[0].gates(stack.cell, keep, steps) if keep else None
    sizes = kept_by(stack, gates)[0] if keep else {}
    return layer_calls.forward(stack, steps, keep, *through, gates, sizes)


@untraced
def backward(stack, steps, keep, tensors, kept, grads, needed, dstates=None):
    """The layers, backward: the gradients of the tensors, None for those not ``needed``.

    grads: those of the output and the final states, None for zeros; dstates: if every state of the
    last layer has one, too, two tensors as ``every_state`` has them, or None for zeros.
    """
    keep = _keep(stack.cell, keep)
    gates = stack.shapes[0].gates(stack.cell, keep, steps)
    names, sizes = kept_by(stack, gates)
    given, told = (*tensors, *grads, *kept), (*stack.inputs, *stack.results, *sizes)
    through = passed(given, told)
    if through is None:
        shapes, dtypes, _ = zip(*told, strict=True)
        given = take(given, shapes, dtypes)
        through = given, at(*given)
    return layer_calls.backward(stack, steps, keep, *through, gates, names, needed, dstates)


def every_state(cell, x, steps, directions, states, keep, inputs, kept):
    """Every state after a step, from what forward has kept of a layer for backward.

    (hidden ones (D, N, S), others (D, N, number, H)); None for the others if there are none.
    """
    return _every_state(Shape.of(cell, x, steps, directions, states), cell, steps, keep, kept)


def every_state_of(form, cell, x, steps, directions, states, keep, inputs, kept):
    """As ``every_state``, of what ``ready_layer`` has kept."""
    shape = _shape_of_ready(form, x, steps, directions, states)
    return _every_state(shape, cell, steps, keep, kept)


def _every_state(shape, cell, steps, keep, kept):
    names = shape.kept(cell, steps.N, shape.gates(cell, _keep(cell, keep), steps))
    named = dict(zip(names, kept, strict=True))
    return named["after"], named.get("extra_after")


@untraced
def layer(cell, x, steps, directions, states, keep, inputs=None):
    """One layer, forward. x: (N, I), or (T, B, I) of a dense batch; states: a (D, B, H or P) tensor
    for each of the cell's.

    Their dtypes are as ``dtypes`` says, and all shapes fit together. Returns what ``forward`` does.
    """
    stack, tensors = stack_of(cell, x, steps, directions, states, inputs)
    return forward(stack, steps, keep, tensors)


@untraced
def gradients(
    cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights, inputs=None,
    need_inputs=False, dstates=None,
):  # fmt: skip
    """One layer, backward. grads: those of the output and the final states, None for zeros;
    dstates: as in ``backward``.

    Returns the gradients of x (None unless asked for), of the states, a Weights for each direction
    (None where nobody asked), and that of the inputs (None unless asked for).
    """
    stack, tensors = stack_of(cell, x, steps, directions, states, inputs)
    flat = [n for each, need in zip(directions, need_weights, strict=True)
            for w, n in zip(each, need, strict=True) if w is not None]  # fmt: skip
    needed = [need_x, *[True] * cell.states, *flat, *[need_inputs] * bool(cell.inputs)]
    found = [*backward(stack, steps, keep, tensors, kept, grads, needed, dstates), None]
    dweights = [Weights(*(found[i] for i in place)) for place in stack.places]
    return found[0], found[1 : stack.first], dweights, found[stack.end]
