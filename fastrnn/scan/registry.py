"""One cell for each program: what steps compute alike is compiled once, under whatever name."""

from functools import cache

from ..kernels.cells import CELLS, cell_of, key_of
from ..kernels.symbolic.cell import Cell
from ..kernels.symbolic.program import PORTS, program_of


def registered(cell):
    """The cell of its program: torch's, if it is one of torch's."""
    return _torchs().get(_unnamed(cell)) or cell_of(key_of(cell))


@cache
def _torchs():
    return {_unnamed(cell): cell for cell in CELLS.values()}


def _unnamed(cell):
    """What a cell does, whatever it is called."""
    return program_of(Cell("", cell.step, **{name: getattr(cell, name) for name in PORTS}))
