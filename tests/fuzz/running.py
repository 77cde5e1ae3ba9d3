"""One run of a module: what it returns and its gradients, by name."""

from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import fastrnn
from fastrnn.kernels.cpu.host import cell_calls, memory, shape

from ..guards import Guards
from .tensors import build


class Problem:
    """Numbers for a module: {name: tensor} of inputs, weights and gradients of outputs."""

    def __init__(self, case, inputs, weights, grads, frozen, used):
        self.case, self.inputs, self.weights, self.grads = case, inputs, weights, grads
        self.frozen, self.used = frozen, used

    def each(self, function):
        """The same problem with other numbers."""
        groups = (
            {n: function(t) for n, t in group.items()}
            for group in (self.inputs, self.weights, self.grads)
        )
        return Problem(self.case, *groups, self.frozen, self.used)


def packed(case, data):
    """The rows ``data`` as a PackedSequence of the configuration's lengths."""
    sizes = [sum(n > t for n in case.lengths) for t in range(case.lengths[0])]
    order = back = None
    if case.order is not None:
        order = torch.tensor(case.order)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
    return PackedSequence(data, torch.tensor(sizes), order, back)


def outputs(case, module, x, *states):
    """{"output", "h_n", "c_n"} of a call."""
    if case.lengths:
        x = packed(case, x)
    found = module(x, states[0] if len(states) == 1 else states or None)
    if case.cell:
        return dict(
            zip(("h_n", "c_n"), found if isinstance(found, tuple) else (found,), strict=False)
        )
    y, final = found
    y = y.data if isinstance(y, PackedSequence) else y
    final = final if isinstance(final, tuple) else (final,)
    return {"output": y, **dict(zip(("h_n", "c_n"), final, strict=False))}


def run(problem, library, dtype, grad=None, **options):
    """The outputs, and if ``grad`` is "train" the gradients ("d x", ...) that are asked for."""
    case = problem.case
    grad = grad or case.grad
    module = build(case, library, dtype, **options)
    module.requires_grad_(False)
    for name, weight in module.named_parameters():
        weight.data = problem.weights[name]
        weight.requires_grad_(grad == "train" and name not in problem.frozen)
    leaves = {
        n: t.detach().requires_grad_(grad == "train" and n not in problem.frozen)
        for n, t in problem.inputs.items()
    }
    mode = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(grad, nullcontext)
    with mode():
        results = outputs(case, module, *leaves.values())
    tensors = leaves | dict(module.named_parameters())
    wanted = {n: t for n, t in tensors.items() if t.requires_grad}
    if wanted:
        used = [n for n in problem.used if results[n].requires_grad]
        found = torch.autograd.grad(
            [results[n] for n in used],
            list(wanted.values()),
            [problem.grads[n] for n in used],
            allow_unused=True,
        )
        results |= {f"d {n}": g for n, g in zip(wanted, found, strict=True)}
    return {n: None if t is None else t.detach() for n, t in results.items()}


def ours(problem, **options):
    return run(problem, fastrnn, problem.case.dtype, **options)


def torchs(problem, dtype, onednn=True):
    """torch.nn in ``dtype`` on the same numbers.

    What of its outputs is not used has a gradient of zeros: torch would leave out what follows from
    it alone, and with it the NaN that zero times NaN is. In float16 oneDNN has no LSTM here.
    """
    problem = problem.each(lambda t: t.to(dtype).contiguous())
    problem.grads = {
        n: t if n in problem.used else torch.zeros_like(t) for n, t in problem.grads.items()
    }
    problem.used = list(problem.grads)
    with torch.backends.mkldnn.flags(enabled=onednn and dtype != torch.float16):
        return run(problem, nn, dtype)


@contextmanager
def guarded():
    """Guards round all that the engine allocates, and NaN in all of it; yields the Guards."""
    guards, patched = Guards(), []

    def poisoned(make):
        def tensor(*args, **kwargs):
            value = make(*args, **kwargs)
            if not value.is_floating_point():
                return value
            value = guards.tensor(value)
            if make.__name__ != "new_zeros" and value.numel():
                value.view(-1).view(torch.uint8).fill_(255)
            return value

        return tensor

    owners = [(torch.Tensor, "new_empty"), (torch.Tensor, "new_zeros"), (torch, "empty_like")]
    for owner, name in [*owners, (cell_calls, "empty_like")]:
        make = getattr(owner, name)
        patched.append((owner, name, make))
        setattr(owner, name, poisoned(make))
    patched.append((memory, "SCRATCH", memory.SCRATCH))
    memory.SCRATCH = 0  # none is used again
    try:
        yield guards
    finally:
        for owner, name, value in reversed(patched):
            setattr(owner, name, value)


@contextmanager
def on_threads(count):
    """``count`` threads for any work, however small."""
    before, least = torch.get_num_threads(), shape.MIN_WORK
    torch.set_num_threads(count)
    shape.MIN_WORK = cell_calls.MIN_WORK = 0
    try:
        yield
    finally:
        shape.MIN_WORK = cell_calls.MIN_WORK = least
        torch.set_num_threads(before)
