"""Weights are read anew at every call: computed, tied, changed, trained."""

import warnings

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    FLOATS,
    TOLERANCE,
    build,
    build_pair,
    compare,
    difference,
    make_inputs,
    twins,
)
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrnn


def old_weight_norm(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(module, name)


REPARAMETRISED = {
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": old_weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda module, name: prune.random_unstructured(module, name, amount=0.5),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("change", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_reparametrised(kind, cell, change, calls):
    """Weights that are computed anew for each call, and what they are computed from."""
    ours, theirs = build_pair(kind, 5, 17, cell=cell, dtype=torch.float64)
    for module in (ours, theirs):
        torch.manual_seed(2)
        change(module, "weight_hh" if cell else "weight_hh_l0")
    compare(ours.eval(), theirs.eval(), make_inputs(ours, 4, 3))
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            if a.dim() == 2:  # an in-place change of what lies beneath is seen
                a.mul_(1.5), b.mul_(1.5)
    compare(ours, theirs, make_inputs(ours, 4, 3))
    assert not calls["torch"]


@EVERY_KIND
@CELL_OR_LAYER
def test_tied_weights(kind, cell, calls):
    """Two modules, one Parameter: its gradient is the sum of both uses."""
    suffix = "" if cell else "_l0"
    modules = []
    for library in (fastrnn, nn):
        torch.manual_seed(4)
        pair = [build(library, kind, 17, 17, cell=cell, dtype=torch.float64) for _ in range(2)]
        for name in (f"weight_hh{suffix}", f"weight_ih{suffix}"):
            setattr(pair[1], name, getattr(pair[0], name))
        modules.append(pair)
    x = make_inputs(modules[0][0], 4, 3)["x"]
    gradients = []
    for first, second in modules:
        state = None
        y = first(x)[0] if not cell else first(x)
        y = y[0] if isinstance(y, tuple) else y
        state = second(y) if cell else second(y)[0]
        state = state[0] if isinstance(state, tuple) else state
        state.square().sum().backward()
        gradients.append([w.grad for w in (*first.parameters(), *second.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert calls == {"forward": 2, "backward": 2}


@EVERY_KIND
def test_tied_within_a_layer(kind, calls):
    """One Parameter as the weight of both directions, and of input and recurrence."""
    ours, theirs = build_pair(kind, 17, 17, bidirectional=True, dtype=torch.float64)
    for module in (ours, theirs):
        module.weight_hh_l0_reverse = module.weight_hh_l0
        module.weight_ih_l0 = module.weight_hh_l0
    compare(ours, theirs, make_inputs(ours, 4, 3))
    assert calls == {"forward": 2, "backward": 1}
    wanted = lambda m: torch.autograd.grad(  # noqa: E731
        m(torch.ones(4, 3, 17).double())[0].sum(), m.weight_hh_l0, create_graph=True
    )[0]
    torch.testing.assert_close(wanted(ours), wanted(theirs), rtol=1e-10, atol=1e-12)


CHANGES = {
    "data.copy_": lambda w, new: w.data.copy_(new),
    "data=": lambda w, new: setattr(w, "data", new),
    "copy_": lambda w, new: w.copy_(new),
    "rows": lambda w, new: w[1:2].copy_(new[1:2]),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_changed_between_calls(kind, cell, change):
    ours, theirs = twins(kind, 5, 17, cell=cell)
    inputs = make_inputs(ours, 4, 3)
    compare(ours, theirs, inputs)
    with torch.no_grad():
        for weight in ours.parameters():
            change(weight, torch.randn_like(weight))
    theirs.load_state_dict(ours.state_dict())
    compare(ours, theirs, inputs)


@EVERY_KIND
def test_parameter_replaced(kind):
    ours, theirs = twins(kind, 5, 17)
    ours.weight_hh_l0 = nn.Parameter(torch.randn_like(ours.weight_hh_l0))
    theirs.load_state_dict(ours.state_dict())
    compare(ours, theirs, make_inputs(ours, 4, 3))


def train(module, dtype, optimiser):
    """The losses and final weights of 20 steps on a fixed task, through a head of our own."""
    torch.manual_seed(5)
    x, goal = torch.randn(9, 6, 5).to(dtype), torch.randn(6, 17).to(dtype)
    optimiser, losses = optimiser(module.parameters()), []
    for _ in range(20):
        optimiser.zero_grad()
        loss = (module(x)[0][-1] - goal).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses)} | {k: v.detach() for k, v in module.named_parameters()}


OPTIMISERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.5, momentum=0.9),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01),
}


@EVERY_KIND
@FLOATS
@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_training(kind, dtype, optimiser, calls):
    """20 steps follow torch's in float64, loss by loss and down to the last weight."""
    ours, theirs = twins(kind, 5, 17, dtype=dtype)
    found, expected = train(ours, dtype, optimiser), train(theirs, torch.float64, optimiser)
    for name, value in expected.items():
        assert difference(found[name], value) <= TOLERANCE[dtype], name
    assert expected["losses"][-1] < 0.9 * expected["losses"][0]
    assert calls == {"forward": 20, "backward": 20}
