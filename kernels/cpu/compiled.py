"""The compiled functions: which sources and sizes go into each."""

from functools import cache
from pathlib import Path

import numba
import torch
from numba import types

from . import loops, products
from .activations import make_activations
from .compile import rebind, specialise
from .microkernel import make_gemm
from .simd import VecType, memory
from .target import registers
from .tiling import tiling

ELEMENTS = {torch.float32: types.float32, torch.float64: types.float64}
CHUNK = 256  # rows of a product packed at a time
SOURCES = sorted(Path(__file__).parent.glob("*.py"))


@cache
def tiles(gates, dtype):
    """The tiling for ``gates`` gates of ``dtype`` on this machine."""
    host = registers()
    return tiling(gates, host.bits // ELEMENTS[dtype].bitwidth, host.count)


def _machine(dtype, tile):
    """Globals that say how this machine computes with ``dtype`` in tiles of ``tile``."""
    vec = VecType(ELEMENTS[dtype], tile.lanes)
    return {
        **memory(vec),
        "gemm": make_gemm(vec, tile.vectors, tile.rows),
        "gemm_packed": make_gemm(vec, tile.vectors, tile.rows, step=tile.rows),
        "SIZE": vec.itemsize,
        "LANES": tile.lanes,
        "UNITS": tile.units,
        "WIDTH": tile.width,
        "PANEL": tile.panel,
        "ROWS": tile.rows,
        "CHUNK": CHUNK,
    }


def _cell(cell, dtype):
    """Globals that say what the cell is."""
    operations = make_activations(ELEMENTS[dtype])
    return {
        "cell_forward": numba.njit(forceinline=True)(rebind(cell.forward, operations)),
        "cell_backward": numba.njit(forceinline=True)(rebind(cell.backward, operations)),
        "GATES": cell.gates,
        "EXTRA": cell.states - 1,
        "KEPT": cell.kept,
        "DGATES": cell.dgates,
    }


def _inputs(names, cell=None):
    source = [Path(cell.forward.__code__.co_filename)] if cell else []
    return [*SOURCES, *source, sorted((k, v) for k, v in names.items() if isinstance(v, int))]


@cache
def forward(cell, dtype):
    names = _machine(dtype, tiles(cell.gates, dtype)) | _cell(cell, dtype)
    helpers = [loops.multiply, loops.project_inputs, loops.put_hidden, loops.apply_cell]
    return specialise(
        [*helpers, loops.project_hidden, loops.forward],
        names,
        f"{cell.name} forward, {dtype}",
        [*_inputs(names, cell), cell.name, "forward"],
    )


@cache
def backward(cell, dtype):
    names = _machine(dtype, tiles(1, dtype)) | _cell(cell, dtype)
    return specialise(
        [loops.multiply, loops.differentiate, loops.gather_projected, loops.backward],
        names,
        f"{cell.name} backward, {dtype}",
        [*_inputs(names, cell), cell.name, "backward"],
    )


@cache
def matmul(dtype):
    names = _machine(dtype, tiles(1, dtype))
    inputs = [*_inputs(names), "matmul"]
    return specialise([products.matmul], names, f"matrix products, {dtype}", inputs)


@cache
def outer(dtype):
    names = _machine(dtype, tiles(1, dtype))
    functions = [products.pack_panels, products.pack_block, products.outer]
    return specialise(
        functions, names, f"weight gradients, {dtype}", [*_inputs(names), "outer"]
    )
