"""sigmoid and tanh on register vectors, in float32 and float64, to a few units in the last place.

sigmoid(x) = 1 / (1 + 2**(-x log2 e)). The power is 2**n times a polynomial on |f| <= 1/2, the
Chebyshev interpolant of 2**f. What the single-step reduction loses for large |x| is lost where
sigmoid is saturated.

tanh needs more near zero, where 1 - 2 sigmoid would lose every digit. In float32 it is the odd
rational function that Eigen uses (degree 13 over 6, clamped where it reaches 1); in float64
e / (e + 2) with e = expm1(2 x), from 2**n and expm1 of the rest kept apart.

NaN passes through; +-inf saturate.
"""

import math

from numba import njit, types
from numpy.polynomial import Chebyshev, Polynomial

from .simd import add_to_exponent, clamp, relu, zero_unless_positive, zeros_like

LOG2_E = 1 / math.log(2)
# float32: tanh(x) = x P(x**2) / Q(x**2), lowest power first
TANH_CLAMP = 7.99881172180175781
TANH_P = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_Q = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
# float64: expm1 on |r| <= ln(2) / 2 by its Taylor series; the next term is 0.347**14 / 14! = 4e-18
EXPM1 = tuple(1 / math.factorial(k) for k in range(2, 14))
LN2_HIGH, LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6


def _power_of_two(degree):
    """Coefficients of 2**f on [-1/2, 1/2], lowest first."""
    fit = Chebyshev.interpolate(lambda f: 2.0**f, degree, domain=[-0.5, 0.5])
    return tuple(float(c) for c in fit.convert(kind=Polynomial).coef)


def horner(coefficients):
    """The polynomial with these coefficients, lowest first, as a compiled function."""
    first, *rest = reversed(coefficients)
    rest = tuple(rest)

    @njit(forceinline=True)
    def polynomial(x):
        value = zeros_like(x) + first
        for coefficient in rest:
            value = value * x + coefficient
        return value

    return polynomial


def _sigmoid(shift, power, limit):
    """``shift`` rounds to an integer what is added to it; ``limit`` keeps 2**n a normal number."""

    @njit(forceinline=True)
    def sigmoid(x):
        x = clamp(x, -limit, limit)
        shifted = x * -LOG2_E + shift
        f = x * -LOG2_E - (shifted - shift)
        return 1.0 / (1.0 + add_to_exponent(power(f), shifted))

    return sigmoid


def _tanh32():
    p, q = horner(TANH_P), horner(TANH_Q)

    @njit(forceinline=True)
    def tanh(x):
        x = clamp(x, -TANH_CLAMP, TANH_CLAMP)
        square = x * x
        return x * p(square) / q(square)

    return tanh


def _tanh64(shift):
    series = horner(EXPM1)

    @njit(forceinline=True)
    def tanh(x):
        x = clamp(x + x, -40.0, 40.0)
        shifted = x * LOG2_E + shift
        n = shifted - shift
        r = (x - n * LN2_HIGH) - n * LN2_LOW
        s = add_to_exponent(zeros_like(x) + 1.0, shifted)
        e = s * (series(r) * r * r + r) + (s - 1.0)
        return e / (e + 2.0)

    return tanh


def make_activations(dtype):
    """The operations a cell uses, as Numba functions on registers of ``dtype``."""
    if dtype == types.float32:
        # The interpolant's error is 0.347**7 / 7! / 2**6 = 2e-9. One degree less, 8e-8, would do
        # for the values; but such an error has a sign, and gradients are sums.
        sigmoid, tanh = _sigmoid(1.5 * 2.0**23, horner(_power_of_two(6)), 87.0), _tanh32()
    else:
        shift = 1.5 * 2.0**52  # the error: 0.347**12 / 12! / 2**11 = 3e-18
        sigmoid, tanh = _sigmoid(shift, horner(_power_of_two(11)), 708.0), _tanh64(shift)
    return {
        "sigmoid": sigmoid,
        "tanh": tanh,
        "relu": relu,
        "zero_unless_positive": zero_unless_positive,
        "zeros_like": zeros_like,
    }
