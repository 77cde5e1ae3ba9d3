"""Pieces that the kernels of products are emitted from: LLVM functions of int64s, a loop over K
with its sums in registers, masked access; and what a single step needs.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.integers import I32, I64, pointer
from .simd import call_intrinsic


def choose(builder, number, choices, kernel, args):
    """Call kernel(i) on ``args`` for the ``number`` i; nothing unless it is among ``choices``."""
    done = builder.append_basic_block("choose.done")
    never = builder.append_basic_block("choose.never")
    choice = builder.switch(number, never)
    for i in choices:
        block = builder.append_basic_block(f"choose.{i}")
        choice.add_case(I64(i), block)
        with builder.goto_block(block):
            builder.call(kernel(i), args)
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


def k_loop(builder, step, sums, k_range):
    """sums = step(sums, k) for k in start .. stop-1, ``unroll`` steps a turn."""
    start, stop, unroll = k_range
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
        new = step(new, builder.add(k, I64(u)))
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


def k_step(builder, factors, left, right):
    """The step sums[r, v] += element(r, k) * column(v, k), as ``factors`` multiply.

    left: (rows, element); right: (vectors, column), functions that load a register each.
    """
    (rows, element), (vectors, column) = left, right

    def step(sums, k):
        sums, columns = list(sums), [column(v, k) for v in range(vectors)]
        for r in range(rows):
            value = element(r, k)
            for v in range(vectors):
                i = r * vectors + v
                sums[i] = factors.multiply_add(builder, value, columns[v], sums[i])
        return sums

    return step


def broadcasts(builder, factors, a_rows, element):
    """The function (row, k) that loads what ``factors`` broadcast of A, as an ``element``."""

    def load(r, k):
        offset = builder.mul(k, I64(factors.depth * factors.itemsize))
        at = pointer(builder, builder.add(a_rows[r], offset), element)
        return factors.broadcast(builder, builder.load(at, align=factors.itemsize))

    return load


def rows_of(builder, matrix, ld, count, left):
    """The addresses of ``count`` rows, of which ``left`` are there; then the last one again."""
    last, rows = builder.sub(left, I64(1)), []
    for i in range(count):
        row = builder.select(builder.icmp_signed("<", I64(i), left), I64(i), last)
        rows.append(builder.add(matrix, builder.mul(ld, row)))
    return rows


def joined(builder, *ways):
    """A value that depends on the way here: (value, block) of each."""
    phi = builder.phi(ways[0][0].type)
    for value, block in ways:
        phi.add_incoming(value, block)
    return phi


def load(builder, vec, address, lanes=None):
    """A register from an address; only the ``lanes`` of a mask, zeros elsewhere."""
    ptr = pointer(builder, address, vec.llvm)
    if lanes is None:
        return builder.load(ptr, align=vec.itemsize)
    args = [ptr, I32(vec.itemsize), lanes, vec.constant(0.0)]
    return call_intrinsic(builder, _masked("load", vec), vec.llvm, args)


def store(builder, vec, value, address, lanes=None):
    """A register to an address; only the ``lanes`` of a mask."""
    ptr = pointer(builder, address, vec.llvm)
    if lanes is None:
        builder.store(value, ptr, align=vec.itemsize)
    else:
        args = [value, ptr, I32(vec.itemsize), lanes]
        call_intrinsic(builder, _masked("store", vec), ir.VoidType(), args)


def _masked(what, vec):
    return f"llvm.masked.{what}.v{vec.lanes}f{8 * vec.itemsize}.p0"


def prefetch(builder, ptr):
    """Ask for the cache line at ``ptr``, which is soon read; no address is too wild."""
    args = [ptr, I32(0), I32(3), I32(1)]  # to read, for all caches, data
    call_intrinsic(builder, "llvm.prefetch.p0", ir.VoidType(), args)


def pick(order):
    """A function of a tuple of registers: those at the places in ``order``, as a tuple."""

    @intrinsic
    def picked(typingctx, values):
        def codegen(context, builder, sig, args):
            values = cgutils.unpack_tuple(builder, args[0])
            return context.make_tuple(builder, sig.return_type, [values[i] for i in order])

        return types.BaseTuple.from_types([values[i] for i in order])(values), codegen

    return picked


def on_stack(size):
    """A function that returns the address of ``size`` bytes of its caller's, as long as it runs."""

    @intrinsic
    def stack(typingctx):
        def codegen(context, builder, sig, args):
            with builder.goto_entry_block():  # Numba's own helper would fill it with zeros
                memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = 64  # a cache line
            return builder.ptrtoint(memory, I64)

        return types.int64(), codegen

    return stack
