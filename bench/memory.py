"""How much memory a call keeps for backward, and how much it takes at its peak."""

import ctypes
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks


def kept(call, data):
    """Bytes that the graph of ``call`` keeps for backward: each storage once, whole.

    What the caller holds anyway is left out: weights, input and initial states.
    """
    ours = {t.untyped_storage().data_ptr() for t in (*call.weights, data.x, *data.states)}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            found[storage.data_ptr()] = storage  # held, so that no other can have its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        call.run()
    return sum(storage.nbytes() for storage in found.values())


def peak(run, device):
    """Bytes that the process grew by at most while ``run`` ran; None where that cannot be told."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier calls left, or it hides growth
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except (AttributeError, OSError):
        return None


def _status(name):
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
