"""The compiled functions: which sources and sizes go into each."""

from functools import cache

from ..compiler.build import Compiled, specialise
from ..compiler.integers import viewed
from ..compiler.target import registers
from ..loops import backward as backward_loop
from ..loops import blocks, cell_loops, large_products, recompute, recurrent
from ..loops import forward as forward_loop
from ..loops.fields import BACKWARD, FORWARD
from ..registers.elements import Same, memory
from ..registers.emit import on_stack, pick
from ..registers.step_dot import ROWS, make_dot, weight_rows
from ..registers.step_product import make_product
from . import of_cell
from .machine import (
    SOURCES,
    depth,
    factors_of,
    held,
    kernels,
    moving,
    name_of,
    narrowing,
    tiles,
)

ALL = 2**40  # more than any K: what is behind a panel is met once, at its end


def _facts(cell, dtype, form=None):
    """The fields of a plan that say how this machine computes with ``dtype``, and the cell."""
    tile, factors = tiles(cell.gates, dtype), factors_of(dtype, form)
    return {
        "size": factors.vec.itemsize,
        "item": dtype.itemsize,
        "w_item": factors.weight,
        "behind": factors.behind * tile.panel,
        "deep": ALL if factors.behind else blocks.DEEP,
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
        "dgates_each": of_cell.dgates(cell) + cell.own,
        "first_h": of_cell.dgates(cell) - cell.gates,
        "owns": cell.own,
        "first_own": of_cell.dgates(cell),
        "band": registers().count // 2 * tile.lanes,
        "kernels": kernels(tile.vectors, dtype, form),
        **_product(),
    }


@cache
def forward_fields(cell, dtype, projected, form=None):
    """The fields of a forward plan that follow from these; what they are the addresses of is
    compiled.
    """
    return {
        **_facts(cell, dtype, form),
        "ready": bool(form),
        "narrow": narrowing() if form and form.in_bytes else 0,
        **moving(dtype, "pack", "spread"),
        **(moving(dtype, "put_projected") if projected else {}),
        "cell": of_cell.forward(cell, dtype),
    }


@cache
def backward_fields(cell, dtype, projected, again, every):
    """As ``forward_fields``, for a backward plan. every: whether every state has a gradient."""
    found = {
        **_facts(cell, dtype),
        **moving(dtype, "pack", "spread"),
        **moving(dtype, "put_rows", "stand_up", "pack_and_sum", "lay_down"),
        **(moving(dtype, "take_projected") if projected else {}),
        **(moving(dtype, "take_states") if every else {}),
        "cell": of_cell.backward(cell, dtype),
    }
    if again:
        found["recall"] = of_cell.recall(cell, dtype)
        found |= _again()
    return found


@cache
def products_of(cell, dtype, S, H, back):
    """The address of the table of a plan's recurrent products; back: of a backward plan."""
    tile = tiles(cell.gates, dtype)

    def panel_bytes(gates):
        return depth(gates * H, dtype) * tile.padded(S) * dtype.itemsize

    found = cell.derivation.back if back else cell.derivation.products
    return held(recurrent.table(found, panel_bytes, lambda n: tile.padded(n * H)), None)


@cache
def sums_of(cell, dtype, H):
    """(first number, how many, column in the sums) of each recurrent product's biases."""
    found, column, tile = [], 0, tiles(cell.gates, dtype)
    for product in cell.derivation.products:
        count = product.count * H
        found.append((product.first * H, count, column))
        column += tile.padded(count)
    return found


@cache
def forward():
    """The forward time loop, of every cell and dtype."""
    loop = forward_loop
    functions = [*FORWARD_GATES, loop.project_block, loop.project_hidden, loop.step]
    functions += [recurrent.gates_of, recurrent.staged, loop.direction]
    return _loop("forward", functions, FORWARD)


@cache
def backward():
    """The backward time loop, with its products, of every cell and dtype."""
    loop = backward_loop
    functions = [large_products.matmul, large_products.accumulate]
    functions += [large_products.at_once, large_products.lay_down]
    functions += [loop.pack_where_wanted, loop.pack_weights, loop.copy_rows, loop.gather]
    functions += [loop.project_back, loop.multiply_back, loop.step, loop.strips_of, loop.products]
    functions += [loop.direction]
    return _loop("backward", functions, BACKWARD)


FORWARD_GATES = [forward_loop.pack_gates, blocks.as_they_lie, forward_loop.project_inputs]
FORWARD_GATES += [forward_loop.recurrent_gates]


def _loop(name, functions, record):
    names = {"view": viewed(record), "PLAN": record.itemsize}
    functions = [*functions, blocks.every_direction]
    return Compiled(specialise(functions, names, f"the {name} loop", [SOURCES], None))


@cache
def _product():
    """{name: address} of the product that the loops share."""
    return specialise([blocks.product], {}, "the loops' product", [SOURCES], None).addresses


@cache
def _again():
    """{name: address} of what computes anew what forward did not keep."""
    functions = [*FORWARD_GATES, recompute.pack_again, recompute.compute_again]
    return specialise(functions, {}, "forward's gates again", [SOURCES], None, 2).addresses


@cache
def step_forward(cell, dtype):
    """One step of the cell on weights as they lie."""
    loop = cell_loops
    return _compile_step(
        [loop.bias_at, loop.preactivations, loop.apply_cell, loop.forward], cell, dtype
    )


@cache
def step_backward(cell, dtype):
    """One step's gradients."""
    loop = cell_loops
    functions = [loop.differentiate, loop.sum_rows, loop.multiply, loop.to_inputs]
    return _compile_step([*functions, loop.to_weights, loop.backward], cell, dtype)


def _compile_step(functions, cell, dtype):
    host, tile = registers(), tiles(1, dtype)
    vec, wide = factors_of(dtype).vec, host.count // 2
    count = weight_rows(tile.lanes, host.count)
    apart = tuple(x != h for x, h in zip(cell.dx, cell.dh, strict=True))
    slots = cell.gates * (1 + any(apart))
    places = [cell.after.index(i) if i in cell.after else -1 for i in range(cell.states)]
    names = {
        **memory(Same(vec)),
        **of_cell.names(cell, dtype),
        "dot": make_dot(vec, count),
        "product": make_product(vec, tile.vectors, tile.rows, wide),
        "stack": on_stack(cell_loops.CHUNK * slots * tile.lanes * vec.itemsize),
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
    label = f"{cell.name} step {functions[-1].__name__} in {name_of(dtype)}"
    facts = tile, count, wide
    return Compiled(
        specialise(functions, names, label, of_cell.depends_on(cell), facts, aloud=True)
    )
