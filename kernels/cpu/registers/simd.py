"""Register vectors for Numba: a type whose values are one SIMD register, and operations on it.

Numba leaves vectorisation to LLVM's guesswork. A cell is pointwise mathematics, so here it runs on
whole registers instead: ``VecType`` lowers to an LLVM vector, ``+ - * /`` to one instruction each.
Addresses are plain integers; elements.py loads and stores.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from ..compiler.integers import I32, I64


class VecType(types.Type):
    """The Numba type of one register of ``lanes`` elements of a float type."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        self.itemsize = dtype.bitwidth // 8
        scalar, integer = (
            (ir.FloatType(), I32) if dtype == types.float32 else (ir.DoubleType(), I64)
        )
        self.llvm = ir.VectorType(scalar, lanes)
        self.bits = ir.VectorType(integer, lanes)  # the same register read as integers
        super().__init__(name=f"Vec({dtype} x {lanes})")

    @property
    def mantissa(self):
        """Stored bits of the significand."""
        return 23 if self.dtype == types.float32 else 52

    def constant(self, value):
        return ir.Constant(self.llvm, [value] * self.lanes)


@register_model(VecType)
class VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


def splat(builder, vec, scalar):
    """An LLVM vector whose every lane is ``scalar``."""
    one = builder.insert_element(ir.Constant(vec, ir.Undefined), scalar, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vec.count), [0] * vec.count)
    return builder.shuffle_vector(one, one, zeros)


def _arithmetic(op, method):
    """``op`` on two vectors, or on a vector and a number, as one LLVM instruction.

    "contract" lets LLVM fuse a multiply and an add; nothing may be reassociated.
    """

    @type_callable(op)
    def typer(context):
        def typing(a, b):
            if isinstance(a, VecType) and (a == b or isinstance(b, types.Number)):
                return a
            if isinstance(b, VecType) and isinstance(a, types.Number):
                return b

        return typing

    def lower(context, builder, sig, args):
        vec = sig.return_type
        values = [
            value
            if isinstance(given, VecType)
            else splat(builder, vec.llvm, context.cast(builder, value, given, vec.dtype))
            for given, value in zip(sig.args, args, strict=True)
        ]
        return getattr(builder, method)(*values, flags=("contract",))

    for left, right in ((VecType, VecType), (VecType, types.Number), (types.Number, VecType)):
        lower_builtin(op, left, right)(lower)


for _op, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_op, _method)


@intrinsic
def clamp(typingctx, x, low, high):
    """``x`` held between two literals; NaN stays NaN."""
    if not isinstance(x, VecType):
        return None

    def codegen(context, builder, sig, args):
        vec, value = sig.args[0], args[0]
        for bound, given, comparison in ((args[1], low, "<"), (args[2], high, ">")):
            bound = splat(builder, vec.llvm, context.cast(builder, bound, given, vec.dtype))
            beyond = builder.fcmp_ordered(comparison, value, bound)
            value = builder.select(beyond, bound, value)
        return value

    return x(x, low, high), codegen


@intrinsic
def scale_and_add(typingctx, x, factor, addend):
    """x * factor + addend for a number ``factor``, rounded once where the CPU can."""
    if not (isinstance(x, VecType) and addend == x and isinstance(factor, types.Number)):
        return None

    def codegen(context, builder, sig, args):
        vec = sig.args[0]
        scale = splat(builder, vec.llvm, context.cast(builder, args[1], factor, vec.dtype))
        name = f"llvm.fmuladd.v{vec.lanes}f{8 * vec.itemsize}"
        return call_intrinsic(builder, name, vec.llvm, [args[0], scale, args[2]])

    return x(x, factor, addend), codegen


@intrinsic
def with_sign(typingctx, x, sign):
    """The magnitude of ``x`` with the sign of ``sign``, a register or a literal."""
    if not isinstance(x, VecType):
        return None

    def codegen(context, builder, sig, args):
        (vec, given), (value, sign) = sig.args, args
        if given != vec:
            sign = splat(builder, vec.llvm, context.cast(builder, sign, given, vec.dtype))
        name = f"llvm.copysign.v{vec.lanes}f{8 * vec.itemsize}"
        return call_intrinsic(builder, name, vec.llvm, [value, sign])

    return x(x, sign), codegen


@intrinsic
def zero_below(typingctx, x, low, value):
    """``value``, but 0 where x < low (a literal); where x is NaN, ``value``."""
    if not (isinstance(x, VecType) and value == x):
        return None

    def codegen(context, builder, sig, args):
        vec = sig.args[0]
        bound = splat(builder, vec.llvm, context.cast(builder, args[1], low, vec.dtype))
        below = builder.fcmp_ordered("<", args[0], bound)
        return builder.select(below, vec.constant(0.0), args[2])

    return x(x, low, value), codegen


@intrinsic
def relu(typingctx, x):
    """max(x, 0); NaN stays NaN."""
    if not isinstance(x, VecType):
        return None

    def codegen(context, builder, sig, args):
        zero = sig.args[0].constant(0.0)
        return builder.select(builder.fcmp_ordered("<=", args[0], zero), zero, args[0])

    return x(x), codegen


@intrinsic
def zeros_like(typingctx, x):
    if not isinstance(x, VecType):
        return None
    return x(x), lambda context, builder, sig, args: sig.args[0].constant(0.0)


@intrinsic
def add_to_exponent(typingctx, x, shifted):
    """x * 2**n for x near 1; ``shifted`` is n + 1.5 * 2**mantissa: its low bits are n.

    Bits added to those of a NaN may make it a number.
    """
    if not (isinstance(x, VecType) and shifted == x):
        return None

    def codegen(context, builder, sig, args):
        vec = sig.args[0]
        x, n = (builder.bitcast(arg, vec.bits) for arg in args)
        n = builder.shl(n, ir.Constant(vec.bits, [vec.mantissa] * vec.lanes))
        return builder.bitcast(builder.add(x, n), vec.llvm)

    return x(x, shifted), codegen


def call_intrinsic(builder, name, result, args):
    """Call an LLVM intrinsic, declared by hand: llvmlite's helper knows only typed pointers."""
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def mask(builder, lanes, count):
    """Lanes 0 .. count-1 of ``lanes``."""
    numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, numbers.type, count))


def shuffle(builder, a, b, order):
    """A register of the lanes in ``order``, of those of a and then b."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))
