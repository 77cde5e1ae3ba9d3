"""Modules whose weights are of eight or sixteen bits: what recurrent modules become.

The module stays the object that it is. Its class becomes one derived from its own; in place of each
matrix among its parameters it has a buffer of that name, and one of scales, ``weight_ih_l0_scale``.
"""

import torch
from torch import nn
from torch.nn.modules.rnn import RNNCellBase

from . import backends, states
from .accepting import accepting
from .exchange import BASES, SCALE, back, made_again
from .functional import stack
from .kernels import schedule
from .kernels.cells import CELLS
from .kernels.form import Form, Matrix, stamp_of
from .kernels.keep import Keep
from .kernels.weights import Weights, split
from .known import at_once, usual
from .modules import in_short
from .narrow import panels
from .parameters import weights_of
from .recurrent import Recurrent
from .tracing import tracing

# What a copy makes for itself
NOT_KEPT = "_origin", "_panels", "_flat_weights", "_flat_weight_refs"


class Quantized:
    """What these modules share. ``form``: a Form, what weights are of and what multiplies them."""

    quantized = True

    def matrix(self, name):
        """The Matrix of that name."""
        values = getattr(self, name)
        scales = self._buffers.get(name + SCALE)
        return Matrix(Form(*self.form), values, scales, self._dtype)

    def _apply(self, fn, recurse=True):
        """As torch's. To another dtype go what the layer is given and what it returns: its own
        numbers stay as they are.
        """
        self._dtype = fn(torch.empty(0, dtype=self._dtype)).dtype

        def moved(tensor):
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)

    def dequantize(self):
        """Back to the class that it was of, with weights of float32: those that it computes with.

        In place; returns the module.
        """
        back(self, {name: self.matrix(name).float() for name in self._matrices})
        return self

    def ready(self, cell, S, directions):
        """The panels of all directions, as known.at_once takes them."""
        stamp = stamp_of([*self._buffers.values(), *self._parameters.values()])
        known = self.__dict__.get("_panels")
        if known is None or known[0] != stamp:
            found = [t for w in directions() for t in panels(cell, w, S)[:5] if t is not None]
            known = self.__dict__["_panels"] = stamp, found
        return known[1]

    def extra_repr(self):
        weights, activations = self.form
        return f"{super().extra_repr()}, weights={weights}, activations={activations}"

    def _get_name(self):
        return f"Quantized{type(self).__name__}"

    def __reduce_ex__(self, protocol):
        state = {n: v for n, v in self.__getstate__().items() if n not in NOT_KEPT}
        return made_again, self._origin, state

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
        if usual():
            cell, S = CELLS[self.mode.lower()], self.proj_size or self.hidden_size
            weights = self.ready(cell, S, self._directions)
            found = in_short(self, Keep.NOTHING, input, hx, weights, True, Form(*self.form))
            if found is not None:
                return found
        call, cell, p, _ = states.of(self, input, hx, {})
        engine = _engine(call.served(cell))
        return states.run(engine, cell, call, call.directions, [], p, Keep.NOTHING, False)

    def _directions(self):
        return split(self._flat_weights, self.num_layers * (1 + self.bidirectional))

    @property
    def _flat_weights(self):
        """What stands for torch's weights, in its order."""
        names, matrices = self._flat_weights_names, self._matrices
        return [self.matrix(n) if n in matrices else getattr(self, n) for n in names]

    @_flat_weights.setter
    def _flat_weights(self, weights):
        """Nothing: the list is made of the buffers."""

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in NOT_KEPT}

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
        found, options = None, (1, 0.0, False, False, False, Form(*self.form))
        if usual():
            weights = self.ready(cell, H, self._directions)
            found = at_once(cell.name, Keep.NOTHING, x, tuple(hx), weights, True, *options)
        new = [s.view(H) if single else s.view(-1, H) for s in (found or self._stepped(x, hx))[1:]]
        return tuple(new) if cell.states == 2 else new[0]

    def _directions(self):
        matrices = self.matrix("weight_ih"), self.matrix("weight_hh")
        return [Weights(*matrices, self.bias_ih, self.bias_hh, None)]

    def _stepped(self, x, hx):
        """(output, *new states) of one step, the long way."""
        (weights,), cell, traced, B = self._directions(), self._cell, tracing(x), x.shape[1]
        choice = backends.choose((x, *hx), False, (cell, 1, 1), traced)
        steps = schedule.Traced(1, B, B) if traced else schedule.dense(1, B)
        given = x.flatten(0, 1), steps, [weights], hx, 1, 0.0, None, Keep.NOTHING
        y, new = stack(_engine(choice), cell, *given)
        return y, *new


def _engine(choice):
    """The engine for a Choice: where torch would serve others, plain PyTorch serves these."""
    return "reference" if choice.name == "torch" else choice.name


def _told(module, choice):
    weights, activations = module.form
    reason = f"{weights} weights times {activations} on CPU, for inference"
    return backends.Choice(_engine(choice), f"{reason}: {choice.reason}")


BASES.update({
    nn.RNNBase: QuantizedLayer,
    RNNCellBase: QuantizedCell,
    Recurrent: QuantizedRecurrent,
})  # fmt: skip
