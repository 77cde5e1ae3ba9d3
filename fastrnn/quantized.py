"""Modules whose weights are of eight or sixteen bits: what recurrent modules become.

The module stays the object that it is. Its class becomes one derived from its own; in place of each
matrix among its parameters it has a buffer of that name, and one of scales, ``weight_ih_l0_scale``.
"""

import torch
from torch import nn
from torch.nn.modules.rnn import RNNCellBase

from . import backends, states
from .accepting import accepting
from .exchange import BASES, SCALE, back, form_of, told_dtype
from .functional import stack
from .kernels import schedule
from .kernels.cells import CELLS
from .kernels.form import Form, Matrix, forget, held, stamp_of
from .kernels.keep import Keep
from .kernels.weights import Weights, split
from .known import at_once, usual
from .modules import in_short
from .narrow import panels, refuse_jit
from .parameters import weights_of
from .recurrent import Recurrent
from .tracing import tracing


class Quantized:
    """What these modules share; ``_quantized``: an exchange.State."""

    def _matrix(self, name):
        state, scales = self._quantized, self._buffers.get(name + SCALE)
        return Matrix(Form(*state.form), self._buffers[name], scales, state.dtype)

    def _apply(self, fn, recurse=True):
        """As torch's; but scales stay float32."""
        self._quantized.dtype = told_dtype(fn, self._quantized.dtype)
        names = [name + SCALE for name in self._quantized.names]
        scales = {n: self._buffers[n] for n in names if n in self._buffers}
        super()._apply(fn, recurse)
        for name, scale in scales.items():
            if (moved := self._buffers[name]).dtype != scale.dtype:
                self._buffers[name] = scale.to(moved.device)
        return self

    def dequantize(self):
        """Back to the class that it was of, with the weights that it computes with as floats.

        In place; returns the module.
        """
        back(self, {name: self._matrix(name).float() for name in self._quantized.names})
        return self

    def _ready(self, cell, S, directions):
        """The panels of all directions, as known.at_once takes them."""
        tensors = [*self._buffers.values(), *self._parameters.values()]
        stamp, known = stamp_of(tensors), self._quantized.panels
        if known is None or known[0] != stamp:
            found = [t for w in directions() for t in panels(cell, w, S)[:5] if t is not None]
            # the old numbers are held, so that no others can stand where they stood
            known = self._quantized.panels = stamp, found, held(tensors)
        return known[1]

    def extra_repr(self):
        weights, activations = self._quantized.form
        return f"{super().extra_repr()}, weights={weights}, activations={activations}"

    def _get_name(self):
        return f"Quantized{type(self).__name__}"

    def _load_from_state_dict(self, found, prefix, *rest):
        """As torch's; but numbers of another kind are not those of a buffer here."""
        errors = rest[-1]
        for name in self._quantized.names:
            mine, theirs = self._buffers[name], found.get(prefix + name)
            if theirs is not None and theirs.dtype != mine.dtype:
                errors.append(
                    f"{prefix}{name} is of {mine.dtype}, and {theirs.dtype} in the state_dict: "
                    f"load that before fastrnn.quantize"
                )
                found = {n: t for n, t in found.items() if n != prefix + name}
                found[prefix + name] = mine
        super()._load_from_state_dict(found, prefix, *rest)
        self._quantized.panels = None
        for name in self._quantized.names:
            forget(self._buffers[name])


class QuantizedLayer(Quantized):
    """An LSTM, GRU or RNN."""

    @accepting
    def forward(self, input, hx=None):
        if usual():
            cell, S = CELLS[self.mode.lower()], self.proj_size or self.hidden_size
            weights = self._ready(cell, S, self._directions)
            found = in_short(self, Keep.NOTHING, input, hx, weights, True, form_of(self))
            if found is not None:
                return found
        refuse_jit()
        call, cell, p, _ = states.of(self, input, hx, {})
        engine = _engine(call.served(cell))
        return states.run(engine, cell, call, call.directions, [], p, Keep.NOTHING, False)

    def _directions(self):
        return split(self._flat_weights, self.num_layers * (1 + self.bidirectional))

    @property
    def _flat_weights(self):
        """What stands for torch's weights, in its order."""
        names, matrices = self._flat_weights_names, self._quantized.names
        return [self._matrix(n) if n in matrices else getattr(self, n) for n in names]

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
        return [
            w._replace(ih=self._matrix(ih), hh=hh and self._matrix(hh)) for (ih, hh), w in found
        ]

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
        cell, H, form = self._cell, self.hidden_size, form_of(self)
        x, hx, single = self._checked(cell, input, hx)
        found, options = None, (1, 0.0, False, False, False, form)
        if usual() and x.numel():
            weights = self._ready(cell, H, self._directions)
            found = at_once(cell.name, Keep.NOTHING, x, tuple(hx), weights, True, *options)
        new = [s[0, 0] if single else s[0] for s in (found or self._stepped(x, hx))[1:]]
        return tuple(new) if cell.states == 2 else new[0]

    def _checked(self, cell, input, hx):
        """(x (1, B, I), the states (1, B, H) each, whether there was no batch)."""
        name, own = self._get_name(), self._quantized.dtype
        refuse_jit()
        if not isinstance(input, torch.Tensor) or input.dim() not in (1, 2):
            raise ValueError(f"{name} takes a tensor (B, {self.input_size}), or one without B")
        single = input.dim() == 1
        x = input.view(1, 1, -1) if single else input.unsqueeze(0)
        if x.shape[2] != self.input_size or input.dtype != own:
            raise ValueError(
                f"{name} takes (B, {self.input_size}) of {own}, not {tuple(input.shape)} of "
                f"{input.dtype}"
            )
        if hx is None:
            return x, [x.new_zeros(1, x.shape[1], self.hidden_size)] * cell.states, single
        states = [hx] if isinstance(hx, torch.Tensor) else list(hx)
        want = (*input.shape[:-1], self.hidden_size)
        if len(states) != cell.states or any(s.shape != want for s in states):
            raise RuntimeError(f"{name}: hx should have {cell.states} states of shape {want}")
        return x, [s.view(1, x.shape[1], -1) if single else s.unsqueeze(0) for s in states], single

    def _directions(self):
        matrices = self._matrix("weight_ih"), self._matrix("weight_hh")
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
    weights, activations = form_of(module)
    reason = f"{weights} weights times {activations} on CPU, for inference"
    return backends.Choice(_engine(choice), f"{reason}: {choice.reason}")


BASES.update({
    nn.RNNBase: QuantizedLayer,
    RNNCellBase: QuantizedCell,
    Recurrent: QuantizedRecurrent,
})  # fmt: skip
