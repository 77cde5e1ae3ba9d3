"""The dot kernel: rows of activations times rows of weights, both as they lie in memory.

What is multiplied is contiguous along K on both sides, so nothing is packed: an accumulator holds
LANES partial sums of one element of the result and runs along K, and at the end all of a row are
added up by halves, which leaves one register with the row's results side by side. Every element is
summed in the same order whatever the number of rows, so a sample's result does not depend on the
batch it is in.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..compiler.integers import I64
from .emit import choose, joined, k_loop, k_step, kernel_function, load, rows_of, store
from .panels import Singles
from .simd import VecType, mask, shuffle

ROWS = 3  # of activations in a tile: 11 loads for 24 multiplications where there are 32 registers


def weight_rows(lanes, registers):
    """Rows of weights in a tile: a power of two, so that sums can be halved to it."""
    return min(lanes, 4 if registers < 32 else 8)


def make_dot(vec, count):
    """``dot(rows, K, a, lda, w, ldw, K2, a2, lda2, w2, ldw2, left, bias, bias2, out, ldo)``.

    out = a @ w.T + a2 @ w2.T + bias + bias2 for 1 .. ROWS rows of a and ``count`` of w, of which
    ``left`` are there (others are garbage in ``out``). Addresses and leading dimensions are in
    bytes; K2 may be 0.
    """

    @intrinsic
    def dot(
        typingctx, rows, K, a, lda, w, ldw, K2, a2, lda2, w2, ldw2, left, bias, bias2, out, ldo
    ):
        def codegen(context, builder, sig, args):
            rows, *args = args
            kernels = range(1, ROWS + 1)
            choose(builder, rows, kernels, lambda r: _kernel(builder.module, vec, r, count), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 16), codegen

    return dot


def _kernel(module, vec, rows, count):
    name = f"fastrnn_dot_{rows}x{count}_v{vec.lanes}f{8 * vec.itemsize}"
    function, builder = kernel_function(module, name, 15)
    if builder is None:
        return function
    *products, left, bias, bias2, out, ldo = function.args
    function.attributes.add("optsize")  # unrolled further, the loop would outgrow the registers
    sums = [vec.constant(0.0)] * (rows * count)  # those of a row of w side by side
    for depth, a, lda, w, ldw in (products[:5], products[5:]):
        a_rows = [builder.add(a, builder.mul(lda, I64(r))) for r in range(rows)]
        w_rows = rows_of(builder, w, ldw, count, left)
        sums = _accumulate(builder, vec, a_rows, w_rows, sums, depth)
    narrow = VecType(vec.dtype, count)
    there = mask(builder, count, left)
    biases = [load(builder, narrow, address, there) for address in (bias, bias2)]
    for r in range(rows):
        value = _add_up(builder, sums[r::rows])
        for b in biases:
            value = builder.fadd(value, b)
        store(builder, narrow, value, builder.add(out, builder.mul(ldo, I64(r))))
    builder.ret_void()
    return function


def _accumulate(builder, vec, a_rows, w_rows, sums, depth):
    """sums[i, r] += w[i] * a[r], a register along K at a time and what is left under a mask."""
    width = vec.lanes * vec.itemsize
    whole, left = builder.sdiv(depth, I64(vec.lanes)), builder.srem(depth, I64(vec.lanes))
    tail = mask(builder, vec.lanes, left)

    def sides(lanes):
        """What k_loop multiplies: the registers at step k of each row, under a mask if any."""
        return [
            (len(rows), lambda i, k, rows=rows: load(builder, vec, at(rows[i], k), lanes))
            for rows in (w_rows, a_rows)
        ]

    def at(row, k):
        return builder.add(row, builder.mul(k, I64(width)))

    factors = Singles(vec)
    sums = k_loop(builder, k_step(builder, factors, *sides(None)), sums, (I64(0), whole, 1))
    before = builder.block
    with builder.if_then(builder.icmp_signed(">", left, I64(0))):
        more = k_step(builder, factors, *sides(tail))(sums, whole)
        inside = builder.block
    return [joined(builder, (s, before), (m, inside)) for s, m in zip(sums, more, strict=True)]


def _add_up(builder, sums):
    """The sum of each register's lanes, as one register with a lane for each."""
    lanes, count, distance = sums[0].type.count, len(sums), 1
    while len(sums) > 1:  # two become one, the first's sums in the even lanes (then pairs, ...)
        low = [j ^ distance | lanes if j & distance else j for j in range(lanes)]
        high = [j | lanes if j & distance else j ^ distance for j in range(lanes)]
        sums = [
            builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
        distance *= 2
    (total,) = sums
    undefined = ir.Constant(total.type, ir.Undefined)
    while distance < lanes:
        other = shuffle(builder, total, undefined, [j ^ distance for j in range(lanes)])
        total = builder.fadd(total, other)
        distance *= 2
    return shuffle(builder, total, undefined, list(range(count)))
