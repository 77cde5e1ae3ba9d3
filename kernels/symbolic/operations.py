"""The operations that a step may consist of: one table, which is all that anybody knows of them.

Whoever runs a step (PyTorch, the CPU engine, the GPU engine) has a function for each name; what a
step computes with is a torch tensor, a register, or a block. All but ``mean`` are pointwise.
"""

import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

V, C, LIMIT = "value", "condition", "limit"  # what an argument may be; a limit: a number above 0


class Operation(NamedTuple):
    """One operation.

    takes: what each of its arguments is; cost: of computing it once on a register, in simple
    instructions, about; text: how it is written; value: what it is of numbers, of which infinity
    and NaN are two; rule(graph, node, d): the gradients of its arguments, None for one without,
    given that of its result. A condition, whose results are true or false, has no rule.
    """

    takes: tuple
    cost: int
    text: str
    value: Callable | None
    rule: Callable | None = None


def _call(name, arguments=1):
    return f"{name}({', '.join(f'{{{i}}}' for i in range(arguments))})"


def _function(name, cost, value, rule):
    """An operation of one value that is called by its name."""
    return Operation((V,), cost, _call(name), value, rule)


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
    return _of_two(g, n, d, g.op("lt", a, b), g.op("lt", b, a))


def _smaller(g, n, d):
    a, b = n.args
    return _of_two(g, n, d, g.op("lt", b, a), g.op("lt", a, b))


def _of_two(g, n, d, second, first):
    """torch gives either half of the gradient where both are equal, and all where one is NaN."""
    share = g.op("where", g.op("eq", *n.args), g.op("mul", d, 0.5), d)
    return g.op("where", second, 0.0, share), g.op("where", first, 0.0, share)


def _rsqrt(g, n, d):
    cube = g.op("mul", n, g.op("mul", n, n))
    return (g.op("mul", g.op("mul", d, -0.5), cube),)


def _clip(g, n, d):
    limit = n.args[1]
    held = g.op("where", g.op("lt", limit, d), limit, d)
    low = g.op("neg", limit)
    return g.op("where", g.op("lt", held, low), low, held), None


OPERATIONS = {
    "add": Operation((V, V), 1, "{0} + {1}", np.add, lambda g, n, d: (d, d)),
    "sub": Operation((V, V), 1, "{0} - {1}", np.subtract, lambda g, n, d: (d, g.op("neg", d))),
    "mul": Operation(
        (V, V), 1, "{0} * {1}", np.multiply,
        lambda g, n, d: (g.op("mul", d, n.args[1]), g.op("mul", d, n.args[0])),
    ),
    "div": Operation((V, V), 6, "{0} / {1}", np.divide, _div),
    "neg": Operation((V,), 1, "-{0}", np.negative, lambda g, n, d: (g.op("neg", d),)),
    "sigmoid": _function(  # s - s * s
        "sigmoid", 22, lambda x: 1 / (1 + np.exp(-x)),
        lambda g, n, d: (g.op("mul", d, g.op("sub", n, g.op("mul", n, n))),),
    ),
    "tanh": _function(  # 1 - t * t
        "tanh", 26, np.tanh,
        lambda g, n, d: (g.op("sub", d, g.op("mul", g.op("mul", d, n), n)),),
    ),
    "relu": _function(
        "relu", 2, lambda x: np.maximum(x, 0.0),
        lambda g, n, d: (g.op("where", g.op("le", n, 0.0), 0.0, d),),
    ),
    "exp": _function("exp", 18, np.exp, lambda g, n, d: (g.op("mul", d, n),)),
    "expm1": _function(  # exp(x) - 1, exact near zero
        "expm1", 26, np.expm1, lambda g, n, d: (g.op("mul", d, g.op("add", n, 1.0)),),
    ),
    "log": _function("log", 25, np.log, lambda g, n, d: (g.op("div", d, *n.args),)),
    "softplus": _function(  # log(1 + exp(x))
        "softplus", 45, lambda x: np.logaddexp(x, 0.0),
        lambda g, n, d: (g.op("mul", d, g.op("sigmoid", *n.args)),),
    ),
    "abs": _function("abs", 1, np.abs, _abs),
    "sqrt": _function(
        "sqrt", 8, np.sqrt, lambda g, n, d: (g.op("div", g.op("mul", d, 0.5), n),),
    ),
    "rsqrt": _function("rsqrt", 9, lambda x: 1 / np.sqrt(x), _rsqrt),
    "erf": _function("erf", 55, math.erf, _erf),
    "maximum": Operation((V, V), 3, _call("maximum", 2), np.maximum, _larger),
    "minimum": Operation((V, V), 3, _call("minimum", 2), np.minimum, _smaller),
    "where": Operation(
        (C, V, V), 1, _call("where", 3), None,
        lambda g, n, d: (None, g.op("where", n.args[0], d, 0.0), g.op("where", n.args[0], 0.0, d)),
    ),
    # over all hidden units; each has the same result
    "mean": _function("mean", 1, lambda x: x, lambda g, n, d: (g.op("mean", d),)),
    # the value, whose gradient is held between -limit and limit
    "clip_gradient": Operation(
        (V, LIMIT), 0, _call("clip_gradient", 2), lambda x, limit: x, _clip,
    ),
    "lt": Operation((V, V), 1, "{0} < {1}", operator.lt),
    "le": Operation((V, V), 1, "{0} <= {1}", operator.le),
    "eq": Operation((V, V), 1, "{0} == {1}", operator.eq),
    "and": Operation((C, C), 1, "{0} & {1}", None),
    "or": Operation((C, C), 1, "{0} | {1}", None),
    "not": Operation((C,), 1, "~{0}", None),
}  # fmt: skip
CONDITIONS = {name for name, operation in OPERATIONS.items() if not operation.rule}
COMMUTE = {"add", "mul", "maximum", "minimum", "eq", "and", "or"}
