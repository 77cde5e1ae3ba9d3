"""The operations that a step may consist of: one table, which is all that anybody knows of them.

Whoever runs a step (PyTorch, the CPU engine, the GPU engine) has a function for each name; what a
step computes with is a torch tensor, a register, or a block. All but ``mean`` are pointwise.
"""

import math
import operator
from collections.abc import Callable
from typing import NamedTuple


class Operation(NamedTuple):
    """One operation.

    arguments: how many it has; cost: of computing it once on a register, in simple instructions,
    about; text: how it is written; value: what it is of Python's numbers; rule(graph, node, d): the
    gradients of its arguments, None for one without, given that of its result.
    """

    arguments: int
    cost: int
    text: str
    value: Callable | None = None
    rule: Callable | None = None


def _call(name, arguments=1):
    return f"{name}({', '.join(f'{{{i}}}' for i in range(arguments))})"


def _div(g, n, d):
    quotient = g.op("div", d, n.args[1])
    return quotient, g.op("neg", g.op("mul", quotient, n))


def _abs(g, n, d):
    (x,) = n.args
    positive = g.op("where", g.op("lt", 0.0, x), d, 0.0)
    return (g.op("where", g.op("lt", x, 0.0), g.op("neg", d), positive),)


def _erf(g, n, d):
    bell = g.op("exp", g.op("neg", g.op("mul", *n.args, *n.args)))
    return (g.op("mul", d, g.op("mul", 2 / math.sqrt(math.pi), bell)),)


def _larger(g, n, d):
    a, b = n.args
    return _of_two(g, d, g.op("lt", b, a), g.op("eq", a, b))


def _smaller(g, n, d):
    a, b = n.args
    return _of_two(g, d, g.op("lt", a, b), g.op("eq", a, b))


def _of_two(g, d, first, equal):
    """torch gives either half of the gradient where both are equal."""
    da = g.op("where", first, d, g.op("where", equal, g.op("mul", d, 0.5), 0.0))
    return da, g.op("sub", d, da)


def _rsqrt(g, n, d):
    cube = g.op("mul", n, g.op("mul", n, n))
    return (g.op("mul", g.op("mul", d, -0.5), cube),)


def _clip(g, n, d):
    limit = n.args[1]
    held = g.op("where", g.op("lt", limit, d), limit, d)
    low = g.op("neg", limit)
    return g.op("where", g.op("lt", held, low), low, held), None


def _sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


OPERATIONS = {
    "add": Operation(2, 1, "{0} + {1}", operator.add, lambda g, n, d: (d, d)),
    "sub": Operation(2, 1, "{0} - {1}", operator.sub, lambda g, n, d: (d, g.op("neg", d))),
    "mul": Operation(
        2, 1, "{0} * {1}", operator.mul,
        lambda g, n, d: (g.op("mul", d, n.args[1]), g.op("mul", d, n.args[0])),
    ),
    "div": Operation(2, 6, "{0} / {1}", operator.truediv, _div),
    "neg": Operation(1, 1, "-{0}", operator.neg, lambda g, n, d: (g.op("neg", d),)),
    "sigmoid": Operation(  # s - s * s
        1, 22, _call("sigmoid"), _sigmoid,
        lambda g, n, d: (g.op("mul", d, g.op("sub", n, g.op("mul", n, n))),),
    ),
    "tanh": Operation(  # 1 - t * t
        1, 26, _call("tanh"), math.tanh,
        lambda g, n, d: (g.op("sub", d, g.op("mul", g.op("mul", d, n), n)),),
    ),
    "relu": Operation(  # of NaN, as torch's, NaN
        1, 2, _call("relu"), lambda x: max(x, 0.0),
        lambda g, n, d: (g.op("where", g.op("le", n, 0.0), 0.0, d),),
    ),
    "exp": Operation(1, 18, _call("exp"), math.exp, lambda g, n, d: (g.op("mul", d, n),)),
    "log": Operation(1, 25, _call("log"), math.log, lambda g, n, d: (g.op("div", d, *n.args),)),
    "softplus": Operation(  # log(1 + exp(x))
        1, 45, _call("softplus"), lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
        lambda g, n, d: (g.op("mul", d, g.op("sigmoid", *n.args)),),
    ),
    "abs": Operation(1, 1, _call("abs"), abs, _abs),
    "sqrt": Operation(
        1, 8, _call("sqrt"), math.sqrt,
        lambda g, n, d: (g.op("div", g.op("mul", d, 0.5), n),),
    ),
    "rsqrt": Operation(1, 9, _call("rsqrt"), lambda x: 1 / math.sqrt(x), _rsqrt),
    "erf": Operation(1, 40, _call("erf"), math.erf, _erf),
    "maximum": Operation(2, 3, _call("maximum", 2), max, _larger),
    "minimum": Operation(2, 3, _call("minimum", 2), min, _smaller),
    "where": Operation(
        3, 1, _call("where", 3), None,
        lambda g, n, d: (None, g.op("where", n.args[0], d, 0.0), g.op("where", n.args[0], 0.0, d)),
    ),
    # over all hidden units; each has the same result
    "mean": Operation(1, 1, _call("mean"), lambda x: x, lambda g, n, d: (g.op("mean", d),)),
    # the value, whose gradient is held between -limit and limit
    "clip_gradient": Operation(2, 0, _call("clip_gradient", 2), lambda x, limit: x, _clip),
    "lt": Operation(2, 1, "{0} < {1}"),
    "le": Operation(2, 1, "{0} <= {1}"),
    "eq": Operation(2, 1, "{0} == {1}"),
    "and": Operation(2, 1, "{0} & {1}"),
    "or": Operation(2, 1, "{0} | {1}"),
    "not": Operation(1, 1, "~{0}"),
}  # fmt: skip
CONDITIONS = {"lt", "le", "eq", "and", "or", "not"}  # whose results are true or false
COMMUTE = {"add", "mul", "maximum", "minimum", "eq", "and", "or"}
