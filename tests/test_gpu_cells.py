"""Cells with every port on the GPU engine: in Triton's interpreter, against the reference engine;
and compiled ahead of time.
"""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from gpu_cells import CELLS, check_cell
from gpu_layers import ALONE, GRID
from interpreter import in_processes, interpreted
from test_gpu_aot import SPILLED

from bench.aot import compiler, rows
from fastrnn.kernels.gpu import sizes, tiles
from fastrnn.kernels.keep import Keep

__all__ = ["interpreted"]
EVERY_CELL = pytest.mark.parametrize("name", CELLS)


@pytest.mark.parametrize("tile", [GRID, ALONE], ids=["grid", "alone"])
@EVERY_CELL
def test_layer(interpreted, name, tile):
    interpreted(check_cell, name, tile)


@EVERY_CELL
def test_packed_and_both_directions(interpreted, name):
    interpreted(check_cell, name, T=5, B=4, D=2, lengths=[5, 3, 3, 1])


@EVERY_CELL
def test_recompute(interpreted, name):
    interpreted(check_cell, name, D=2, keep=Keep.STATES)


@pytest.mark.parametrize("keep", [Keep.ALL, Keep.STATES], ids=["all", "states"])
@EVERY_CELL
def test_heads(interpreted, name, keep):
    """Directions that run side by side, each with inputs of its own."""
    interpreted(check_cell, name, T=5, B=4, D=2, heads=3, lengths=[5, 3, 3, 1], keep=keep)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY_CELL
def test_halves(interpreted, name, dtype):
    interpreted(check_cell, name, dtype=dtype)


@EVERY_CELL
def test_two_blocks_and_three_groups(interpreted, name):
    interpreted(check_cell, name, T=2, B=18, H=41)


def meet(name):
    with in_processes():
        check_cell(name, D=2)


@pytest.mark.parametrize("name", ["slstm", "masked", "sru"])
def test_programs_that_wait_for_each_other(interpreted, name):
    """And those of a cell without a product, which do not."""
    interpreted(meet, name)


def any_tile(name):
    """The one that is chosen, by whoever calls."""
    check_cell(name, tile=None, H=41)


@pytest.mark.parametrize("name", ["sru", "five_gates"])
def test_the_tile_that_is_chosen(interpreted, name):
    interpreted(any_tile, name)


SIZES = [("sm80", 256, 16), ("sm90", 512, 16), ("sm100", 128, 64)]
SIZES = [(name, *size) for name in CELLS for size in SIZES] + [("slstm", "sm90", 1024, 64)]


@pytest.mark.parametrize(("name", "gpu", "H", "B"), SIZES)
def test_compiled(name, gpu, H, B):
    cell, device = CELLS[name], rows.GPUS[gpu]
    layer = compiler.Layer(cell, "bfloat16", False, H)
    for direction, kernel in sizes.KERNELS.items():
        choose = getattr(tiles, f"choose_{direction}")
        sequences = tiles.sequences(cell, B)
        tile = choose(cell.hgates, "bfloat16", False, sequences, H, 1, device)
        made = compiler.compiled(compiler.target(gpu), layer, **{direction: tile})
        found = compiler.resources(made[direction])
        assert found["spilled"] <= SPILLED
        assert found["shared"] <= kernel.shared(tile, cell.hgates, "half", H) <= device.shared
        assert found["held"] == cell.recurrent


@EVERY_CELL
def test_no_number_is_kept(name):
    """It stands in the text of the cell."""
    assert "number" not in [node.op for node in CELLS[name].derivation.kept]
