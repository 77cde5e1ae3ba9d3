"""A trial of kernels, in Triton's interpreter: yes to ours, and no to each that is spoiled."""

import re
from contextlib import contextmanager

import gpu_cells
import pytest
import torch
from gpu_layers import ALONE
from gpu_tried import Clock, tried
from interpreter import interpreted

from fastrnn.kernels.cells import key_of
from fastrnn.kernels.gpu import verdicts

__all__ = ["interpreted"]


def says_yes(**options):
    *phases, row = tried(**options)
    assert [each["phase"] for each in phases] == ["compiling", "proving", "timing"], row
    _, verdict = verdicts.read(row)
    assert verdict.right, verdict
    assert [each.T for each in verdict.speed] == [1, 2]
    assert verdict.serves(100)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "gru", "training": False, "D": 2},
        {"cell": "rnn_relu", "packed": True, "arithmetic": "bfloat16", "tile": ALONE},
        {"layers": 2, "D": 2},
        {"layers": 2, "projection": 6, "packed": True},
    ],
    ids=str,
)
def test_torchs_cells(interpreted, options):
    interpreted(says_yes, **options)


@pytest.mark.parametrize("name", ["sru", "masked"])
def test_cells_that_torch_has_not(interpreted, name):
    """With inputs beside x, and an output that is no state."""
    interpreted(says_yes, cell=key_of(gpu_cells.CELLS[name]))


@contextmanager
def spoiled(spoil):
    """Within this context ``spoil(results, call)`` is done after each launch; call: its number."""
    from fastrnn.kernels.gpu import launch

    run, calls = launch.run, []

    def spoiling(kernel, launches, start, warps, T, **arguments):
        end = run(kernel, launches, start, warps, T, **arguments)
        calls.append(T)
        if T > 1:  # what comes first is a step, to compile
            spoil(arguments | {"end": end}, len(calls))
        return end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", spoiling)
        yield


def off(name):
    """A result that is off by a hundredth, where the kernel has one of that name."""

    def spoil(results, call):
        if name in results:
            results[name].mul_(1.01)

    return spoil


def other_bits(results, call):
    results["end"].mul_(1 + call * 2**-22)


def not_a_number(results, call):
    results["end"].view(-1)[0] = torch.nan


def beyond(results, call):
    after = results["after"]
    after.as_strided((1,), (1,), after.storage_offset() + after.numel()).fill_(0)


def before(results, call):
    after = results["after"]
    after.as_strided((1,), (1,), after.storage_offset() - 1).fill_(0)


def never_came(results, call):
    from fastrnn.kernels.gpu import guard

    guard.word(results["end"].device).fill_(1)


SPOILS = {
    "states": (off("end"), "is off by"),
    "output": (off("after"), "output is off by"),
    "gradients": (off("dgates"), "d .* is off by"),
    "other-bits": (other_bits, "another run gave other bits"),
    "nan": (not_a_number, "is off by inf"),
    "behind": (beyond, "wrote outside of its memory"),
    "before": (before, "wrote outside of its memory"),
    "never-came": (never_came, "did not all arrive|waited in vain"),
}


def says_no(name):
    spoil, words = SPOILS[name]
    with spoiled(spoil):
        *phases, row = tried()
    assert [each["phase"] for each in phases] == ["compiling", "proving"], row
    _, verdict = verdicts.read(row)
    assert not verdict.right
    assert re.search(words, verdict.why), verdict.why
    assert not verdict.serves(100)[0]


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled(interpreted, name):
    interpreted(says_no, name)


def ends(error, found):
    """What a GPU says at a time of its own, here when it is waited for."""
    from fastrnn.gpu import guards

    waits = []

    def intact(self):
        waits.append(self)
        if len(waits) > 2:  # which are those of the first step
            raise error
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards.Guards, "intact", intact)
        row = tried()[-1]
    assert found in str(row)


def test_what_a_gpu_says(interpreted):
    interpreted(ends, torch.OutOfMemoryError("CUDA out of memory"), "'none': 'too little memory")
    interpreted(ends, RuntimeError("CUDA error: an illegal memory access"), "'right': False")
    interpreted(ends, RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), "'none': ")
    interpreted(ends, RuntimeError("CUDA-capable device(s) is/are busy"), "'none': ")


def fails_at_once(error, found):
    """Before a kernel has run: what files or programs are wanting says nothing of it."""
    from fastrnn.kernels.gpu import launch

    def run(*args, **kwargs):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", run)
        phase, row = tried()
    assert phase == {"phase": "compiling"}
    assert found in row
    assert "does not run here" in (row.get("none") or row["verdict"]["why"])


def test_a_kernel_that_does_not_compile(interpreted):
    from triton.runtime.errors import OutOfResources

    interpreted(fails_at_once, OutOfResources(300000, 232448, "shared memory"), "verdict")
    interpreted(fails_at_once, PermissionError(13, "Permission denied"), "none")


def backward_that_others_stepped_in_for():
    """Is no proof of a kernel, though the numbers are right."""
    from fastrnn.kernels.gpu import launch

    run = launch.run

    def refused(kernel, launches, start, warps, T, **arguments):
        if "dgates" in arguments:
            raise RuntimeError("this one is not to be had")
        return run(kernel, launches, start, warps, T, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", refused)
        *_, row = tried()
    assert "not to be had" in row["verdict"]["why"]


def test_backward_that_others_stepped_in_for(interpreted):
    interpreted(backward_that_others_stepped_in_for)


class Uneven(Clock):
    """A GPU that others use, too."""

    def __call__(self, run, calls):
        self.turns = getattr(self, "turns", 0) + 1
        return super().__call__(run, calls) * (1 + self.turns % 5 / 2)


def slower_or_uneven():
    *_, row = tried(clock=Clock(ours=2e-5, theirs=2e-5))
    _, verdict = verdicts.read(row)
    assert verdict.right
    assert not verdict.serves(100)[0]
    *_, row = tried(clock=Uneven())
    assert "busy" in row["none"]


def test_what_is_not_faster_does_not_serve(interpreted):
    interpreted(slower_or_uneven)
