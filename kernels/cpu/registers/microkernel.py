"""The register-tiled matrix kernel: C = init + A @ panel, with the whole tile of C in registers.

A panel is ``vectors`` registers wide and K rows deep, stored row after row, so that one step of
the K loop loads ``vectors`` registers and broadcasts one element per row of A. Every element of C
is summed over K in the same order whatever the number of rows, so a sample's result does not
depend on the batch it is in.

What a step is, ``factors`` say: one element of K (panels.py), two (bfloat16.py), or four bytes, of
which narrow.py tells.
"""

from array import array

from llvmlite import ir

from ..compiler.integers import I64, pointer
from .emit import broadcasts, k_loop, k_step, kernel_function, prefetch

UNROLL = 4  # steps of K per turn of the loop
WIDTHS = 32  # places in a table of kernels for one number of rows: one for each width of a tile


def max_rows(registers, vectors):
    """Rows whose accumulators fit beside one panel row and one broadcast."""
    return max(1, (registers - 1 - vectors) // vectors)


def emit_gemm(factors, tiles):
    """(modules, names): a kernel for each of these tiles of (rows, registers).

    Each is a C function of (K, a, lda, b, ldb, init, ldi, c, ldc). Of a panel's registers
    only the first are multiplied: the last panel may have no more columns. A matrix as it lies will
    do for a panel, too: ``ldb`` is how far one step of K is from the next.

    Addresses and leading dimensions are in bytes. ``init`` is a matrix to add to: a bias (``ldi`` =
    0), or C itself. It is added last: sums over K that start from it would round at its size.
    """
    module = ir.Module()
    return [module], [_kernel(module, factors, *tile).name for tile in tiles]


def table(addresses, tiles):
    """The kernels' addresses, as blocks.gemm looks them up."""
    found = array("q", bytes(8 * WIDTHS * (1 + max(rows for rows, _ in tiles))))
    for address, (rows, width) in zip(addresses, tiles, strict=True):
        found[rows * WIDTHS + width] = address
    return found


def _kernel(module, factors, rows, vectors):
    """The LLVM function for ``rows`` x ``vectors`` registers."""
    vec = factors.vec
    function, builder = kernel_function(module, f"fastrnn_gemm_{rows}x{vectors}", 9)
    depth, a, lda, b, ldb, init, ldi, c, ldc = function.args
    tile = [(r, v) for r in range(rows) for v in range(vectors)]
    width = vec.lanes * vec.itemsize

    def at(base, stride, r, v):
        row = builder.add(base, builder.mul(stride, I64(r)))
        return pointer(builder, builder.add(row, I64(v * width)), vec.llvm)

    def column(v, k):
        line = builder.add(b, builder.mul(k, ldb))
        return factors.load_column(builder, builder.add(line, I64(v * factors.across)))

    for r, v in tile:  # it may come from afar, and is wanted only after the sums
        prefetch(builder, at(init, ldi, r, v))
    sums = [factors.zero] * len(tile)
    a_rows = [builder.add(a, builder.mul(lda, I64(r))) for r in range(rows)]
    # of the last step there may be a part: either there is zero behind it, or it is taken alone
    more = 0 if factors.lone else factors.depth - 1
    steps = builder.sdiv(builder.add(depth, I64(more)), I64(factors.depth))
    unroll = UNROLL if vectors in (3, 4) else 1  # half the time to compile
    whole = builder.sub(steps, builder.srem(steps, I64(unroll)))
    loops = [(factors.element, I64(0), whole, unroll)]
    if unroll > 1:
        loops.append((factors.element, whole, steps, 1))
    if factors.lone:
        end = builder.add(steps, builder.srem(depth, I64(factors.depth)))
        loops.append((factors.lone, steps, end, 1))
    for element, *k_range in loops:
        left = rows, broadcasts(builder, factors, a_rows, element)
        step = k_step(builder, factors, left, (vectors, column))
        sums = k_loop(builder, step, sums, k_range)
    behind = builder.add(b, builder.mul(steps, ldb))
    for (r, v), total in zip(tile, sums, strict=True):
        value = factors.result(builder, total, a_rows[r], behind, v)
        first = builder.load(at(init, ldi, r, v), align=vec.itemsize)
        builder.store(builder.fadd(first, value), at(c, ldc, r, v), align=vec.itemsize)
    builder.ret_void()
    return function
