"""The registry of torch's cells: adding one is a file beside this and a line here.

Cells of users' own are in no registry: they are what their program says.
"""

from ..symbolic.program import cell_of as _cell_of
from ..symbolic.program import nudged, program_of
from . import gru, lstm, rnn

CELLS = {cell.name: cell for cell in (lstm.CELL, gru.CELL, rnn.TANH, rnn.RELU)}


def key_of(cell):
    """The text that an operator has for a cell: the name of one of torch's, else its program."""
    return cell.name if CELLS.get(cell.name) is cell else cell.program or program_of(cell)


def cell_of(key):
    """The cell that ``key_of`` has made the text of. Raises ValueError if there is none."""
    return CELLS[key] if key in CELLS else _cell_of(key)


def nudged_cell(key, both):
    """The cell of that key, with something added to its states: symbolic.program.nudged."""
    return nudged(program_of(cell_of(key)), both)
