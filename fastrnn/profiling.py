"""A row of its own for every layer and step, for those who record: torch.profiler, NVTX, ITT.

The row says which cell it is and its sizes, T x B x H of a layer and B x H of a step, as in
"fastrnn::lstm 100x16x128" and "fastrnn::lstm_cell backward 16x128".
"""

from functools import partial
from types import SimpleNamespace

from torch.autograd import profiler
from torch.profiler import record_function

# ``flag._is_profiler_enabled``: whether anybody records, in any thread. To read it takes 20 ns; a
# range that nobody records takes 1 us, and is what there is if torch has no such flag.
flag = profiler
if not hasattr(profiler, "_is_profiler_enabled"):
    flag = SimpleNamespace(_is_profiler_enabled=True)


def layer(run, way, cell, x, steps, directions, states, *rest):
    """run(cell, x, steps, ...), which is one of an engine's functions, in a range."""
    if not flag._is_profiler_enabled:
        return run(cell, x, steps, directions, states, *rest)
    D, _, H = states[-1].shape
    with row(cell, way, steps, D, H):
        return run(cell, x, steps, directions, states, *rest)


def row(cell, way, steps, D, H):
    """A range for a layer of D directions and H units."""
    words = " bidirectional" * (D == 2) + " packed" * (not steps.dense)
    return record_function(f"fastrnn::{cell.name}{way} {steps.T}x{steps.B}x{H}{words}")


def step(run, way):
    """``run``, which is one of the engine's functions of a step; in a range where anybody records.

    A step is short: where nobody does, it is not even called by another function.
    """
    return partial(_step, run, way) if flag._is_profiler_enabled else run


def _step(run, way, cell, x, h, *rest):
    with record_function(f"fastrnn::{cell.name}_cell{way} {h.shape[0]}x{h.shape[1]}"):
        return run(cell, x, h, *rest)
