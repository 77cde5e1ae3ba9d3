"""How a team's threads come together, in compiled code: all of them run the function, or none does.

OpenMP may give fewer threads than it is asked for, and the system may have no more to give. Those
who run a function wait for each other inside it, so each first sees that all have come.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..compiler.build import Compiled, specialise
from ..compiler.integers import I32, I64, call, pointer, viewed
from ..loops.fields import record
from ..loops.sync import peek, sched_yield, ticket
from .machine import SOURCES

# What a thread is told. job: where this stands in memory; function, plan: the compiled function's
# address and its plan's; size: how many threads are wanted, and came: how many there are; counted:
# the address of omp_get_num_threads, or 0 for threads of our own. These begin with ``start``, at
# ``attend``, wait until ``gate`` is not 0, and have their handles behind all this.
JOB = record("job function plan size counted came start gate")
GATE, HANDLES, HANDLE = JOB.fields["gate"][1], JOB.itemsize, 8
view = viewed(JOB)
ADDRESS = ir.IntType(8).as_pointer()


@intrinsic
def number(typingctx, function):
    """What the C function ``int f(void)`` at an address returns."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(I32, [])
        result = builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return builder.sext(result, I64)

    return types.int64(types.int64), codegen


@intrinsic
def start_thread(typingctx, handle, function, argument):
    """A new thread (POSIX), its handle put at an address; 0 if the system gave one."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(I32, [ADDRESS] * 4)
        create = cgutils.get_or_insert_function(builder.module, kind, "pthread_create")
        handle, function, argument = (builder.inttoptr(a, ADDRESS) for a in args)
        result = builder.call(create, [handle, ADDRESS(None), function, argument])
        return builder.sext(result, I64)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def join_thread(typingctx, handle):
    """Wait until the thread ends whose handle is at an address."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(I32, [I64, ADDRESS])
        join = cgutils.get_or_insert_function(builder.module, kind, "pthread_join")
        builder.call(join, [builder.load(pointer(builder, args[0], I64)), ADDRESS(None)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def attend(job):
    """What each thread of a team does but the one that calls ``hire``."""
    j = view(job)
    if j.counted:
        came = number(j.counted)
        j.came = came  # the same from all of them
    else:
        while not peek(j.job + GATE):
            sched_yield()
        came = j.came
    if came == j.size:
        call(j.function, j.plan)


def hire(job):
    """Run a job on the calling thread and on new ones, which end with it."""
    j, started = view(job), 0
    handles = j.job + HANDLES
    while started < j.size - 1:
        if start_thread(handles + started * HANDLE, j.start, j.job):
            break
        started += 1
    j.came = started + 1
    ticket(j.job + GATE)
    if started + 1 == j.size:
        call(j.function, j.plan)
    for i in range(started):
        join_thread(handles + i * HANDLE)


@cache
def crew():
    """``attend`` and ``hire``, compiled."""
    return [
        Compiled(specialise([function], {}, f"{function.__name__} of a team", [SOURCES], None))
        for function in (attend, hire)
    ]
