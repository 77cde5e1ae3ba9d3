"""Arithmetic of floating-point numbers (PTX ISA, "Floating Point Instructions").

In float32, rounded to nearest, unless the name says otherwise; .f32x2 is two of them in a register
of 64 bits. What PTX allows to be approximate is exact but for one rounding.
"""

import re

import numpy as np

from .numbers import F32, F64, U16, U32, WIDEN, bits32, float32, flushed
from .operands import computing, every, of
from .text import Unknown

SIGNS = {"f32": U32(1 << 31), "bf16": U16(1 << 15), "f16": U16(1 << 15)}
SIGNS |= dict.fromkeys(("bf16x2", "f16x2"), U32(0x80008000))


def arithmetic(function, *modifiers):
    """function(float32 numbers) -> float32; modifiers: what may stand in the name."""

    def build(i):
        said = i.parts[1:-1]
        if i.type in ("bf16", "f16") and said[-1:] == ("f32",):
            return mixed(i, function)
        if i.type not in ("f32", "f32x2") or not {*said} <= {"rn", "ftz", *modifiers}:
            raise Unknown(i)
        ftz, two = "ftz" in said, i.type == "f32x2"

        def run(*bits):
            values = [bits.view(F32) for bits in bits]
            found = flushed(function(*map(flushed, values))) if ftz else function(*values)
            return np.asarray(found, F32).view(np.uint64 if two else U32)

        return computing(i.operands[0], run, every(i.operands[1:], 64 if two else 32))

    return build


def mixed(i, function):
    """add.f32.bf16: the first operand is of two bytes, the others and what comes out float32."""
    if i.parts[1:-2] not in ((), ("rn",)):
        raise Unknown(i)
    widen, (to, half, *rest) = WIDEN[i.type], i.operands

    def run(half, *bits):
        return bits32(function(widen(half), *map(float32, bits)))

    return computing(to, run, [of(half, 16), *every(rest, 32)])


def fused(a, b, c):
    """a * b + c: the product is exact in float64; the sum is rounded there, and to float32."""
    return (a.astype(F64) * b + c).astype(F32)


def exactly(function):
    """In float64, and rounded once."""
    return lambda *values: function(*[v.astype(F64) for v in values]).astype(F32)


def lesser(i):
    """min, max: a NaN is passed by, with .NaN it comes out."""
    name = i.parts[0]
    if "NaN" in i.parts:
        return arithmetic({"min": np.minimum, "max": np.maximum}[name], "NaN")(i)
    return arithmetic({"min": np.fmin, "max": np.fmax}[name])(i)


def sign(function):
    """function(bits, the bit of the sign in each number): neg and abs, of every size."""

    def build(i):
        if i.type not in SIGNS or not {*i.parts[1:-1]} <= {"ftz"}:
            raise Unknown(i)

        def run(bits):
            found = function(bits, SIGNS[i.type])
            return bits32(flushed(float32(found))) if "ftz" in i.parts else found

        bits = 32 if re.search("32|x2", i.type) else 16
        return computing(i.operands[0], run, every(i.operands[1:], bits))

    return build


INSTRUCTIONS = {
    "add": arithmetic(np.add),
    "sub": arithmetic(np.subtract),
    "mul": arithmetic(np.multiply),
    "fma": arithmetic(fused),
    "min": lesser,
    "max": lesser,
    "neg": sign(np.bitwise_xor),
    "abs": sign(lambda bits, mask: bits & ~mask),
    "div": arithmetic(np.divide, "full"),
    "ex2": arithmetic(exactly(np.exp2), "approx"),
    "lg2": arithmetic(exactly(np.log2), "approx"),
    "sqrt": arithmetic(exactly(np.sqrt), "approx"),
    "rsqrt": arithmetic(exactly(lambda v: 1 / np.sqrt(v)), "approx"),
    "rcp": arithmetic(exactly(lambda v: 1 / v), "approx"),
}
