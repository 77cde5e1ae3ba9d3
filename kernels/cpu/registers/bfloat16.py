"""bfloat16 in memory, float32 in registers; and products of bfloat16 where the CPU has them.

A bfloat16 is the upper half of a float32. AVX512-BF16 multiplies pairs of them: each lane of a sum
receives a[k] * b[k] + a[k + 1] * b[k + 1] in float32. So rows k and k + 1 of a panel lie
interleaved, a 32-bit pair for each column, and a pair of A's row is broadcast as one number.

The instructions take denormal numbers (below 1e-38) for zero.
"""

from llvmlite import ir
from numba.extending import intrinsic

from ..compiler.integers import I32
from .elements import emit_load
from .panels import Singles
from .simd import VecType, call_intrinsic, splat

I16 = ir.IntType(16)


class BFloat(ir.Type):
    """LLVM's ``bfloat``, which llvmlite does not know."""

    def __str__(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloat)

    def __hash__(self):
        return hash(BFloat)


@intrinsic
def divide_roughly(typingctx, a, b):
    """a / b to 14 bits (AVX-512): what is then rounded to 8 does not notice."""

    def codegen(context, builder, sig, args):
        vec, (a, b) = sig.return_type, args
        all_lanes = ir.Constant(ir.IntType(vec.lanes), -1)
        name = f"llvm.x86.avx512.rcp14.ps.{32 * vec.lanes}"
        inverse = call_intrinsic(builder, name, vec.llvm, [b, vec.constant(0.0), all_lanes])
        return builder.fmul(a, inverse)

    return a(a, b), codegen


class Bfloat16:
    """bfloat16 as elements (see elements.py): rounded to nearest, ties to even."""

    itemsize, name = 2, "bf16"

    def __init__(self, vec):
        self.vec, self.llvm = vec, ir.VectorType(BFloat(), vec.lanes)

    def to_register(self, builder, value):
        return builder.fpext(value, self.vec.llvm)

    def from_register(self, builder, value):
        return builder.fptrunc(value, self.llvm)


class Pairs(Singles):
    """The microkernel's factors (see microkernel.py), two of bfloat16 in a step of K."""

    depth, itemsize, name, weight, behind = 2, 2, "bf16", 2, 0
    element, lone = I32, I16

    def __init__(self, vec):
        self.vec, self.across, self.zero = vec, 4 * vec.lanes, vec.constant(0.0)
        self.column = ir.VectorType(BFloat(), 2 * vec.lanes)
        self.pairs = ir.VectorType(I32, vec.lanes)

    def broadcast(self, builder, element):
        if element.type == I16:
            element = builder.zext(element, I32)
        return builder.bitcast(splat(builder, self.pairs, element), self.column)

    def multiply_add(self, builder, broadcast, column, total):
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.vec.lanes}"
        return call_intrinsic(builder, name, self.vec.llvm, [total, broadcast, column])

    def line(self, builder, values):
        halves = ir.VectorType(I16, self.vec.lanes)
        rounded = (builder.fptrunc(value, Bfloat16(self.vec).llvm) for value in values)
        low, high = (builder.zext(builder.bitcast(v, halves), self.pairs) for v in rounded)
        high = builder.shl(high, ir.Constant(self.pairs, [16] * self.vec.lanes))
        return builder.or_(low, high)

    def load_along(self, builder, elements, address, count):
        wide = VecType(self.vec.dtype, 2 * self.vec.lanes)
        value = emit_load(builder, type(elements)(wide), address, count)
        return builder.bitcast(builder.fptrunc(value, self.column), self.pairs)
