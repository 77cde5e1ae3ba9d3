"""What is done about programs that wait in vain for each other: a flag, one error, then nothing.

A program that has lost patience writes NaN, and sets a word in the host's memory, which is read
without a wait for the GPU: at the next call, and in backward.
"""

import torch

_words, _off = {}, {}


def word(device):
    """(1,) int32, for kernels to set: in pinned memory of the host, where there is CUDA.

    Its address is the same for the GPU and for the host, and Triton asks the driver whether it may
    be used (CUDA alone: on HIP it does not ask). No GPU has tried that yet, nor how soon the host
    sees what a kernel writes there; at the latest it does when the kernel has ended.
    """
    if device.type != "cuda":
        device = torch.device("cpu")  # also of tensors without numbers, that are compiled for
    if device not in _words:
        pinned = device.type == "cuda"
        _words[device] = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=pinned)
    return _words[device]


def check(device):
    """Raise RuntimeError, once, if the programs of an earlier kernel there did not all arrive."""
    found = _words.get(device)
    if found is None or device in _off or not found.item():
        return
    _off[device] = "programs of an earlier kernel did not all arrive"
    raise RuntimeError(
        f"fastrnn: in an earlier call on {device} programs of a kernel waited in vain for others, "
        "which the GPU did not run at the same time. The results of that call, or its gradients, "
        "are NaN from there on, and so is what was made of them: for one, parameters after a step "
        "of an optimizer. The GPU engine is off for the rest of this process, and torch's own "
        "kernels serve in its place"
    )


def off(device):
    """Why the engine does not serve on this device any more; None if it does."""
    return _off.get(device)
