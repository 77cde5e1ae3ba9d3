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
            rows, *rest = args
            done = builder.append_basic_block("gemm.done")
            never = builder.append_basic_block("gemm.never")
            choice = builder.switch(rows, never)
            for r in range(1, rows_limit + 1):
                kernel = _kernel(builder.module, vec, r, vectors)
                block = builder.append_basic_block(f"gemm.{r}")
                choice.add_case(I64(r), block)
                with builder.goto_block(block):
                    builder.call(kernel, rest)
                    builder.branch(done)
            with builder.goto_block(never):
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return gemm


def _kernel(module, vec, rows, vectors):
    """The LLVM function for one number of rows, emitted once per module."""
    name = f"fastrnn_gemm_{rows}x{vectors}_v{vec.lanes}f{8 * vec.itemsize}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 8), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    depth, a, lda, panel, init, ldi, c, ldc = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
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
    whole = builder.sub(depth, builder.srem(depth, I64(UNROLL)))
    for start, stop, unroll in ((I64(0), whole, UNROLL), (whole, depth, 1)):
        sums = _k_loop(builder, vec, row_pointers, panel, sums, (start, stop, unroll))
    for (r, v), value in zip(tile, sums, strict=True):
        first = builder.load(at(init, ldi, r, v), align=vec.itemsize)
        builder.store(builder.fadd(first, value), at(c, ldc, r, v), align=vec.itemsize)
    builder.ret_void()
    return function


def _k_loop(builder, vec, row_pointers, panel, sums, k_range):
    """sums += A[:, start:stop] @ panel[start:stop], ``unroll`` steps a turn."""
    start, stop, unroll = k_range
    vectors = len(sums) // len(row_pointers)
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
        now = builder.add(k, I64(u))
        line = builder.mul(now, I64(vectors))
        columns = [
            builder.load(builder.gep(panel, [builder.add(line, I64(v))]), align=vec.itemsize)
            for v in range(vectors)
        ]
        for r, row in enumerate(row_pointers):
            element = splat(builder, vec.llvm, builder.load(builder.gep(row, [now])))
            for v, column in enumerate(columns):
                i = r * vectors + v
                name = f"llvm.fmuladd.v{vec.lanes}f{8 * vec.itemsize}"
                new[i] = call_intrinsic(builder, name, vec.llvm, [element, column, new[i]])
    following = builder.add(k, I64(unroll))
    k.add_incoming(following, body)
    for phi, value in zip(running, new, strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    builder.position_at_end(after)
    result = []
    for value, final in zip(sums, new, strict=True):
        phi = builder.phi(vec.llvm)
        phi.add_incoming(value, before)
        phi.add_incoming(final, body)
        result.append(phi)
    return result
