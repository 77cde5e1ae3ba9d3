"""What the compiled loops do with numbers that are sizes and addresses: int64s, all of them."""

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic

I32, I64 = ir.IntType(32), ir.IntType(64)


def pointer(builder, address, pointee):
    return builder.inttoptr(address, pointee.as_pointer())


def _choice(comparison):
    @intrinsic
    def chosen(typingctx, a, b):
        """The int64 of two that is smaller, or larger."""

        def codegen(context, builder, sig, args):
            return builder.select(builder.icmp_signed(comparison, *args), *args)

        return types.int64(types.int64, types.int64), codegen

    return chosen


# What ``min`` and ``max`` are in compiled code: Numba's own take any number of arguments of any
# type, and a tenth of a second to compile.
smaller, larger = _choice("<"), _choice(">")


@intrinsic
def quotient(typingctx, a, b):
    """a / b rounded down, of int64s that are not negative."""
    return types.int64(types.int64, types.int64), lambda _, builder, sig, args: builder.udiv(*args)


@intrinsic
def call(typingctx, function, *arguments):
    """Call the C function at an address; its arguments are int64s, and it returns nothing."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * len(arguments))
        function, values = args
        values = cgutils.unpack_tuple(builder, values)
        builder.call(builder.inttoptr(function, kind.as_pointer()), values)
        return context.get_dummy_value()

    given = types.StarArgTuple.from_types([types.int64] * len(arguments))
    return types.void(types.int64, given), codegen


@intrinsic
def copy(typingctx, source, target, size):
    """``size`` bytes from address ``source`` to ``target``."""

    def codegen(context, builder, sig, args):
        source, target = (pointer(builder, a, ir.IntType(8)) for a in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@intrinsic
def integer(typingctx, address, index):
    """The ``index``-th int64 at ``address``."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.gep(pointer(builder, args[0], I64), [args[1]]))

    return types.int64(types.int64, types.int64), codegen


def viewed(record):
    """A function of an address: the numbers there, by the names of a numpy record."""
    kind = from_dtype(record)

    @intrinsic
    def view(typingctx, address):
        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), codegen

    return view
