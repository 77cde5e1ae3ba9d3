"""The register-tiled matrix kernel: C = init + A @ panel, with the whole tile of C in registers.

A panel is ``vectors`` registers wide and K rows deep, stored row after row, so that one step of
the K loop loads ``vectors`` registers and broadcasts one element per row of A. Every element of C
is summed over K in the same order whatever the number of rows, so a sample's result does not
depend on the batch it is in.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import I64, call_intrinsic, pointer, splat

UNROLL = 4  # steps of K per turn of the loop


def max_rows(registers, vectors):
    """Rows whose accumulators fit beside one panel row and one broadcast."""
    return max(1, (registers - 1 - vectors) // vectors)


def make_gemm(vec, vectors, rows_limit):
    """``gemm(rows, K, a, lda, panel, init, ldi, c, ldc)``: 1 .. rows_limit rows of a tile.

    Addresses and leading dimensions are in bytes. ``init`` is a matrix to add to: a bias (``ldi`` =
    0), or C itself. It is added last: sums over K that start from it would round at its size.
    """

    @intrinsic
    def gemm(typingctx, rows, depth, a, lda, panel, init, ldi, c, ldc):
        def codegen(context, builder, sig, args):
            choose(builder, rows_limit, lambda r: _kernel(builder.module, vec, r, vectors), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return gemm


def choose(builder, limit, kernel, args):
    """Call kernel(i) on args[1:], where i is args[0]; nothing unless 1 <= i <= ``limit``."""
    number, *rest = args
    done = builder.append_basic_block("choose.done")
    never = builder.append_basic_block("choose.never")
    choice = builder.switch(number, never)
    for i in range(1, limit + 1):
        block = builder.append_basic_block(f"choose.{i}")
        choice.add_case(I64(i), block)
        with builder.goto_block(block):
            builder.call(kernel(i), rest)
            builder.branch(done)
    with builder.goto_block(never):
        builder.branch(done)
    builder.position_at_end(done)


def kernel_function(module, name, arguments):
    """(an LLVM function of that many int64s, a builder for its body; None if it is there)."""
    if name in module.globals:
        return module.globals[name], None
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * arguments), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def _kernel(module, vec, rows, vectors):
    """The LLVM function for one number of rows, emitted once per module."""
    name = f"fastrnn_gemm_{rows}x{vectors}_v{vec.lanes}f{8 * vec.itemsize}"
    function, builder = kernel_function(module, name, 8)
    if builder is None:
        return function
    depth, a, lda, panel, init, ldi, c, ldc = function.args
    tile = [(r, v) for r in range(rows) for v in range(vectors)]
    width = vec.lanes * vec.itemsize

    def at(base, stride, r, v):
        row = builder.add(base, builder.mul(stride, I64(r)))
        return pointer(builder, builder.add(row, I64(v * width)), vec.llvm)

    sums = [vec.constant(0.0)] * len(tile)
    row_pointers = [
        pointer(builder, builder.add(a, builder.mul(lda, I64(r))), vec.llvm.element)
        for r in range(rows)
    ]
    panel = pointer(builder, panel, vec.llvm)

    def element(r, k):
        return splat(builder, vec.llvm, builder.load(builder.gep(row_pointers[r], [k])))

    def column(v, k):
        place = builder.add(builder.mul(k, I64(vectors)), I64(v))
        return builder.load(builder.gep(panel, [place]), align=vec.itemsize)

    whole = builder.sub(depth, builder.srem(depth, I64(UNROLL)))
    for start, stop, unroll in ((I64(0), whole, UNROLL), (whole, depth, 1)):
        sums = k_loop(builder, vec, (rows, element), (vectors, column), sums, (start, stop, unroll))
    for (r, v), value in zip(tile, sums, strict=True):
        first = builder.load(at(init, ldi, r, v), align=vec.itemsize)
        builder.store(builder.fadd(first, value), at(c, ldc, r, v), align=vec.itemsize)
    builder.ret_void()
    return function


def k_loop(builder, vec, left, right, sums, k_range):
    """sums[r, v] += element(r, k) * column(v, k) for k in start .. stop, ``unroll`` steps a turn.

    left: (rows, element); right: (vectors, column), functions that load a register each.
    """
    start, stop, unroll = k_range
    before = builder.block
    body, after = builder.append_basic_block("k"), builder.append_basic_block("k.end")
    builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
    builder.position_at_end(body)
    k = builder.phi(I64)
    k.add_incoming(start, before)
    running = [builder.phi(vec.llvm) for _ in sums]
    for phi, value in zip(running, sums, strict=True):
        phi.add_incoming(value, before)
    new = list(running)
    for u in range(unroll):
        new = k_step(builder, vec, left, right, new, builder.add(k, I64(u)))
    following = builder.add(k, I64(unroll))
    k.add_incoming(following, body)
    for phi, value in zip(running, new, strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    builder.position_at_end(after)
    return [
        joined(builder, (value, before), (final, body))
        for value, final in zip(sums, new, strict=True)
    ]


def k_step(builder, vec, left, right, sums, k):
    """One step of ``k_loop``."""
    (rows, element), (vectors, column) = left, right
    sums, name = list(sums), f"llvm.fmuladd.v{vec.lanes}f{8 * vec.itemsize}"
    columns = [column(v, k) for v in range(vectors)]
    for r in range(rows):
        value = element(r, k)
        for v in range(vectors):
            i = r * vectors + v
            sums[i] = call_intrinsic(builder, name, vec.llvm, [value, columns[v], sums[i]])
    return sums


def joined(builder, *ways):
    """A value that depends on the way here: (value, block) of each."""
    phi = builder.phi(ways[0][0].type)
    for value, block in ways:
        phi.add_incoming(value, block)
    return phi
