"""What is done about programs that wait in vain for each other: a flag, one error, then nothing.

A program that has lost patience writes NaN, and sets a word in the host's memory, which is read
without a wait for the GPU: at the next call, and in backward. A CUDA graph is replayed without a
call of ours: once one was captured, a thread looks at the word, too.
"""

import atexit
import time
from threading import Thread

import torch

from .. import private

LOOK = 1.0  # seconds between the looks of that thread
_words, _off, _watched = {}, {}, set()


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


def watch(device):
    """From now on to the end say on stderr if programs there do not all arrive."""
    if device not in _watched:
        _watched.add(device)
        atexit.register(_tell, device)
        Thread(target=_look, args=(device, word(device)), daemon=True).start()


def _look(device, word):
    while word is _words.get(device) and not _tell(device):
        time.sleep(LOOK)


def _tell(device):
    """Whether that is so, said once; not where an error has said it already."""
    word = _words.get(device)
    if word is None or device in _off or not word.item():
        return device in _off
    private.say(
        f"warning: in a CUDA graph that is replayed on {device} programs of a kernel have waited "
        "in vain for others, which the GPU did not run at the same time. Its results are NaN since "
        "then, and so is what was made of them. Capture it anew with FASTRNN_GPU=off, which leaves "
        "all to torch's kernels"
    )
    return True


def off(device):
    """Why the engine does not serve on this device any more; None if it does."""
    return _off.get(device)
