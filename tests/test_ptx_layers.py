"""What Triton makes of the GPU kernels, run: every output and gradient is torch.nn's in float64.

It is the PTX for sm_90, with wgmma, and for sm_80, in the emulator of tests/ptx; tolerances are
those by which a run on a real GPU is judged.
"""

from contextlib import suppress

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from against_torch import compare, make_inputs, twins
from by_pieces import either
from gpu_layers import TOLERANCE

import fastrnn
from bench.cases import Case
from bench.gpu import oracle
from tests.ptx import numbers
from tests.ptx.gpu import emulated
from tests.ptx.text import Unknown

# Several programs, whatever the size: (BU, BB, KC, warps, ahead) and (GU, BB, warps).
SMALL = {"forward": (16, 16, 16, 4, 1), "backward": (16, 16, 4)}
ARITHMETICS = {"tf32": "float32"}


def judged(arch, cell, arithmetic, T, B, H, *, relu=False, directions=1, packed=False, **options):
    """Run a layer forward and backward; the launches that were made."""
    dtype = ARITHMETICS.get(arithmetic, arithmetic)
    case = Case(cell, T, B, 5, H, dtype=dtype, directions=directions, packed=packed)
    tf32 = arithmetic == "tf32"
    with emulated(arch, tf32=tf32, **options) as gpu, fastrnn.backends.use("triton"):
        row = oracle.judge(case, arithmetic, relu)
    assert row["right"], row
    assert [name for name, _ in gpu.launches] == ["forward", "backward"]
    return [grid for _, grid in gpu.launches]


KINDS = [("LSTM", False), ("GRU", False), ("RNN", False), ("RNN", True)]


@pytest.mark.parametrize("arithmetic", ["bfloat16", "float16", "tf32", "float32"])
@pytest.mark.parametrize(("cell", "relu"), KINDS)
@pytest.mark.parametrize("arch", [90, 80])
def test_small_tiles(arch, cell, relu, arithmetic):
    """Three programs forward, nine backward, of each of two directions; rows that end."""
    grids = judged(arch, cell, arithmetic, 4, 3, 40, relu=relu, directions=2, packed=True, **SMALL)
    assert grids == [(1, 3, 2), (2, 3, 3)]


CHOSEN = [
    # arch, cell, arithmetic, T, B, H, then the grids forward and backward
    (90, "LSTM", "bfloat16", 3, 16, 512, (1, 32, 1), (1, 4, 4)),
    (90, "LSTM", "bfloat16", 2, 16, 1024, (1, 64, 1), (1, 8, 8)),
    (90, "GRU", "bfloat16", 3, 16, 512, (1, 32, 1), (1, 4, 4)),
    (90, "RNN", "bfloat16", 3, 16, 512, (1, 8, 1), (1, 4, 4)),
    (90, "LSTM", "tf32", 3, 16, 256, (1, 16, 1), (1, 4, 4)),
    (90, "LSTM", "float32", 3, 16, 128, (1, 8, 1), (1, 2, 2)),
    (90, "LSTM", "bfloat16", 4, 9, 64, (1, 1, 1), (1, 1, 1)),
    (80, "LSTM", "bfloat16", 3, 16, 512, (1, 32, 1), (1, 4, 4)),
    (80, "GRU", "bfloat16", 3, 16, 256, (1, 16, 1), (1, 4, 4)),
    (80, "LSTM", "tf32", 3, 16, 256, (1, 16, 1), (1, 4, 4)),
    (120, "LSTM", "bfloat16", 3, 16, 256, (1, 16, 1), (1, 4, 4)),
]


@pytest.mark.parametrize(
    ("arch", "cell", "arithmetic", "T", "B", "H", "forward", "backward"), CHOSEN
)
def test_the_tile_that_is_chosen(arch, cell, arithmetic, T, B, H, forward, backward):
    assert judged(arch, cell, arithmetic, T, B, H) == [forward, backward]


@pytest.mark.parametrize("arch", [90, 80])
def test_rows_and_lanes(arch):
    """Two blocks of sequences, of which some end, in two directions; H is no multiple of 8."""
    grids = judged(arch, "LSTM", "bfloat16", 5, 21, 130, directions=2, packed=True)
    assert grids == [(2, 9, 2), (4, 3, 3)]


@pytest.mark.parametrize("arch", [90, 80])
def test_factors_are_rounded(arch, monkeypatch):
    """The matrix units leave 13 bits of a float32 out: there is nothing in them."""

    def exact(bits):
        assert not (bits & 0x1FFF).any()
        return bits.view("float32")

    monkeypatch.setitem(numbers.WIDEN, "tf32", exact)
    judged(arch, "LSTM", "tf32", 3, 3, 40, **SMALL)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_lengths_and_resets(kind):
    """Sequences that are cut in pieces, each of which torch.nn has alone."""
    resets = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]]).bool()
    ours, theirs = twins(kind, 5, 40, bidirectional=True)
    inputs, call = make_inputs(ours, 4, 4), either([3, 4, 0, 1], resets)
    with emulated(90, **SMALL) as gpu, fastrnn.backends.use("triton"):
        compare(ours, theirs, inputs, call=call, tolerance=TOLERANCE[torch.float32])
    assert [name for name, _ in gpu.launches] == ["forward", "backward", "forward"]


@pytest.mark.parametrize("arch", [90, 80])
def test_the_order_of_programs_changes_no_bit(arch):
    found = []
    for seed in range(3):
        torch.manual_seed(0)
        layer, x = fastrnn.GRU(5, 40, bidirectional=True), torch.randn(5, 3, 5)
        with emulated(arch, seed=seed, **SMALL), fastrnn.backends.use("triton"):
            y, _ = layer(x)
            found.append((y, *torch.autograd.grad(y.sum(), list(layer.parameters()))))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def unknown():
    """A launch that fails, and somebody who catches that."""
    layer, x = fastrnn.LSTM(5, 256).bfloat16(), torch.randn(2, 16, 5).bfloat16()
    with emulated(100), fastrnn.backends.use("triton"), torch.no_grad(), suppress(RuntimeError):
        layer(x)


def test_what_the_emulator_does_not_know_is_not_passed_over():
    """Of sm_100, for one."""
    with pytest.raises(Unknown, match="tcgen05"):
        unknown()
