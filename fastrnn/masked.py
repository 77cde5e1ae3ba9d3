"""Lengths and resets in a trace, where nobody knows their numbers: each step is given masks.

A step behind its sequence's end leaves the states as they are, and puts out zeros; before a step
with a reset the states are what it resets to. Such a step is a cell like any other, derived from
the layer's own.
"""

from dataclasses import replace
from functools import cache

import torch
from torch import nn
from torch.nn.functional import dropout

from . import backends, onnx, operators
from .functional import stack, stack_on_gpu
from .kernels import schedule
from .kernels.cells import cell_of, key_of
from .kernels.symbolic.gates import Gates, Product
from .pieces import checked
from .states import of
from .step import Plain, cell_of_module
from .tracing import constant


def serves(module):
    """Whether a layer's steps can be given masks: not the step that no kernel can run, nor one
    whose state is projected, which is no state of a unit.
    """
    if isinstance(module, nn.RNNBase):
        return not module.proj_size
    return not isinstance(cell_of_module(module, module.training, module._edition), Plain)


def call(module, input, hx, lengths, resets, reset_to, inputs, every):
    """(output, final states) of a layer in a trace, and, if ``every``, those after each step."""
    lengths, resets = checked(module, input, lengths, resets, reset_to)
    call, cell, p, keep = of(module, input, hx, inputs)
    B = call.x.shape[1]
    if lengths is not None:
        lengths = lengths.to(call.x.device).reshape(B)
    if resets is not None:
        resets = call._laid_out(resets.to(call.x.device))
    to = None if reset_to is None else call._states(reset_to, B)
    dtype, dtypes = call.dtypes(cell)
    masks = Masks(module.num_layers, lengths, resets, to)
    y, finals, afters = _layers(cell, call, masks, p, keep, dtype, every)
    return call.results(y, finals, dtypes, afters)


class Masks:
    """What is told of a padded batch: lengths (B,), resets (T, B), and what these reset to, states
    of (layers * D, B, H); None for what is not.
    """

    def __init__(self, layers, lengths, resets, to):
        self.layers, self.lengths, self.resets, self.to = layers, lengths, resets, to

    def there(self, T):
        """Which steps are there, (T, B), where sequences end."""
        return torch.arange(T, device=self.lengths.device).unsqueeze(1) < self.lengths

    def over(self, values):
        """Values (T, B, ...), zeros behind the ends: what may be there, such as NaN, reaches no
        gradient.
        """
        if self.lengths is None:
            return values
        return torch.where(self.there(values.shape[0]).unsqueeze(2), values, 0.0)

    def of(self, j, reverse, like):
        """The masks of the j-th direction, as ``masked`` wants them, in the order of its steps.

        like: a tensor (T, B, H).
        """
        T, found = like.shape[0], []
        resets, there = self.resets, None
        if self.lengths is not None:
            there = self.there(T)
            found.append(there)
        if resets is not None:
            if reverse:  # it comes to a step from the one behind, if that is there
                resets = resets if there is None else resets & there
                resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])])
            found.append(resets)
        found = [(mask.flip(0) if reverse else mask).unsqueeze(2) for mask in found]
        found += [state[j] for state in self.to or ()]
        return [value.to(like.dtype).expand(like.shape) for value in found]


