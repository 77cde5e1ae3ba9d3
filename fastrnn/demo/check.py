"""Are fastrnn's numbers right? Every output and gradient against torch.nn in float64."""

from dataclasses import dataclass

import torch
from torch import nn

import fastrnn

LAYERS = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "RNN tanh": ("RNN", {"nonlinearity": "tanh"}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
}
STEPS, BATCH, INPUTS, HIDDEN = 31, 13, 33, 65  # odd, so that no block size divides them
STACK = {"num_layers": 2, "bidirectional": True}
SEED = 0
TIMES_TORCH = 4  # how many times torch.nn's own float32 error ours may be; 3.1 in 40 other seeds
FLOAT64_LIMIT = 1e-12  # of torch.nn in float64, which is the truth, so that its own error is none


@dataclass
class Finding:
    """The errors of one kind of layer in its outputs, or in its gradients.

    Each is the worst over all those tensors of max |a - b| / max |b|.
    """

    layer: str
    what: str
    tensors: int
    theirs: float  # torch.nn in the dtype that is checked against torch.nn in float64, the truth
    ours: float  # fastrnn against the same

    @property
    def passed(self):
        return self.ours <= max(TIMES_TORCH * self.theirs, FLOAT64_LIMIT)


def findings(dtype=torch.float32):
    """The Findings of every layer, one by one as they are made."""
    for label, (name, arguments) in LAYERS.items():
        yield from compare(label, getattr(nn, name), getattr(fastrnn, name), arguments, dtype)


def compare(label, theirs, ours, arguments, dtype=torch.float32):
    """The Findings on the layer ``ours`` against ``theirs``, in ``dtype``."""
    torch.manual_seed(SEED)
    model = theirs(INPUTS, HIDDEN, **STACK, **arguments)
    states = 2 if model.mode == "LSTM" else 1
    given = [torch.randn(STEPS, BATCH, INPUTS)]
    given += [torch.randn(4, BATCH, HIDDEN) for _ in range(states)]
    asked = [torch.randn(STEPS, BATCH, 2 * HIDDEN)] + [torch.randn_like(s) for s in given[1:]]

    def results(layer, dtype):
        module = layer(INPUTS, HIDDEN, **STACK, **arguments).to(dtype)
        module.load_state_dict(model.state_dict())
        return outputs_and_gradients(module, *([t.to(dtype) for t in ts] for ts in (given, asked)))

    truths = results(theirs, torch.float64)
    found = [results(layer, dtype) for layer in (theirs, ours)]
    for what, truth in truths.items():
        errors = [worst_error(one[what], truth) for one in found]
        yield Finding(label, what, len(truth), *errors)


def outputs_and_gradients(module, given, asked):
    """{"outputs": tensors, "gradients": tensors}: of the input, the states and every weight.

    given: input and initial states; asked: the gradient of each output.
    """
    x, *states = (t.clone().requires_grad_() for t in given)
    y, finals = module(x, tuple(states) if len(states) > 1 else states[0])
    outputs = [y, *finals] if len(states) > 1 else [y, finals]
    sources = [x, *states, *module.parameters()]
    return {"outputs": outputs, "gradients": torch.autograd.grad(outputs, sources, asked)}


def worst_error(found, truths):
    """The worst over all tensors of max |found - truth| / max |truth|; NaN where there is one."""
    errors = [
        (f.double() - t).abs().max() / t.abs().max() for f, t in zip(found, truths, strict=True)
    ]
    return torch.stack(errors).max().item()
