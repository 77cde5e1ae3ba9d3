"""One step of a cell: allocates what it returns, and runs the compiled function.

At batch 1 the arithmetic takes a microsecond, as long as allocating a tensor does: hence few calls,
and each written out.
"""

from array import array

import torch
from torch import empty_like

from ...gate import take, whole
from ...untraced import untraced
from ..compiled import of_loops
from .memory import ZEROS, empty
from .shape import MIN_WORK
from .threads import TEAM


@untraced
def forward(cell, x, h, c, w_ih, w_hh, b_ih, b_hh, keep):
    """(h, c, and what ``gradients`` wants to see again: the cell's values and new states); None
    where there are none, or unless ``keep``. x: (B, I), h: (B, H); shapes, dtypes and devices are
    right.
    """
    x, h, c, w_ih, w_hh, b_ih, b_hh = whole((x, h, c, w_ih, w_hh, b_ih, b_hh))
    h_new, c_new, values, after = empty_like(h), None, None, None
    if c is not None:
        c_new = empty_like(c)
    if keep:
        B, H = h.shape
        if cell.kept:
            values = h.new_empty(B, cell.kept, H)
        if cell.after:  # a copy: what a user makes of the results must not reach backward
            after = h.new_empty(B, len(cell.after), H)
    _run(
        of_loops.step_forward(cell, x.dtype), cell,
        x, h, c, w_ih, w_hh, values, after, b_ih, b_hh, h_new, c_new,
    )  # fmt: skip
    return h_new, c_new, values, after


@untraced
def gradients(cell, x, h, c, w_ih, w_hh, values, after, dh_new, dc_new, needed):
    """Gradients of x, h, c, w_ih, w_hh, b_ih and b_hh; None for those not ``needed``."""
    dtype, (B, H), I = x.dtype, dh_new.shape, w_ih.shape[-1]
    M, rows, state = cell.gates * H, (B, I), (B, H)
    x, h, c, w_ih, w_hh, values, after, dh_new, dc_new = take(
        (x, h, c, w_ih, w_hh, values, after, dh_new, None if c is None else dc_new),
        (rows, state, state, (M, I), (M, H), (B, cell.kept, H), (B, len(cell.after), H), state,
         state),
        (dtype,) * 9,
    )  # fmt: skip
    need_x, need_h, need_c, need_ih, need_hh, need_b_ih, need_b_hh = needed
    dx = empty_like(x) if need_x else None
    dh = empty_like(h) if need_h else None
    dc = empty_like(c) if need_c else None
    dw_ih = empty(w_ih, *w_ih.shape) if need_ih else None
    dw_hh = empty(w_hh, *w_hh.shape) if need_hh else None
    db_ih = h.new_empty(M) if need_b_ih else None
    db_hh = h.new_empty(M) if need_b_hh else None
    # of a single row, the gradients of the gates are those of the biases
    dgates_x = db_ih if B == 1 and need_b_ih else h.new_empty(B, M)
    dgates_h = dgates_x
    if B == 1 and need_b_hh:
        dgates_h = db_hh
    elif cell.dx != cell.dh:
        dgates_h = h.new_empty(B, M)
    _run(
        of_loops.step_backward(cell, dtype), cell,
        x, h, c, w_ih, w_hh, values, after, dh_new, dc_new, dgates_x, dgates_h,
        dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh,
    )  # fmt: skip
    return dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh


def _run(compute, cell, *tensors):
    """Run a compiled function on a plan; the tensors are in the order of cell_loops.py."""
    x, h = tensors[:2]
    (B, I), H = x.shape, h.shape[1]
    addresses = [0 if t is None else t.data_ptr() for t in tensors]
    small = B * cell.gates * H * (I + H) < MIN_WORK
    if small or (threads := torch.get_num_threads()) == 1:
        plan = array("q", (B, I, H, 1, 0, ZEROS, *addresses))
        compute.ctypes(plan.buffer_info()[0])
        return
    counters = array("q", bytes(128))  # two cache lines: tickets, and a meeting of all
    with TEAM.members(threads) as team:
        fields = (B, I, H, team.size, counters.buffer_info()[0], ZEROS, *addresses)
        team.run(compute, array("q", fields))
