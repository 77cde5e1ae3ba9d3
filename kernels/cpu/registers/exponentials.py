"""exp, log, erf and their kin on register vectors, to a few units in the last place.

exp(x) = 2**n e**r, r = x - n ln 2, by its Taylor series on |r| <= ln(2) / 2. log(x) = n ln 2 +
log(m) with m in [sqrt(1/2), sqrt(2)), by log(m) = 2 atanh((m - 1) / (m + 1)). erf(x) by its Taylor
series on |x| <= 1, beyond by 1 - erf(x) = e**-x**2 p(x), p a polynomial in (x - 2.5) / (x + 2.5).

NaN passes through; +-inf are as in the formulas.
"""

import math

from numba import types

from ..compiler.front import inline
from .activations import LOG2_E, horner
from .logic import absolute, exponent, maximum, minimum, significand, sqrt, where
from .simd import add_to_exponent, clamp, scale_and_add, with_sign, zeros_like

# e**x**2 (1 - erf(x)), by interpolation at Chebyshev's points between 1 and 6 (1 and 4), with 50
# digits; of erf(x) that leaves 4e-18 (2e-9).
ERFC = {
    types.float64: [
        0.2108063640611436, -0.37173673394897294, 0.2517131932174488, -0.12503305237891782,
        0.03992253907546523, -0.003993701160123029, -0.0026423659518134547, 0.0008759152875774328,
        0.0002283799633257643, -0.00012887483134837842, -3.4175718896856294e-05,
        1.8596747731144528e-05, 7.499735050763299e-06, -2.2328516517555215e-06,
        -1.587633893127344e-06,
    ],
    types.float32: [
        0.2108063678, -0.3717367847, 0.2517122165, -0.1250301813, 0.03996438661, -0.003986350314,
        -0.003115849809,
    ],
}  # fmt: skip


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
    lifted = 2.0**up
    # 0.347**8 / 8! = 5e-9, 0.347**14 / 14! = 4e-18
    series = horner([1 / math.factorial(k) for k in range(8 if single else 14)])
    # at s = 0.1716: s**14 * 2 / 15 = 3e-12, s**24 * 2 / 25 = 3e-20
    atanh = horner([2 / (2 * k + 1) for k in range(7 if single else 12)])
    # what e**x is never beyond: half of n at a time, so that no power of 2 is beyond either
    limit = 104.0 if single else 746.0
    # (e**x - 1 - x) / x**2: 0.35**8 / 10! = 6e-11, 0.35**14 / 16! = 2e-20
    rest_of_series = horner([1 / math.factorial(k) for k in range(2, 10 if single else 16)])
    # next to come at 1: 1 / (11! 23) = 1e-9, 1 / (18! 37) = 4e-18
    bell = horner([
        (-1) ** k * 2 / math.sqrt(math.pi) / math.factorial(k) / (2 * k + 1)
        for k in range(11 if single else 18)
    ])  # fmt: skip
    tail, end = horner(ERFC[dtype]), 4.0 if single else 6.0  # from which on erf is 1

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
    def expm1(x):
        near = x * x * rest_of_series(x) + x
        return where(absolute(x) < 0.35, near, exp(x) - 1.0)

    @inline
    def log_of_normal(x, shift):
        """log(x) + shift ln 2."""
        m, n = significand(x), exponent(x) + shift
        big = m > 1.4142135623730951
        m, n = where(big, m * 0.5, m), where(big, n + 1.0, n)
        s = (m - 1.0) / (m + 1.0)
        return scale_and_add(n, high, scale_and_add(n, low, s * atanh(s * s)))

    @inline
    def log(x):
        tiny = x < least
        y = log_of_normal(where(tiny, x * lifted, x), where(tiny, -up, zeros_like(x)))
        y = where(x == 0.0, -math.inf, where(x < 0.0, math.nan, y))
        return where(x == math.inf, x, where(x == x, y, x))

    @inline
    def softplus(x):
        """max(x, 0) + log(1 + e), e = exp(-abs(x)) <= 1: log(1 + e) = 2 atanh(e / (e + 2))."""
        e = exp(-absolute(x))
        whole = log_of_normal(1.0 + e, zeros_like(x))
        s = e / (e + 2.0)
        return maximum(x, 0.0) + where(e < 0.4, s * atanh(s * s), whole)

    @inline
    def erf(x):
        size = clamp(absolute(x), 0.0, end)
        square = size * size
        far = 1.0 - exp(-square) * tail((size - 2.5) / (size + 2.5))
        return where(size < 1.0, x * bell(square), with_sign(far, x))

    return {
        "exp": exp,
        "expm1": expm1,
        "erf": erf,
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
