"""A little compiler: from a step as it is written in torch, all that an engine needs of a cell.

operations: the table; symbol, functions: running a step on symbols; graph: what comes of that;
derive, derivation: its derivative, and what is kept for it; text: both as source; cell: all of it;
program: a cell as instructions; tensors: the operations on tensors.
"""

from . import functions  # noqa: F401  without which symbols know no function of torch's
