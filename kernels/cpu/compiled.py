"""The compiled functions: which sources and sizes go into each."""

from functools import cache, partial

import torch
from numba import types

from . import backward as backward_loop
from . import blocks, pieces, products, recompute, sources, step_loops
from . import forward as forward_loop
from . import tiles as tiles_
from .activations import make_activations
from .bfloat16 import Bfloat16, Pairs, divide_roughly
from .compile import Compiled, code, rebind, specialise
from .dot import ROWS, make_dot, weight_rows
from .elements import Same, make_transpose, memory
from .emit import on_stack, pick
from .front import inline
from .lying import emit_lying
from .lying import max_rows as lying_rows
from .lying import table as lying_table
from .microkernel import emit_gemm, max_rows, table
from .panels import Singles, make_packing
from .plan import BACKWARD, FORWARD
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


@cache
def kernels(vectors, dtype):
    """The address of the table of the microkernel's tiles, of up to ``vectors`` registers, and of
    one row of up to half of all.
    """
    count = registers().count
    shapes = [(1, v) for v in range(1, count // 2 + 1)]
    shapes += [
        (r, v) for r in range(2, max_rows(count, vectors) + 1) for v in range(1, vectors + 1)
    ]
    label = f"products of {_name(dtype)} in panels of {vectors}"
    found = code(label, [SOURCES], None, partial(emit_gemm, _factors(dtype), shapes))
    return _held(table(found.addresses.values(), shapes), found)


@cache
def lying(dtype):
    """The fields of a plan whose weights are multiplied as they lie."""
    vec, host = _factors(dtype).vec, registers()
    rows = lying_rows(host.count, vec.lanes)
    label = f"products of {_name(dtype)} with weights as they lie"
    found = code(label, [SOURCES], None, partial(emit_lying, vec, rows))
    address = _held(lying_table(found.addresses.values()), found)
    return {"lying": address, "lying_rows": rows}


def _held(table, functions):
    """The address of a table of functions, which are then there for good."""
    _tables.append((table, functions))
    return table.buffer_info()[0]


_tables = []


def _factors(dtype):
    vec = VecType(ELEMENTS[dtype], registers().bits // ELEMENTS[dtype].bitwidth)
    return Pairs(vec) if dtype == torch.bfloat16 else Singles(vec)


def _machine(dtype):
    """Globals that say how this machine computes with ``dtype``."""
    factors = _factors(dtype)
    vec = factors.vec
    same = items = Same(vec)
    if dtype == torch.bfloat16:
        items = Bfloat16(vec)
    return {
        **memory(same),
        **{f"item_{name}": function for name, function in memory(items).items()},
        **make_packing(factors, same),
        "transpose": make_transpose(same, same),
        "item_transpose": make_transpose(items, items),
        "SIZE": vec.itemsize,
        "ITEM": items.itemsize,
        "STEP": factors.depth,
        "LANES": vec.lanes,
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
        "DGATES": _dgates(cell),
        "pick_x": pick(cell.dx),
        "pick_h": pick(cell.dh),
    }


def _dgates(cell):
    """Gradients of gates that backward's loop has of each unit: x's, and h's if these differ."""
    return cell.gates * (1 if cell.dx == cell.dh else 2)


def _depends_on(cell):
    """The bytes that what is compiled for a cell depends on; None among them if not all is known.

    Of the cell that is the code of its two functions, and all that it says in numbers.
    """
    numbers = [value for value in vars(cell).values() if not callable(value)]
    codes = [sources.of_code(f.__code__) for f in (cell.forward, cell.backward)]
    return [SOURCES, repr(numbers).encode(), *codes]


@cache
def _pieces(dtype, *names):
    """{name: address} of functions of pieces.py."""
    functions = [pieces.put_hidden, *(getattr(pieces, name) for name in names)]
    label = f"{', '.join(names)} of {_name(dtype)}"
    given = _machine(dtype), label, [SOURCES], None
    return specialise(functions, *given, len(names)).addresses


@cache
def _tile(function, cell, dtype):
    """The address of a function of tiles.py for a cell."""
    tile = tiles(cell.gates, dtype)
    names = _machine(dtype) | _cell(cell, dtype) | {"UNITS": tile.units, "WIDTH": tile.width}
    functions = [pieces.put_hidden, tiles_.place_of, *function]
    label = f"{cell.name} {WORDS[function[-1].__name__]} in {_name(dtype)}"
    made = specialise(functions, names, label, _depends_on(cell), tile)
    return made.addresses[function[-1].__name__]


WORDS = {"apply": "forward", "recall": "once more", "differentiate": "backward"}


def _facts(cell, dtype):
    """The fields of a plan that say how this machine computes with ``dtype``, and the cell."""
    tile, factors = tiles(cell.gates, dtype), _factors(dtype)
    return {
        "size": factors.vec.itemsize,
        "item": dtype.itemsize,
        "lanes": tile.lanes,
        "tall": tile.rows,
        "vectors": tile.vectors,
        "panel": tile.panel,
        "k_step": factors.depth,
        "gates": cell.gates,
        "units": tile.units,
        "width": tile.width,
        "extras": cell.states - 1,
        "keeps": cell.kept,
        "dgates_each": _dgates(cell),
        "first_h": _dgates(cell) - cell.gates,
        "band": registers().count // 2 * tile.lanes,
        "kernels": kernels(tile.vectors, dtype),
    }


@cache
def forward_fields(cell, dtype, projected):
    """The fields of a forward plan that follow from these; what they are the addresses of is
    compiled.
    """
    return {
        **_facts(cell, dtype),
        **_pieces(dtype, "pack", "spread"),
        **(_pieces(dtype, "put_projected") if projected else {}),
        "cell": _tile((tiles_.apply_to, tiles_.apply), cell, dtype),
    }


@cache
def backward_fields(cell, dtype, projected, recompute):
    """As ``forward_fields``, for a backward plan."""
    found = {
        **_facts(cell, dtype),
        **_pieces(dtype, "pack", "spread"),
        **_pieces(dtype, "put_rows", "stand_up", "pack_and_sum", "lay_down"),
        **(_pieces(dtype, "take_projected") if projected else {}),
        "cell": _tile((tiles_.differentiate_at, tiles_.differentiate), cell, dtype),
    }
    if recompute:
        found["recall"] = _tile((tiles_.recall_of, tiles_.recall), cell, dtype)
    return found


@cache
def forward():
    """The forward time loop, of every cell and dtype."""
    loop = forward_loop
    functions = [loop.pack_gates, loop.as_they_lie, loop.project_inputs]
    functions += [loop.project_block, loop.project_hidden]
    return _loop("forward", [*functions, loop.recurrent_gates, loop.step, loop.direction], FORWARD)


@cache
def backward():
    """The backward time loop, with its products, of every cell and dtype."""
    loop = backward_loop
    functions = [forward_loop.pack_gates, forward_loop.as_they_lie, forward_loop.project_inputs]
    functions += [
        forward_loop.recurrent_gates,
        products.matmul,
        products.accumulate,
        products.at_once,
    ]
    functions += [products.lay_down, recompute.recompute, loop.pack_where_wanted]
    functions += [loop.pack_weights, loop.copy_rows]
    functions += [loop.gather, loop.project_back, loop.step, loop.products, loop.direction]
    return _loop("backward", functions, BACKWARD)


def _loop(name, functions, record):
    names = {"view": viewed(record), "PLAN": record.itemsize}
    functions = [blocks.multiply, *functions, blocks.every_direction]
    return Compiled(specialise(functions, names, f"the {name} loop", [SOURCES], None))


def _name(dtype):
    return str(dtype).removeprefix("torch.")


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
    label = f"{cell.name} step {functions[-1].__name__} in {_name(dtype)}"
    return Compiled(specialise(functions, names, label, _depends_on(cell), (tile, count, wide)))
