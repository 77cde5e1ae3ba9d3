"""What an operand stands for: a register of every thread, a number, an address.

``of(...)`` and its kin give a function of a Gang (see machine.py): an array with a row for each
program and a column for each thread, or one number for all.
"""

import re

import numpy as np

from .numbers import UNSIGNED_OF

UNSIGNED = {1: np.bool_} | UNSIGNED_OF
REGISTERS = {"p": 1, "rs": 16, "r": 32, "rd": 64}  # bits of a register, by the letters of its name


def bits_of(register):
    """How many a register has, by its name."""
    return REGISTERS[re.match(r"%([a-z]+)\d+$", register)[1]]


def is_register(operand):
    return bool(re.fullmatch(r"%[a-z]+\d+", operand))


def number(text, bits):
    """A literal, as an unsigned integer of so many bits (PTX ISA, "Constants")."""
    if text.startswith("0f"):
        return np.uint32(int(text[2:], 16))
    return UNSIGNED[bits](int(text.rstrip("U"), 0) % (1 << bits))


def of(operand, bits):
    """A register, a special register or a literal."""
    if is_register(operand):
        return lambda gang: gang.read(operand)
    if operand.startswith("%tid."):
        along = "xyz".index(operand[-1])
        return lambda gang: gang.threads if along == 0 else np.uint32(0)
    if operand.startswith(("%ctaid.", "%nctaid.")):
        name, _, axis = operand[1:].partition(".")
        return lambda gang: gang.place(name, "xyz".index(axis))
    if operand == "global_smem":  # all shared memory; a program's own begins at 0 here
        return lambda gang: UNSIGNED[bits](0)
    if bits == 1:
        return lambda gang: np.bool_(int(operand) != 0)
    value = number(operand, bits)
    return lambda gang: value


def every(operands, bits):
    """``of`` each."""
    return [of(operand, bits) for operand in operands]


def address(operand):
    """ "[%rd1 + 8]", "[global_smem+64]": the sum, as int64."""
    base, _, offset = operand.strip("[] ").replace(" ", "").partition("+")
    find, offset = of(base, 64), np.int64(offset or 0)
    return lambda gang: find(gang).astype(np.int64) + offset


def computing(destination, function, operands):
    """A step that writes function(*operands) to a register; operands as ``of`` gives them."""

    def run(gang):
        gang.write(destination, function(*[operand(gang) for operand in operands]))

    return run
