"""How this machine computes with a dtype: its registers, and what is compiled for these."""

from functools import cache, partial

import torch
from numba import types

from ..compiler import sources
from ..compiler.build import code, specialise
from ..compiler.target import registers
from ..loops import pieces
from ..registers import lying as lying_kernels
from ..registers import narrow
from ..registers.bfloat16 import Bfloat16, Pairs
from ..registers.elements import Same, make_transpose, memory
from ..registers.microkernel import emit_gemm, max_rows, table
from ..registers.panels import Singles, make_packing
from ..registers.simd import VecType
from ..registers.tiling import tiling

# What registers hold, for each dtype of a sequence in memory.
ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.float32,
}
# What the compiled code depends on, as it was when it was imported; None if that is not known. The
# host's files only call it.
HOUSE = __package__.rpartition(".")[0]
ROOMS = [f"{HOUSE}.{room}" for room in ("compiler", "registers", "loops", "compiled")]
SOURCES = sources.of_packages(ROOMS)


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
def kernels(vectors, dtype, form=None):
    """The address of the table of the microkernel's tiles, of up to ``vectors`` registers, and of
    one row of up to half of all. form: that of weights of fewer bits.
    """
    count = registers().count
    shapes = [(1, v) for v in range(1, count // 2 + 1)]
    shapes += [
        (r, v) for r in range(2, max_rows(count, vectors) + 1) for v in range(1, vectors + 1)
    ]
    label = f"products of {name_of(dtype)} in panels of {vectors}" + f", {form}" * bool(form)
    found = code(label, [SOURCES], None, partial(emit_gemm, factors_of(dtype, form), shapes))
    return held(table(found.addresses.values(), shapes), found)


@cache
def narrowing():
    """The address of what makes rows of float32 bytes."""
    emit = partial(narrow.emit_narrowing, factors_of(torch.float32).vec)
    (address,) = code("rows of bytes", [SOURCES], None, emit).addresses.values()
    return address


def lying_rows(dtype):
    """How many rows of a batch a reading of weights as they lie serves."""
    return lying_kernels.max_rows(registers().count, factors_of(dtype).vec.lanes)


@cache
def lying(dtype):
    """The fields of a plan whose weights are multiplied as they lie."""
    vec, rows = factors_of(dtype).vec, lying_rows(dtype)
    label = f"products of {name_of(dtype)} with weights as they lie"
    found = code(label, [SOURCES], None, partial(lying_kernels.emit_lying, vec, rows))
    address = held(lying_kernels.table(found.addresses.values()), found)
    return {"lying": address, "lying_rows": rows}


def held(table, functions):
    """The address of a table of functions, which are then there for good."""
    _tables.append((table, functions))
    return table.buffer_info()[0]


_tables = []


def factors_of(dtype, form=None):
    vec = VecType(ELEMENTS[dtype], registers().bits // ELEMENTS[dtype].bitwidth)
    if form:
        in_bytes, bits = form.in_bytes, 8 * form.dtype.itemsize
        return narrow.Bytes(vec, registers().of_bytes) if in_bytes else narrow.Wide(vec, bits)
    return Pairs(vec) if dtype == torch.bfloat16 else Singles(vec)


def elements_of(dtype):
    """The elements of a sequence in memory."""
    vec = factors_of(dtype).vec
    return Bfloat16(vec) if dtype == torch.bfloat16 else Same(vec)


def names_of(dtype):
    """Globals that say how this machine computes with ``dtype``."""
    factors, items = factors_of(dtype), elements_of(dtype)
    vec = factors.vec
    same = Same(vec)
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


@cache
def moving(dtype, *names):
    """{name: address} of functions of pieces.py."""
    functions = [pieces.put_hidden, pieces.put_output, *(getattr(pieces, name) for name in names)]
    label = f"{', '.join(names)} of {name_of(dtype)}"
    given = names_of(dtype), label, [SOURCES], None
    return specialise(functions, *given, len(names)).addresses


def name_of(dtype):
    return str(dtype).removeprefix("torch.")
