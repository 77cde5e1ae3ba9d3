"""A spin barrier for threads inside compiled code, on LLVM atomics."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.front import inline
from ..compiler.integers import I32, I64, pointer

PATIENCE = 2000  # looks at the counter before the core is offered to another thread


@intrinsic
def ticket(typingctx, counter):
    """Add one to the int64 at address ``counter`` and return what it was.

    All that this thread wrote before is seen by a thread that reads the counter afterwards.
    """

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", pointer(builder, args[0], I64), I64(1), "acq_rel")

    return types.int64(types.int64), codegen


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


@inline
def barrier(counter, members, turn):
    """Wait until all ``members`` have come here ``turn`` times (turn counts from 1)."""
    ticket(counter)
    looks = 0
    while peek(counter) < members * turn:
        looks += 1
        if looks > PATIENCE:
            sched_yield()
            looks = 0
