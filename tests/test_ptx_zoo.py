"""Layers of fastrnn.zoo on what Triton makes of the GPU kernels: against loops from the papers."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from custom_cells import Peephole, assert_same, loop, make, plain_call, trained
from test_zoo import errors
from zoo_cases import arguments, build

import fastrnn
from tests.ptx.gpu import emulated

TOLERANCE = 2e-4  # as in against_torch.py: all is float32
SMALL = {"forward": (16, 16, 16, 4, 0), "backward": (16, 16, 4)}
CELLS = {
    "PeepholeLSTM": (40, SMALL),  # parameters of its own
    "SLSTM": (40, SMALL),  # four states
    "AUGRU": (40, SMALL),  # an input of its own at each step
    "MinGRU": (21, {}),  # no product: nobody waits
    "SRU": (21, {}),  # likewise, and its output is no state
}


@pytest.mark.parametrize("arch", [90, 80])
@pytest.mark.parametrize("name", CELLS)
def test_layer(name, arch):
    H, tile = CELLS[name]
    module = build(name, 1, 1, dtype=torch.float32, sizes=(3, H))
    given = arguments(name, module)
    with emulated(arch, **tile) as gpu, fastrnn.backends.use("triton"):
        found = errors(name, module, given)
    assert max(found.values()) <= TOLERANCE, found
    assert [name for name, _ in gpu.launches] == ["forward", "backward"]


def test_heads_are_directions():
    """Two heads in both directions: four that run side by side."""
    module, *given = make(Peephole, 5, 32, bidirectional=True, heads=2, dtype=torch.float32)
    with emulated(90) as gpu, fastrnn.backends.use("triton"):
        found = trained(plain_call, module, *given)
    assert_same(found, trained(loop, module, *given), TOLERANCE)
    assert [grid[2] for name, grid in gpu.launches if name == "forward"] == [4]
