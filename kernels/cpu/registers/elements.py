"""Loads, stores and transpositions of registers. A row's tail is read and written under a mask.

What lies in memory need not be what a register holds: ``elements`` say how wide they are there,
and convert. ``Same`` are those of the registers themselves; bfloat16.py has others.

All addresses are integers in bytes; ``count`` is how many elements of the row are left (a number of
at least ``lanes`` means a whole register).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.integers import I32, I64, pointer
from .simd import call_intrinsic, mask, shuffle


class Same:
    """Elements in memory are those of the register."""

    def __init__(self, vec):
        self.vec, self.llvm, self.itemsize = vec, vec.llvm, vec.itemsize
        self.name = f"f{8 * vec.itemsize}"

    def to_register(self, builder, value):
        return value

    def from_register(self, builder, value):
        return value


def _masked(builder, elements, what, count, result, before, after):
    """LLVM's masked load or store of the first ``count`` elements."""
    lanes = mask(builder, elements.llvm.count, count)
    name = f"llvm.masked.{what}.v{elements.llvm.count}{elements.name}.p0"
    return call_intrinsic(builder, name, result, [*before, I32(elements.itemsize), lanes, *after])


def row_there(builder, i, rows, address, stride, count):
    """(address, count) to load row ``i`` with; of one behind the last of ``rows``, nothing.

    Then the address is that of the first: to load nothing from a page that is not there is right,
    and takes a hundred times as long.
    """
    here = builder.icmp_signed("<", I64(i), rows)
    row = builder.add(address, builder.mul(stride, I64(i)))
    return builder.select(here, row, address), builder.select(here, count, I64(0))


def emit_load(builder, elements, address, count):
    ptr = pointer(builder, address, elements.llvm)
    slot = cgutils.alloca_once(builder, elements.llvm)
    whole = builder.icmp_signed(">=", count, I64(elements.llvm.count))
    with builder.if_else(whole) as (full, tail):
        with full:
            builder.store(builder.load(ptr, align=elements.itemsize), slot)
        with tail:
            zeros = ir.Constant(elements.llvm, None)
            value = _masked(builder, elements, "load", count, elements.llvm, [ptr], [zeros])
            builder.store(value, slot)
    return elements.to_register(builder, builder.load(slot))


def emit_store(builder, elements, value, address, count):
    ptr = pointer(builder, address, elements.llvm)
    value = elements.from_register(builder, value)
    whole = builder.icmp_signed(">=", count, I64(elements.llvm.count))
    with builder.if_else(whole) as (full, tail):
        with full:
            builder.store(value, ptr, align=elements.itemsize)
        with tail:
            _masked(builder, elements, "store", count, ir.VoidType(), [value, ptr], [])


def memory(elements):
    """``load``, ``store`` and their kin between registers and ``elements``."""
    vec = elements.vec

    @intrinsic
    def load(typingctx, address, count):
        def codegen(context, builder, sig, args):
            return emit_load(builder, elements, *args)

        return vec(types.int64, types.int64), codegen

    @intrinsic
    def store(typingctx, value, address, count):
        def codegen(context, builder, sig, args):
            emit_store(builder, elements, *args)
            return context.get_dummy_value()

        return types.void(vec, types.int64, types.int64), codegen

    @intrinsic
    def load_each(typingctx, number, address, stride, count):
        """A tuple of ``number`` (a literal) registers, ``stride`` bytes apart."""
        if not isinstance(number, types.IntegerLiteral):
            return None

        def codegen(context, builder, sig, args):
            _, address, stride, count = args
            values = []
            for _ in range(number.literal_value):
                values.append(emit_load(builder, elements, address, count))
                address = builder.add(address, stride)
            return context.make_tuple(builder, sig.return_type, values)

        result = types.BaseTuple.from_types((vec,) * number.literal_value)
        return result(number, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def load_rows(typingctx, number, address, stride, rows, count):
        """``load_each`` of which the first ``rows`` exist; the others are zero."""
        if not isinstance(number, types.IntegerLiteral):
            return None

        def codegen(context, builder, sig, args):
            _, address, stride, rows, count = args
            values = []
            for i in range(number.literal_value):
                mine = row_there(builder, i, rows, address, stride, count)
                values.append(emit_load(builder, elements, *mine))
            return context.make_tuple(builder, sig.return_type, values)

        result = types.BaseTuple.from_types((vec,) * number.literal_value)
        return result(number, *[types.int64] * 4), codegen

    @intrinsic
    def store_each(typingctx, values, address, stride, count):
        def codegen(context, builder, sig, args):
            values, address, stride, count = args
            for value in cgutils.unpack_tuple(builder, values):
                emit_store(builder, elements, value, address, count)
                address = builder.add(address, stride)
            return context.get_dummy_value()

        return types.void(values, types.int64, types.int64, types.int64), codegen

    return {
        "load": load,
        "store": store,
        "load_each": load_each,
        "load_rows": load_rows,
        "store_each": store_each,
    }


def make_transpose(source_elements, out_elements):
    """``transpose`` from one kind of elements to another, or to the same."""
    lanes = source_elements.vec.lanes

    @intrinsic
    def transpose(typingctx, source, lds, rows, columns, out, ldo, width):
        """Transpose a block of at most lanes x lanes: ``rows`` rows of ``columns`` elements.

        Each of the out rows is stored ``width`` elements wide, zeros where rows end.
        """

        def codegen(context, builder, sig, args):
            source, lds, rows, columns, out, ldo, width = args
            lines = []
            for i in range(lanes):
                mine = row_there(builder, i, rows, source, lds, columns)
                lines.append(emit_load(builder, source_elements, *mine))
            for i, line in enumerate(transposed(builder, lines)):
                with builder.if_then(builder.icmp_signed("<", I64(i), columns)):
                    emit_store(builder, out_elements, line, out, width)
                out = builder.add(out, ldo)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return transpose


def transposed(builder, lines):
    """A square block of registers transposed: ever larger sub-blocks change places."""
    lanes = len(lines)
    distance = 1
    while distance < lanes:
        for i in range(lanes):
            if i & distance:
                continue
            a, b = lines[i], lines[i + distance]
            low = [j + lanes - distance if j & distance else j for j in range(lanes)]
            high = [j + lanes if j & distance else j + distance for j in range(lanes)]
            lines[i] = shuffle(builder, a, b, low)
            lines[i + distance] = shuffle(builder, a, b, high)
        distance *= 2
    return lines
