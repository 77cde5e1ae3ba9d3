"""One step of a cell, as the cell modules take it.

``cell_step`` takes what torch's own ``_VF.lstm_cell`` and its kin take, and returns what those
return. As in functional.py, what no engine of ours serves, and what torch would refuse, goes to
torch's function. A step at batch 1 takes microseconds, which is why it has an autograd function of
its own, with nothing in it that only sequences need.
"""

from functools import cache, partial
from importlib import import_module

import torch
from torch import _VF

from . import backends, profiling, substitute
from .autograd import save, saved
from .kernels import reference, schedule
from .kernels.cells import CELLS
from .kernels.gate import whole
from .kernels.untraced import untraced
from .kernels.weights import Weights
from .tracing import plain, tracing


def cell_step(name, x, hx, w_ih, w_hh, b_ih, b_hh):
    """torch._VF.<name>_cell."""
    cell = CELLS[name]
    if cell.states == 2 and not isinstance(hx, (tuple, list)):
        return getattr(_VF, f"{name}_cell")(x, hx, w_ih, w_hh, b_ih, b_hh)
    h, c = (hx, None) if cell.states == 1 else hx if len(hx) == 2 else (None, None)
    traced = tracing(x)
    engine = backends.choose((x, h, c, w_ih, w_hh, b_ih, b_hh), True, None, traced).name
    if engine == "torch" or not _agree(cell, x, h, c, w_ih, w_hh, b_ih, b_hh):
        return getattr(_VF, f"{name}_cell")(x, hx, w_ih, w_hh, b_ih, b_hh)
    # in a trace, operations that a compiler fuses with those around them
    compute = _reference if traced or engine == "reference" else _fused
    if x.dtype.itemsize == 2 and engine != "reference":
        compute = partial(_in_float32, compute)
    h_new, c_new = compute(cell, x, h, c, w_ih, w_hh, b_ih, b_hh)
    return h_new if c is None else (h_new, c_new)


def _agree(cell, x, h, c, w_ih, w_hh, b_ih, b_hh):
    """Whether all shapes fit together, and leave something to compute."""
    for t in (x, h, w_ih, w_hh):
        if t is None or t.is_nested:
            return False
    if x.dim() != 2 or w_hh.dim() != 2 or not x.numel() or not w_hh.numel():
        return False
    (B, I), (M, H) = x.shape, w_hh.shape
    if cell.gates * H != M or w_ih.shape != (M, I) or h.shape != (B, H):
        return False
    if cell.states == 2 and (c is None or c.shape != (B, H)):
        return False
    if b_ih is None or b_hh is None:
        return b_ih is b_hh
    return b_ih.shape == b_hh.shape == (M,)


def _reference(cell, x, h, c, w_ih, w_hh, b_ih, b_hh):
    """(h, c) after the step, through what autograd can follow any number of times."""
    states = [s.unsqueeze(0) for s in (h, c) if s is not None]
    weights = Weights(w_ih, w_hh, b_ih, b_hh, None)
    B = x.shape[0]
    _, new = reference.layer(cell, x, schedule.Traced(1, B, B), [weights], states)
    return new[0].squeeze(0), new[1].squeeze(0) if cell.states == 2 else None


def _in_float32(compute, cell, *tensors):
    """(h, c) after the step, of half precision: what ``compute`` makes of it in float32."""
    dtype = tensors[0].dtype
    if compute is _fused:
        tensors = whole(tensors)
    h, c = compute(cell, *(t if t is None else t.float() for t in tensors))
    return h.to(dtype), c if c is None else c.to(dtype)


def _fused(cell, *tensors):
    """(h, c) after the step, in one compiled call."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return Step.apply(cell, *tensors)
    return profiling.step(_numba().forward, "")(cell, *tensors, False)[:2]


@cache
def _numba():
    """The CPU engine's module for one step; it is compiled when it is first asked for."""
    return import_module("fastrnn.kernels.cpu.host.cell_calls")


class Step(torch.autograd.Function):
    """apply(cell, x, h, c, w_ih, w_hh, b_ih, b_hh) -> (h, c); None where there is no c."""

    @staticmethod
    @untraced
    def forward(ctx, cell, *tensors):
        run = profiling.step(_numba().forward, "")
        h_new, c_new, *kept = run(cell, *tensors, True)
        ctx.cell = cell
        save(ctx, *tensors, *kept)
        return h_new, c_new

    @staticmethod
    @untraced
    def backward(ctx, dh, dc):
        cell, needed = ctx.cell, ctx.needs_input_grad[1:]
        *inputs, values, after = saved(ctx)
        # create_graph asks for a backward that can be differentiated; a dispatch mode, and other
        # gradients, as vmap's and subclasses', know only torch's operations
        watched = torch._C._len_torch_dispatch_stack() > 0 or not plain((dh, dc))
        if not watched and not torch.is_grad_enabled():
            run = profiling.step(_numba().gradients, " backward")
            return None, *run(cell, *inputs[:5], values, after, dh, dc, needed)
        return None, *substitute.differentiable(
            lambda *tensors: _reference(cell, *tensors), inputs, needed, (dh, dc)
        )
