"""Products with weights of eight or sixteen bits: what a panel holds, and what becomes of a sum.

``Bytes`` multiply bytes by bytes: rows of A are made bytes first (``emit_narrowing``), each with a
scale of its own, and four of them are added up in 32 bits at a time: that is exact. A byte of A
stands 128 too high, as the instruction wants it; behind a panel are the sums of its columns times
128, which are taken off again, and the columns' scales.

``Wide`` are weights alone, widened to float32 in registers.
"""

from llvmlite import ir
from numba.core import cgutils

from ..compiler.integers import I32, I64, pointer
from .emit import kernel_function, load
from .panels import Singles
from .simd import call_intrinsic, mask, splat

HEAD = 64  # bytes before a row of bytes; its scale stands in the last four of them
OFFSET, MOST = 128.0, 127.0
LEAST = 2.0**-100  # what is smaller everywhere in a row is taken for zero
I8, I16, F32 = ir.IntType(8), ir.IntType(16), ir.FloatType()
WORDS = {512: "llvm.x86.avx512.pmaddw.d.512", 256: "llvm.x86.avx2.pmadd.wd"}


class Bytes:
    """The microkernel's factors (see microkernel.py), four bytes in a step of K.

    way: how the CPU multiplies these, as target.Registers has it.
    """

    depth, itemsize, lone, element, weight, behind = 4, 1, None, I32, 1, 8

    def __init__(self, vec, way):
        self.vec, self.way = vec, way
        self.ints = ir.VectorType(I32, vec.lanes)
        self.across, self.zero = 4 * vec.lanes, ir.Constant(self.ints, None)

    def load_column(self, builder, address):
        return builder.load(pointer(builder, address, self.ints), align=4)

    def broadcast(self, builder, element):
        return splat(builder, self.ints, element)

    def multiply_add(self, builder, broadcast, column, total):
        bits = 32 * self.vec.lanes
        if self.way == "by fours":
            bytes_of = ir.VectorType(I8, 4 * self.vec.lanes)
            args = [total, *(builder.bitcast(v, bytes_of) for v in (broadcast, column))]
            name = f"llvm.x86.avx512.vpdpbusd.{bits}"
            return call_intrinsic(builder, name, self.ints, args)
        if self.way == "by pairs":
            return self._by_words(builder, broadcast, column, total, WORDS[bits])
        for i in range(4):
            high, low = self._constant(24 - 8 * i), self._constant(8 * i)
            a = builder.and_(builder.lshr(broadcast, low), self._constant(255))
            w = builder.ashr(builder.shl(column, high), self._constant(24))
            total = builder.add(total, builder.mul(a, w))
        return total

    def _by_words(self, builder, broadcast, column, total, name):
        """The even bytes, and the odd ones, as words of 16 bits: their products are added in pairs.

        Bytes multiplied as bytes would not do: two such products can exceed 16 bits.
        """
        words = ir.VectorType(I16, 2 * self.vec.lanes)
        a, w = (builder.bitcast(v, words) for v in (broadcast, column))
        eight, low = (ir.Constant(words, [n] * words.count) for n in (8, 255))
        even = builder.and_(a, low), builder.ashr(builder.shl(w, eight), eight)
        odd = builder.lshr(a, eight), builder.ashr(w, eight)
        for pair in (even, odd):
            total = builder.add(total, call_intrinsic(builder, name, self.ints, list(pair)))
        return total

    def result(self, builder, total, row, behind, v):
        """A sum as float32; row: where A's row is; behind: what is behind the panel, for each of
        its registers the sums of the columns and the scales.
        """
        at = builder.add(behind, I64(v * 2 * self.across))
        total = builder.sub(total, self.load_column(builder, at))
        scale = load(builder, self.vec, builder.add(at, I64(self.across)))
        mine = builder.load(pointer(builder, builder.sub(row, I64(4)), F32), align=4)
        value = builder.fmul(builder.sitofp(total, self.vec.llvm), scale)
        return builder.fmul(value, splat(builder, self.vec.llvm, mine))

    def _constant(self, number):
        return ir.Constant(self.ints, [number] * self.vec.lanes)


