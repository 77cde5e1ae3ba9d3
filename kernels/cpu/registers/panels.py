"""Panels: what the microkernel reads, a line of ``vectors`` registers for every step of K.

What a step is, the factors say: one element of K here, two in bfloat16.py.
"""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.integers import I64, pointer
from .elements import emit_load, row_there, transposed
from .simd import call_intrinsic, splat


class Singles:
    """Factors as the registers hold them: a step of K is one element."""

    depth, lone = 1, None

    def __init__(self, vec):
        self.vec, self.itemsize, self.name = vec, vec.itemsize, f"f{8 * vec.itemsize}"
        self.element, self.column = vec.llvm.element, vec.llvm
        self.across, self.zero = vec.lanes * vec.itemsize, vec.constant(0.0)
        self.weight, self.behind = vec.itemsize, 0

    def load_column(self, builder, address):
        """What ``multiply_add`` takes of a panel: ``across`` bytes of a line."""
        return builder.load(pointer(builder, address, self.column), align=self.itemsize)

    def result(self, builder, total, row, behind, v):
        """What a sum comes to; narrow.py's has more to do."""
        return total

    def broadcast(self, builder, element):
        """What ``multiply_add`` takes of A."""
        return splat(builder, self.vec.llvm, element)

    def multiply_add(self, builder, broadcast, column, total):
        name = f"llvm.fmuladd.v{self.vec.lanes}{self.name}"
        return call_intrinsic(builder, name, self.vec.llvm, [broadcast, column, total])

    def line(self, builder, values):
        """A register of a panel from registers of ``depth`` rows."""
        return values[0]

    def load_along(self, builder, elements, address, count):
        """A register of steps from a row that runs along K."""
        return emit_load(builder, elements, address, count)


def make_packing(factors, elements):
    """``put_line`` and ``stand``: registers, and rows of ``elements``, into panels."""
    lanes = factors.vec.lanes

    @intrinsic
    def put_line(typingctx, values, address):
        """``depth`` rows of one register each, as a line of a panel."""

        def codegen(context, builder, sig, args):
            line = factors.line(builder, cgutils.unpack_tuple(builder, args[0]))
            builder.store(line, pointer(builder, args[1], line.type), align=factors.itemsize)
            return context.get_dummy_value()

        return types.void(values, types.int64), codegen

    @intrinsic
    def stand(typingctx, source, lds, rows, depth, out, ldo):
        """At most ``lanes`` rows of at most lanes * ``factors.depth`` elements, as panel lines."""

        def codegen(context, builder, sig, args):
            source, lds, rows, depth, out, ldo = args
            lines = []
            for i in range(lanes):
                mine = row_there(builder, i, rows, source, lds, depth)
                lines.append(factors.load_along(builder, elements, *mine))
            for i, line in enumerate(transposed(builder, lines)):
                with builder.if_then(builder.icmp_signed("<", I64(i * factors.depth), depth)):
                    ptr = pointer(builder, out, line.type)
                    builder.store(line, ptr, align=factors.itemsize)
                out = builder.add(out, ldo)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return {"put_line": put_line, "stand": stand}
