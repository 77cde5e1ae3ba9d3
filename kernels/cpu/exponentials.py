"""exp, log, softplus and their kin on register vectors, to a few units in the last place.

exp(x) = 2**n e**r, r = x - n ln 2, by its Taylor series on |r| <= ln(2) / 2. log(x) = n ln 2 +
log(m) with m in [sqrt(1/2), sqrt(2)), by log(m) = 2 atanh((m - 1) / (m + 1)).

NaN passes through; +-inf are as in the formulas.
"""

import math

from numba import types

from .activations import LOG2_E, horner
from .front import inline
from .logic import absolute, exponent, maximum, minimum, significand, sqrt, where
from .simd import add_to_exponent, clamp, scale_and_add, zeros_like


@inline
def rsqrt(x):
    return 1.0 / sqrt(x)


@inline
def clip_gradient(x, limit):
    return x


def make_exponentials(dtype):
    """The operations of a step beside sigmoid, tanh and relu, on registers of ``dtype``."""
    single = dtype == types.float32
    shift = 1.5 * 2.0**23 if single else 1.5 * 2.0**52  # added to it, a number becomes an integer
    # ln 2 in two pieces: n times the first is exact
    high = 0.693359375 if single else 6.93145751953125e-1
    low = -2.12194440054690583e-4 if single else 1.42860682030941723212e-6
    least, up = (2.0**-126, 24) if single else (2.0**-1022, 54)  # the least normal number
    # 0.347**8 / 8! = 5e-9, 0.347**14 / 14! = 4e-18
    series = horner([1 / math.factorial(k) for k in range(8 if single else 14)])
    # at s = 0.1716: s**14 * 2 / 15 = 3e-12, s**24 * 2 / 25 = 3e-20
    atanh = horner([2 / (2 * k + 1) for k in range(7 if single else 12)])
    # what e**x is never beyond: half of n at a time, so that no power of 2 is beyond either
    limit = 104.0 if single else 746.0

    @inline
    def exp(x):
        held = clamp(x, -limit, limit)
        n = (scale_and_add(held, LOG2_E, zeros_like(x) + shift)) - shift
        r = scale_and_add(n, -low, scale_and_add(n, -high, held))
        half = (n * 0.5 + shift) - shift
        one = zeros_like(x) + 1.0
        first, rest = add_to_exponent(one, half + shift), add_to_exponent(one, (n - half) + shift)
        return where(x == x, series(r) * first * rest, x)

    @inline
    def log_of_normal(x):
        m, n = significand(x), exponent(x)
        big = m > 1.4142135623730951
        m, n = where(big, m * 0.5, m), where(big, n + 1.0, n)
        s = (m - 1.0) / (m + 1.0)
        return scale_and_add(n, high, scale_and_add(n, low, s * atanh(s * s)))

    @inline
    def log(x):
        tiny = x < least
        normal = where(tiny, x * 2.0**up, x)
        y = log_of_normal(normal) - where(tiny, up * math.log(2), 0.0)
        y = where(x == 0.0, -math.inf, where(x < 0.0, math.nan, y))
        return where(x == math.inf, x, where(x == x, y, x))

    @inline
    def softplus(x):
        """max(x, 0) + log(1 + e), e = exp(-abs(x)) <= 1: log(1 + e) = 2 atanh(e / (e + 2))."""
        e = exp(-absolute(x))
        whole = log_of_normal(1.0 + e)
        s = e / (e + 2.0)
        return maximum(x, 0.0) + where(e < 0.4, s * atanh(s * s), whole)

    return {
        "exp": exp,
        "log": log,
        "softplus": softplus,
        "rsqrt": rsqrt,
        "sqrt": sqrt,
        "abs": absolute,
        "where": where,
        "maximum": maximum,
        "minimum": minimum,
        "clip_gradient": clip_gradient,
    }
