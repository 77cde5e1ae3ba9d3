"""Cells with every port on the GPU engine, in Triton's interpreter, against the reference engine."""

import pytest
import torch
from gpu_cells import CELLS, check_cell
from gpu_layers import ALONE, GRID
from interpreter import interpreted

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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY_CELL
def test_halves(interpreted, name, dtype):
    interpreted(check_cell, name, dtype=dtype)
