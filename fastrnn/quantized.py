"""Modules whose weights are of eight or sixteen bits: what recurrent modules become.

The module stays the object that it is. Its class becomes one derived from its own; in place of each
matrix among its parameters it has a buffer of that name, and one of scales, ``weight_ih_l0_scale``.
"""

from functools import cache

import torch
from torch import nn
from torch.nn.modules.rnn import RNNCellBase

from . import backends, states
from .accepting import accepting
from .conversion import TWINS, accelerated, represented, stands_in
from .functional import stack
from .kernels import schedule
from .kernels.cells import CELLS
from .kernels.form import Form, Matrix
from .kernels.keep import Keep
from .kernels.weights import Weights
from .parameters import weights_of
from .recurrent import Recurrent
from .tracing import tracing

SCALE = "_scale"


class Quantized:
    """What these modules share. ``form``: a Form, what weights are of and what multiplies them."""

    def matrix(self, name):
        """The Matrix of that name."""
        values = getattr(self, name)
        return Matrix(Form(*self.form), values, self._buffers.get(name + SCALE))

    def dequantize(self):
        """Back to the class that it was of, with weights of float32: those that it computes with.

        In place; returns the module.
        """
        found = {name: self.matrix(name).float() for name in self._matrices}
        (cls, ours), trained = self._origin, self._trained
        for name in ("form", "_matrices", "_trained", "_origin"):
            del self.__dict__[name]
        for name in found:
            self._buffers.pop(name + SCALE, None)
            del self._buffers[name]
        object.__setattr__(self, "__class__", accelerated(cls) if ours else cls)
        for name, weight in found.items():
            self.register_parameter(name, nn.Parameter(weight, name in trained))
        for name, parameter in self._parameters.items():
            if parameter is not None:
                parameter.requires_grad_(name in trained)
        _in_order(self)
        return self

    def extra_repr(self):
        weights, activations = self.form
        return f"{super().extra_repr()}, weights={weights}, activations={activations}"

    def _get_name(self):
        return f"Quantized{type(self).__name__}"

    def __reduce_ex__(self, protocol):
        state = {n: v for n, v in self.__getstate__().items() if n != "_origin"}
        return _made_again, self._origin, state

    def _load_from_state_dict(self, found, prefix, *rest):
        """As torch's; but numbers of another kind are not those of a buffer here."""
        errors = rest[-1]
        for name in self._matrices:
            mine, theirs = self._buffers[name], found.get(prefix + name)
            if theirs is not None and theirs.dtype != mine.dtype:
                errors.append(
                    f"{prefix}{name} is of {mine.dtype}, and {theirs.dtype} in the state_dict: "
                    f"load that before fastrnn.quantize"
                )
                found = {n: t for n, t in found.items() if n != prefix + name}
                found[prefix + name] = mine
        super()._load_from_state_dict(found, prefix, *rest)


class QuantizedLayer(Quantized):
    """An LSTM, GRU or RNN."""

    @accepting
    def forward(self, input, hx=None):
        call, cell, p, _ = states.of(self, input, hx, {})
        engine = _engine(call.served(cell))
        return states.run(engine, cell, call, call.directions, [], p, Keep.NOTHING, False)

    @property
    def _flat_weights(self):
        """What stands for torch's weights, in its order."""
        names, matrices = self._flat_weights_names, self._matrices
        return [self.matrix(n) if n in matrices else getattr(self, n) for n in names]

    @_flat_weights.setter
    def _flat_weights(self, weights):
        """Nothing: the list is made of the buffers."""

    def __getstate__(self):
        left = "_flat_weights", "_flat_weight_refs"
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def _init_flat_weights(self):
        pass

    def _update_flat_weights(self):
        pass

    def explain(self, input, hx=None, **inputs):
        """The Choice of an engine for a call: what fastrnn.backends.explain asks."""
        call, cell, _, _ = states.of(self, input, hx, {})
        return _told(self, call.served(cell))


class QuantizedRecurrent(Quantized, Recurrent):
    """A layer of a cell that is written as a step."""

    def directions(self):
        """A Weights for each layer and direction; its matrices are Matrix."""
        names = [[place and place[0] for place in fields[:2]] for fields, _ in self._places]
        found = zip(names, weights_of(self), strict=True)
        return [w._replace(ih=self.matrix(ih), hh=hh and self.matrix(hh)) for (ih, hh), w in found]

    def explain(self, input, hx=None, **inputs):
        """The Choice of an engine for a call: what fastrnn.backends.explain asks."""
        return _told(self, super().explain(input, hx, **inputs))

    def _served(self, call):
        cell, engine, why = super()._served(call)
        return cell, _engine(backends.Choice(engine, why)), why


