"""Layers of a cell that is written once, forward only: ``Recurrent``."""

import math

import torch
from torch import nn

from . import backends
from .functional import stack, stack_on_gpu
from .kernels.keep import Keep
from .kernels.weights import Weights
from .sequences import Call
from .step import Plain, cell_of_module, signature_of
from .tracing import tracing


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
    there is no recurrent product. It returns the new states, of which the first is the output, or
    ``output, (states)``. It is pointwise: every hidden unit by itself. The derivative is found from
    it, and one kernel runs the whole sequence.

    The step is read once, and again when an attribute of the module is set. One that does what no
    kernel can runs in plain PyTorch, and a warning says why; ``strict=True`` makes that an error.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as in torch.nn.LSTM.
        recompute: as in fastrnn.LSTM.
        strict: refuse a step that no kernel can run. Default: ``False``.

    Call:
        layer(input, hx=None, **inputs) -> (output, h_n)
        input: (T, B, input_size), (B, T, input_size) if batch_first, (T, input_size), or a
            PackedSequence. hx: the initial states, (num_layers * D, B, hidden_size) each: a tensor
            if there is one state, else a tuple. inputs: (T, B), or what can be expanded to
            (T, B, hidden_size); they are laid out as ``input`` is.
        output: (T, B, D * hidden_size); h_n: the final states, as hx. D is 2 if bidirectional.
    """

    gates, states = 1, ("h",)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.step is not Recurrent.step:
            cls.signature = signature_of(cls)

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, recompute=False, strict=False, device=None, dtype=None,
    ):  # fmt: skip
        if not hasattr(type(self), "signature"):
            raise TypeError(f"{type(self).__name__} has no step: it is for classes that have one")
        for name, value in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} should be a whole number above zero, not {value!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a probability, not {dropout!r}")
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.recompute, self.strict = bidirectional, recompute, strict
        for name, shape in self._shapes():
            empty = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty))
        self.reset_parameters()

    def step(self, wx, uh, *states):
        raise NotImplementedError

    def _tails(self):
        """What the names of a layer's and direction's parameters end in, one after the other."""
        sides = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{side}" for layer in range(self.num_layers) for side in sides]

    def _fields(self):
        """The names of a direction's weights, as in Weights, without the cell's own."""
        recurrent = type(self).signature.recurrent
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [
            name if (recurrent or name[-2:] != "hh") and (self.bias or name[0] != "b") else None
            for name in names
        ]

    def _shapes(self):
        """(name, shape) of every parameter, in torch's order."""
        rows, H, D = self.gates * self.hidden_size, self.hidden_size, 1 + self.bidirectional
        for i, tail in enumerate(self._tails()):
            columns = {"weight_ih": self.input_size if i < D else D * H, "weight_hh": H}
            for name in filter(None, self._fields()):
                yield name + tail, (rows, columns[name]) if name in columns else (rows,)
            for name, declared in type(self).signature.own.items():
                yield name + tail, declared.shape(H)

    @torch.no_grad()
    def reset_parameters(self):
        """Weights and biases between +-1 / sqrt(hidden_size), as torch's; others as declared."""
        bound, own = 1 / math.sqrt(self.hidden_size), type(self).signature.own
        for tail in self._tails():
            for name in filter(None, self._fields()):
                getattr(self, name + tail).uniform_(-bound, bound)
            for name, declared in own.items():
                declared.fill(getattr(self, name + tail))

    def extra_repr(self):
        words = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (
            ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0),
            ("bidirectional", False), ("recompute", False), ("strict", False),
        ):  # fmt: skip
            if getattr(self, name) != default:
                words.append(f"{name}={getattr(self, name)}")
        return ", ".join(words)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name != "training":
            self.__dict__["_cells"] = {}  # the step may read it

    def __getstate__(self):
        return {**super().__getstate__(), "_cells": {}}

    def directions(self):
        """A Weights for each layer and direction. Raises RuntimeError for an own one of no shape
        that fits.
        """
        H, own = self.hidden_size, type(self).signature.own
        fields, found = self._fields(), []
        for tail in self._tails():
            weights = [name and getattr(self, name + tail) for name in fields]
            each = [
                self._expanded(name + tail, declared.shape(H)) for name, declared in own.items()
            ]
            found.append(Weights(*weights, None, torch.stack(each) if each else None))
        return found

    def _expanded(self, name, shape):
        parameter, H = getattr(self, name), self.hidden_size
        if parameter.shape != shape:
            raise RuntimeError(
                f"{type(self).__name__}.{name} should be of shape {shape}, "
                f"not {tuple(parameter.shape)}"
            )
        return parameter.expand(H)

    def inputs_for(self, layer, like, **inputs):
        """The inputs of one layer's steps, by name: those that ``forward`` was given, by default.

        A class that draws noise or masks for each layer overrides this. like: an empty tensor of
        shape (T, B, hidden_size), or (rows, hidden_size) if packed, with the dtype and device of
        the layer's input.
        """
        return inputs

    def forward(self, input, hx=None, **inputs):
        call = Call(self, input, hx, inputs)
        cell, engine, _ = self._served(call)
        dtype, x = None, call.rows(engine)
        if torch.is_autocast_enabled(x.device.type) and engine in ("numba", "triton"):
            dtype = torch.float16 if engine == "triton" else torch.get_autocast_dtype("cpu")
        keep = Keep.STATES if self.recompute else Keep.ALL
        p, D = self.dropout if self.training else 0.0, 1 + self.bidirectional
        run = stack_on_gpu if engine == "triton" else stack
        given = call.steps, call.directions, call.states, D, p, dtype, keep, call.planes
        y, finals = run(engine, cell, x, *given)
        to = dtype or x.dtype  # an engine may compute states more exactly
        return call.results(y.to(to), [s.to(to) for s in finals])

    def _served(self, call):
        """(cell, engine, why) for a call."""
        cell = cell_of_module(self, self.training)
        if isinstance(cell, Plain):
            return cell, "reference", f"a step that no kernel can run: {cell.why}"
        tensors = call.x, *call.states, *[t for w in call.directions for t in w], *call.planes
        layer = cell, call.steps.T, 1 + self.bidirectional
        choice = backends.choose(tensors, False, layer, tracing(call.x))
        engine = choice.name if choice.name != "torch" and call.x.numel() else "reference"
        return cell, engine, choice.reason

    def explain(self, input, hx=None, **inputs):
        """The Choice of an engine for a call: what fastrnn.backends.explain asks."""
        _, engine, reason = self._served(Call(self, input, hx, inputs))
        return backends.Choice(engine, reason)
