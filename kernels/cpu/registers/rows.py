"""Numbers of a whole row: read into every lane of a register, and made of all its units."""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.integers import I32, I64, pointer
from .elements import emit_store
from .simd import mask, shuffle, splat


def make_rows(vec):
    """``spread_each``, ``no_sums`` and ``add_each`` on registers ``vec``."""

    def several(number):
        return types.BaseTuple.from_types((vec,) * number.literal_value)

    @intrinsic
    def spread_each(typingctx, number, address):
        """A tuple of ``number`` (a literal) registers, of numbers that stand at an address."""
        if not isinstance(number, types.IntegerLiteral):
            return None

        def codegen(context, builder, sig, args):
            values = []
            for i in range(number.literal_value):
                at = builder.add(args[1], I64(i * vec.itemsize))
                one = builder.load(pointer(builder, at, vec.llvm.element), align=vec.itemsize)
                values.append(splat(builder, vec.llvm, one))
            return context.make_tuple(builder, sig.return_type, values)

        return several(number)(number, types.int64), codegen

    @intrinsic
    def no_sums(typingctx, number):
        """A tuple of ``number`` (a literal) registers of zeros."""
        if not isinstance(number, types.IntegerLiteral):
            return None

        def codegen(context, builder, sig, args):
            zeros = [vec.constant(0.0)] * number.literal_value
            return context.make_tuple(builder, sig.return_type, zeros)

        return several(number)(number), codegen

    @intrinsic
    def add_each(typingctx, sums, values, left):
        """The sums with the first ``left`` lanes of each value added: the others are no units."""

        def codegen(context, builder, sig, args):
            sums, values, left = args
            there, found = mask(builder, vec.lanes, left), []
            for total, value in zip(
                cgutils.unpack_tuple(builder, sums),
                cgutils.unpack_tuple(builder, values),
                strict=True,
            ):
                value = builder.select(there, value, vec.constant(0.0))
                found.append(builder.fadd(total, value))
            return context.make_tuple(builder, sig.return_type, found)

        return sums(sums, values, types.int64), codegen

    return {"spread_each": spread_each, "no_sums": no_sums, "add_each": add_each}


def make_put_means(vec, places):
    """``put_means``: registers' lanes added up and divided, to these ``places`` at an address."""

    @intrinsic
    def put_means(typingctx, sums, count, address):
        """Halves are added to each other: the order depends on the number of lanes alone."""

        def codegen(context, builder, sig, args):
            sums, count, address = args
            count = builder.sitofp(count, vec.llvm.element)
            for total, place in zip(cgutils.unpack_tuple(builder, sums), places, strict=True):
                distance = vec.lanes // 2
                while distance:
                    order = [(lane + distance) % vec.lanes for lane in range(vec.lanes)]
                    total = builder.fadd(total, shuffle(builder, total, total, order))
                    distance //= 2
                one = builder.extract_element(total, I32(0))
                at = builder.add(address, I64(place * vec.itemsize))
                at = pointer(builder, at, vec.llvm.element)
                builder.store(builder.fdiv(one, count), at, align=vec.itemsize)
            return context.get_dummy_value()

        return types.void(sums, types.int64, types.int64), codegen

    return put_means


def make_put_places(elements, places):
    """``put_places``: registers to those of the planes at an address that ``places`` says."""

    @intrinsic
    def put_places(typingctx, values, address, plane, left):
        def codegen(context, builder, sig, args):
            values, address, plane, left = args
            for value, place in zip(cgutils.unpack_tuple(builder, values), places, strict=True):
                at = builder.add(address, builder.mul(plane, I64(place)))
                emit_store(builder, elements, value, at, left)
            return context.get_dummy_value()

        return types.void(values, types.int64, types.int64, types.int64), codegen

    return put_places
