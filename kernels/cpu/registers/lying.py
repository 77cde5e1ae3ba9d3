"""The kernel for weights as they lie: C = init + A @ W.T, where W is not worth packing.

As many rows of W as a register has lanes are loaded a square at a time and transposed in registers,
which makes of them what a panel would hold. So every element of C is summed over K in the order of
the microkernel, and the two give the same bits: which one multiplies is a question of time alone.
"""

from array import array

from llvmlite import ir

from ..compiler.integers import I64
from .elements import transposed
from .emit import broadcasts, k_loop, k_step, kernel_function, load, rows_of, store
from .panels import Singles
from .simd import mask


def max_rows(registers, lanes):
    """Rows whose sums fit beside a square of W and a broadcast."""
    return (registers - lanes) // 2


def emit_lying(vec, rows_limit):
    """(modules, names): a kernel for 1 .. rows_limit rows of A and a register of rows of W.

    Each is a C function of (K, a, lda, w, ldw, left, init, ldi, c, ldc); addresses and leading
    dimensions are in bytes. ``left`` rows of W are there; of others C gets the last one's.
    """
    module = ir.Module()
    return [module], [_kernel(module, vec, r).name for r in range(1, rows_limit + 1)]


def table(addresses):
    """The kernels' addresses, by their number of rows."""
    return array("q", [0, *addresses])


def _kernel(module, vec, rows):
    function, builder = kernel_function(module, f"fastrnn_lying_{rows}", 10)
    depth, a, lda, w, ldw, left, init, ldi, c, ldc = function.args
    lanes, factors, size = vec.lanes, Singles(vec), vec.itemsize
    w_rows = rows_of(builder, w, ldw, lanes, left)
    a_rows = [builder.add(a, builder.mul(lda, I64(r))) for r in range(rows)]
    of_a = rows, broadcasts(builder, factors, a_rows, factors.element)

    def square(k, there=None):
        """A register for each of the next elements of K, a lane for each row of W."""
        along = builder.mul(k, I64(size))
        lines = [load(builder, vec, builder.add(row, along), there) for row in w_rows]
        return transposed(builder, lines)

    def multiplied(sums, column, k):
        return k_step(builder, factors, of_a, (1, lambda v, k: column))(sums, k)

    def by_squares(sums, turn):
        k = builder.mul(turn, I64(lanes))
        for i, column in enumerate(square(k)):
            sums = multiplied(sums, column, builder.add(k, I64(i)))
        return sums

    turns, rest = builder.sdiv(depth, I64(lanes)), builder.srem(depth, I64(lanes))
    sums = k_loop(builder, by_squares, [vec.constant(0.0)] * rows, (I64(0), turns, 1))
    memory = builder.alloca(vec.llvm, lanes)
    memory.align = lanes * size
    begin = builder.mul(turns, I64(lanes))
    with builder.if_then(builder.icmp_signed(">", rest, I64(0)), likely=False):
        for i, column in enumerate(square(begin, mask(builder, lanes, rest))):
            builder.store(column, builder.gep(memory, [I64(i)]))

    def by_ones(sums, i):
        column = builder.load(builder.gep(memory, [i]))
        return multiplied(sums, column, builder.add(begin, i))

    sums = k_loop(builder, by_ones, sums, (I64(0), rest, 1))
    there = mask(builder, lanes, left)
    for r, value in enumerate(sums):
        first = load(builder, vec, builder.add(init, builder.mul(ldi, I64(r))), there)
        store(builder, vec, builder.fadd(first, value), builder.add(c, builder.mul(ldc, I64(r))))
    builder.ret_void()
    return function
