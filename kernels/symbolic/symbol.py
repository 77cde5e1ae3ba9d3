"""A step run on symbols: torch's functions and Python's operators on these build its graph."""

import linecache
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

HERE, TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)


class Refused(TypeError):
    """A step does what no kernel can. The message says what, and where: file, line and text."""


def refuse(what):
    frame = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith((HERE, TORCH)):
        frame = frame.f_back
    if frame is None:
        raise Refused(what)
    name, line = frame.f_code.co_filename, frame.f_lineno
    raise Refused(f"{what}\n  {name}, line {line}: {linecache.getline(name, line).strip()}")


def _infix(op, swapped=False):
    def method(self, other):
        return apply(op, other, self) if swapped else apply(op, self, other)

    return method


class Symbol:
    """What a step computes with while it is traced: a node of a graph, one number of a unit."""

    __slots__ = ("graph", "node")

    def __init__(self, graph, node):
        self.graph, self.node = graph, node

    __add__, __radd__ = _infix("add"), _infix("add", True)
    __sub__, __rsub__ = _infix("sub"), _infix("sub", True)
    __mul__, __rmul__ = _infix("mul"), _infix("mul", True)
    __truediv__, __rtruediv__ = _infix("div"), _infix("div", True)
    __lt__, __le__ = _infix("lt"), _infix("le")
    __gt__, __ge__ = _infix("lt", True), _infix("le", True)
    __eq__, __and__, __or__ = _infix("eq"), _infix("and"), _infix("or")
    __rand__, __ror__ = _infix("and", True), _infix("or", True)
    __hash__ = None

    def __ne__(self, other):
        return ~(self == other)

    def __neg__(self):
        return apply("neg", self)

    def __abs__(self):
        return apply("abs", self)

    def __invert__(self):
        return apply("not", self)

    def __pow__(self, exponent):
        return power(self, exponent)

    def __bool__(self):
        refuse("`if`, `and`, `or` or `not` on a value: torch.where, & | ~ are for that")

    def __float__(self):
        refuse("a value cannot become a number of Python's in a step")

    __int__ = __index__ = item = __float__

    def __iter__(self):
        refuse("a value is one number of each unit: it has no parts")

    __getitem__ = __len__ = lambda self, *_: self.__iter__()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in NAMED:
            refuse(f".{name} is no operation of a step")
        return lambda *args, **kwargs: call(NAMED[name], name, self, *args, **kwargs)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        if function not in FUNCTIONS:
            refuse(f"torch's {name} is no operation of a step")
        return call(FUNCTIONS[function], name, *args, **(kwargs or {}))


def call(function, name, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Refused:
        raise
    except TypeError as error:  # an argument that is torch's, but not ours
        refuse(f"{name} with these arguments is no operation of a step ({error})")


def apply(op, *args):
    """The operation of that name on symbols and numbers."""
    graph = next(a.graph for a in args if isinstance(a, Symbol))
    return Symbol(graph, graph.op(op, *map(_operand, args)))


def _operand(value):
    if isinstance(value, Symbol):
        return value.node
    if isinstance(value, (bool, int, float)):
        return float(value)
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.requires_grad:
        return value.item()
    refuse(
        f"a {type(value).__name__} in the arithmetic of a step: it computes with gates, states, "
        "its inputs, parameters that are declared in its class, and numbers"
    )


def _of(op):
    return lambda *args: apply(op, *args)


def power(x, exponent):
    if exponent == 2:
        return x * x
    if exponent == 3:
        return x * x * x
    if exponent == 0.5:
        return apply("sqrt", x)
    if exponent == -1:
        return 1.0 / x
    refuse(f"a power of {exponent!r}: 2, 3, 0.5 and -1 are operations of a step")


def clamp(x, min=None, max=None):
    x = x if min is None else where(x < min, min, x)
    return x if max is None else where(_of("lt")(max, x), max, x)


def where(condition, a, b):
    return apply("where", condition, a, b)


def softplus(x, beta=1, threshold=20):
    return apply("softplus", x) if beta == 1 else apply("softplus", x * beta) / beta


def gelu(x, approximate="none"):
    if approximate == "tanh":
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)  # sqrt(2 / pi)
        return 0.5 * x * (1.0 + apply("tanh", inner))
    return 0.5 * x * (1.0 + apply("erf", x * 0.7071067811865476))


