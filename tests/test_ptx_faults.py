"""Faults planted in the compiled kernels: the emulator sees each; without them it sees nothing."""

from contextlib import nullcontext, suppress

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
EITHER = "forward", "backward"
OTHERS_SERVE = pytest.mark.filterwarnings("ignore:fastrnn. the backward kernel")  # does not run
PLANTED = [
    *((90, fault._replace(kernel=k), 40, SMALL) for fault in faults.IN_TEXT for k in EITHER),
    *((90, fault._replace(kernel=k), 128, WIDE) for fault in faults.OF_UNIT for k in EITHER),
    *((80, fault, 40, SMALL) for fault in faults.IN_TEXT),
    (90, faults.RING_OF_TWO, 40, SMALL),
]


def trained(gpu, H, T=6):
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


def found_with(arch, fault, H, tile):
    """What the emulator finds; the last launch was that of the kernel with the fault."""
    with emulated(arch, fault, **tile) as machine, suppress(RuntimeError):
        trained(nullcontext(machine), H)
    if machine.found and fault.kernel:
        assert machine.launches[-1][0] == fault.kernel
    return machine.found


@OTHERS_SERVE
@pytest.mark.parametrize(("arch", "fault", "H", "tile"), PLANTED, ids=str)
def test_a_fault_is_seen(arch, fault, H, tile):
    (found,) = found_with(arch, fault, H, tile)
    assert isinstance(found, fault.raises), found


@OTHERS_SERVE
@pytest.mark.parametrize("kernel", EITHER)
@pytest.mark.parametrize(("H", "tile"), [(40, SMALL), (128, WIDE)])
def test_each_barrier_is_missed(H, tile, kernel):
    """But for one, at most, that the compiler has left in for nothing."""
    texts, unseen = [], []
    found_with(
        90, faults.Fault("none", (), lambda ptx: texts.append(ptx) or ptx, kernel=kernel), H, tile
    )
    count = len(faults.barriers(texts[0]))
    for n in range(count):
        fault = faults.Fault("a barrier less", (), faults.without_barrier(n), kernel=kernel)
        found = found_with(90, fault, H, tile)
        assert all(isinstance(error, Detected) for error in found)
        unseen += [n] * (not found)
    assert count > 5
    assert len(unseen) <= 1


@pytest.mark.parametrize("kernel", EITHER)
def test_a_program_that_never_comes(kernel):
    """The others run out of patience, the kernel ends, and says so: by NaN, a flag and an error."""
    absent = faults.ABSENT._replace(kernel=kernel)
    layer = fastrnn.LSTM(5, 40).to(torch.bfloat16)
    x = torch.randn(3, 3, 5).to(torch.bfloat16).requires_grad_()
    with emulated(90, absent, **SMALL) as machine, fastrnn.backends.use("triton"):
        with launch.patience(50):
            y, _ = layer(x)
            assert y.isnan().any() == (kernel == "forward")
            if kernel == "backward":
                grads = torch.autograd.grad(y.sum(), [x, *layer.parameters()])
                assert all(grad.isnan().any() for grad in grads)
        with pytest.raises(RuntimeError, match="waited in vain"):
            layer(x)
    assert not machine.found
