"""The trial of a call's kernels, in the process for it: they are compiled, proven, and timed."""

import os
import subprocess

import torch

from ..kernels.cells import cell_of
from ..kernels.gpu import attempt, choice, guard, launch, sizes, tiles, verdicts
from ..kernels.refused import Refused
from . import oracle, process, proof, race
from .layer import Layer
from .when import PROVING

# What CUDA says of a kernel that has done wrong, and we of one that has waited in vain.
OURS = (
    "illegal memory access", "misaligned address", "unspecified launch failure",
    "illegal instruction", "device-side assert", "waited in vain",
)  # fmt: skip
FIRST = proof.Check(1, 1, False, 1)  # a step: nobody waits, so that this ends once it is compiled


def rows(item):
    """The rows of a Worker: {"phase"} as it goes on, in the end {"key", "verdict"}, or {"none"},
    why there is no verdict. item: the ``cell``'s key, the ``key``, the table's ``facts``, and what
    the other process calls the ``device``.
    """
    index = process.place(item["device"], os.environ[process.TRIED])
    if index is None:
        yield {"none": "its process does not see the GPU: CUDA_VISIBLE_DEVICES has changed since"}
        return
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    if choice.facts(device) != item["facts"]:
        yield {"none": "its process saw other software"}
        return
    yield from tried(item, device)
    torch.cuda.empty_cache()  # it may be long until the next one


def tried(item, device, checks=None, clock=None):
    """As ``rows``. checks: proof.Checks in place of its own; clock: as the race's."""
    attempt.forget()
    key, cell = verdicts.key_of(item["key"]), cell_of(item["cell"])
    tile = sizes.Forward(*key.forward), key.backward and sizes.Backward(*key.backward)
    phase = "compiling"
    yield {"phase": phase}
    try:
        sizes_of = key.H, key.D, key.training, device, key.layers, key.projection
        layer = Layer(cell, key.arithmetic, *sizes_of)
        checks = checks or list(proof.checks(layer, tile, key.packed, launch.describe(device)))
        wrong = proof.prove(layer, tile, FIRST._replace(packed=key.packed))
        phase = PROVING
        yield {"phase": phase}
        for check in checks:
            wrong = wrong or proof.prove(layer, tile, check)
        if wrong:
            yield _no(key, wrong)
            return
        yield {"phase": "timing"}
        speed = [_timed(layer, tile, key, T, clock) for T in race.lengths(key.B)]
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        if "out of memory" in str(error):
            yield {"none": f"too little memory is free on the GPU: {why}"}
        elif (phase == "compiling" and _of_the_machine(error)) or not _of_the_kernels(error):
            yield {"none": why}
        else:
            yield _no(key, why)
    else:
        if None in speed:
            yield {"none": "the GPU is busy with other work: times differ too much"}
        else:
            verdict = verdicts.Verdict(True, "", tuple(speed), verdicts.today())
            yield verdicts.written(key, verdict)


def _no(key, why):
    """The last row: whoever comes next is to find a process without this past."""
    return verdicts.written(key, verdicts.wrong(why)) | {"killed": True}


def _of_the_machine(error):
    """Whether files or programs that are wanted for compiling are what is wrong."""
    while error is not None:
        if isinstance(error, (OSError, ImportError, subprocess.SubprocessError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_the_kernels(error):
    """Whether it is to be held against them: not what torch, or the driver, has no room or no turn
    for. A fault of this code is.
    """
    if isinstance(error, Refused) or not isinstance(error, RuntimeError):
        return True
    return any(words in str(error) for words in OURS)


def _timed(layer, tile, key, T, clock):
    numbers = layer.numbers(T, key.B, key.packed)
    layer.ours.recompute = False
    runs = {"ours": layer.run(layer.ours, numbers), "torch": layer.run(layer.theirs, numbers)}
    with tiles.using(*tile), oracle.arithmetic(layer.arithmetic), launch.patience(proof.LOOKS):
        times = race.race(runs, clock)
    guard.check(layer.device)
    if failed := attempt.failures():
        raise Refused("triton", failed[-1])
    return race.timed(T, times)