def _layers(cell, call, masks, p, keep, dtype, every):
    """(output (T, B, D * H), final states, the states after each step, if ``every``).

    p: of dropout between layers; dtype: as in functional.stack.
    """
    x, states, directions = call.x, call.states, call.directions
    T, B, _ = x.shape
    steps, D, found = schedule.Traced(T, B, T * B), len(directions) // masks.layers, []
    to_onnx, afters = operators.for_onnx() and masks.resets is None and not every, ()
    to_onnx = to_onnx and onnx.has_node(cell, steps, directions)
    own = None if to_onnx else masked(
        key_of(cell), masks.lengths is not None, masks.resets is not None, masks.to is not None
    )  # fmt: skip
    if not to_onnx:
        x = masks.over(x)
    for i in range(masks.layers):
        x, mine = dropout(x, p) if i and p else x, slice(i * D, i * D + D)
        if to_onnx:
            given = x, steps, directions[mine], [s[mine] for s in states], masks.lengths
            y, *finals = onnx.layer(cell, *given)
            x = y.view(T, B, -1)
        else:
            given = masks, x, i, keep, dtype, every and i == masks.layers - 1
            outputs, finals, afters = zip(
                *[_direction(own, call, d, *given) for d in range(D)], strict=True
            )
            x = torch.cat(outputs, 2)
        found += finals
    afters = [masks.over(torch.cat(each, 2)) for each in zip(*afters, strict=True)]
    return x, [torch.cat(final) for final in zip(*found, strict=True)], afters


def _direction(cell, call, d, masks, x, layer, keep, dtype, every):
    """(output (T, B, H), final states (1, B, H), those after each step) of one direction alone."""
    j = layer * (1 + call.module.bidirectional) + d
    T, B, H = *x.shape[:2], call.module.hidden_size
    given = call.planes[layer].view(T, B, -1, H).unbind(2) if call.planes else ()
    given = [masks.over(each) for each in given]
    if d:
        x, given = x.flip(0), [each.flip(0) for each in given]
    given += masks.of(j, d, x.new_empty(1).expand(T, B, H))
    planes, rows = torch.stack(given, 2).view(T * B, -1, H), x.reshape(T * B, -1)
    weights, states = call.directions[j : j + 1], [s[j : j + 1] for s in call.states]
    tensors = [x, *states, *[w for w in weights[0] if w is not None], planes]
    engine = backends.choose(tensors, False, (cell, T, 1), True)[0]
    engine = "reference" if engine == "torch" else engine
    go, steps = stack_on_gpu if engine == "triton" else stack, schedule.Traced(T, B, T * B)
    engine = "reference" if every and engine == "triton" else engine
    given = engine, cell, rows, steps, weights, states, 1, 0.0, dtype, keep, [planes], every
    y, final, *afters = go(*given)
    y, *afters = (t.view(T, B, H).flip(0) if d else t.view(T, B, H) for t in (y, *sum(afters, ())))
    return y, final, afters


@constant
@cache
def masked(key, ends, resets, to):
    """The cell of that key whose steps are given masks behind its own inputs: whether they are
    there, if sequences end; whether they begin anew, if there are resets; and, if these reset to
    something else than zero, the states that they reset to.
    """
    cell = cell_of(key)
    first = cell.traced.graph.input("state", 0)

    def step(wx, uh, states, own, inputs):
        inputs, masks = inputs[: cell.inputs], list(inputs[cell.inputs :])
        there, before = masks.pop(0) > 0.5 if ends else None, states
        if resets:
            fresh, given = masks[0] > 0.5, masks[1:] or [0.0] * len(states)
            states = tuple([torch.where(fresh, g, s) for g, s in zip(given, states, strict=True)])
            # the gates that are made of the state are made of what it has been reset to
            gates = [
                uh.multiply(states[0], i) if factor is first else gate
                for i, (factor, gate) in enumerate(zip(cell.traced.factors, uh, strict=True))
            ]
            uh = Product(gates, uh.multiply)
        output, new = cell.parts(cell.step(Gates(wx), uh, states, own, inputs))
        output = new[0] if output is None else output
        if ends:
            output = torch.where(there, output, 0.0)
            new = [torch.where(there, n, s) for n, s in zip(new, before, strict=True)]
        return output, tuple(new)

    inputs = cell.inputs + ends + resets + (cell.states if to else 0)
    own = replace(cell, name=f"{cell.name} with masks", step=step, inputs=inputs, program=None)
    return cell_of(key_of(own))
