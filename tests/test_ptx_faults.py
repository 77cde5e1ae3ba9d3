"""Faults planted in the compiled kernels: the emulator sees each; without them it sees nothing."""

from contextlib import nullcontext

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

import fastrnn
from fastrnn.kernels.gpu import launch
from tests.ptx import faults
from tests.ptx.gpu import emulated

# Two programs forward and four backward; H is padded, so that there is something to mask.
SMALL = {"forward": (16, 16, 16, 4, 1), "backward": (16, 16, 4)}
# In pieces that the matrix unit of sm_90 multiplies, forward and backward.
WIDE = {"forward": (16, 16, 128, 4, 0), "backward": (64, 16, 4)}
EITHER = "forward", "backward"
PLANTED = [
    *((90, fault._replace(kernel=k), 40, SMALL) for fault in faults.IN_TEXT for k in EITHER),
    *((90, fault._replace(kernel=k), 128, WIDE) for fault in faults.OF_UNIT for k in EITHER),
    *((80, fault, 40, SMALL) for fault in faults.IN_TEXT),
    (90, faults.RING_OF_TWO, 40, SMALL),
]


def trained(gpu, H, T=9):
    """What a training step computes, within an ``emulated``."""
    layer = fastrnn.LSTM(5, H).to(torch.bfloat16)
    x = torch.randn(T, 3, 5).to(torch.bfloat16).requires_grad_()
    with gpu as machine, fastrnn.backends.use("triton"):
        y, _ = layer(x)
        return machine, (y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize(("arch", "H", "tile"), [(90, 40, SMALL), (80, 40, SMALL), (90, 128, WIDE)])
def test_without_a_fault(arch, H, tile):
    machine, found = trained(emulated(arch, **tile), H)
    assert not machine.found
    assert all(t.isfinite().all() for t in found)


@pytest.mark.parametrize(("arch", "fault", "H", "tile"), PLANTED, ids=str)
def test_a_fault_is_seen(arch, fault, H, tile):
    with emulated(arch, fault, **tile) as machine, pytest.raises(RuntimeError):
        trained(nullcontext(machine), H)
    kernel, _ = machine.launches[-1]
    assert isinstance(machine.found[0], fault.raises), machine.found
    assert kernel == fault.kernel or fault.kernel is None


def test_a_program_that_never_comes(monkeypatch):
    """The others run out of patience, and say so."""
    monkeypatch.setattr(launch, "SPIN_LIMIT", 50)
    with pytest.raises(RuntimeError, match="did not all arrive"):
        trained(emulated(90, faults.ABSENT, **SMALL), 40, T=3)
