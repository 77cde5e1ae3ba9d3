"""Conditions on registers: a truth value for each lane, and what is chosen by it."""

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from .simd import VecType, call_intrinsic, splat


class MaskType(types.Type):
    """The Numba type of what a comparison of two registers is."""

    def __init__(self, vec):
        self.vec = vec
        self.llvm = ir.VectorType(ir.IntType(1), vec.lanes)
        super().__init__(name=f"Mask({vec})")


@register_model(MaskType)
class MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


def _as_register(context, builder, vec, given, value):
    """A value as a register: it is one, or a number."""
    if isinstance(given, VecType):
        return value
    return splat(builder, vec.llvm, context.cast(builder, value, given, vec.dtype))


def _register_of(*given):
    """The type of the registers among these types; None if others are there than numbers."""
    vecs = {t for t in given if isinstance(t, VecType)}
    if len(vecs) == 1 and all(isinstance(t, (VecType, types.Number)) for t in given):
        return vecs.pop()
    return None


def _comparison(op, symbol):
    """``op`` on two registers, or on one and a number; false where either is NaN."""

    @type_callable(op)
    def typer(context):
        def typing(a, b):
            vec = _register_of(a, b)
            return vec and MaskType(vec)

        return typing

    def lower(context, builder, sig, args):
        vec = sig.return_type.vec
        a, b = (
            _as_register(context, builder, vec, t, v) for t, v in zip(sig.args, args, strict=True)
        )
        return builder.fcmp_ordered(symbol, a, b)

    for left, right in ((VecType, VecType), (VecType, types.Number), (types.Number, VecType)):
        lower_builtin(op, left, right)(lower)


for _op, _symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "==")):
    _comparison(getattr(operator, _op), _symbol)


def _of_masks(op, method):
    @type_callable(op)
    def typer(context):
        def typing(a, b):
            return a if isinstance(a, MaskType) and a == b else None

        return typing

    def lower(context, builder, sig, args):
        return getattr(builder, method)(*args)

    lower_builtin(op, MaskType, MaskType)(lower)


_of_masks(operator.and_, "and_")
_of_masks(operator.or_, "or_")


def _of_one(op, kind, lower):
    @type_callable(op)
    def typer(context):
        return lambda a: a if isinstance(a, kind) else None

    lower_builtin(op, kind)(lambda context, builder, sig, args: lower(builder, *args))


_of_one(operator.invert, MaskType, lambda builder, mask: builder.not_(mask))
_of_one(operator.neg, VecType, lambda builder, value: builder.fneg(value))


@intrinsic
def where(typingctx, condition, a, b):
    """``a`` where the condition holds, else ``b``: registers or numbers."""
    if not isinstance(condition, MaskType):
        return None
    vec = condition.vec
    if _register_of(vec, a, b) is None:
        return None

    def codegen(context, builder, sig, args):
        a, b = (
            _as_register(context, builder, vec, t, v)
            for t, v in zip(sig.args[1:], args[1:], strict=True)
        )
        return builder.select(args[0], a, b)

    return vec(condition, a, b), codegen


def _pick(symbol):
    """The one of two for which the comparison holds; NaN if either is."""

    @intrinsic
    def pick(typingctx, a, b):
        vec = _register_of(a, b)
        if vec is None:
            return None

        def codegen(context, builder, sig, args):
            a, b = (
                _as_register(context, builder, vec, t, v)
                for t, v in zip(sig.args, args, strict=True)
            )
            found = builder.select(builder.fcmp_unordered(symbol, a, b), a, b)  # a where b is NaN
            return builder.select(builder.fcmp_unordered("uno", b, b), b, found)

        return vec(a, b), codegen

    return pick


maximum, minimum = _pick(">"), _pick("<")


def _llvm(name):
    """LLVM's own function of one register."""

    @intrinsic
    def function(typingctx, x):
        if not isinstance(x, VecType):
            return None

        def codegen(context, builder, sig, args):
            full = f"llvm.{name}.v{x.lanes}f{8 * x.itemsize}"
            return call_intrinsic(builder, full, x.llvm, args)

        return x(x), codegen

    return function


absolute, sqrt = _llvm("fabs"), _llvm("sqrt")


def _bits(vec, value):
    return ir.Constant(vec.bits, [value] * vec.lanes)


@intrinsic
def exponent(typingctx, x):
    """floor(log2 x) of a normal x above zero, as a float."""
    if not isinstance(x, VecType):
        return None

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], x.bits)
        bias = 127 if x.mantissa == 23 else 1023
        biased = builder.lshr(bits, _bits(x, x.mantissa))
        return builder.sitofp(builder.sub(biased, _bits(x, bias)), x.llvm)

    return x(x), codegen


@intrinsic
def significand(typingctx, x):
    """x / 2**floor(log2 x), in [1, 2), of a normal x above zero."""
    if not isinstance(x, VecType):
        return None

    def codegen(context, builder, sig, args):
        one = 127 << 23 if x.mantissa == 23 else 1023 << 52
        digits = builder.and_(builder.bitcast(args[0], x.bits), _bits(x, (1 << x.mantissa) - 1))
        return builder.bitcast(builder.or_(digits, _bits(x, one)), x.llvm)

    return x(x), codegen
