"""Which instruction a line names.

A module of instructions has a table of them: {first part of the name: builder}. A builder takes an
Instruction and gives what it does to a Gang; or raises Unknown, which names the line.
"""

import re
from typing import NamedTuple

from . import (
    accesses,
    comparisons,
    conversions,
    floats,
    integers,
    matrices,
    meeting,
    moves,
    wgmma,
)
from .operands import of
from .text import Unknown

OTHERS = {
    name: builder
    for module in (integers, comparisons, conversions, moves, accesses, matrices, wgmma, meeting)
    for name, builder in module.INSTRUCTIONS.items()
}


class Step(NamedTuple):
    """An instruction that can be run."""

    guard: object  # of a Gang: which threads take part; None: all
    run: object  # of a Gang: None, or what it says of the way from here, see machine.py


def build(instruction):
    """The Step for an Instruction."""
    head, floating = instruction.parts[0], re.match(r"b?f\d", instruction.type)
    builder = floats.INSTRUCTIONS.get(head) if floating else None
    builder = builder or OTHERS.get(head)
    if builder is None:
        raise Unknown(instruction)
    return Step(_guard(instruction), builder(instruction))


def _guard(instruction):
    if instruction.guard is None:
        return None
    find = of(instruction.guard, 1)
    return (lambda gang: ~find(gang)) if instruction.unless else find


def accessed(instruction):
    """(which memory, bytes of an element) that an instruction accesses, or (None, None)."""
    if instruction.parts[0] in ("ld", "st", "atom", "red"):
        space = next((p for p in instruction.parts if p in ("global", "shared")), None)
        return space, instruction.bits // 8
    return None, None
