"""The register-tiled kernel for operands as they lie in memory: C = init + A @ B, nothing packed.

The microkernel's loop, but with a stride for everything, and a mask for B's last columns. Used
where an operand is not read often enough for packing it to pay: in a single step of a cell.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import choose, k_loop, kernel_function
from .simd import I32, I64, mask, masked, pointer, splat


def make_product(vec, vectors, rows, wide):
    """``product(tile, K, a, a_row, a_k, b, b_k, init, ldi, c, ldc, count)``.

    Tiles 1 .. rows are of that many rows and ``vectors`` registers; ``rows`` more are a register
    wide, of which ``count`` elements are there; the last is one row of ``wide`` registers.
    Addresses and strides are in bytes. A's columns are ``a_k`` apart, so that A may be a transpose.
    ``init`` is a matrix to add to: zeros (``ldi`` = 0), or C itself.
    """
    shapes = [(r, vectors, False) for r in range(1, rows + 1)]
    shapes += [(r, 1, True) for r in range(1, rows + 1)] + [(1, wide, False)]

    @intrinsic
    def product(typingctx, tile, K, a, a_row, a_k, b, b_k, init, ldi, c, ldc, count):
        def codegen(context, builder, sig, args):
            module = builder.module
            choose(builder, len(shapes), lambda i: _kernel(module, vec, *shapes[i - 1]), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return product


def _kernel(module, vec, rows, vectors, partial):
    """The LLVM function for one shape of tile, emitted once per module."""
    kind = "partial" if partial else "product"
    name = f"fastrnn_{kind}_{rows}x{vectors}_v{vec.lanes}f{8 * vec.itemsize}"
    function, builder = kernel_function(module, name, 11)
    if builder is None:
        return function
    depth, a, a_row, a_k, b, b_k, init, ldi, c, ldc, count = function.args
    function.attributes.add("optsize")  # unrolled further, the loop would outgrow the registers
    load, store = _access(builder, vec, mask(builder, vec, count) if partial else None)
    a_rows = [builder.add(a, builder.mul(a_row, I64(r))) for r in range(rows)]

    def element(r, k):
        place = builder.add(a_rows[r], builder.mul(a_k, k))
        return splat(builder, vec.llvm, builder.load(pointer(builder, place, vec.llvm.element)))

    def column(v, k):
        return load(builder.add(b, builder.mul(b_k, k)), v)

    sums = [vec.constant(0.0)] * (rows * vectors)
    sums = k_loop(builder, vec, (rows, element), (vectors, column), sums, (I64(0), depth, 1))
    for r in range(rows):
        first, to = (
            builder.add(base, builder.mul(stride, I64(r)))
            for base, stride in ((init, ldi), (c, ldc))
        )
        for v in range(vectors):
            store(builder.fadd(load(first, v), sums[r * vectors + v]), to, v)
    builder.ret_void()
    return function


def _access(builder, vec, lanes):
    """(load, store) for the v-th register behind an address; ``lanes``: a mask, or None."""

    def at(address, v):
        return pointer(builder, builder.add(address, I64(v * vec.lanes * vec.itemsize)), vec.llvm)

    def load(address, v):
        if lanes is None:
            return builder.load(at(address, v), align=vec.itemsize)
        args = [at(address, v), I32(vec.itemsize), lanes, vec.constant(0.0)]
        return masked(builder, "load", vec, vec.llvm, args)

    def store(value, address, v):
        if lanes is None:
            builder.store(value, at(address, v), align=vec.itemsize)
        else:
            args = [value, at(address, v), I32(vec.itemsize), lanes]
            masked(builder, "store", vec, ir.VoidType(), args)

    return load, store