class QuantizedCell(Quantized):
    """An LSTMCell, GRUCell or RNNCell."""

    @property
    def _cell(self):
        kind = type(self)
        if issubclass(kind, nn.RNNCell):
            return CELLS[f"rnn_{self.nonlinearity}"]
        return CELLS["lstm" if issubclass(kind, nn.LSTMCell) else "gru"]

    def forward(self, input, hx=None):
        cell, single, H = self._cell, input.dim() == 1, self.hidden_size
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"{self._get_name()} takes (B, {self.input_size}) or ({self.input_size},), not "
                f"{tuple(input.shape)}"
            )
        x = input.view(1, -1, self.input_size)
        if hx is None:
            hx = (x.new_zeros(x.shape[1], H),) * cell.states
        hx = [s.view(1, -1, H) for s in ((hx,) if isinstance(hx, torch.Tensor) else hx)]
        if len(hx) != cell.states or any(s.shape[1] != x.shape[1] for s in hx):
            raise RuntimeError(f"{self._get_name()}: hx should have {cell.states} states of (B, H)")
        weights = self.matrix("weight_ih"), self.matrix("weight_hh"), self.bias_ih, self.bias_hh
        tensors, traced = (x, *hx, *weights[2:]), tracing(x)
        engine = _engine(backends.choose(tensors, False, (cell, 1, 1), traced))
        B = x.shape[1]
        steps = schedule.Traced(1, B, B) if traced else schedule.dense(1, B)
        given = steps, [Weights(*weights, None)], hx, 1, 0.0, None, Keep.NOTHING
        _, new = stack(engine, cell, x.flatten(0, 1), *given)
        new = [s.view(H) if single else s.view(-1, H) for s in new]
        return tuple(new) if cell.states == 2 else new[0]


def _engine(choice):
    """The engine for a Choice: where torch would serve others, plain PyTorch serves these."""
    return "reference" if choice.name == "torch" else choice.name


def _told(module, choice):
    weights, activations = module.form
    reason = f"{weights} weights times {activations} on CPU, for inference"
    return backends.Choice(_engine(choice), f"{reason}: {choice.reason}")


BASES = {  # what a module is, and what it is then
    nn.RNNBase: QuantizedLayer,
    RNNCellBase: QuantizedCell,
    Recurrent: QuantizedRecurrent,
}


@cache
def quantized_class(cls):
    """The class that modules of ``cls``, a recurrent one, become. It keeps its name, by which its
    cell is known.
    """
    base = next(made for kind, made in BASES.items() if issubclass(cls, kind))
    theirs = next((theirs for theirs in TWINS if issubclass(cls, theirs)), None)
    if theirs is not None:
        base = _plain(TWINS[theirs], base)
    if cls in (theirs, TWINS.get(theirs)):
        return base
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    if theirs is None:  # a user's class may have these of its own, and must not have them here
        names |= {"directions": base.directions, "explain": base.explain}
    return type(cls.__name__, (cls, base), names)


@cache
def _plain(ours, base):
    return type(ours.__name__, (base, ours), {"__doc__": ours.__doc__})


def _made_again(cls, ours):
    """A module of the class that modules of ``cls`` become, for pickle to fill."""
    made = quantized_class(cls)
    module = made.__new__(made)
    module.__dict__["_origin"] = cls, ours
    return module


def convert(module, form, matrices):
    """Give a module its quantized class, and these {name: Matrix} for its parameters."""
    cls, ours = type(module), stands_in(type(module))
    cls = represented(cls) if ours else cls
    trained = {n for n, p in module._parameters.items() if p is not None and p.requires_grad}
    for name in matrices:
        del module._parameters[name]
    for name in ("_flat_weights", "_flat_weight_refs"):
        module.__dict__.pop(name, None)
    object.__setattr__(module, "__class__", quantized_class(cls))
    module.__dict__ |= {"form": tuple(form), "_matrices": tuple(matrices)}
    module.__dict__ |= {"_trained": trained, "_origin": (cls, ours)}
    for name, matrix in matrices.items():
        module.register_buffer(name, matrix.values)
        if matrix.scales is not None:
            module.register_buffer(name + SCALE, matrix.scales)
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)


def _in_order(module):
    """Parameters in the order in which the class has made them, as optimisers number them."""
    if isinstance(module, nn.RNNBase):
        names = module._flat_weights_names
        module._init_flat_weights()
    elif isinstance(module, RNNCellBase):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    else:
        places = [filter(None, (*fields, *own)) for fields, own in module._places]
        names = [name for each in places for name, _ in each]
    for name in [n for n in names if n in module._parameters]:
        module._parameters[name] = module._parameters.pop(name)
