"""The kernels, bound to a cell: its functions, with Triton's operations, and its numbers."""

from functools import cache
from types import FunctionType

import triton
import triton.language as tl

from .activations import OPERATIONS
from .backward import backward as backward_kernel
from .forward import forward as forward_kernel

# No value of these is worth a compilation of its own.
RUN_TIME = ["block0", "s0", "s1", "patience", "T", "D", "B", "N"]


def rebind(function, names):
    """The same code over other globals: ``names`` go before the function's own."""
    bound = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
    bound.__annotations__, bound.__qualname__ = function.__annotations__, function.__qualname__
    return bound


def _bind(kernel, cell):
    names = {
        "GATES": cell.gates,
        "ROW_GROUPS": 1 << (cell.gates - 1).bit_length(),  # a block has a power of two of rows
        "PRODUCT": cell.recurrent,
        "APART": cell.apart,
        "STATES": cell.states,
        "OWN": cell.own,
        "INPUTS": cell.inputs,
        "HEADS": cell.heads,
        "KEPT": cell.kept,
        "DH": cell.dh,
    }
    names = {name: tl.constexpr(value) for name, value in names.items()}
    for name, function in (("cell_forward", cell.forward), ("cell_backward", cell.backward)):
        names[name] = triton.jit(rebind(function, OPERATIONS | {"tl": tl}))
    return triton.jit(rebind(kernel, names), do_not_specialize=RUN_TIME)


@cache
def forward(cell):
    return _bind(forward_kernel, cell)


@cache
def backward(cell):
    return _bind(backward_kernel, cell)
