"""The operations a cell uses, as Triton functions on blocks of float32.

NaN passes through all of them; +-inf saturate. What they are made of is in the language itself, and
not in libdevice, which Triton's interpreter does not have.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def one_over(y):
    """1 / y for y >= 1, to 4e-7 of it.

    A division tests its operand, as exp does; a thread has seven registers for such tests, so
    without them more elements are under way at once.
    """
    root = tl.rsqrt(y)
    return root * root


@triton.jit
def sigmoid(x):
    return one_over(1.0 + tl.exp2(x * -LOG2_E))


@triton.jit
def tanh(x):
    """1 - 2 / (1 + e^2x); near zero, where that would lose every digit, the Taylor series.

    At 0.2 the first leaves 6e-7 of the value, and the series ends before 62/2835 x^8 = 6e-8 of it.
    """
    square = x * x
    series = x + x * square * (-1 / 3 + square * (2 / 15 - square * (17 / 315)))
    return tl.where(square < 0.04, series, 1.0 - 2.0 * one_over(1.0 + tl.exp2(x * (2 * LOG2_E))))


@triton.jit
def relu(x):
    return tl.where(x <= 0.0, 0.0, x)


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2_E)


@triton.jit
def expm1(x):
    """e^x - 1; near zero, where that would lose every digit, the Taylor series.

    At 0.3 the first leaves 3e-7 of the value, and the series ends before x^7 / 5040 = 1e-7 of it.
    """
    series = 1 / 24 + x * (1 / 120 + x / 720)
    series = x + x * x * (1 / 2 + x * (1 / 6 + x * series))
    return tl.where(tl.abs(x) < 0.3, series, exp(x) - 1.0)


@triton.jit
def log(x):
    return tl.log(x)


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e) where e = e^-|x|.

    1 + e is rounded: what log makes of that is to e as the rounded 1 + e, less 1, is to e.
    """
    e = exp(-tl.abs(x))
    rounded = 1.0 + e
    least = rounded == 1.0
    return relu(x) + tl.where(least, e, tl.log(rounded) * (e / tl.where(least, 1.0, rounded - 1.0)))


@triton.jit
def absolute(x):
    return tl.abs(x)


@triton.jit
def sqrt(x):
    return tl.sqrt(x)


@triton.jit
def rsqrt(x):
    return tl.rsqrt(x)


@triton.jit
def erf(x):
    return tl.erf(x)


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def where(condition, a, b):
    return tl.where(condition, a, b)


@triton.jit
def clip_gradient(x, limit):
    return x


@triton.jit
def zeros_like(x):
    return tl.zeros_like(x)


OPERATIONS = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "softplus": softplus,
    "abs": absolute,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "erf": erf,
    "maximum": maximum,
    "minimum": minimum,
    "where": where,
    "clip_gradient": clip_gradient,
    "zeros_like": zeros_like,
}
