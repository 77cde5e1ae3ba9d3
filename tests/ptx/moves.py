"""What moves bits and leaves them as they are (PTX ISA, "Data Movement"): but for memory."""

import numpy as np

from .numbers import U32, U64, UNSIGNED_OF
from .operands import computing, every, of
from .text import Unknown, members


def move(i):
    """mov: of a register, of parts into one ({%rs1, %rs2} to %r1), or of one into parts."""
    if len(i.parts) != 2:
        raise Unknown(i)
    to, source = i.operands
    if to.startswith("{"):
        return apart(i, members(to))
    if source.startswith("{"):
        return together(i, members(source))
    return computing(to, np.copy, [of(source, i.bits)])


def apart(i, names):
    """The lowest bits go to the first; nowhere where it is called _."""
    bits, find = i.bits // len(names), of(i.operands[1], i.bits)

    def run(gang):
        value = find(gang)
        for k, name in enumerate(names):
            if name != "_":
                gang.write(name, (value >> value.dtype.type(bits * k)).astype(UNSIGNED_OF[bits]))

    return run


def together(i, names):
    bits, kind = i.bits // len(names), UNSIGNED_OF[i.bits]

    def run(*values):
        return sum(value.astype(kind) << kind(bits * k) for k, value in enumerate(values))

    return computing(i.operands[0], run, every(names, bits))


def select(i):
    """selp: the first where the predicate is true, else the second."""
    to, yes, no, predicate = i.operands
    operands = [of(predicate, 1), *every((yes, no), i.bits)]
    return computing(to, np.where, operands)


def permute(i):
    """prmt: four of the eight bytes of two registers; or their signs, as the selector says."""
    if i.type != "b32" or len(i.parts) != 2:
        raise Unknown(i)

    def run(a, b, selector):
        both, found = a.astype(U64) | (b.astype(U64) << U64(32)), U32(0)
        for k in range(4):
            which = (selector >> U32(4 * k)) & U32(0xF)
            byte = (both >> (U64(8) * (which & U32(7)).astype(U64))) & U64(0xFF)
            byte = np.where(which & U32(8), (byte >> U64(7)) * U64(0xFF), byte)
            found = found | (byte.astype(U32) << U32(8 * k))
        return found

    return computing(i.operands[0], run, every(i.operands[1:], 32))


def shuffle(i):
    """shfl.sync.idx: the value of another thread of the warp; all take part."""
    to, value, lane, clamp, mask = i.operands
    if i.parts != ("shfl", "sync", "idx", "b32") or i.guard or "|" in to:
        raise Unknown(i)
    if int(clamp, 0) != 31 or int(mask, 0) % (1 << 32) != 0xFFFFFFFF:
        raise Unknown(i, "of a part of a warp")
    operands = every((value, lane), 32)

    def run(gang):
        values, lanes = (np.broadcast_to(operand(gang), gang.shape) for operand in operands)
        source = gang.threads // 32 * 32 + lanes % 32
        gang.write(to, np.take_along_axis(values, source.astype(int), 1))

    return run


INSTRUCTIONS = {"mov": move, "selp": select, "prmt": permute, "shfl": shuffle}
