"""One step of a cell: allocates what it returns, and runs the compiled function.

At batch 1 a step takes microseconds, as does every call of torch: so there are as few as can be.
"""

from array import array
from types import SimpleNamespace

import torch

from . import compiled
from .threads import TEAM

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay


def forward(cell, x, states, w_ih, w_hh, b_ih, b_hh, keep):
    """The new states, and what ``gradients`` wants to see again (None unless ``keep``).

    x: (B, I), states: (B, H) each; biases may be None.
    """
    x, w_ih, w_hh = x.contiguous(), w_ih.contiguous(), w_hh.contiguous()
    states = [s.contiguous() for s in states]
    if b_ih is not None:
        b_ih, b_hh = b_ih.contiguous(), b_hh.contiguous()
    new = [torch.empty_like(s) for s in states]
    B, H = states[0].shape
    kept = x.new_empty(B, cell.kept + cell.states, H) if keep else None
    compute = compiled.step_forward(cell, x.dtype)
    _run(compute, x, H, w_ih, (x, *_pair(states), w_ih, w_hh, kept, b_ih, b_hh, *_pair(new)))
    return new, kept


def gradients(cell, x, states, w_ih, w_hh, kept, grads, needed):
    """Gradients of x, the states, w_ih, w_hh, b_ih and b_hh; None for those not ``needed``."""
    x, w_ih, w_hh = x.contiguous(), w_ih.contiguous(), w_hh.contiguous()
    states, grads = [s.contiguous() for s in states], [g.contiguous() for g in grads]
    need_x, *need_states, need_ih, need_hh, need_b_ih, need_b_hh = needed
    dx = torch.empty_like(x) if need_x else None
    dstates = [torch.empty_like(s) if n else None for s, n in zip(states, need_states, strict=True)]
    dw_ih = torch.empty_like(w_ih) if need_ih else None
    dw_hh = torch.empty_like(w_hh) if need_hh else None
    (B, H), M = states[0].shape, len(w_ih)
    db_ih = x.new_empty(M) if need_b_ih else None
    db_hh = x.new_empty(M) if need_b_hh else None
    # of a single row, the gradients of the gates are those of the biases
    dgates_x = db_ih if B == 1 and need_b_ih else x.new_empty(B, M)
    dgates_h = dgates_x
    if B == 1 and need_b_hh:
        dgates_h = db_hh
    elif cell.dx != cell.dh:
        dgates_h = x.new_empty(B, M)
    _run(
        compiled.step_backward(cell, x.dtype), x, H, w_ih,
        (
            x, *_pair(states), w_ih, w_hh, kept, *_pair(grads), dgates_x, dgates_h,
            dx, *_pair(dstates), dw_ih, dw_hh, db_ih, db_hh,
        ),
    )  # fmt: skip
    return dx, *dstates, dw_ih, dw_hh, db_ih, db_hh


def _pair(states):
    """The states as a pair: None where there is no second one."""
    return states if len(states) == 2 else (states[0], None)


def _run(compute, x, H, w_ih, tensors):
    """Run a compiled function on a plan as step_loops.py has it: ``tensors`` in its order."""
    (B, I), M = x.shape, len(w_ih)
    addresses = [0 if t is None else t.data_ptr() for t in tensors]
    zeros = compiled.zeros(x.dtype).data_ptr()
    if B * M * (I + H) < MIN_WORK or torch.get_num_threads() == 1:
        plan = array("q", (B, I, H, 1, 0, zeros, *addresses))
        compute.ctypes(plan.buffer_info()[0])
        return
    with TEAM.members(torch.get_num_threads()) as team:
        counters = array("q", bytes(128))
        fields = (B, I, H, team.size, counters.buffer_info()[0], zeros, *addresses)
        plan = array("q", fields)
        team.run(compute, SimpleNamespace(address=plan.buffer_info()[0]))
