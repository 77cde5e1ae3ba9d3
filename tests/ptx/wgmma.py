"""The matrix unit of sm_90, which reads its factors from shared memory (PTX ISA, "Asynchronous
Warpgroup Level Matrix Instructions"): d = a @ b + d for four warps together.

It is asynchronous: here all is done at once, and ``asynchronous`` checks that this is the same.
"""

import re
from functools import lru_cache

import numpy as np

from .matrices import assembled, fragment
from .numbers import F32, F64, U16, U32, U64, WIDEN, bits32
from .operands import every, of
from .text import Unknown, members

BYTES = {"bf16": 2, "f16": 2, "tf32": 4}
# By the number in a descriptor: bytes of a row, and the bits of a row's number that are mixed in.
SWIZZLES = {0: (16, 0), 1: (128, 7), 2: (64, 3), 3: (32, 1)}


@lru_cache(4096)
def places(descriptor, rows, K, item, transposed):
    """(rows, K): where in shared memory a factor's elements are, in bytes.

    PTX ISA, "Shared Memory Matrix Layout" and "Matrix Descriptor Format": the factor is made of
    atoms of eight rows of 16 to 128 bytes. Rows lie along K or, ``transposed``, across; the 16
    bytes of a row are mixed (swizzled) by the row's number in its atom, which the address tells.
    """
    start, leading, stride = (((descriptor >> bit) & 0x3FFF) << 4 for bit in (0, 16, 32))
    width, mixed = SWIZZLES[descriptor >> 62]
    row, k = np.arange(rows)[:, None], np.arange(K)[None, :]
    if transposed:
        across = width // item
        at = row // across * leading + k // 8 * stride + k % 8 * width + row % across * item
    else:
        along = k * item
        at = row // 8 * stride + row % 8 * width + along % width + along // width * leading
    at = at + start
    return at ^ ((at >> 7 & mixed) << 4)


class Factor:
    """A factor of the product: registers, or a descriptor of where it lies in shared memory."""

    def __init__(self, i, operand, rows, K, kind, transposed):
        self.line, self.kind, self.shape = i, kind, (rows, K)
        self.transposed, self.registers = bool(transposed), None
        if operand.startswith("{"):
            self.registers = every(members(operand), 32)
            self.layout = fragment(kind, 16, K, K // 2)
        else:
            self.descriptor = of(operand, 64)

    def load(self, gang):
        """(programs, groups of four warps, rows, K), in float64."""
        groups, (rows, K) = gang.shape[1] // 128, self.shape
        if self.registers:
            found = assembled(gang, self.registers, self.kind, self.layout, (16, K))
            return found.reshape(-1, groups, rows, K)
        descriptors = np.broadcast_to(self.descriptor(gang), gang.shape).reshape(-1, groups, 128)
        return np.stack([self._from_memory(gang, descriptors[:, g]) for g in range(groups)], 1)

    def _from_memory(self, gang, descriptors):
        """descriptors: (programs, 128)"""
        one = int(descriptors[0, 0])
        if (descriptors != U64(one)).any() or (one >> 49) & 7:
            raise Unknown(self.line, "descriptors differ, or have an offset of their own")
        item = BYTES[self.kind]
        at = places(one, *self.shape, item, self.transposed)
        gang.shared.read_by_unit(gang.programs, at.reshape(-1), gang.times, self.line)
        memory = gang.shared.bytes.reshape(-1).view({2: U16, 4: U32}[item])
        rows = gang.programs[:, None, None] * gang.shared.row
        return WIDEN[self.kind](memory[(rows + at) // item]).astype(F64)


def multiply(i):
    """wgmma.mma_async {d}, a, b, whether d is added, signs of a and b, and which is transposed."""
    d, a, b, add, sign_a, sign_b, *transposed = i.operands
    shape, kind = re.fullmatch(r"m64n(\d+)k(\d+)", i.parts[4]), i.parts[-1]
    known = ("wgmma", "mma_async", "sync", "aligned", i.parts[4], "f32", kind, kind)
    if i.guard or i.parts != known or not shape or (sign_a, sign_b) != ("1", "1"):
        raise Unknown(i)
    N, K = map(int, shape.groups())
    if kind not in BYTES or K * BYTES[kind] != 32:
        raise Unknown(i)
    transposed = [0] * (2 - len(transposed)) + [int(t) for t in transposed]
    a, b = Factor(i, a, 64, K, kind, transposed[0]), Factor(i, b, N, K, kind, transposed[1])
    names, layout, add = members(d), fragment("f32", 16, N, 8), of(add, 1)

    def run(gang):
        product = a.load(gang) @ b.load(gang).swapaxes(-1, -2)
        product = product.reshape(len(product), -1, 16, N)
        kept = np.broadcast_to(add(gang), gang.shape)
        for name, (row, column) in zip(names, layout, strict=True):
            part = product[:, :, row, column].reshape(gang.shape)
            before = np.where(kept, gang.read(name).view(F32), F32(0))
            gang.write(name, bits32(part + before))

    return run


def build(i):
    """fence, commit_group and wait_group say nothing new where all is done at once."""
    if i.parts[1] in ("fence", "commit_group", "wait_group"):
        return lambda gang: None
    if i.parts[1] != "mma_async":
        raise Unknown(i)
    return multiply(i)


INSTRUCTIONS = {"wgmma": build}
