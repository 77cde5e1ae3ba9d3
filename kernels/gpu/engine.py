"""The GPU engine: a layer forward, and its gradients, each one launch and some large products."""

from functools import wraps

import torch

from .. import autocast
from ..cells import key_of
from ..keep import Keep
from ..refused import Refused
from ..untraced import untraced
from . import guard, kernels, launch, products, sizes, tiles
from .attempt import Key, attempt, refuse
from .blocks import LINE
from .buffers import Shape, before, table

# Steps whose partial sums have a place each: a program may be storing those of one step while
# others still read those of two steps before.
RING = 3


def dtypes(dtype):
    """In what tensors of ``dtype`` are computed: x and the output; states and weights."""
    return dtype, dtype


def _uncast(function):
    """``function(cell, x, ...)`` without autocast: all is cast already, as torch does for cuDNN."""

    @wraps(function)
    def call(cell, x, *arguments):
        with autocast.off(x):
            return function(cell, x, *arguments)

    return call


@untraced
@_uncast
def layer(cell, x, steps, directions, states, keep, inputs=None):
    """One layer, forward. x: (N, I); states: a (D, B, H) tensor for each of the cell's; inputs:
    (heads * N, number, H), in x's dtype, what its steps are given beside x.

    Returns the output (N, D * H), the final states, and what ``gradients`` wants to see again.
    ``keep``: how much of it, a Keep.
    """
    shape, tf32 = Shape.of(cell, x, steps, directions), products.tf32()
    key, launches = _choose("forward", cell, shape, tf32)
    if keep:  # else torch has the backward, too
        refuse(_key("backward", cell, shape, tf32))
    tile, (after, extra, gates), kept = key.tile, *shape.memory(cell, keep)
    if keep and shape.P > shape.H:  # kept beside the gates, and not written behind the last unit
        gates[:, :, cell.gates :, shape.H :].zero_()
    with products.as_cudnn_would(x.dtype, tf32):
        for weights, out in zip(directions, gates, strict=True):
            products.project(shape, x, weights, cell.gates, out)
    start, hidden, output = shape.states(states), None, None
    if cell.recurrent:
        hidden = x.new_empty(2, shape.D, shape.B, shape.P)
        hidden[0].copy_(products.rounded(start[0]) if _rounds(shape, tf32) else start[0])
    if cell.apart:
        output = torch.empty_like(after)
    end = _run(
        cell,
        key,
        launches,
        start,
        gates=gates,
        biases=shape.biases(directions, cell.gates),
        hidden=hidden,
        after=after,
        extra=extra,
        output=output,
        counters=_counters(x, launches.blocks * shape.D),
        BU=tile.BU,
        KC=tile.KC,
        AHEAD=tile.ahead,
        KEEP=int(keep),
        **_common(cell, shape, tile, tf32, steps, directions, inputs),
    )
    # Results are no views, which autograd would not let their owner change in place.
    rows = output if cell.apart else after
    y = rows.flatten(1)
    if (keep and not cell.apart) or shape.P > shape.H:
        y = x.new_empty(shape.N, shape.D * shape.H)
        y.view(shape.N, shape.D, shape.H).copy_(rows[..., : shape.H])
    own = {"copy": True, "memory_format": torch.contiguous_format}
    return y, tuple(state[..., : shape.H].to(x.dtype, **own) for state in end), kept


