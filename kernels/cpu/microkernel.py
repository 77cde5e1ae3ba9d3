"""The register-tiled matrix kernel: C = init + A @ panel, with the whole tile of C in registers.

A panel is ``vectors`` registers wide and K rows deep, stored row after row, so that one step of
the K loop loads ``vectors`` registers and broadcasts one element per row of A. Every element of C
is summed over K in the same order whatever the number of rows, so a sample's result does not
depend on the batch it is in.

What a step is, ``factors`` say: one element of K (panels.py) or, in bfloat16.py, two.
"""

from itertools import product

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import I64, pointer

UNROLL = 4  # steps of K per turn of the loop


def max_rows(registers, vectors):
    """Rows whose accumulators fit beside one panel row and one broadcast."""
    return max(1, (registers - 1 - vectors) // vectors)


def make_gemm(factors, vectors, rows_limit):
    """``gemm(rows, width, K, a, lda, panel, init, ldi, c, ldc)``: a tile of 1 .. rows_limit rows.

    Of the panel's ``vectors`` registers only the first ``width`` are multiplied: the last panel may
    have no more columns.

    Addresses and leading dimensions are in bytes. ``init`` is a matrix to add to: a bias (``ldi`` =
    0), or C itself. It is added last: sums over K that start from it would round at its size.
    """

    @intrinsic
    def gemm(typingctx, rows, width, depth, a, lda, panel, init, ldi, c, ldc):
        def codegen(context, builder, sig, args):
            rows, width, *rest = args
            done = builder.append_basic_block("gemm.done")
            never = builder.append_basic_block("gemm.never")
            which = builder.add(builder.mul(rows, I64(vectors + 1)), width)
            choice = builder.switch(which, never)
            for r, v in product(range(1, rows_limit + 1), range(1, vectors + 1)):
                kernel = _kernel(builder.module, factors, r, v, vectors)
                block = builder.append_basic_block(f"gemm.{r}x{v}")
                choice.add_case(I64(r * (vectors + 1) + v), block)
                with builder.goto_block(block):
                    builder.call(kernel, rest)
                    builder.branch(done)
            with builder.goto_block(never):
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return gemm


def _kernel(module, factors, rows, vectors, line):
    """The LLVM function for ``rows`` x ``vectors``, of ``line``, registers; once per module."""
    vec = factors.vec
    name = f"fastrnn_gemm_{rows}x{vectors}of{line}_v{vec.lanes}{factors.name}"
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
    a_rows = [builder.add(a, builder.mul(lda, I64(r))) for r in range(rows)]
    panel = pointer(builder, panel, factors.column)
    steps = builder.sdiv(depth, I64(factors.depth))
    unroll = UNROLL if vectors == line else 1  # half the time to compile
    whole = builder.sub(steps, builder.srem(steps, I64(unroll)))
    loops = [(factors.element, I64(0), whole, unroll)]
    if unroll > 1:
        loops.append((factors.element, whole, steps, 1))
    if factors.lone:
        end = builder.add(steps, builder.srem(depth, I64(factors.depth)))
        loops.append((factors.lone, steps, end, 1))
    for loop in loops:
        sums = _k_loop(builder, factors, a_rows, panel, line, sums, loop)
    for (r, v), value in zip(tile, sums, strict=True):
        first = builder.load(at(init, ldi, r, v), align=vec.itemsize)
        builder.store(builder.fadd(first, value), at(c, ldc, r, v), align=vec.itemsize)
    builder.ret_void()
    return function


def _k_loop(builder, factors, a_rows, panel, line, sums, loop):
    """sums += A[:, start:stop] @ panel[start:stop], ``unroll`` steps a turn."""
    element, start, stop, unroll = loop
    vectors = len(sums) // len(a_rows)
    before = builder.block
    body, after = builder.append_basic_block("k"), builder.append_basic_block("k.end")
    builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
    builder.position_at_end(body)
    k = builder.phi(I64)
    k.add_incoming(start, before)
    running = [builder.phi(value.type) for value in sums]
    for phi, value in zip(running, sums, strict=True):
        phi.add_incoming(value, before)
    new = list(running)
    for u in range(unroll):
        now = builder.add(k, I64(u))
        first = builder.mul(now, I64(line))
        columns = [
            builder.load(builder.gep(panel, [builder.add(first, I64(v))]), align=factors.itemsize)
            for v in range(vectors)
        ]
        offset = builder.mul(now, I64(factors.depth * factors.itemsize))
        for r, row in enumerate(a_rows):
            at = pointer(builder, builder.add(row, offset), element)
            factor = factors.broadcast(builder, builder.load(at, align=factors.itemsize))
            for v, column in enumerate(columns):
                i = r * vectors + v
                new[i] = factors.multiply_add(builder, factor, column, new[i])
    following = builder.add(k, I64(unroll))
    k.add_incoming(following, body)
    for phi, value in zip(running, new, strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    builder.position_at_end(after)
    result = []
    for value, final in zip(sums, new, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(final, body)
        result.append(phi)
    return result
