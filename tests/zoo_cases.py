"""The layers of fastrnn.zoo, what they are called with, and what plain_loop.py makes of a call."""

from contextlib import contextmanager

import plain_loop
import pytest
import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from fastrnn import zoo

T, B, I, H = 5, 3, 3, 11
LENGTHS = [2, 5, 4]  # of the sequences, where they are packed
NAMES = tuple(zoo.__all__)
EVERY_CELL = pytest.mark.parametrize("name", NAMES)
# Arguments of the constructors that the formulas have too
SETTINGS = {
    "JANET": {"beta": 0.7},
    "CoRNN": {"dt": 0.3, "gamma": 1.2, "epsilon": 0.9},
    "LEM": {"dt": 0.8},
}
OPTIONS = {"WeightDropLSTM": {"hidden_dropout": 0.4, "output_dropout": 0.3}}
SINGLE = {"GRUD"}  # one layer, forward


def build(name, layers=2, directions=2, dtype=torch.float64, sizes=(I, H), **options):
    """A layer whose parameters are all at random: those too that begin as zeros or ones."""
    options |= SETTINGS.get(name, {}) | OPTIONS.get(name, {})
    if name not in SINGLE:
        options |= {"num_layers": layers, "bidirectional": directions == 2}
    module = getattr(zoo, name)(*sizes, dtype=dtype, **options)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    for buffer in module.buffers():
        buffer.uniform_(-1, 1)
    return module


def arguments(name, module, T=T, B=B):
    """{name: tensor} of x, the initial states and the inputs, time first, as leaves."""
    count = module.num_layers * (1 + module.bidirectional)
    x = torch.randn(T, B, module.input_size // (2 if name in ("QRNN", "GRUD") else 1))
    states = {s: torch.randn(count, B, module.hidden_size) for s in type(module).signature.states}
    if name == "SLSTM":
        states["n"] = states["n"].abs() + 0.5  # what it divides by
    inputs = {
        "AUGRU": {"attention": torch.rand(T, B)},
        "CfC": {"ts": 2 * torch.rand(T, B)},
        "GRUD": {"mask": torch.rand_like(x).round(), "delta": torch.rand_like(x)},
    }
    found = {"x": x} | states | inputs.get(name, {})
    leaves = {n: t.to(next(module.parameters()).dtype) for n, t in found.items()}
    return {n: t.requires_grad_(n != "mask") for n, t in leaves.items()}


def call(module, given, batch_first=False, lengths=None):
    """(output, final states) of a call, all time first; packed for it if there are lengths."""
    states = type(module).signature.states
    rest = {n: t for n, t in given.items() if n not in states}
    if batch_first:
        rest = {n: t.transpose(0, 1) for n, t in rest.items()}
    if lengths:
        rest = {n: packed(t, lengths) for n, t in rest.items()}
    hx = [given[n] for n in states]
    y, finals = module(rest.pop("x"), hx[0] if len(hx) == 1 else tuple(hx), **rest)
    y = pad_packed_sequence(y, total_length=len(given["x"]))[0] if lengths else y
    finals = (finals,) if isinstance(finals, torch.Tensor) else finals
    return y.transpose(0, 1) if batch_first else y, *finals


def packed(tensor, lengths):
    return pack_sequence([tensor[:n, b] for b, n in enumerate(lengths)], enforce_sorted=False)


@contextmanager
def recorded(module, lengths=None):
    """What the module draws in a call: the inputs of each layer's steps, and recurrent weights."""
    drawn, cls = {"inputs": [], "weights": []}, type(module)
    inputs_for, directions = cls.inputs_for, cls.directions

    def inputs_drawn(self, layer, like, **given):
        found = inputs_for(self, layer, like, **given)
        drawn["inputs"].append({n: _time_first(t, like, lengths) for n, t in found.items()})
        return found

    def weights_drawn(self):
        drawn["weights"] = directions(self)
        return drawn["weights"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "inputs_for", inputs_drawn)
        patch.setattr(cls, "directions", weights_drawn)
        yield drawn


def _time_first(drawn, like, lengths):
    """In float64, (T, B) or (T, B, H), what was drawn for every row."""
    drawn = drawn.double()
    if lengths is None:
        return drawn.expand(like.shape) if drawn.dim() != 2 else drawn
    form = packed(torch.zeros(max(lengths), len(lengths), 1), lengths)
    if drawn.dim() == 3:  # the sequences are in the order in which they are packed
        return drawn.expand(like.shape)[:, form.unsorted_indices]
    return pad_packed_sequence(form._replace(data=drawn))[0]


def expected(name, module, given, drawn, lengths=None):
    """As ``call``, by the plain loop: sequence after sequence if there are lengths."""
    if lengths is None:
        return _dense(name, module, given, drawn)
    states, each = type(module).signature.states, []
    for b, n in enumerate(lengths):
        one = {k: t[:, b : b + 1] if k in states else t[:n, b : b + 1] for k, t in given.items()}
        inputs = [{k: t[:n, b : b + 1] for k, t in d.items()} for d in drawn["inputs"]]
        y, *finals = _dense(name, module, one, drawn | {"inputs": inputs})
        each.append((pad(y, (0, 0, 0, 0, 0, len(given["x"]) - n)), *finals))
    return tuple(torch.cat(parts, 1) for parts in zip(*each, strict=True))


def _dense(name, module, given, drawn):
    weights, states = dict(module.named_parameters()), type(module).signature.states
    x, hx = given["x"], [given[n] for n in states]
    inputs = {n: t for n, t in given.items() if n not in ("x", *states)}
    if name == "GRUD":
        x, decay = plain_loop.missing_values(weights, x, **inputs, mean=module.mean)
        inputs = {"decay": decay}
    if name == "QRNN":
        x = plain_loop.two_steps(x)
    draws = name.startswith("Zoneout") or name == "WeightDropLSTM"
    layers = drawn["inputs"] if draws else [inputs] * module.num_layers
    if name == "WeightDropLSTM":
        weights = weights | dropped(module, drawn["weights"])
    D = 1 + module.bidirectional
    form = weights, x, hx, module.num_layers, D, layers
    y, finals = plain_loop.run(name, *form, **SETTINGS.get(name, {}))
    return y, *finals


def dropped(module, drawn):
    """Recurrent weights of which those are 0 that a call has dropped."""
    keep, found = 1 - module.weight_dropout, {}
    names = [n for n in dict(module.named_parameters()) if n.startswith("weight_hh")]
    for name, weights in zip(names, drawn, strict=True):
        found[name] = getattr(module, name) * (weights.hh != 0) / keep
    return found


def gradients(outputs, leaves):
    """The gradients of a sum in which each element has a weight of its own, exact in any dtype."""
    weights = [(torch.arange(t.numel()) * 7 % 33 - 16).view(t.shape) / 16 for t in outputs]
    weights = [w.to(t.dtype) for w, t in zip(weights, outputs, strict=True)]
    return torch.autograd.grad(outputs, leaves, weights, allow_unused=True, materialize_grads=True)
