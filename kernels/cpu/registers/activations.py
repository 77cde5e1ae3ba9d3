"""sigmoid and tanh on register vectors, in float32 and float64, to a few units in the last place.

sigmoid(x) = 1 / (1 + 2**(-x log2 e)). The power is 2**n times 2**f by its Taylor series.

tanh needs more near zero, where 1 - 2 sigmoid would lose every digit: it is e / (e + 2) with
e = expm1(2 x) = 2**n (1 + q) - 1, q = expm1(r) by its Taylor series on |r| <= ln(2) / 2. A
rational function costs a third less, but its error has a sign, and gradients are sums.

NaN passes through; +-inf saturate.
"""

import math

from numba import types

from ..compiler.front import inline
from .simd import add_to_exponent, clamp, relu, scale_and_add, with_sign, zero_below, zeros_like

LOG2_E = 1 / math.log(2)
# in two pieces, of which the first has 24 bits, so that no digit of x log2 e is lost
LOG2_E_HIGH, LOG2_E_LOW = 1.44269502162933349609375, 1.92596299112661746887e-8


def horner(coefficients):
    """The polynomial with these coefficients, lowest first, as a compiled function."""
    first, *rest = reversed(coefficients)
    rest = tuple(rest)

    @inline
    def polynomial(x):
        value = zeros_like(x) + first
        for coefficient in rest:
            value = value * x + coefficient
        return value

    return polynomial


@inline
def exactly(a, b):
    return a / b


def _sigmoid(shift, terms, limit, divide=exactly):
    """``shift`` rounds to an integer what is added to it; ``limit`` keeps 2**n a normal number.

    Beyond it the result is 0, where it would be no normal number.
    """
    power = horner([math.log(2) ** k / math.factorial(k) for k in range(terms + 1)])

    @inline
    def sigmoid(x):
        held = clamp(x, -limit, limit)
        shifted = held * -LOG2_E_HIGH + shift
        f = scale_and_add(held, -LOG2_E_HIGH, shift - shifted) - held * LOG2_E_LOW
        one = zeros_like(x) + 1.0
        # the power of 2 by itself: added to the bits of a NaN it could make that a number
        return zero_below(x, -limit, divide(one, one + power(f) * add_to_exponent(one, shifted)))

    return sigmoid


def _tanh(shift, terms, ln2_high, ln2_low, divide=exactly):
    """``terms`` of the series; ln 2 in two pieces, n times the first of which is exact."""
    series = horner([1 / math.factorial(k) for k in range(2, terms + 1)])

    @inline
    def tanh(x):
        doubled = clamp(x + x, -40.0, 40.0)
        shifted = scale_and_add(doubled, LOG2_E, zeros_like(x) + shift)
        n = shifted - shift
        r = scale_and_add(n, -ln2_low, scale_and_add(n, -ln2_high, doubled))
        s = add_to_exponent(zeros_like(x) + 1.0, shifted)
        e = s * (series(r) * r * r + r) + (s - 1.0)
        return divide(e, e + 2.0)

    return tanh


def _ending_in_one(tanh):
    """A ``tanh`` of rough division, which is 1 to the bit where it should be.

    Of 1 - 1e-5 the derivative is not zero, and a cell state of 1e4 would multiply it. x is taken as
    negative: then e + 2 ends in 1, of which the roughest division knows the inverse. (Of an exact
    division that would cost digits near 1.)
    """

    @inline
    def odd(x):
        return with_sign(tanh(with_sign(x, -1.0)), x)

    return odd


def make_activations(dtype, roughly=None):
    """The operations a cell uses, as Numba functions on registers of ``dtype``.

    ``roughly``: a division that will do, as for results that are rounded to bfloat16's 8 bits.
    """
    if roughly:
        # the series end before 0.347**6 / 6! = 2e-6, a thousandth of such a rounding
        sigmoid = _sigmoid(1.5 * 2.0**23, 5, 88.0, roughly)
        tanh = _ending_in_one(
            _tanh(1.5 * 2.0**23, 5, 0.693359375, -2.12194440054690583e-4, roughly)
        )
    elif dtype == types.float32:
        # both series end before 0.347**8 / 8! = 5e-9, a twelfth of a rounding
        sigmoid = _sigmoid(1.5 * 2.0**23, 7, 88.0)
        tanh = _tanh(1.5 * 2.0**23, 7, 0.693359375, -2.12194440054690583e-4)
    else:
        # 0.347**14 / 14! = 4e-18
        sigmoid = _sigmoid(1.5 * 2.0**52, 13, 709.0)
        tanh = _tanh(1.5 * 2.0**52, 13, 6.93145751953125e-1, 1.42860682030941723212e-6)
    return {
        "sigmoid": sigmoid,
        "tanh": tanh,
        "relu": relu,
        "zeros_like": zeros_like,
    }