@untraced
@_uncast
def gradients(
    cell, x, steps, directions, states, keep, kept, grads, need_x, need_weights,
    inputs=None, need_inputs=False,
):  # fmt: skip
    """One layer, backward. grads: those of the output and the final states.

    Returns the gradients of x (None unless asked for), of the states, a Weights for each direction
    (None where nobody asked), and the gradient of the inputs (None unless asked for).
    """
    shape, tf32 = Shape.of(cell, x, steps, directions), products.tf32()
    _choose("forward", cell, shape, tf32)  # where it is refused, nothing was kept
    key, launches = _choose("backward", cell, shape, tf32)
    tile, ((after, extra, gates), _) = key.tile, shape.memory(cell, keep, kept)
    if keep == Keep.STATES and cell.kept:
        every = [after, *extra]
        shares = [None] * cell.heads if inputs is None else inputs.chunk(cell.heads)
        for d, weights in enumerate(directions):
            befores = [
                before(steps, rows[:, d, : shape.H], initial[d], cell.reverse(d))
                for rows, initial in zip(every, states, strict=True)
            ]
            with products.as_cudnn_would(x.dtype, tf32):
                products.recall(cell, shape, x, weights, befores, shares[d % cell.heads], gates[d])
    start = shape.states(grads[1:])
    groups, meet = launches.groups, launches.together is not None
    partials = start.new_empty(RING, shape.D, groups, shape.B, shape.P) if meet else None
    if meet:
        partials[-1].zero_()
    of_inputs = cell.dgates + cell.own
    planes = of_inputs + (cell.inputs if need_inputs else 0)
    dgates = x.new_empty(shape.D, shape.N, planes, shape.P)
    dstates = _run(
        cell,
        key,
        launches,
        start,
        kept=gates,
        dy=shape.padded(grads[0].unflatten(1, (shape.D, shape.H)), -1).contiguous(),
        after=after,
        extra=extra,
        first=shape.states(states),
        dgates=dgates,
        partials=partials,
        counters=_counters(x, launches.blocks * shape.D * groups * RING),
        PLANES=planes,
        GU=tile.GU,
        RING=RING,
        **_common(cell, shape, tile, tf32, steps, directions, inputs),
    )
    if meet:
        dstates[0] += partials[(steps.T - 1) % RING].sum(1)
    dx, dweights = None, []
    with products.as_cudnn_would(x.dtype, tf32):
        for d, weights in enumerate(directions):
            mine = dgates[d, ..., : shape.H]
            hidden = None
            if need_weights[d].hh:
                hidden = before(steps, after[:, d, : shape.H], states[0][d], cell.reverse(d))
            dweights.append(products.weight_gradients(cell, mine, x, hidden, need_weights[d]))
            if need_x:
                dx = products.input_gradient(cell, mine, weights.ih, dx)
    dinputs = None
    if need_inputs:
        each = dgates[:, :, of_inputs:, : shape.H].unflatten(0, (-1, cell.heads))
        dinputs = each.sum(0).flatten(0, 1)
    return dx, tuple(dstates[..., : shape.H].to(x.dtype)), dweights, dinputs


def kept_sizes(cell, x, steps, directions, states):
    """The shapes and dtypes of what forward keeps of one layer for backward (Keep.ALL)."""
    parts = Shape.of(cell, x, steps, directions).parts(cell, Keep.ALL)
    return [(sizes, dtype) for sizes, dtype, kept in parts if kept]


def _choose(direction, cell, shape, tf32):
    """The Key of a call's kernel, with its tile, and its Launches.

    Raises Refused where none fits, which the choice of engines rules out, or where it has failed;
    RuntimeError, once, if an earlier kernel was given up.
    """
    guard.check(shape.device)
    if why := guard.off(shape.device):
        raise Refused("triton", why)
    if shape.N >= 2**31:
        raise Refused("triton", f"{shape.N} rows are more than an int32 counts")
    key = _key(direction, cell, shape, tf32)
    if isinstance(key.tile, str):
        raise Refused("triton", key.tile)
    refuse(key)
    kind, device = sizes.precision(_name(shape), tf32), launch.describe(shape.device)
    given = cell.hgates, kind, shape.B, shape.H, shape.D, device
    return key, sizes.launches(direction, key.tile, *given)


def _key(direction, cell, shape, tf32):
    """Its tile may be the reason why there is none."""
    name, device = _name(shape), launch.describe(shape.device)
    sizes_of = tiles.sequences(cell, shape.B), shape.H, shape.D, device
    tile = getattr(tiles, f"choose_{direction}")(cell.hgates, name, tf32, *sizes_of)
    name = "tf32" if _rounds(shape, tf32) else name
    of = key_of(cell), cell.name, name, shape.P, shape.D
    return Key(*of, direction, tile, shape.device)


def _name(shape):
    return str(shape.dtype).removeprefix("torch.")


def _rounds(shape, tf32):
    """Whether factors are rounded to TF32."""
    return tf32 and shape.dtype == torch.float32


def _run(cell, key, launches, start, **arguments):
    """The kernel of ``key``, see launch.run. Raises Failed if it cannot run here."""
    with attempt(key):
        kernel = getattr(kernels, key.direction)(cell)
        return launch.run(kernel, launches, start, key.tile.warps, **arguments)


def _counters(x, count):
    """A line for each."""
    return torch.zeros(count * LINE.value, dtype=torch.int32, device=x.device)


def _common(cell, shape, tile, tf32, steps, directions, inputs):
    """What both kernels are given."""
    return {
        "weights": shape.weights(directions, cell.gates),
        "parameters": shape.parameters(directions),
        "inputs": shape.inputs(inputs),
        "steps": None if steps.dense else table(steps, shape.device),
        "T": shape.T,
        "D": shape.D,
        "B": shape.B,
        "N": shape.N,
        "H": shape.P,
        "UNITS": shape.H,
        "WIDTH": shape.width,
        "BB": tile.BB,
        "PRECISION": "tf32" if _rounds(shape, tf32) else "ieee",
    }
