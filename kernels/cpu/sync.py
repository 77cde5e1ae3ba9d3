"""A spin barrier for threads inside compiled code, on LLVM atomics."""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import I32, I64, pointer

PATIENCE = 2000  # looks at the counter before the core is offered to another thread


@intrinsic
def arrive(typingctx, counter):
    """Add one to the int64 at address ``counter``; all earlier writes are seen by who reads it."""

    def codegen(context, builder, sig, args):
        builder.atomic_rmw("add", pointer(builder, args[0], I64), I64(1), "release")
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def peek(typingctx, counter):
    """The int64 at address ``counter``, and with it all that was written before it changed."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(pointer(builder, args[0], I64), "acquire", align=8)

    return types.int64(types.int64), codegen


@intrinsic
def sched_yield(typingctx):
    """Offer the core to another thread (POSIX)."""

    def codegen(context, builder, sig, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(I32, []), "sched_yield"
        )
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@njit(forceinline=True)
def barrier(counter, members, turn):
    """Wait until all ``members`` have come here ``turn`` times (turn counts from 1)."""
    arrive(counter)
    await_count(counter, members * turn)


@njit(forceinline=True)
def finish(counter, members, rank):
    """The last thing a thread does: rank 0 leaves only after all the others have come here."""
    if members > 1:
        arrive(counter)
        if rank == 0:
            await_count(counter, members)


@njit(forceinline=True)
def await_count(counter, count):
    looks = 0
    while peek(counter) < count:
        looks += 1
        if looks > PATIENCE:
            sched_yield()
            looks = 0
