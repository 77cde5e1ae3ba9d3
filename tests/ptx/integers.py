"""Arithmetic of integers, and logic (PTX ISA, "Integer Arithmetic", "Logic and Shift").

Registers hold unsigned integers, which wrap; where the sign counts, they are looked at anew.
"""

import numpy as np

from .numbers import U32, U64, signed, unsigned
from .operands import computing, every, of
from .text import Unknown


def plain(function):
    """The same for signed and unsigned numbers, and for all their sizes."""

    def build(i):
        if len(i.parts) > 2:
            raise Unknown(i)
        return computing(i.operands[0], function, every(i.operands[1:], i.bits))

    return build


def by_sign(function):
    """function(operands as the type has them): an integer of the same size."""

    def build(i):
        if len(i.parts) > 2 or i.type[0] not in "su":
            raise Unknown(i)

        def run(*values):
            if i.type[0] == "u":
                return function(*values)
            return unsigned(function(*map(signed, values)))

        return computing(i.operands[0], run, every(i.operands[1:], i.bits))

    return build


def quotient(a, b):
    """Rounded towards zero."""
    wide_a, wide_b = a.astype(np.int64), b.astype(np.int64)
    found = np.abs(wide_a) // np.abs(wide_b) * np.sign(wide_a) * np.sign(wide_b)
    return found.astype(a.dtype)


def remainder(a, b):
    return a - quotient(a, b) * b


def wide(i):
    """A function that makes 32 bits 64, with the sign if the type has one."""
    if i.bits != 32:
        raise Unknown(i)
    if i.type == "s32":
        return lambda bits: signed(bits).astype(np.int64).view(U64)
    return lambda bits: bits.astype(U64)


def multiply(i):
    """mul.lo, mul.wide, mul.hi"""
    how, operands = i.parts[1], every(i.operands[1:], i.bits)
    if how == "lo" and len(i.parts) == 3:
        return computing(i.operands[0], np.multiply, operands)
    if how not in ("wide", "hi") or len(i.parts) != 3:
        raise Unknown(i)
    widen = wide(i)
    if how == "wide":
        return computing(i.operands[0], lambda a, b: widen(a) * widen(b), operands)

    def high(a, b):  # the product of two of 32 bits, whatever their sign, fits 64
        return (widen(a) * widen(b) >> U64(32)).astype(U32)

    return computing(i.operands[0], high, operands)


def multiply_add(i):
    """mad.lo, mad.wide"""
    how, (to, a, b, c) = i.parts[1], i.operands
    if len(i.parts) != 3 or how not in ("lo", "wide"):
        raise Unknown(i)
    if how == "lo":
        return computing(to, lambda a, b, c: a * b + c, every((a, b, c), i.bits))
    widen, operands = wide(i), [of(a, 32), of(b, 32), of(c, 64)]
    return computing(to, lambda a, b, c: widen(a) * widen(b) + c, operands)


def shift(i):
    """shl, shr: all bits at once are gone, or the sign's, where it is by as many or more."""
    left, with_sign, bits = i.parts[0] == "shl", i.type[0] == "s", i.bits

    def run(value, by):
        most = np.minimum(by, U32(bits - 1)).astype(value.dtype)
        if with_sign:
            return unsigned(signed(value) >> signed(most))
        moved = value << most if left else value >> most
        return np.where(by >= bits, value.dtype.type(0), moved)

    return computing(i.operands[0], run, [of(i.operands[1], bits), of(i.operands[2], 32)])


def extract(i):
    """bfe: some bits of 32 from a place on, the highest of them as a sign if the type has one."""
    if i.type not in ("u32", "s32"):
        raise Unknown(i)

    def run(value, begin, length):
        begin, length = (v & U32(0xFF) for v in (begin, length))
        mask = np.where(length < 32, (U64(1) << length.astype(U64)) - U64(1), U64(0xFFFFFFFF))
        found = (value.astype(U64) >> np.minimum(begin, U32(63)).astype(U64)) & mask
        if i.type == "s32":
            top = np.minimum(begin + length, U32(32)) - U32(1)
            negative = (length > 0) & ((value >> top) & U32(1) > 0)
            found = np.where(negative, found | ~mask, found)
        return found.astype(U32)

    return computing(i.operands[0], run, every(i.operands[1:], 32))


INSTRUCTIONS = {
    "add": plain(np.add),
    "sub": plain(np.subtract),
    "and": plain(np.bitwise_and),
    "or": plain(np.bitwise_or),
    "xor": plain(np.bitwise_xor),
    "not": plain(np.invert),
    "neg": by_sign(np.negative),
    "abs": by_sign(np.abs),
    "min": by_sign(np.minimum),
    "max": by_sign(np.maximum),
    "div": by_sign(quotient),
    "rem": by_sign(remainder),
    "mul": multiply,
    "mad": multiply_add,
    "shl": shift,
    "shr": shift,
    "bfe": extract,
}
