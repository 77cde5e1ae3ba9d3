"""What Triton makes of the GPU kernels, run: every output and gradient is torch.nn's in float64.

It is the PTX for sm_90, with wgmma, and for sm_80, in the emulator of tests/ptx; tolerances are
those by which a run on a real GPU is judged.
"""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import fastrnn
from bench.cases import Case
from bench.gpu import oracle
from tests.ptx.gpu import emulated

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
    # arch, cell, arithmetic, T, B, H, grids
    (90, "LSTM", "bfloat16", 3, 16, 512, [(1, 32, 1), (1, 4, 4)]),
    (90, "GRU", "bfloat16", 3, 16, 256, [(1, 16, 1), (1, 4, 4)]),
    (90, "RNN", "bfloat16", 3, 16, 512, [(1, 8, 1), (1, 4, 4)]),
    (90, "LSTM", "tf32", 3, 16, 256, [(1, 16, 1), (1, 4, 4)]),
    (90, "LSTM", "float32", 3, 16, 128, None),
    (90, "LSTM", "bfloat16", 4, 9, 64, None),
    (80, "LSTM", "bfloat16", 3, 16, 512, None),
    (80, "GRU", "bfloat16", 3, 16, 256, None),
]


@pytest.mark.parametrize(("arch", "cell", "arithmetic", "T", "B", "H", "grids"), CHOSEN)
def test_the_tile_that_is_chosen(arch, cell, arithmetic, T, B, H, grids):
    assert judged(arch, cell, arithmetic, T, B, H) == grids
