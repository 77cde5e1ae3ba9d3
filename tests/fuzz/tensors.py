"""The tensors of a configuration, laid out in memory as users lay them out."""

import random

import torch
from torch import nn

from .cases import NAMES


def lay_out(value, how, r):
    """A tensor of the shape of ``value``, a contiguous one, and made of its numbers.

    Between them and round them lie NaN, so that a stray read is found. Where several places share
    memory, they share one of the numbers.
    """
    shape, dims = value.shape, value.dim()
    if how == "plain" or not value.numel() or not dims:
        return value
    if how == "offset":  # by an element or more, so that it is no longer aligned
        memory, first = value.new_full((value.numel() + 20,), torch.nan), r.randint(1, 9)
        return memory[first : first + value.numel()].view(shape).copy_(value)
    dim = r.randrange(dims)
    if how == "strided":
        step = r.randint(2, 3)
        memory = value.new_full(
            [n * step if d == dim else n for d, n in enumerate(shape)], torch.nan
        )
        places = [slice(None, None, step) if d == dim else slice(None) for d in range(dims)]
        return memory[places].copy_(value)
    if how == "transposed":
        order = r.sample(range(dims), dims)
        memory = value.new_empty([shape[d] for d in order])
        return memory.permute([order.index(d) for d in range(dims)]).copy_(value)
    if how == "expanded":
        return value.narrow(dim, 0, 1).clone().expand(shape)
    strides = [r.randint(0, 2) for _ in shape]
    if sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= value.numel():
        strides = [1] * dims
    return value.flatten().as_strided(shape, strides)


class Tensors:
    """What a configuration is run on, by name: ``inputs``, ``weights``, ``grads`` of outputs.

    Of float64 the numbers are float32's, so that torch.nn in float32 can be measured on them.
    """

    def __init__(self, case, module):
        self.case, r = case, random.Random(case.seed)
        generator = torch.Generator().manual_seed(r.getrandbits(60))

        def drawn(shapes, scale=1.0):
            values = {n: torch.randn(shape, generator=generator) for n, shape in shapes.items()}
            return {n: (scale * value).to(case.dtype) for n, value in values.items()}

        inputs, grads = drawn(self._inputs()), drawn(self._outputs())
        # as torch.nn draws them, but not all within bounds
        shapes = {n: w.shape for n, w in module.named_parameters()}
        weights = drawn(shapes, 0.6 / max(1, case.H) ** 0.5)
        named = [*inputs.values(), *weights.values(), *grads.values()]
        for number, value, all_of_it in case.extremes:
            tensor = named[number % len(named)]
            if tensor.numel():
                middle = tuple(n // 2 for n in tensor.shape)
                tensor[... if all_of_it else middle] = value
        self.inputs, self.weights, self.grads = (
            {n: lay_out(value, r.choice(case.layouts), r) for n, value in group.items()}
            for group in (inputs, weights, grads)
        )
        if case.mistake == "another dtype":
            other = torch.float32 if case.dtype != torch.float32 else torch.float64
            self.inputs["x"] = self.inputs["x"].to(other)
        self.frozen = {n for n in (*inputs, *weights) if r.random() < case.frozen}
        used = [n for n in grads if r.random() < case.used]
        self.used = used or [r.choice(list(grads))]

    @property
    def _sizes(self):
        case = self.case
        D = 1 + case.options.get("bidirectional", False)
        S = case.options.get("proj_size") or case.H
        batch = [] if case.B is None else [case.B]
        return D, S, batch

    def _rows(self, width):
        """The shape of the input or the output."""
        case, (_, _, batch) = self.case, self._sizes
        if case.cell:
            return [*batch, width]
        if case.lengths:
            return [sum(case.lengths), width]
        turned = case.options["batch_first"] and batch
        return [*batch, case.T, width] if turned else [case.T, *batch, width]

    def _finals(self):
        case, (D, S, batch) = self.case, self._sizes
        widths = (S, case.H) if case.kind == "lstm" else (S,)
        count = [] if case.cell else [D * case.options["num_layers"]]
        return [[*count, *batch, width] for width in widths]

    def _inputs(self):
        """Of the inputs, with the mistake that is to be made."""
        case = self.case
        x, states = self._rows(case.I), self._finals() if case.states else []
        if case.mistake == "wide x":
            x[-1] += 1
        elif case.mistake == "flat x":
            x = x[-1:]
        elif states and case.mistake == "wide state":
            states[0][-1] += 1
        elif states and case.mistake == "state too many":
            states[-1][0] += 1
        return {"x": x, **dict(zip(("h0", "c0"), states, strict=False))}

    def _outputs(self):
        D, S, _ = self._sizes
        finals = dict(zip(("h_n", "c_n"), self._finals(), strict=False))
        return finals if self.case.cell else {"output": self._rows(D * S), **finals}


def build(case, library, dtype, **others):
    """The module of a configuration from ``library``, fastrnn or torch.nn, with other options."""
    name, more, _ = NAMES[case.kind]
    options = case.options | others
    if library is nn:
        options.pop("recompute", None)
    return getattr(library, name + "Cell" * case.cell)(
        case.I, case.H, dtype=dtype, **more, **options
    )
