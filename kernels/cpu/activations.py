"""sigmoid and tanh on register vectors, in float32 and float64, to about two units in the last place.

Both come from e**x = 2**n (1 + q): n = round(x / ln 2), q = e**r - 1 by its Taylor series on
|r| <= ln(2) / 2. Keeping q apart from the 1 is what makes tanh exact near zero, where
e**2x - 1 would lose every digit. NaN passes through; +-inf saturate.
"""

import math

from numba import njit, types

from .simd import clamp, relu, two_to_the, zero_unless_positive, zeros_like

INV_LN2 = 1 / math.log(2)


def _constants(dtype):
    """(terms of the series, high and low part of ln 2, rounding shift, range limits)."""
    if dtype == types.float32:
        # the next term, 0.347**8 / 8!, is 5e-9: under half a unit in the last place (6e-8)
        return 7, 0.693359375, -2.12194440054690583e-4, 1.5 * 2.0**23, 87.0, 9.1
    # 0.347**14 / 14! = 4e-18, against 1.1e-16
    return 13, 6.93145751953125e-1, 1.42860682030941723212e-6, 1.5 * 2.0**52, 708.0, 19.1


def make_activations(dtype):
    """The operations a cell uses, as Numba functions on registers of ``dtype``."""
    terms, ln2_high, ln2_low, shift, exp_limit, tanh_limit = _constants(dtype)
    series = tuple(1 / math.factorial(k) for k in range(terms, 1, -1))

    @njit(forceinline=True)
    def exp_parts(x):
        shifted = x * INV_LN2 + shift
        n = shifted - shift
        r = (x - n * ln2_high) - n * ln2_low
        p = zeros_like(r) + series[0]
        for coefficient in series[1:]:
            p = p * r + coefficient
        return two_to_the(shifted), p * r * r + r

    @njit(forceinline=True)
    def sigmoid(x):
        s, q = exp_parts(clamp(0.0 - x, -exp_limit, exp_limit))
        return 1.0 / (1.0 + (s * q + s))

    @njit(forceinline=True)
    def tanh(x):
        s, q = exp_parts(clamp(x + x, -2 * tanh_limit, 2 * tanh_limit))
        e = s * q + (s - 1.0)
        return e / (e + 2.0)

    return {
        "sigmoid": sigmoid,
        "tanh": tanh,
        "relu": relu,
        "zero_unless_positive": zero_unless_positive,
        "zeros_like": zeros_like,
    }
