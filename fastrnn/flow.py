"""How far a gradient comes: the norm of dL/dstate at every step, of every recurrent layer."""

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from . import backends, narrow, states
from .conversion import accelerate
from .kernels.cells import key_of
from .kernels.cells import nudged_cell as nudged
from .modules import MODES
from .step import Plain


@dataclass
class GradientFlow:
    """What ``gradient_flow`` returns.

    Attributes:
        norms: {name of a layer: {state: tensor (num_layers, D, T)}}: the norm, over the batch and
            the units, of the loss's gradient with respect to that state after each step. D is 2 if
            the layer is bidirectional; steps are in the order of the sequence, for both directions.
        loss: the loss, a number.

    ``print(flow)`` shows it as a table, ``flow.plot()`` as a picture.
    """

    norms: dict
    loss: float

    def rows(self):
        """(name, state, norms (T,)) of each layer and direction, in the order of computation."""
        for name, named in self.norms.items():
            for state, norms in named.items():
                for layer, directions in enumerate(norms):
                    for d, values in enumerate(directions):
                        yield f"{name}_l{layer}" + "_reverse" * d, state, values

    def __str__(self):
        rows = [("layer", "state", "first step", "last step", "a step back")]
        for name, state, values in self.rows():
            ends = [f"{values[i].item():.3g}" for i in (0, -1)]
            backward = values.flip(0) if name.endswith("_reverse") else values
            rows.append((name, state, *ends, f"x {growth(backward):.3g}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([f"the norm of dL/dstate, loss {self.loss:.4g}", *lines])

    def plot(self, ax=None):
        """Draw the norms over the steps, on a logarithmic scale, with matplotlib (``pip install
        "fastrnn[plot]"``). Returns the Axes: ``ax``, or new ones.
        """
        from matplotlib import pyplot

        ax = pyplot.subplots()[1] if ax is None else ax
        for name, state, values in self.rows():
            ax.plot(values.tolist(), label=f"{name} {state}")
        ax.set(yscale="log", xlabel="step", ylabel="norm of dL/dstate")
        ax.legend()
        return ax


def growth(norms):
    """The factor by which a norm changes with a step back, on average over those that are not 0."""
    there = norms[norms > 0]
    if len(there) < 2:
        return 0.0
    return (there[0] / there[-1]).item() ** (1 / (len(there) - 1))


def gradient_flow(module, *args, loss=None, **kwargs):
    """Where a gradient vanishes or explodes: the norm of dL/dstate at every step.

    Runs ``module(*args, **kwargs)`` and its backward, once. The gradients of parameters and inputs
    are not computed, and ``.grad`` is left alone.

    Args:
        module: a recurrent layer, or a model that has some, of fastrnn or of torch.nn (a copy of
            the latter is accelerated). Cells, which are called for each step, are not seen.
        loss: what makes a scalar of what the module returns, as
            ``loss=lambda logits: cross_entropy(logits, target)``. Default: the sum of the output at
            the last step (of a layer: of the first thing it returns), which shows how far back a
            loss at the end reaches.

    Returns:
        A GradientFlow.

    Raises:
        ValueError: there is no recurrent layer, or none was called, or the loss is no scalar.
        TypeError: an LSTM has proj_size, a layer is quantized, or one is called with lengths or
            resets, whose steps are not those of the padded batch: pack the sequences.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
    if any(isinstance(m, nn.RNNBase) and type(m) not in MODES for m in module.modules()):
        module = copy.deepcopy(module)
        accelerate(module)
    names = {m: n or type(m).__name__ for n, m in module.named_modules()}
    found = []
    with torch.enable_grad(), states.recording(partial(_recorded, names, found)):
        result = module(*args, **kwargs)
        value = _at_the_end(module, result) if loss is None else loss(result)
    if not found:
        raise ValueError("gradient_flow: no recurrent layer of this module was called")
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ValueError("gradient_flow: the loss should be a tensor of one number")
    leaves = [leaf for each in found for leaf in each.leaves]
    grads = iter(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))
    flow = GradientFlow({}, value.item())
    for each in found:
        flow.norms[each.name] = each.norms([next(grads) for _ in each.leaves])
    return flow


def _at_the_end(module, result):
    """The sum of the output at the last step."""
    y = result[0] if isinstance(result, tuple) else result
    if isinstance(y, PackedSequence):
        return y.data.sum()
    first = y.dim() == 3 and any(getattr(m, "batch_first", False) for m in module.modules())
    return y.select(1 if first else 0, -1).sum()


class Recorded:
    """A call of a layer. ``leaves``: what the loss is differentiated with respect to."""

    def __init__(self, name, call, D):
        self.name, self.call, self.D, self.leaves = name, call, D, []

    def shaped(self, norms):
        """{state: (num_layers, D, T)} from (num_layers, D, T, states)."""
        return {n: norms[..., i].float() for i, n in enumerate(self.call._names())}


class Nudged(Recorded):
    """Of a cell that kernels run. To each of its states zeros are added, as inputs of its steps:
    their gradients are those of the states.
    """

    def prepared(self, cell):
        """(cell, directions, planes) for the call."""
        call, both = self.call, self.D == 2
        module, like = call.module, call.x.new_empty(1).detach()
        planes = list(call.planes) or [None] * module.num_layers
        sizes = call.steps.N, self.D * len(call.states), module.hidden_size
        for i, given in enumerate(planes):
            self.leaves.append(like.new_zeros(sizes, requires_grad=True))
            planes[i] = self.leaves[i] if given is None else torch.cat([given, self.leaves[i]], 1)
        directions = call.directions
        if both:  # each is told which one it is
            directions = [_told(w, d % 2, sizes[-1]) for d, w in enumerate(directions)]
        return nudged(key_of(cell), both), directions, planes

    def norms(self, grads):
        steps = self.call.steps
        # of a gradient that explodes, float32 does not hold the squares
        rows = torch.stack([torch.linalg.vector_norm(g, dim=-1, dtype=torch.double) for g in grads])
        rows = rows.square()
        if steps.dense:
            sums = rows.unflatten(1, (steps.T, steps.B)).sum(2)
        else:
            step = torch.from_numpy(np.repeat(np.arange(steps.T), steps.sizes)).to(rows.device)
            sums = rows.new_zeros(len(grads), steps.T, rows.shape[2]).index_add(1, step, rows)
        return self.shaped(sums.sqrt().unflatten(2, (self.D, -1)).transpose(1, 2))


class Watched(Recorded):
    """Of a step that no kernel can run: its states are there to be asked."""

    def prepared(self, cell):
        def whole(*given):
            output, new = cell.whole(*given)
            self.leaves.extend(new)
            return output, new

        return Plain(**vars(cell) | {"whole": whole}), self.call.directions, self.call.planes

    def norms(self, grads):
        steps, module = self.call.steps, self.call.module
        norms = torch.stack([grad.double().norm() for grad in grads])
        norms = norms.view(module.num_layers, self.D, steps.T, -1)
        return self.shaped(torch.cat([norms[:, :1], norms[:, 1:].flip(2)], 1))


def _recorded(names, found, module, input, hx, inputs, every):
    """What ``module.forward`` is, with its states recorded."""
    call, cell, p, keep = states.of(module, input, hx, inputs)
    name, D = names.get(module, type(module).__name__), 1 + module.bidirectional
    if getattr(module, "proj_size", 0):
        raise TypeError(f"gradient_flow: {name} has proj_size, which projects what a step computes")
    if narrow.are_narrow(call.directions):
        raise TypeError(f"gradient_flow: {name} is quantized and has no gradient: dequantize it")
    again = sum(each.name.partition(" call ")[0] == name for each in found)
    kind = Watched if isinstance(cell, Plain) else Nudged
    mine = kind(f"{name} call {again + 1}" if again else name, call, D)
    found.append(mine)
    cell, directions, planes = mine.prepared(cell)
    tensors = call.x, *call.states, *[t for w in directions for t in w], *planes
    engine = "torch"
    if kind is Nudged and call.x.numel():
        engine = backends.choose(tensors, False, (cell, call.steps.T, D), False).name
    if engine == "torch" or (every and engine == "triton"):
        engine = "reference"
    return states.run(engine, cell, call, directions, planes, p, keep, every)


def _told(weights, reverse, H):
    """The weights of a direction, and whether it is the forward one, as a number of each unit."""
    mine = torch.full((1, H), 1.0 - reverse, dtype=weights.ih.dtype, device=weights.ih.device)
    own = mine if weights.own is None else torch.cat([weights.own, mine])
    return weights._replace(own=own)
