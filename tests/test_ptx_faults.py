"""Faults planted in the compiled kernels: the emulator sees each; without them it sees nothing."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

import fastrnn
from fastrnn.kernels.gpu import launch
from tests.ptx import faults
from tests.ptx.found import Detected
from tests.ptx.gpu import emulated

# Two programs forward and four backward; H is padded, so that there is something to mask.
SMALL = {"forward": (16, 16, 16, 4, 1), "backward": (16, 16, 4)}
# In pieces that the matrix unit of sm_90 multiplies, forward and backward.
WIDE = {"forward": (16, 16, 128, 4, 0), "backward": (64, 16, 4)}
PLANTED = [
    (90, faults.NO_BARRIER, 40, SMALL),
    (90, faults.NO_FENCE, 128, WIDE),
    (90, faults.NO_BARRIER_BEFORE_UNIT, 128, WIDE),
    (90, faults.NO_WAIT_FOR_UNIT, 128, WIDE),
    (90, faults.NO_WAIT, 40, SMALL),
    (80, faults.NO_WAIT, 40, SMALL),
    (90, faults.RELAXED_WAIT, 40, SMALL),
    (80, faults.RELAXED_WAIT, 40, SMALL),
    (90, faults.RELAXED_RELEASE, 40, SMALL),
    (90, faults.NO_MASK, 40, SMALL),
    (90, faults.RING_OF_TWO, 40, SMALL),
]


def trained(arch, H, tile, fault=None, T=9):
    """The Emulated of a training step, and what it computes."""
    layer = fastrnn.LSTM(5, H).to(torch.bfloat16)
    x = torch.randn(T, 3, 5).to(torch.bfloat16).requires_grad_()
    with emulated(arch, fault, **tile) as gpu, fastrnn.backends.use("triton"):
        y, _ = layer(x)
        found = y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()])
    return gpu, found


@pytest.mark.parametrize(("arch", "H", "tile"), [(90, 40, SMALL), (80, 40, SMALL), (90, 128, WIDE)])
def test_without_a_fault(arch, H, tile):
    gpu, found = trained(arch, H, tile)
    assert not gpu.found
    assert all(t.isfinite().all() for t in found)


@pytest.mark.parametrize(("arch", "fault", "H", "tile"), PLANTED, ids=str)
def test_a_fault_is_seen(arch, fault, H, tile):
    with pytest.raises(Detected) as caught:
        trained(arch, H, tile, fault)
    assert isinstance(caught.value, fault.raises), caught.value


def test_a_program_that_never_comes(monkeypatch):
    """The others run out of patience, and say so."""
    monkeypatch.setattr(launch, "SPIN_LIMIT", 50)
    with pytest.raises(RuntimeError, match="did not all arrive"):
        trained(90, 40, SMALL, faults.ABSENT, T=3)
