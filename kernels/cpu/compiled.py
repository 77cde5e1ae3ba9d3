"""The compiled functions: which sources and sizes go into each."""

from functools import cache

import torch
from numba import types

from . import backward as backward_loop
from . import blocks, products, recompute, sources, step_loops
from . import forward as forward_loop
from .activations import make_activations
from .bfloat16 import Bfloat16, Pairs, divide_roughly
from .compile import rebind, specialise
from .dot import ROWS, make_dot, weight_rows
from .elements import Same, make_transpose, memory
from .emit import on_stack, pick
from .front import inline
from .microkernel import make_gemm
from .panels import Singles, make_packing
from .product import make_product
from .simd import VecType, viewed
from .target import registers
from .tiling import tiling

# What registers hold, for each dtype of a sequence in memory.
ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.float32,
}
# The files that nothing compiled comes from: they call it.
HOST = {"calls", "engine", "layouts", "memory", "step", "threads"}
# What the compiled code depends on, as it was when it was imported; None if that is not known.
SOURCES = sources.of_package(__package__, HOST)


@cache
def tiles(gates, dtype):
    """The tiling for ``gates`` gates of ``dtype`` on this machine."""
    host = registers()
    return tiling(gates, host.bits // ELEMENTS[dtype].bitwidth, host.count)


def wide(dtype):
    """The dtype of states, sums and weights where the sequence is of ``dtype``."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def depth(k, dtype):
    """How deep the panels of a product over ``k`` are, in whole steps of the microkernel."""
    return k + k % 2 if dtype == torch.bfloat16 else k


def _machine(dtype, tile):
    """Globals that say how this machine computes with ``dtype`` in tiles of ``tile``."""
    vec = VecType(ELEMENTS[dtype], tile.lanes)
    same = items = Same(vec)
    factors = Singles(vec)
    if dtype == torch.bfloat16:
        items, factors = Bfloat16(vec), Pairs(vec)
    return {
        **memory(same),
        **{f"item_{name}": function for name, function in memory(items).items()},
        **make_packing(factors, same),
        "transpose": make_transpose(same, same),
        "item_transpose": make_transpose(items, items),
        "gemm": make_gemm(factors, tile.vectors, tile.rows),
        "SIZE": vec.itemsize,
        "ITEM": items.itemsize,
        "STEP": factors.depth,
        "LANES": tile.lanes,
        "UNITS": tile.units,
        "WIDTH": tile.width,
        "PANEL": tile.panel,
        "ROWS": tile.rows,
    }


def _cell(cell, dtype):
    """Globals that say what the cell is."""
    roughly = divide_roughly if dtype == torch.bfloat16 else None
    operations = make_activations(ELEMENTS[dtype], roughly)
    return {
        "cell_forward": inline(rebind(cell.forward, operations)),
        "cell_backward": inline(rebind(cell.backward, operations)),
        "GATES": cell.gates,
        "EXTRA": cell.states - 1,
        "KEPT": cell.kept,
        "DGATES": cell.dgates,
        "FIRST_X": min(cell.dx),
        "FIRST_H": min(cell.dh),
    }


def _depends_on(cell):
    """The bytes that what is compiled for a cell depends on; None among them if not all is known.

    Of the cell that is the code of its two functions, and all that it says in numbers.
    """
    numbers = [value for value in vars(cell).values() if not callable(value)]
    codes = [sources.of_code(f.__code__) for f in (cell.forward, cell.backward)]
    return [SOURCES, repr(numbers).encode(), *codes]


@cache
def forward(cell, dtype):
    """The forward time loop."""
    loop = forward_loop
    return _compile(
        "forward",
        [loop.pack_gates, loop.project_inputs, loop.project_block, loop.put_hidden]
        + [loop.apply_cell, loop.recurrent_gates, loop.step, loop.project_hidden, loop.direction],
        loop.FORWARD,
        tiles(cell.gates, dtype),
        dtype,
        cell,
    )


@cache
def backward(cell, dtype):
    """The backward time loop, with its products."""
    loop = backward_loop
    return _compile(
        "backward",
        [forward_loop.pack_gates, forward_loop.project_inputs, forward_loop.recurrent_gates]
        + [products.matmul, products.stand_up, products.pack_and_sum, products.accumulate]
        + [products.lay_down, recompute.recall, recompute.recompute, loop.pack_weights]
        + [loop.copy_rows, loop.gather, loop.differentiate, loop.gather_projected, loop.step]
        + [loop.products, loop.direction],
        loop.BACKWARD,
        tiles(cell.gates, dtype),
        dtype,
        cell,
    )


def _compile(name, functions, record, tile, dtype, cell):
    names = (
        _machine(dtype, tile)
        | _cell(cell, dtype)
        | {"view": viewed(record), "PLAN": record.itemsize}
    )
    label = f"{cell.name} {name} in {str(dtype).removeprefix('torch.')}"
    functions = [blocks.multiply, blocks.pack, blocks.spread, *functions, blocks.every_direction]
    return specialise(functions, names, label, _depends_on(cell), tile)


@cache
def step_forward(cell, dtype):
    """One step of the cell on weights as they lie."""
    loop = step_loops
    return _compile_step(
        [loop.bias_at, loop.preactivations, loop.apply_cell, loop.forward], cell, dtype
    )


@cache
def step_backward(cell, dtype):
    """One step's gradients."""
    loop = step_loops
    functions = [loop.differentiate, loop.sum_rows, loop.multiply, loop.to_inputs]
    return _compile_step([*functions, loop.to_weights, loop.backward], cell, dtype)


def _compile_step(functions, cell, dtype):
    host, tile = registers(), tiles(1, dtype)
    vec, wide = VecType(ELEMENTS[dtype], tile.lanes), host.count // 2
    count = weight_rows(tile.lanes, host.count)
    apart = tuple(x != h for x, h in zip(cell.dx, cell.dh, strict=True))
    slots = cell.gates * (1 + any(apart))
    places = [cell.after.index(i) if i in cell.after else -1 for i in range(cell.states)]
    names = {
        **memory(Same(vec)),
        **_cell(cell, dtype),
        "dot": make_dot(vec, count),
        "product": make_product(vec, tile.vectors, tile.rows, wide),
        "stack": on_stack(step_loops.CHUNK * slots * tile.lanes * vec.itemsize),
        "pick_x": pick(cell.dx),
        "pick_h": pick(cell.dh),
        "pick_after": pick(cell.after),
        "put_after": pick(places),
        "SIZE": vec.itemsize,
        "LANES": tile.lanes,
        "DOT_ROWS": ROWS,
        "DOT_COUNT": count,
        "PANEL": tile.panel,
        "ROWS": tile.rows,
        "WIDE": wide * tile.lanes,
        "AFTER": len(cell.after),
        "SLOTS": slots,
        "APART": apart,
    }
    label = f"{cell.name} step {functions[-1].__name__} in {str(dtype).removeprefix('torch.')}"
    return specialise(functions, names, label, _depends_on(cell), (tile, count, wide))
