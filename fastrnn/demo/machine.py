"""The first section: this machine, and which engine serves which tensors on it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.autograd import forward_ad

import fastrnn
from fastrnn.backends import explain
from fastrnn.kernels.cpu.compiler.target import cpu_name, registers

from .style import heading, note, pairs, table

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def show(console):
    heading(console, "This machine, and what serves it")
    console.print(pairs(facts()))
    engines = table("Device", "Tensors", "Engine", "Why")
    for row in choices():
        engines.add_row(*row)
    console.print()
    console.print(engines)
    note(
        console,
        "numba: fused kernels, compiled for this CPU. reference: plain PyTorch, for what only it "
        "can differentiate. torch: torch's own kernels, for all else.",
    )


def facts():
    """(what, its value) for the machine and the versions."""
    simd = registers()
    return [
        ("CPU", f"{_cpu()} ({cpu_name()})"),
        ("Vectors", f"{simd.name}: {simd.count} registers of {simd.bits} bits"),
        ("Threads", f"{torch.get_num_threads()} (cores available: {_cores()})"),
        ("GPU", _gpu()),
        ("Triton", _triton()),
        ("Versions", ", ".join(_versions())),
    ]


def choices():
    """(device, tensors, engine, why) as fastrnn.backends chooses, asked with such tensors."""
    for dtype in DTYPES:
        yield "CPU", _name(dtype), *explain(torch.zeros(1, dtype=dtype))
    with torch.autocast("cpu"):
        yield "CPU", "under autocast", *explain(torch.zeros(1))
    with forward_ad.dual_level():
        yield "CPU", "in forward-mode AD", *explain(torch.zeros(1))
    device = torch.accelerator.current_accelerator(check_available=True)
    if device:
        for dtype in DTYPES:
            yield device.type, _name(dtype), *explain(torch.zeros(1, dtype=dtype, device=device))


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _cpu():
    """The CPU's name: Linux knows it best."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores():
    """Cores this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpu():
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return "none found"
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


def _triton():
    if find_spec("triton") is None:
        return "not installed"
    try:
        return f"{version('triton')} installed"
    except PackageNotFoundError:  # a build that goes by another name
        return "installed"


def _versions():
    yield f"fastrnn {fastrnn.__version__}"
    yield f"torch {torch.__version__}"
    yield f"numba {version('numba')}"
    yield f"Python {platform.python_version()}"