def elu(x, alpha=1.0, inplace=False):
    return where(_of("lt")(0.0, x), x, alpha * (apply("exp", x) - 1.0))


def mean(x, dim=None, keepdim=False):
    if dim not in (-1, 1, (-1,), [-1], (1,), [1]) or not keepdim:
        refuse("a mean that is not over all hidden units: .mean(-1, keepdim=True) is")
    return apply("mean", x)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    if len(shape) != 1:
        refuse("layer_norm over more than the hidden units: its shape is (hidden_size,)")
    centred = x - apply("mean", x)
    x = centred * apply("rsqrt", apply("mean", centred * centred) + eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _scaled(op):
    return lambda a, b, alpha=1: apply(op, a, b if alpha == 1 else b * alpha)


def _swapped(op):
    return lambda a, b: apply(op, b, a)


# What torch calls an operation, as a function and as a method.
NAMED = {
    **{name: _of(name) for name in (
        "sigmoid", "tanh", "exp", "log", "abs", "sqrt", "rsqrt", "neg", "erf", "maximum", "minimum",
        "where", "mul", "div", "lt", "le", "eq",
    )},
    "add": _scaled("add"), "sub": _scaled("sub"),
    "gt": _swapped("lt"), "ge": _swapped("le"), "ne": lambda a, b: ~apply("eq", a, b),
    "relu": lambda x, inplace=False: apply("relu", x),
    "mean": mean,
    "square": lambda x: x * x, "reciprocal": lambda x: 1.0 / x, "pow": power, "clamp": clamp,
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "addcmul": lambda a, b, c, value=1: a + value * b * c,
    "zeros_like": lambda x: Symbol(x.graph, x.graph.number(0.0)),
    "ones_like": lambda x: Symbol(x.graph, x.graph.number(1.0)),
    "logical_and": _of("and"), "logical_or": _of("or"), "logical_not": _of("not"),
    "true_divide": _of("div"), "subtract": _scaled("sub"), "multiply": _of("mul"),
    "divide": _of("div"), "clip": clamp, "absolute": _of("abs"), "negative": _of("neg"),
}  # fmt: skip
FUNCTIONS = {
    **{getattr(torch, name): f for name, f in NAMED.items() if hasattr(torch, name)},
    # what an operator of a tensor on the left and a symbol on the right comes in as
    **{getattr(torch.Tensor, name): f for name, f in NAMED.items() if hasattr(torch.Tensor, name)},
    torch.Tensor.__rsub__: _swapped("sub"), torch.Tensor.__rdiv__: _swapped("div"),
    F.sigmoid: NAMED["sigmoid"], F.tanh: NAMED["tanh"], F.relu: NAMED["relu"],
    F.silu: lambda x, inplace=False: x * apply("sigmoid", x),
    F.softplus: softplus, F.gelu: gelu, F.elu: elu,
    F.logsigmoid: lambda x: -apply("softplus", -x),
    F.layer_norm: layer_norm,
    F.softsign: lambda x: x / (1.0 + abs(x)),
    F.leaky_relu: lambda x, slope=0.01, inplace=False: where(x < 0.0, x * slope, x),
    F.hardsigmoid: lambda x, inplace=False: clamp(x / 6.0 + 0.5, 0.0, 1.0),
    F.hardtanh: lambda x, min_val=-1.0, max_val=1.0, inplace=False: clamp(x, min_val, max_val),
    torch.special.expit: NAMED["sigmoid"], torch.special.erf: NAMED["erf"],
}  # fmt: skip


def clip_gradient(value, limit):
    """``value``; backward, its gradient is held between -limit and limit, where limit > 0."""
    return apply("clip_gradient", value, float(limit))
