"""The register-tiled kernel for operands as they lie in memory: C = init + A @ B, nothing packed.

The microkernel's loop, but with a stride for everything, and a mask for B's last columns. Used
where an operand is not read often enough for packing it to pay: in a single step of a cell.
"""

from numba import types
from numba.extending import intrinsic

from ..compiler.integers import I64, pointer
from .emit import choose, k_loop, k_step, kernel_function, load, store
from .panels import Singles
from .simd import mask, splat


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
            (tile, *args), module = args, builder.module
            kernels = range(1, len(shapes) + 1)
            choose(builder, tile, kernels, lambda i: _kernel(module, vec, *shapes[i - 1]), args)
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
    lanes = mask(builder, vec.lanes, count) if partial else None
    a_rows = [builder.add(a, builder.mul(a_row, I64(r))) for r in range(rows)]

    def element(r, k):
        place = builder.add(a_rows[r], builder.mul(a_k, k))
        return splat(builder, vec.llvm, builder.load(pointer(builder, place, vec.llvm.element)))

    def at(base, stride, i, v):
        """The address of the v-th register of a row."""
        row = builder.add(base, builder.mul(stride, i))
        return builder.add(row, I64(v * vec.lanes * vec.itemsize))

    def column(v, k):
        return load(builder, vec, at(b, b_k, k, v), lanes)

    sums = [vec.constant(0.0)] * (rows * vectors)
    step = k_step(builder, Singles(vec), (rows, element), (vectors, column))
    sums = k_loop(builder, step, sums, (I64(0), depth, 1))
    for r in range(rows):
        for v in range(vectors):
            first = load(builder, vec, at(init, ldi, I64(r), v), lanes)
            value = builder.fadd(first, sums[r * vectors + v])
            store(builder, vec, value, at(c, ldc, I64(r), v), lanes)
    builder.ret_void()
    return function
