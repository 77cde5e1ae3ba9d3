"""Layers of a cell that is written once, forward only: ``Recurrent``."""

import math
import warnings

import torch
from torch import nn

from . import backends, description, known
from .accepting import accepting, accepting_derived
from .functional import stack, stack_on_gpu
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.untraced import untraced
from .parameters import places_of, weights_of
from .sequences import Call
from .step import Plain, cell_of_module, signature_of
from .substitute import tell
from .tracing import constant

OPTIONS = {
    "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
    "heads": 1, "recompute": False, "strict": False,
}  # fmt: skip
_asked = constant(backends.asked)
_to_explain = constant(description.asking.get)


class Recurrent(nn.Module):
    """A recurrent layer whose step is yours, in plain PyTorch; all else is as in torch.nn.LSTM.

    A class of its own for each cell::

        class PeepholeLSTM(fastrnn.Recurrent):
            gates, states = 4, ("h", "c")
            p_i, p_f, p_o = (fastrnn.PerUnit() for _ in range(3))

            def step(self, wx, uh, h, c):
                i, f, g, o = wx + uh
                i, f = torch.sigmoid(i + self.p_i * c), torch.sigmoid(f + self.p_f * c)
                c = f * c + i * torch.tanh(g)
                return torch.sigmoid(o + self.p_o * c) * torch.tanh(c), c

    Attributes of the class:
        gates: how many blocks of ``hidden_size`` rows the weights have, 1 to 8.
        states: the names of the states. The first is what the recurrent product reads.
        parameters of the cell's own: ``fastrnn.PerUnit`` and ``fastrnn.Scalar``.

    ``step`` takes, by name and in any order: ``wx``, W_ih x + b_ih, and ``uh``, W_hh h + b_hh,
    each a tuple of ``gates`` tensors of shape (B, H), which can be added; the states; and whatever
    else it names is an input of the step, which ``forward`` takes under that name. Without ``uh``
    there is no recurrent product; ``uh(value, gates)`` is the product with another value. It
    returns the new states, of which the first is the output, or ``output, (states)``. It is
    pointwise, but for these products and for means over the units. The derivative is found from it,
    and one kernel runs the whole sequence. docs/cells.md has all of it.

    The step is read once, and again when an attribute of the module is set. One that does what no
    kernel can runs in plain PyTorch, and a warning says why; ``strict=True`` makes that an error.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as in torch.nn.LSTM.
        heads: into how many blocks the recurrent weights fall. Each gate of a block of units sees
            the states of that block alone: ``weight_hh`` is of shape (gates * hidden_size,
            hidden_size // heads). Default: 1.
        recompute: as in fastrnn.LSTM.
        strict: refuse a step that no kernel can run. Default: ``False``.

    Raises:
        TypeError: the class says what cannot be. ValueError: an argument does, as ``heads`` that do
        not divide ``hidden_size``.

    Call:
        layer(input, hx=None, *, lengths=None, resets=None, reset_to=None, return_states=False,
            **inputs) -> (output, h_n)
        input: (T, B, input_size), (B, T, input_size) if batch_first, (T, input_size), or a
            PackedSequence. hx: the initial states, (num_layers * D, B, hidden_size) each: a tensor
            if there is one state, else a tuple. inputs: (T, B), or what can be expanded to
            (T, B, hidden_size), as (1, B, hidden_size) of each sequence; they are laid out as
            ``input`` is. If that is packed: a PackedSequence as it is, the rows of one, or three
            dimensions as if it were not packed.
        lengths, resets, reset_to, return_states: as in fastrnn.LSTM.
        output: (T, B, D * hidden_size); h_n: the final states, as hx. D is 2 if bidirectional.
        Under autocast they have the dtypes that a loop over the step would give them.
    """

    gates, states = 1, ("h",)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.step is not Recurrent.step:
            cls.signature = signature_of(cls)
        if "forward" in vars(cls):
            cls.forward = accepting_derived(cls.forward)

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, heads=1, recompute=False, strict=False, device=None, dtype=None,
    ):  # fmt: skip
        name = type(self).__name__
        if not hasattr(type(self), "signature"):
            raise TypeError(f"{name} has no step: it is for classes that have one")
        for what, value in (
            ("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers),
            ("heads", heads),
        ):  # fmt: skip
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: {what} should be a number above zero, not {value!r}")
        if hidden_size % heads or (heads > 1 and not type(self).signature.recurrent):
            raise ValueError(
                f"{name}: {heads} heads are of recurrent weights, whose {hidden_size} columns they "
                f"divide evenly"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout should be a probability, not {dropout!r}")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout is between layers, and there is one", stacklevel=2)
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.heads = bidirectional, heads
        self.recompute, self.strict = recompute, strict
        self._places = [places_of(self, i) for i in range(num_layers * (1 + bidirectional))]
        for fields, own in self._places:
            for name, shape in filter(None, (*fields, *own)):
                empty = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name, nn.Parameter(empty))
        self.reset_parameters()

    def step(self, wx, uh, *states):
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self):
        """Weights and biases between +-1 / sqrt(hidden_size), as torch's; others as declared."""
        bound, declared = 1 / math.sqrt(self.hidden_size), type(self).signature.own.values()
        for fields, own in self._places:
            for name, _ in filter(None, fields):
                getattr(self, name).uniform_(-bound, bound)
            for (name, _), each in zip(own, declared, strict=True):
                each.fill(getattr(self, name))

    def extra_repr(self):
        words = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in OPTIONS.items():
            if getattr(self, name) != default:
                words.append(f"{name}={getattr(self, name)}")
        return ", ".join(words)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name != "training" and name not in self.__dict__.get("_parameters", ()):
            # the step may read it; a graph of torch.compile is made anew for another edition
            self.__dict__["_cells"], self.__dict__["_edition"] = {}, self._edition + 1

    _edition = 0

    def __getstate__(self):
        return {**super().__getstate__(), "_cells": {}}

    def directions(self):
        """A Weights for each layer and direction.

        Raises RuntimeError for a parameter that has been replaced by one of another shape.
        """
        return weights_of(self)

    def inputs_for(self, layer, like, **inputs):
        """The inputs of one layer's steps, by name: those that ``forward`` was given, by default.

        A class that draws noise or masks for each layer overrides this. inputs: those of
        ``forward``, time first, a PackedSequence as its rows. like: an empty tensor of shape
        (T, B, hidden_size), packed or not, with the dtype and device of the layer's input. What is
        returned can be expanded to that: (1, B, hidden_size) is the same at all steps.
        """
        return inputs

    @accepting
    def forward(self, input, hx=None, **inputs):
        call = Call(self, input, hx, inputs)
        if known.usual() and not (call.packed or self._drops() or description.asking.get()):
            cell = cell_of_module(self, self.training, self._edition)
            found = None if isinstance(cell, Plain) else known.of_own_cell(cell, self._keep(), call)
            if found is not None:
                y, *finals = found
                return call.results(y, finals)
        cell, engine, why = self._served(call)
        if _to_explain():
            raise description.Explained(backends.Choice(engine, why))
        if isinstance(cell, Plain) and torch.compiler.is_compiling():
            return _uncompiled(self, input, hx, inputs)
        try:
            return self._run(cell, engine, call)
        except Refused as refused:
            if _asked():
                raise
            tell(refused, cell)
            return self._run(cell, "reference", call)

    def _run(self, cell, engine, call):
        x, dtype, dtypes = call.rows(engine), None, None
        if engine != "reference":
            dtype, dtypes = call.dtypes(cell)
        D, run = 1 + self.bidirectional, stack_on_gpu if engine == "triton" else stack
        given = call.steps, call.directions, call.states, D, self._drops(), dtype
        given = *given, self._keep(), call.planes
        return call.results(*run(engine, cell, x, *given), dtypes)

    def _drops(self):
        """The probability of dropout between layers in this call."""
        return self.dropout if self.training and self.num_layers > 1 else 0.0

    def _keep(self):
        return Keep.STATES if self.recompute else Keep.ALL

    def _served(self, call):
        """(cell, engine, why) for a call. Raises Refused for an engine that was asked for and
        cannot serve it.
        """
        cell = cell_of_module(self, self.training, self._edition)
        if isinstance(cell, Plain):
            why = f"a step that no kernel can run: {cell.why}"
            if _asked() in ("numba", "triton"):
                raise Refused(_asked(), why)
            return cell, "reference", why
        engine, reason = call.served(cell)
        if engine == "torch":
            reason = f"plain PyTorch, step by step, as torch has no kernel of {cell.name}: {reason}"
        return cell, engine if engine != "torch" and call.x.numel() else "reference", reason

    def explain(self, input, hx=None, **inputs):
        """The Choice of an engine for a call: what fastrnn.backends.explain asks."""
        return description.explained(self, input, hx, **inputs)


@untraced
def _uncompiled(module, input, hx, inputs):
    """What ``forward`` is of a step that no kernel can run: a graph of torch.compile ends here."""
    call = Call(module, input, hx, inputs)
    cell, engine, _ = module._served(call)
    return module._run(cell, engine, call)


_uncompiled._torchdynamo_disable_msg = "a step that no kernel can run, which fastrnn warns of"
