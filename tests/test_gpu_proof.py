"""What a trial of kernels consists of, each part by itself: without a GPU."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import gpu_cells
import torch
from torch import nn

from fastrnn.gpu import oracle, proof, race
from fastrnn.gpu.guards import MAKERS, MARGIN, guarded
from fastrnn.gpu.layer import Layer
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu import launch, sizes, tiles
from fastrnn.kernels.symbolic.cell import Cell

CPU = torch.device("cpu")


def test_a_proof_fills_the_gpu():
    device = launch.describe(torch.device("cpu"))
    for H in (64, 512, 1024):
        tile = [
            choose(4, "bfloat16", False, 64, H, 1, device)
            for choose in (tiles.choose_forward, tiles.choose_backward)
        ]
        layer = Layer(CELLS["lstm"], "bfloat16", H, 1, True, torch.device("cpu"))
        odd, full = proof.checks(layer, tile, False, device)
        assert odd.B % 16
        fullest = 0
        for (name, kernel), each in zip(sizes.KERNELS.items(), tile, strict=True):
            given = 4, "half", full.B, H, 1, device
            grids = [grid for *_, grid in sizes.launches(name, each, *given).each()]
            room = sizes.resident(kernel.shared(each, 4, "half", H), each.warps, device)
            programs = max(a * b * c for a, b, c in grids)
            fullest = max(fullest, programs / room)
        assert fullest > 0.7 or full.B == proof.FULLEST


def made(maker, dtype=torch.float32):
    """What each of torch's functions gives that a guard stands behind."""
    like = torch.ones(2, 3, dtype=dtype)
    return {
        "empty": lambda: torch.empty(2, 3, dtype=dtype),
        "empty_like": lambda: torch.empty_like(like),
        "zeros": lambda: torch.zeros(2, 3, dtype=dtype),
        "new_empty": lambda: like.new_empty(2, 3),
        "new_zeros": lambda: like.new_zeros(2, 3),
    }[maker]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("maker", [name for _, name in MAKERS])
def test_guards(maker, dtype):
    """They see a write on either side; what is new is NaN, or zero as it should be."""
    for offset, intact in ((None, True), (-1, False), (6, False)):
        with guarded(CPU) as guards:
            tensor = made(maker, dtype)
            assert tensor.shape == (2, 3)
            assert tensor.dtype == dtype
            assert tensor.storage_offset() * tensor.itemsize == MARGIN
            if "zeros" in maker:
                assert not tensor.any()
            else:
                assert (tensor != tensor).all() or dtype == torch.int32
            if offset is not None:
                tensor.as_strided((1,), (1,), tensor.storage_offset() + offset).fill_(0)
            assert guards.intact() is intact
    assert made(maker, dtype).storage_offset() == 0


def test_what_lies_elsewhere_stays_what_it_is():
    """The word that kernels set, for one, is pinned memory of the host."""
    with guarded(torch.device("cuda", 0)):
        assert torch.zeros(3).storage_offset() == 0
        assert torch.ones(3).new_empty(3).storage_offset() == 0


def test_what_a_cell_does_not_use():
    """It has a gradient of zeros, as of our kernels."""
    cell = Cell("idle", lambda wx, uh, states, own, inputs: (wx[0],), gates=2, states=1, own=1)
    layer = Layer(cell, "float32", 6, 1, True, CPU)
    numbers = layer.numbers(4, 3)
    found = layer.results(layer.theirs, numbers)
    assert not found["d own_0"].any()
    assert not found["d h0"].any()
    layer.run(layer.theirs, numbers)()


def test_what_is_empty_needs_no_guard():
    with guarded(CPU) as guards:
        assert torch.empty(0, 3).shape == (0, 3)
        assert guards.intact()


@pytest.mark.parametrize(
    "cell", [*CELLS.values(), *gpu_cells.CELLS.values()], ids=lambda cell: cell.name
)
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_layers_agree_with_float64(cell, packed):
    """What serves otherwise, and the truth: all outputs and gradients, as far as a dtype allows."""
    layer = Layer(cell, "float32", 6, 2, True, CPU)
    numbers = layer.numbers(4, 3, packed)
    truth, found = (layer.results(m, numbers) for m in (layer.exact, layer.theirs))
    leaves = ["x", *[f"{n}0" for n in "hc"], "inputs"]
    assert {f"d {n}" for n in leaves if n in numbers.leaves} <= truth.keys()
    assert len(truth) == 1 + cell.states + len(numbers.leaves) + len(list(layer.ours.parameters()))
    row = oracle.worst(truth, found, found, "float32", layer.jumps)
    assert row["right"], row
    assert all(t.dtype == torch.float64 for t in truth.values())
    spoiled = found | {row["of"]: found[row["of"]] * 1.1}
    assert not oracle.worst(truth, spoiled, found, "float32", False)["right"]


@pytest.mark.parametrize("projection", [0, 4])
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_stacks_agree_with_float64(packed, projection):
    layer = Layer(CELLS["lstm"], "float32", 6, 2, True, CPU, layers=3, projection=projection)
    assert (layer.ours.num_layers, layer.ours.proj_size) == (3, projection)
    numbers = layer.numbers(4, 3, packed)
    truth, found = (layer.results(m, numbers) for m in (layer.exact, layer.theirs))
    assert truth["output"].shape[-1] == 2 * (projection or 6)
    assert truth["h_n"].shape == (6, 3, projection or 6)
    assert truth["d c0"].shape == (6, 3, 6)
    assert oracle.worst(truth, found, found, "float32", False)["right"]


def test_inference_keeps_no_graph():
    layer = Layer(CELLS["gru"], "float32", 6, 1, False, CPU)
    assert list(layer.results(layer.theirs, layer.numbers(4, 3))) == ["output", "h_n"]
    assert not layer.theirs.training
    assert isinstance(layer.theirs, nn.GRU)


def test_what_jumps():
    jumping = {
        name for name, cell in CELLS.items() if Layer(cell, "float32", 6, 1, True, CPU).jumps
    }
    assert jumping == {"rnn_relu"}


def test_the_lengths_of_a_race():
    """Of many sequences there are fewer steps: they take gigabytes."""
    assert race.lengths(64) == (32, 256)
    assert race.lengths(4096) == (32, 128)
    assert all(few < many for few, many in map(race.lengths, (1, 64, 4096, 10**6)))


def test_a_race_of_even_times():
    times = {"ours": [1.0] * 9 + [5.0], "torch": [1.06] * 8 + [1.04] * 2}
    few = race.timed(32, times)
    assert (few.T, few.ours, few.torch, few.won) == (32, 1.0, 1.06, 0.8)
    assert race.timed(32, times | {"ours": [1.0] * 5 + [1.3] * 5}) is None