class Wide(Singles):
    """Factors of which A's are float32, and the weights' of fewer bits: int8, or bfloat16 (16)."""

    def __init__(self, vec, bits):
        super().__init__(vec)
        self.bits, self.across = bits, vec.lanes * bits // 8
        self.weight, self.behind = bits // 8, 4 if bits == 8 else 0

    def load_column(self, builder, address):
        kind = ir.VectorType(ir.IntType(self.bits), self.vec.lanes)
        value = builder.load(pointer(builder, address, kind), align=1)
        ints = ir.VectorType(I32, self.vec.lanes)
        if self.bits == 8:
            return builder.sitofp(builder.sext(value, ints), self.vec.llvm)
        upper = ir.Constant(ints, [16] * self.vec.lanes)
        return builder.bitcast(builder.shl(builder.zext(value, ints), upper), self.vec.llvm)

    def result(self, builder, total, row, behind, v):
        """A sum times its column's scale, if there are any."""
        if self.bits != 8:
            return total
        at = builder.add(behind, I64(v * 4 * self.vec.lanes))
        return builder.fmul(total, load(builder, self.vec, at))


def emit_narrowing(vec):
    """(modules, names): a C function of (K, rows, a, lda, out, ldo), addresses and leading
    dimensions in bytes: rows of float32 as bytes and their scales.

    The largest number of a row becomes 127. Where one is not finite the scale is NaN: then so is
    all that is made of the row.
    """
    module = ir.Module()
    function, builder = kernel_function(module, "fastrnn_narrow", 6)
    K, rows, a, lda, out, ldo = function.args
    with cgutils.for_range_slice(builder, I64(0), rows, I64(1)) as (r, _):
        row = builder.add(a, builder.mul(lda, r))
        to = builder.add(builder.add(out, builder.mul(ldo, r)), I64(HEAD))
        inverse, scale = _scales(builder, _largest(builder, vec, row, K))
        builder.store(scale, pointer(builder, builder.sub(to, I64(4)), F32), align=4)
        inverse = splat(builder, vec.llvm, inverse)
        with cgutils.for_range_slice(builder, I64(0), K, I64(vec.lanes)) as (k, _):
            value = builder.fmul(_part(builder, vec, row, k, K), inverse)
            _put_bytes(builder, vec, value, builder.add(to, k))
    builder.ret_void()
    return [module], [function.name]


def _part(builder, vec, row, k, K):
    """A register of a row; zeros behind its end."""
    there = mask(builder, vec.lanes, builder.sub(K, k))
    return load(builder, vec, builder.add(row, builder.mul(k, I64(4))), there)


def _largest(builder, vec, row, K):
    """The bits of the largest magnitude: as integers, infinity and NaN are larger than any."""
    ints = ir.VectorType(I32, vec.lanes)
    slot = builder.alloca(ints)
    builder.store(ir.Constant(ints, None), slot)
    sign = ir.Constant(ints, [0x7FFFFFFF] * vec.lanes)
    with cgutils.for_range_slice(builder, I64(0), K, I64(vec.lanes)) as (k, _):
        value = builder.bitcast(_part(builder, vec, row, k, K), ints)
        largest, value = builder.load(slot), builder.and_(value, sign)
        more = builder.icmp_signed(">", value, largest)
        builder.store(builder.select(more, value, largest), slot)
    name = f"llvm.vector.reduce.smax.v{vec.lanes}i32"
    return call_intrinsic(builder, name, I32, [builder.load(slot)])


def _scales(builder, bits):
    """(what a row is multiplied by, what undoes that)."""
    largest, zero = builder.bitcast(bits, F32), F32(0.0)
    finite = builder.icmp_signed("<", bits, I32(0x7F800000))
    enough = builder.and_(finite, builder.fcmp_ordered(">=", largest, F32(LEAST)))
    inverse = builder.select(enough, builder.fdiv(F32(MOST), largest), zero)
    scale = builder.select(enough, builder.fdiv(largest, F32(MOST)), zero)
    return inverse, builder.select(finite, scale, F32(float("nan")))


def _put_bytes(builder, vec, value, address):
    """A register rounded to whole numbers, ties to even, and 128 more than these, as bytes."""
    lanes = vec.lanes
    ints, name = ir.VectorType(I32, lanes), f"v{lanes}i32.v{lanes}f32"
    value = call_intrinsic(builder, f"llvm.rint.v{lanes}f32", vec.llvm, [value])
    value = call_intrinsic(builder, f"llvm.fptosi.sat.{name}", ints, [value])
    value = builder.add(value, ir.Constant(ints, [int(OFFSET)] * lanes))
    value = builder.trunc(value, ir.VectorType(I8, lanes))
    builder.store(value, pointer(builder, address, value.type), align=1)
