"""The host's vector registers, as Numba's compiler sees them.

NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, which set what Numba compiles for, are honoured: a narrower
CPU can be had on any machine that way, and the tests do.
"""

import platform
from functools import cache
from typing import NamedTuple

import numba
from llvmlite import binding


class Registers(NamedTuple):
    """The widest SIMD registers of the CPU that code is compiled for."""

    name: str
    bits: int
    count: int
    bfloat16: bool = False  # whether there are products of bfloat16


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
        return Registers("AVX-512", 512, 32, "+avx512bf16" in features)
    if {"+avx2", "+fma"} <= features:
        return Registers("AVX2", 256, 16)
    if platform.machine().lower() in ("aarch64", "arm64"):
        return Registers("NEON", 128, 32)
    return Registers("128-bit vectors", 128, 16)
