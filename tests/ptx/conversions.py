"""Conversions from one type to another (PTX ISA, "cvt")."""

import re

import numpy as np

from .numbers import (
    F32,
    NARROW,
    UNSIGNED_OF,
    WIDEN,
    bits32,
    float32,
    joined,
    signed,
    to_tf32,
)
from .operands import computing, every
from .text import Unknown


def convert(i):
    """cvt{.rounding}.to.from, or cvt.rn.bf16x2.f32 of two."""
    *modifiers, to, source = i.parts[1:]
    if to.endswith("x2"):
        return pair(i, to.removesuffix("x2"), source, modifiers)
    if to == "tf32" and source == "f32" and modifiers == ["rna"]:
        return computing(
            i.operands[0], lambda bits: to_tf32(float32(bits)), every(i.operands[1:], 32)
        )
    if to in NARROW and source in WIDEN and modifiers in ([], ["rn"]):
        narrow, widen = NARROW[to], WIDEN[source]
        return computing(
            i.operands[0], lambda bits: narrow(widen(bits)), every(i.operands[1:], i.bits)
        )
    if re.fullmatch(r"[su]\d+", source):
        if to == "f32" and modifiers == ["rn"]:
            return computing(i.operands[0], _to_float(source), every(i.operands[1:], i.bits))
        if re.fullmatch(r"[su]\d+", to) and not modifiers:
            return computing(i.operands[0], _resized(source, to), every(i.operands[1:], i.bits))
    raise Unknown(i)


def pair(i, to, source, modifiers):
    """The first operand becomes the upper half."""
    if to not in ("bf16", "f16") or source != "f32" or modifiers != ["rn"]:
        raise Unknown(i)
    narrow = NARROW[to]

    def run(high, low):
        return joined(narrow(float32(low)), narrow(float32(high)))

    return computing(i.operands[0], run, every(i.operands[1:], 32))


def _to_float(source):
    look = signed if source[0] == "s" else lambda bits: bits
    return lambda bits: bits32(look(bits).astype(F32))


def _resized(source, to):
    """An integer with more bits, or fewer; the sign goes along if the source has one."""
    look = signed if source[0] == "s" else lambda bits: bits
    narrow, wide = np.dtype(UNSIGNED_OF[int(source[1:])]), np.dtype(UNSIGNED_OF[int(to[1:])])

    def run(bits):
        bits = bits.astype(narrow)  # of a register that has more
        return look(bits).astype(wide)

    return run


INSTRUCTIONS = {"cvt": convert}
