"""One step of a cell: allocates what it returns, and runs the compiled function.

At batch 1 the arithmetic takes a microsecond, as long as allocating a tensor does: hence few calls,
and each written out.
"""

from array import array

import torch
from torch import empty_like

from . import compiled
from .layouts import MIN_WORK
from .memory import at, empty
from .threads import TEAM


def forward(cell, x, h, c, w_ih, w_hh, b_ih, b_hh, keep):
    """The new states (c and its successor are None if there is no such state), and what
    ``gradients`` wants to see again (None unless ``keep``). x: (B, I), h: (B, H).
    """
    x, h, w_ih, w_hh = x.contiguous(), h.contiguous(), w_ih.contiguous(), w_hh.contiguous()
    h_new, c_new, kept = empty_like(h), None, None
    if c is not None:
        c = c.contiguous()
        c_new = empty_like(c)
    if b_ih is not None:
        b_ih, b_hh = b_ih.contiguous(), b_hh.contiguous()
    if keep:
        kept = h.new_empty(h.shape[0], cell.kept + len(cell.after), h.shape[1])
    _run(
        compiled.step_forward(cell, x.dtype), cell, x, h,
        x.data_ptr(), h.data_ptr(), at(c), w_ih.data_ptr(), w_hh.data_ptr(), at(kept),
        at(b_ih), at(b_hh), h_new.data_ptr(), at(c_new),
    )  # fmt: skip
    return h_new, c_new, kept


def gradients(cell, x, h, c, w_ih, w_hh, kept, dh_new, dc_new, needed):
    """Gradients of x, h, c, w_ih, w_hh, b_ih and b_hh; None for those not ``needed``."""
    x, h, w_ih, w_hh = x.contiguous(), h.contiguous(), w_ih.contiguous(), w_hh.contiguous()
    dh_new = dh_new.contiguous()
    if c is not None:
        c, dc_new = c.contiguous(), dc_new.contiguous()
    need_x, need_h, need_c, need_ih, need_hh, need_b_ih, need_b_hh = needed
    dx = empty_like(x) if need_x else None
    dh = empty_like(h) if need_h else None
    dc = empty_like(c) if need_c else None
    dw_ih = empty(w_ih, *w_ih.shape) if need_ih else None
    dw_hh = empty(w_hh, *w_hh.shape) if need_hh else None
    B, M = h.shape[0], w_hh.shape[0]
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
        compiled.step_backward(cell, x.dtype), cell, x, h,
        x.data_ptr(), h.data_ptr(), at(c), w_ih.data_ptr(), w_hh.data_ptr(), kept.data_ptr(),
        dh_new.data_ptr(), at(dc_new), dgates_x.data_ptr(), dgates_h.data_ptr(),
        at(dx), at(dh), at(dc), at(dw_ih), at(dw_hh),
        at(db_ih), at(db_hh),
    )  # fmt: skip
    return dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh


def _run(compute, cell, x, h, *addresses):
    """Run a compiled function on a plan; the addresses are in the order of step_loops.py."""
    (B, I), H, zeros = x.shape, h.shape[1], compiled.zeros(x.dtype).data_ptr()
    threads = torch.get_num_threads()
    if threads == 1 or B * cell.gates * H * (I + H) < MIN_WORK:
        plan = array("q", (B, I, H, 1, 0, zeros, *addresses))
        compute.ctypes(plan.buffer_info()[0])
        return
    counters = array("q", bytes(128))  # two cache lines: tickets, and a meeting of all
    with TEAM.members(threads) as team:
        fields = (B, I, H, team.size, counters.buffer_info()[0], zeros, *addresses)
        plan = array("q", fields)
        team.run(compute, plan)
