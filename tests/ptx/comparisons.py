"""Comparisons (PTX ISA, "Comparison and Selection"): setp, which writes a predicate or two."""

import numpy as np

from .numbers import WIDEN, halves, signed
from .operands import every
from .text import Unknown

ORDERED = {
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b),  # of NaN nothing is true
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
UNORDERED = {  # of NaN all is true
    f"{name}u": lambda a, b, other=ORDERED[other]: ~other(a, b) for name, other in OPPOSITE.items()
}
FLOATS = ORDERED | UNORDERED
FLOATS |= {"num": lambda a, b: (a == a) & (b == b), "nan": lambda a, b: (a != a) | (b != b)}
INTEGERS = ORDERED | {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}


def compare(i):
    """setp.lt.f32 %p1, a, b; setp.lt.bf16x2 %p1|%p2, a, b of the lower and of the upper half."""
    if len(i.parts) != 3:
        raise Unknown(i)
    _, name, kind = i.parts
    kind, two = kind.removesuffix("x2"), kind.endswith("x2")
    floating = kind in WIDEN
    function = (FLOATS if floating else INTEGERS).get(name)
    to, operands = i.operands[0].split("|"), every(i.operands[1:], 32 if two else i.bits)
    if function is None or len(to) != 1 + two or (two and not floating):
        raise Unknown(i)
    look = WIDEN[kind] if floating else signed if kind[0] == "s" else lambda bits: bits

    def run(gang):
        values = [operand(gang) for operand in operands]
        pairs = zip(*map(halves, values), strict=True) if two else [values]
        for predicate, (a, b) in zip(to, pairs, strict=True):
            gang.write(predicate, function(look(a), look(b)))

    return run


INSTRUCTIONS = {"setp": compare}
