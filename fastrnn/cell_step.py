"""One step of a cell, as the cell modules take it.

``cell_step`` takes what torch's own ``_VF.lstm_cell`` and its kin take, and returns what those
return. As in functional.py, what no engine of ours serves, and what torch would refuse, goes to
torch's function. A step at batch 1 takes microseconds, which is why it has an autograd function of
its own: one with nothing in it that only sequences need.
"""

import torch
from torch import _VF

from . import backends
from .autograd import differentiable
from .kernels import reference
from .kernels import steps as layouts
from .kernels.cells import CELLS
from .kernels.weights import Weights


def cell_step(name, x, hx, ih, hh, b_ih, b_hh):
    """torch._VF.<name>_cell."""
    cell = CELLS[name]
    states = (hx,) if cell.states == 1 else tuple(hx)
    tensors = (x, *states, ih, hh, b_ih, b_hh)
    engine = backends.explain(*tensors).name
    if engine == "torch" or not _agree(cell, x, states, ih, hh, b_ih, b_hh):
        return getattr(_VF, f"{name}_cell")(x, hx, ih, hh, b_ih, b_hh)
    if engine == "reference":
        new = _reference(cell, *tensors)
    else:
        new = _fused(backends.load_step(engine), cell, tensors)
    return new[0] if cell.states == 1 else tuple(new)


def _agree(cell, x, states, ih, hh, b_ih, b_hh):
    """Whether all shapes fit together, and leave something to compute."""
    if x.dim() != 2 or not x.numel() or hh.dim() != 2 or len(states) != cell.states:
        return False
    (B, I), (M, H) = x.shape, hh.shape
    if M != cell.gates * H or ih.shape != (M, I) or any(s.shape != (B, H) for s in states):
        return False
    if b_ih is None or b_hh is None:
        return b_ih is b_hh
    return b_ih.shape == b_hh.shape == (M,)


def _reference(cell, x, *tensors):
    """The new states, through what autograd can follow any number of times."""
    states, weights = tensors[: cell.states], Weights(*tensors[cell.states :], None)
    steps = layouts.dense(1, x.shape[0])
    _, new = reference.layer(cell, x, steps, [weights], [s.unsqueeze(0) for s in states])
    return [s.squeeze(0) for s in new]


def _fused(engine, cell, tensors):
    """The new states; half precision is computed in float32."""
    dtype = tensors[0].dtype
    if dtype.itemsize == 2:
        tensors = [t if t is None else t.float() for t in tensors]
        return [s.to(dtype) for s in _fused(engine, cell, tensors)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return Step.apply(engine, cell, *tensors)
    x, *states = tensors[:-4]
    return engine.forward(cell, x, states, *tensors[-4:], False)[0]


class Step(torch.autograd.Function):
    """apply(engine, cell, x, *states, w_ih, w_hh, b_ih, b_hh) -> new states."""

    @staticmethod
    def forward(ctx, engine, cell, x, *tensors):
        new, kept = engine.forward(cell, x, tensors[:-4], *tensors[-4:], True)
        ctx.engine, ctx.cell = engine, cell
        ctx.save_for_backward(x, *tensors, kept)
        return tuple(new)

    @staticmethod
    def backward(ctx, *grads):
        engine, cell, needed = ctx.engine, ctx.cell, ctx.needs_input_grad[2:]
        x, *states, w_ih, w_hh, b_ih, b_hh, kept = ctx.saved_tensors
        # create_graph asks for a backward that can be differentiated, is_grads_batched for vmap
        if torch.is_grad_enabled() or any(map(torch._C._functorch.is_legacy_batchedtensor, grads)):
            inputs = (x, *states, w_ih, w_hh, b_ih, b_hh)
            found = differentiable(lambda *args: _reference(cell, *args), inputs, needed, grads)
        else:
            found = engine.gradients(cell, x, states, w_ih, w_hh, kept, grads, needed)
        return None, None, *found
