"""What torch's functions, and the methods of its tensors, are on symbols.

Their arguments have torch's names; one that is missing here (out, dtype) is refused. Each is
written so that at a point with two derivatives, as relu has at 0, torch's comes of it.
"""

import math
from functools import partial
from numbers import Real

import torch
from torch.nn import functional as F

from .refusals import refuse
from .symbol import FUNCTIONS, METHODS, Symbol, apply, as_value


def _of(op):
    return partial(apply, op)


def _swapped(op):
    return lambda input, other: apply(op, other, input)


def _scaled(op):
    return lambda input, other, alpha=1: apply(op, input, other if alpha == 1 else alpha * other)


def _new(function):
    """A function with torch's argument ``inplace``."""

    def new(input, *args, inplace=False, **kwargs):
        if inplace:
            refuse("inplace=True: a value cannot be changed")
        return function(input, *args, **kwargs)

    return new


def _constant(input, value):
    return Symbol(input.graph, input.graph.number(value))


def where(condition, input, other):
    return apply("where", condition, input, other)


POWERS = {
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    4: lambda x: (x * x) * (x * x),
    0.5: _of("sqrt"),
    -1: lambda x: 1.0 / x,
}


def power(input, exponent):
    if not isinstance(exponent, Real):
        refuse(
            "a power whose exponent is no number of Python's: torch.exp is an operation of a step"
        )
    if exponent not in POWERS:
        refuse(f"a power of {exponent!r}: of a step these are, {', '.join(map(str, POWERS))}")
    return POWERS[exponent](input)


def clamp(input, min=None, max=None):
    """The gradient passes at a bound."""
    if min is not None:
        input = where(apply("lt", input, min), min, input)
    return input if max is None else where(apply("lt", max, input), max, input)


# Where these two are cut off, no gradient passes at the bounds.


@_new
def hardtanh(input, min_val=-1.0, max_val=1.0):
    return where(input <= min_val, min_val, where(input >= max_val, max_val, input))


@_new
def hardsigmoid(input):
    return where(input <= -3.0, 0.0, where(input >= 3.0, 1.0, input / 6.0 + 0.5))


@_new
def leaky_relu(input, negative_slope=0.01):
    return where(input > 0.0, input, input * negative_slope)


@_new
def elu(input, alpha=1.0):
    # of a large x there is no exponential, whose infinity would be NaN in backward
    return where(input > 0.0, input, alpha * apply("expm1", where(input > 0.0, 0.0, input)))


def softplus(input, beta=1.0, threshold=20.0):
    scaled = input if beta == 1 else input * beta
    smooth = apply("softplus", scaled)
    return where(scaled > threshold, input, smooth if beta == 1 else smooth / beta)


def gelu(input, approximate="none"):
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))
        return 0.5 * input * (1.0 + apply("tanh", inner))
    return 0.5 * input * (1.0 + apply("erf", input * math.sqrt(0.5)))


def mean(input, dim=None, keepdim=False):
    if dim not in (-1, 1, (-1,), [-1], (1,), [1]) or not keepdim:
        refuse("a mean that is not over all hidden units: .mean(-1, keepdim=True) is")
    return apply("mean", input)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    if len(normalized_shape) != 1:
        refuse("layer_norm over more than the hidden units: its shape is (hidden_size,)")
    centred = input - apply("mean", input)
    found = centred * apply("rsqrt", apply("mean", centred * centred) + eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def to_float(input):
    if not input.is_condition:
        refuse(".float() of a value, which has the dtype of the layer; of a condition it is 1 or 0")
    return as_value(input)


# As functions of torch's and as methods of its tensors, of which the operators of a tensor on the
# left of a symbol are some.
NAMED = {
    **{name: _of(name) for name in (
        "sigmoid", "tanh", "exp", "expm1", "log", "abs", "sqrt", "rsqrt", "neg", "erf", "relu",
        "maximum", "minimum", "mul", "div", "lt", "le", "eq",
    )},
    "add": _scaled("add"), "sub": _scaled("sub"),
    "gt": _swapped("lt"), "ge": _swapped("le"),
    "ne": lambda input, other: ~apply("eq", input, other),
    "max": _of("maximum"), "min": _of("minimum"),
    "logical_and": _of("and"), "logical_or": _of("or"), "logical_not": _of("not"),
    "square": POWERS[2], "reciprocal": POWERS[-1], "pow": power, "clamp": clamp, "clip": clamp,
    "clamp_min": lambda input, min: clamp(input, min),
    "clamp_max": lambda input, max: clamp(input, None, max),
    "lerp": lambda input, end, weight: input + weight * (end - input),
    "addcmul": lambda input, tensor1, tensor2, value=1: input + value * tensor1 * tensor2,
    "addcdiv": lambda input, tensor1, tensor2, value=1: input + value * tensor1 / tensor2,
    "true_divide": _of("div"), "divide": _of("div"), "multiply": _of("mul"),
    "subtract": _scaled("sub"), "absolute": _of("abs"), "negative": _of("neg"),
    "clone": lambda input: input, "mean": mean,
}  # fmt: skip
METHODS |= NAMED | {
    "where": lambda self, condition, other: where(condition, self, other),
    "float": to_float,
    "type_as": lambda self, other: as_value(self),
}
FUNCTIONS |= {
    **{getattr(torch.Tensor, name): function for name, function in METHODS.items()},
    **{getattr(torch, name): function for name, function in NAMED.items()},
    torch.where: where,
    torch.rsub: lambda input, other, alpha=1: NAMED["sub"](other, input, alpha),
    torch.zeros_like: partial(_constant, value=0.0),
    torch.ones_like: partial(_constant, value=1.0),
    torch.full_like: lambda input, fill_value: _constant(input, fill_value),
    torch.special.expit: NAMED["sigmoid"], torch.special.erf: NAMED["erf"],
    torch.special.expm1: NAMED["expm1"],
    F.relu: _new(NAMED["relu"]), F.silu: _new(lambda input: input * apply("sigmoid", input)),
    F.mish: _new(lambda input: input * apply("tanh", apply("softplus", input))),
    F.relu6: _new(lambda input: hardtanh(input, 0.0, 6.0)),
    F.leaky_relu: leaky_relu, F.elu: elu, F.hardtanh: hardtanh, F.hardsigmoid: hardsigmoid,
    F.softplus: softplus, F.gelu: gelu, F.layer_norm: layer_norm,
    F.logsigmoid: lambda input: -apply("softplus", -input),
    F.softsign: lambda input: input / (1.0 + abs(input)),
    F.tanhshrink: lambda input: input - apply("tanh", input),
}  # fmt: skip
