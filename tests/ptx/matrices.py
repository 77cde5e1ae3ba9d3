"""Matrices that the threads of a warp hold together: ldmatrix, stmatrix, mma.sync.

PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions": which thread holds what. Of a matrix
of 8 x 8 halves, thread 4r + c holds elements 2c and 2c + 1 of row r; larger ones are made of such.
"""

import numpy as np

from .numbers import F64, U16, bits32, float32, halves, joined, parts
from .operands import address, every
from .text import Unknown, members

LANE = np.arange(32)
ROW, COLUMN = LANE // 4, 2 * (LANE % 4)


class Eights:
    """An ldmatrix or stmatrix: thread 8k + r of a warp says where row r of the k-th matrix is."""

    def __init__(self, i, names, place):
        self.names, self.place, self.line = members(names), address(place), i
        self.trans = "trans" in i.parts
        form = "sync", "aligned", "m8n8", f"x{len(self.names)}", *["trans"] * self.trans
        if i.guard or i.parts[1:] != (*form, "shared", "b16"):
            raise Unknown(i)

    def rows(self, gang):
        """(matrices, programs, warps, 8): where in shared memory the rows are, checked."""
        addresses = np.broadcast_to(self.place(gang), gang.shape)
        addresses = addresses.reshape(gang.shape[0], -1, 32)[:, :, : 8 * len(self.names)]
        programs = np.broadcast_to(gang.programs[:, None, None], addresses.shape)
        at = gang.shared.offsets(programs, addresses, 16, self.line)
        return np.moveaxis(at.reshape(*at.shape[:2], -1, 8), 2, 0)

    def note(self, gang, rows, access):
        """Of a row of 16 bytes, by the warp that it belongs to."""
        moments, warps = (
            np.broadcast_to(v[:, ::32, None], rows.shape).reshape(-1)
            for v in (gang.moments, gang.warps)
        )
        getattr(gang.shared, access)(rows.reshape(-1), 16, moments, warps, self.line)

    def elements(self, rows):
        """Which halves of shared memory each thread holds of a matrix, the lower one first."""
        if self.trans:
            return [(rows[:, :, COLUMN + e] // 2 + ROW) for e in (0, 1)]
        return [(rows[:, :, ROW] // 2 + COLUMN + e) for e in (0, 1)]


def load_matrix(i):
    eights = Eights(i, *i.operands)

    def run(gang):
        rows = eights.rows(gang)
        eights.note(gang, rows, "read")
        memory = gang.shared.bytes.reshape(-1).view(U16)
        for name, matrix in zip(eights.names, rows, strict=True):
            low, high = (memory[each] for each in eights.elements(matrix))
            gang.write(name, joined(low, high).reshape(gang.shape))

    return run


def store_matrix(i):
    place, names = i.operands
    eights = Eights(i, names, place)

    def run(gang):
        rows = eights.rows(gang)
        eights.note(gang, rows, "write")
        memory = gang.shared.bytes.reshape(-1).view(U16)
        for name, matrix in zip(eights.names, rows, strict=True):
            held = halves(gang.read(name).reshape(gang.shape[0], -1, 32))
            for each, half in zip(eights.elements(matrix), held, strict=True):
                gang.shared.put(memory, each, half, i)

    return run


def fragment(kind, rows, columns, across):
    """[(row, column)] of each number that a thread holds, in the order of its registers.

    A fragment is made of parts of eight rows, which come first, and of ``across`` columns: a
    register's numbers lie side by side.
    """
    per = 1 if kind == "tf32" else 2
    column = LANE % 4 * per
    return [
        (r + ROW, c + column + e)
        for c in range(0, columns, across)
        for r in range(0, rows, 8)
        for e in range(per)
    ]


def multiply(i):
    """mma.sync: d = a @ b + c, where a is (16, K), b (K, 8), c and d (16, 8)."""
    shapes = {"bf16": 16, "f16": 16, "tf32": 8}
    kind = i.parts[-2]
    K = shapes.get(kind)
    known = ("mma", "sync", "aligned", f"m16n8k{K}", "row", "col", "f32", kind, kind, "f32")
    if i.guard or i.parts != known:
        raise Unknown(i)
    d, *names = map(members, i.operands)
    a, b, c = (every(each, 32) for each in names)
    of_a, of_b = fragment(kind, 16, K, K // 2), fragment(kind, 8, K, K // 2)
    of_c = fragment("f32", 16, 8, 8)

    def run(gang):
        left = assembled(gang, a, kind, of_a, (16, K))
        right = assembled(gang, b, kind, of_b, (8, K))  # of b, columns come first
        total = assembled(gang, c, "f32", of_c, (16, 8))
        total = bits32(total + left @ right.swapaxes(-1, -2))
        for name, (row, column) in zip(d, of_c, strict=True):
            gang.write(name, total[:, :, row, column].reshape(gang.shape))

    return run


def assembled(gang, registers, kind, places, shape):
    """(programs, warps, *shape), in float64: what the threads of each warp hold together."""
    found = np.zeros((gang.shape[0], gang.shape[1] // 32, *shape), F64)
    places = iter(places)
    for register in registers:
        bits = np.broadcast_to(register(gang), gang.shape).reshape(*found.shape[:2], 32)
        for values in (float32(bits),) if kind == "f32" else parts(bits, kind):
            row, column = next(places)
            found[:, :, row, column] = values
    return found


INSTRUCTIONS = {"ldmatrix": load_matrix, "stmatrix": store_matrix, "mma": multiply}
