"""The layers of fastrnn.zoo, what they are called with, and what plain_loop.py makes of a call."""

from contextlib import contextmanager

import plain_loop
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from fastrnn import zoo

T, B, I, H = 5, 3, 3, 11
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


def build(name, layers=2, directions=2, dtype=torch.float64, **options):
    """A layer whose parameters are all at random: of those that begin as zeros or ones, too."""
    options |= SETTINGS.get(name, {}) | OPTIONS.get(name, {})
    if name not in SINGLE:
        options |= {"num_layers": layers, "bidirectional": directions == 2}
    module = getattr(zoo, name)(I, H, dtype=dtype, **options)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    for buffer in module.buffers():
        buffer.uniform_(-1, 1)
    return module


def arguments(name, module, dtype=torch.float64):
    """{name: tensor} of x, the initial states and the inputs, time first, as leaves."""
    count = module.num_layers * (1 + module.bidirectional)
    found = {"x": torch.randn(T, B, I)}
    found |= {state: torch.randn(count, B, H) for state in type(module).signature.states}
    if name == "SLSTM":
        found["n"] = found["n"].abs() + 0.5  # what it divides by
    if name == "AUGRU":
        found["attention"] = torch.rand(T, B)
    if name == "CfC":
        found["ts"] = torch.rand(T, B) * 2
    if name == "GRUD":
        found |= {"mask": torch.rand(T, B, I).round(), "delta": torch.rand(T, B, I)}
    leaves = {n: t.to(dtype) for n, t in found.items()}
    return {n: t.requires_grad_(n != "mask") for n, t in leaves.items()}


def call(module, given, batch_first=False, lengths=None):
    """(output, final states) time first, of a call with the arguments; packed if lengths are said."""
    states = type(module).signature.states
    hx = [given[n] for n in states]
    rest = {n: t for n, t in given.items() if n not in ("x", *states)}
    x = given["x"]
    if batch_first:
        x, rest = x.transpose(0, 1), {n: t.transpose(0, 1) for n, t in rest.items()}
    if lengths:
        x, rest = packed(x, lengths), {n: packed(t, lengths) for n, t in rest.items()}
    y, finals = module(x, hx[0] if len(hx) == 1 else tuple(hx), **rest)
    finals = (finals,) if isinstance(finals, torch.Tensor) else finals
    y = y.transpose(0, 1) if batch_first else y.data if lengths else y
    return y, *finals


def packed(tensor, lengths):
    return pack_sequence([tensor[:n, b] for b, n in enumerate(lengths)], enforce_sorted=False)


@contextmanager
def recorded(module):
    """What the module draws in a call: for each layer the inputs of its steps; recurrent weights."""
    drawn, cls = {"inputs": [], "weights": []}, type(module)
    inputs_for, directions = cls.inputs_for, cls.directions

    def inputs_drawn(*args, **kwargs):
        drawn["inputs"].append(inputs_for(*args, **kwargs))
        return drawn["inputs"][-1]

    def weights_drawn(self):
        drawn["weights"] = directions(self)
        return drawn["weights"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "inputs_for", inputs_drawn)
        patch.setattr(cls, "directions", weights_drawn)
        yield drawn


def expected(name, module, given, drawn):
    """As ``call``, by the plain loop; given, the parameters and what was drawn: in float64."""
    weights, states = dict(module.named_parameters()), type(module).signature.states
    x, hx = given["x"], [given[n] for n in states]
    inputs = {n: t for n, t in given.items() if n not in ("x", *states)}
    if name == "GRUD":
        x, decay = plain_loop.missing_values(weights, x, **inputs, mean=module.mean)
        inputs = {"decay": decay}
    if name == "QRNN":
        x = plain_loop.two_steps(x)
    layers = [inputs] * module.num_layers
    if name.startswith("Zoneout") or name == "WeightDropLSTM":
        layers = [{n: t.expand(len(x), *t.shape[1:]) for n, t in d.items()} for d in drawn["inputs"]]
    if name == "WeightDropLSTM":
        weights = weights | dropped(module, drawn["weights"])
    D = 1 + module.bidirectional
    given = name, weights, x, hx, module.num_layers, D, layers
    y, finals = plain_loop.run(*given, **SETTINGS.get(name, {}))
    return y, *finals


def dropped(module, drawn):
    """Recurrent weights of which those are 0 that a call has dropped."""
    keep, found = 1 - module.weight_dropout, {}
    names = [n for n in dict(module.named_parameters()) if n.startswith("weight_hh")]
    for name, weights in zip(names, drawn, strict=True):
        found[name] = getattr(module, name) * (weights.hh != 0) / keep
    return found


def gradients(outputs, leaves):
    """The gradients of a sum in which each element has a weight of its own."""
    weights = [torch.cos(torch.arange(t.numel(), dtype=t.dtype)).view(t.shape) for t in outputs]
    return torch.autograd.grad(outputs, leaves, weights, allow_unused=True, materialize_grads=True)
