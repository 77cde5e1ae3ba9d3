"""The machine, and its ceilings, measured."""

import platform
from statistics import median

import torch
import triton

from fastrnn.gpu.race import seconds_of
from fastrnn.kernels.gpu import choice, launch

from .. import machine
from . import oracle

COPIED = 2**30  # bytes
SIZE = 8192  # of a square product


def describe():
    """Names, versions and sizes."""
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        **launch.describe(torch.device("cuda", 0))._asdict(),
        "memory": found.total_memory,
        "L2": getattr(found, "L2_cache_size", None),
        "gpus": torch.cuda.device_count(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "cpu": machine.cpu_name(),
        "commit": machine.commit(),
        "obstacle": choice.obstacle("cuda"),  # why no kernel of ours runs, if so
    }


def _best(run, calls=5, rounds=5):
    run()
    return median(seconds_of(run, calls) for _ in range(rounds))


def ceilings():
    """Bytes a second of a copy, read and written; operations a second of a product."""
    source, target = torch.randn(2, COPIED // 4, device="cuda")
    found = {"copy_bytes": 2 * COPIED / _best(lambda: target.copy_(source))}
    for name in ("bfloat16", "float16", "tf32", "float32"):
        dtype = torch.float32 if name.endswith("32") else getattr(torch, name)
        a, b = torch.randn(2, SIZE, SIZE, device="cuda").to(dtype)
        with oracle.arithmetic(name):
            found[f"{name}_flops"] = 2 * SIZE**3 / _best(lambda a=a, b=b: a @ b, calls=2)
    return found
