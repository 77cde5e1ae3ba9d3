"""The host's vector registers, as Numba's compiler sees them.

NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, which set what Numba compiles for, are honoured: a narrower
CPU can be had on any machine that way, and the tests do.
"""

import platform
import sys
from functools import cache
from typing import NamedTuple

import llvmlite
import numba
from llvmlite import binding
from numba.core.codegen import get_host_cpu_features, initialize_llvm


class Registers(NamedTuple):
    """The widest SIMD registers of the CPU that code is compiled for."""

    name: str
    bits: int
    count: int
    bfloat16: bool = False  # whether there are products of bfloat16
    of_bytes: str = "one by one"  # products of bytes: "by fours" (VNNI), "by pairs" of words


@cache
def cpu_name():
    return numba.config.CPU_NAME or binding.get_host_cpu_name()


@cache
def registers():
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES:
        features = set((numba.config.CPU_FEATURES or "").split(","))
    else:
        features = {f"+{name}" for name, on in binding.get_host_cpu_features().items() if on}
    if "+avx512f" in features:
        fours, pairs = "+avx512vnni" in features, "+avx512bw" in features
        of_bytes = "by fours" if fours else "by pairs" if pairs else "one by one"
        return Registers("AVX-512", 512, 32, "+avx512bf16" in features, of_bytes)
    if {"+avx2", "+fma"} <= features:
        fours = "+avxvnni" in features
        return Registers("AVX2", 256, 16, of_bytes="by fours" if fours else "by pairs")
    if platform.machine().lower() in ("aarch64", "arm64"):
        return Registers("NEON", 128, 32)
    return Registers("128-bit vectors", 128, 16)


# Of Numba's settings, those that say nothing of the code: they differ between processes.
IRRELEVANT = {"CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_DEFAULT_NUM_THREADS"}


def compiler():
    """All that says what machine code the compiler makes: versions, the CPU, Numba's settings."""
    settings = {name for name in dir(numba.config) if name.isupper()} - IRRELEVANT
    return (
        (sys.version, numba.__version__, llvmlite.__version__),
        (binding.get_process_triple(), cpu_name(), binding.get_host_cpu_features().flatten()),
        [(name, getattr(numba.config, name)) for name in sorted(settings)],
    )


def target_machine():
    """LLVM's compiler for this CPU, for code that runs in this process."""
    initialize_llvm()
    target = binding.Target.from_triple(binding.get_process_triple())
    x86 = target.name.startswith("x86")
    return target.create_target_machine(
        cpu=cpu_name(),
        features=numba.config.CPU_FEATURES or get_host_cpu_features(),
        opt=int(numba.config.OPT),
        reloc="static" if x86 else "default",
        codemodel="jitdefault",
        jit=True,
    )


def obstacle():
    """Why nothing can be compiled in this process, if so."""
    return "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else None
