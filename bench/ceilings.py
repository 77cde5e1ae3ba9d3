"""What this machine can do at most: fused multiply-adds, and bytes from each level of its memory.

Both loops are written as LLVM vector instructions, whole registers at a time, and have nothing else
in them; they share no code with the engines that are held against them.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastrnn.kernels.cpu.compiler.target import registers

I64 = ir.IntType(64)
SUMS = 12  # independent sums: more than latency times throughput, fewer than any CPU's registers
UNROLL = 4
SECONDS = 0.03  # of one measurement; the best of TRIES counts
TRIES = 5
BUFFER = 128 * 2**20  # bytes, well beyond the caches


def _vector(name):
    scalar = {"float32": ir.FloatType(), "float64": ir.DoubleType()}[name]
    return ir.VectorType(scalar, registers().bits // (32 if name == "float32" else 64))


def _looped(builder, turns, vector, body):
    """The first of SUMS vectors after ``turns`` rounds of ``body(k, sums)``, at least one."""
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(I64)
    sums = [builder.phi(vector) for _ in range(SUMS)]
    k.add_incoming(I64(0), before)
    for i, phi in enumerate(sums):
        phi.add_incoming(ir.Constant(vector, [float(i)] * vector.count), before)
    new, following = body(k, sums), builder.add(k, I64(1))
    k.add_incoming(following, loop)
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, turns), loop, after)
    builder.position_at_end(after)
    total = new[0]
    for value in new[1:]:
        total = builder.fadd(total, value)
    return builder.extract_element(total, ir.IntType(32)(0))


@cache
def _fma_loop(name):
    vector = _vector(name)

    @intrinsic
    def emit(typingctx, turns):
        def codegen(context, builder, sig, args):
            kind = ir.FunctionType(vector, [vector] * 3)
            fma_name = f"llvm.fma.v{vector.count}f{name[-2:]}"
            fma = builder.module.globals.get(fma_name) or ir.Function(
                builder.module, kind, fma_name
            )
            factor = ir.Constant(vector, [0.5] * vector.count)

            def body(k, sums):
                for _ in range(UNROLL):
                    sums = [builder.call(fma, [s, factor, factor]) for s in sums]
                return sums

            return _looped(builder, args[0], vector, body)

        return types.__dict__[name](types.int64), codegen

    return njit("(int64,)", nogil=True)(lambda turns: emit(turns)), 2 * vector.count * SUMS * UNROLL


@cache
def _read_loop(streams):
    """A function that reads an array, in ``streams`` parts side by side; and bytes a turn."""
    vector, each = _vector("float32"), SUMS // streams

    @intrinsic
    def emit(typingctx, address, turns):
        def codegen(context, builder, sig, args):
            base = builder.inttoptr(args[0], vector.as_pointer())
            part = builder.mul(args[1], I64(each))

            def body(k, sums):
                new, first = [], builder.mul(k, I64(each))
                for i, value in enumerate(sums):
                    start = builder.mul(part, I64(i // each))
                    place = builder.add(builder.add(start, first), I64(i % each))
                    loaded = builder.load(builder.gep(base, [place]), align=4)
                    new.append(builder.fadd(value, loaded))
                return new

            return _looped(builder, args[1], vector, body)

        return types.float32(types.int64, types.int64), codegen

    @njit("(int64, int64, int64)", nogil=True)
    def read(address, turns, times):
        total = np.float32(0)
        for _ in range(times):
            total += emit(address, turns)
        return total

    return read, vector.count * 4 * SUMS


def _best(threads, work, quantity):
    """The best rate of ``work(rank, repetitions)`` on all threads at once; it does ``quantity``.

    A thread's own processor time counts, so that another process on the machine lowers no ceiling.
    """
    start = Barrier(threads)

    def member(rank, repetitions):
        start.wait()
        began = time.thread_time()
        work(rank, repetitions)
        return time.thread_time() - began

    with ThreadPoolExecutor(threads) as pool:

        def seconds(repetitions):
            return max(pool.map(member, range(threads), [repetitions] * threads))

        repetitions = 1
        while (once := seconds(repetitions)) < SECONDS:
            repetitions *= 2 if once < SECONDS / 8 else max(2, round(SECONDS / once))
        return max(repetitions * quantity / seconds(repetitions) for _ in range(TRIES))


@cache
def fma_peak(dtype, threads):
    """Floating-point operations per second; None for the half-width types."""
    if dtype not in ("float32", "float64"):
        return None
    loop, flops = _fma_loop(dtype)
    return _best(threads, lambda rank, n: loop(1000 * n), 1000 * flops * threads)


def read_bandwidth(size, threads):
    """Bytes per second at which ``size`` bytes are read again and again, each thread its share.

    Measured for sizes of one and a half times or twice the one before, the next one below ``size``.
    """
    step = 1 << max(0, size.bit_length() - 2)
    return max(_read_rate(size // step * step, threads, streams) for streams in (1, 4))


@cache
def _read_rate(size, threads, streams):
    read, block = _read_loop(streams)
    turns = max(1, size // threads // block)
    shares = [torch.ones(turns * block // 4) for _ in range(threads)]

    def work(rank, times):
        read(shares[rank].data_ptr(), turns, times)

    return _best(threads, work, turns * block * threads)


@cache
def copy_bandwidth(threads):
    """Bytes per second to and from main memory, half of them read and half written."""
    shares = [torch.ones(2, BUFFER // 8 // threads) for _ in range(threads)]

    def work(rank, times):
        for _ in range(times):
            np.copyto(shares[rank][0].numpy(), shares[rank][1].numpy())

    return _best(threads, work, BUFFER)
