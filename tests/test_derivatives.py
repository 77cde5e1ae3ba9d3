"""Derivatives beyond one plain backward: second ones, parts, and repeats."""

import pytest
import torch
from against_torch import (
    EVERY_KIND,
    KINDS,
    compare,
    make_inputs,
    outputs_and_gradients,
    plain_call,
    twins,
)
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from fastrnn.kernels.cpu.host.plan import Layout
from fastrnn.kernels.cpu.loops.fields import BACKWARD

MODULES = {
    **{kind: (kind, {}) for kind in KINDS},
    **{f"{kind}-cell": (kind, {"cell": True}) for kind in KINDS},
    "lstm-projected": ("lstm", {"proj_size": 1, "bidirectional": True}),
    "gru-both-ways": ("gru", {"num_layers": 2, "bidirectional": True}),
    "lstm-no-bias": ("lstm", {"bias": False}),
}
EVERY_MODULE = pytest.mark.parametrize(("kind", "options"), MODULES.values(), ids=MODULES)


def double_twins(kind, options):
    """Modules of each library and their inputs, all in float64, small enough to differentiate."""
    ours, theirs = twins(kind, 2, 3, dtype=torch.float64, **options)
    return ours, theirs, make_inputs(ours, 3, 2)


def as_function(module, inputs, call=plain_call):
    """The module as a function of its inputs and weights, and the arguments to try it on."""
    names = [name for name, _ in module.named_parameters()]

    def function(*tensors):
        values, weights = tensors[: len(inputs)], tensors[len(inputs) :]
        # what ``call`` needs of a module is that it can be called
        run = lambda *args: functional_call(module, dict(zip(names, weights, strict=True)), args)  # noqa: E731
        return tuple(torch.utils._pytree.tree_leaves(call(run, *values)))

    leaves = [*inputs.values(), *module.parameters()]
    return function, [t.detach().clone().requires_grad_() for t in leaves]


@EVERY_MODULE
def test_gradcheck(kind, options, calls):
    ours, _, inputs = double_twins(kind, options)
    assert gradcheck(*as_function(ours, inputs))
    assert calls["backward"]
    assert calls.keys() == {"forward", "backward"}


@EVERY_MODULE
def test_gradgradcheck(kind, options, calls):
    ours, _, inputs = double_twins(kind, options)
    assert gradgradcheck(*as_function(ours, inputs))
    assert calls["forward"]
    assert not calls["torch"]


@EVERY_KIND
def test_gradgradcheck_packed(kind):
    ours, _, inputs = double_twins(kind, {"bidirectional": True})

    def call(module, x, *states):
        rows = nn.utils.rnn.pack_padded_sequence(x, [2, 3], enforce_sorted=False)
        output, final = plain_call(module, rows, *states)
        return output.data, final

    function, leaves = as_function(ours, inputs, call)
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


@EVERY_MODULE
def test_gradient_penalty(kind, options):
    """A WGAN-GP step: the gradient of the input gradient's norm, with respect to the weights."""
    *modules, inputs = double_twins(kind, options)
    results = []
    for module in modules:
        x, *states = (t.clone().requires_grad_() for t in inputs.values())
        result = torch.utils._pytree.tree_leaves(plain_call(module, x, *states))
        score = sum(t.sum() for t in result)
        (dx,) = torch.autograd.grad(score, x, create_graph=True)
        ((dx.flatten(1).norm(dim=1) - 1).square().mean() + score).backward()
        results.append([t.grad for t in (x, *states, *module.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("kind", [*KINDS, "lstm-projected"])
def test_each_gradient_alone(kind, packed, calls):
    """One tensor at a time asks for a gradient: it is right, and no other is made."""
    kind, *projected = kind.split("-")
    ours, theirs = twins(kind, 5, 17, **{"proj_size": 7} if projected else {})
    inputs = make_inputs(ours, 4, 3)
    weights = [name for name, _ in ours.named_parameters()]

    def call(module, x, *states):
        rows = nn.utils.rnn.pack_padded_sequence(x, [4, 2, 1]) if packed else x
        return plain_call(module, rows, *states)

    for asked in [*inputs, *weights]:
        for module in (ours, theirs):
            for name in weights:
                module.get_parameter(name).requires_grad_(name == asked)
        compare(ours, theirs, inputs, call=call, frozen={*inputs} - {asked})
    assert calls["backward"] == len(inputs) + len(weights)
    assert calls.keys() == {"forward", "backward"}


@EVERY_KIND
def test_what_nobody_asked_for_is_not_computed(kind, monkeypatch):
    """Frozen weights, or an input that is data, each save their product in backward."""
    ours, _ = twins(kind, 5, 17)
    inputs = make_inputs(ours, 4, 3)
    weights = ["ih", "hh", "b_ih", "b_hh"]
    names = dict(zip([name for name, _ in ours.named_parameters()], weights, strict=True))
    fill, computed = Layout.fill, []
    products = {"x": "dx", "ih": "dw_ih", "hh": "dw_hh"}

    def recorded(layout, *arguments):
        plan = fill(layout, *arguments)
        if layout.rows.step == len(BACKWARD.names):
            first = dict(zip(BACKWARD.names, plan, strict=False))
            computed.append({name for name, field in products.items() if first[field]})
        return plan

    monkeypatch.setattr(Layout, "fill", recorded)
    for asked in ("h0", "x", *names):
        computed.clear()
        for name, weight in ours.named_parameters():
            weight.requires_grad_(name == asked)
        outputs_and_gradients(ours, inputs, frozen=inputs.keys() - {asked})
        assert computed[-1] == {names.get(asked, asked)} & {"x", "ih", "hh"}, asked


@EVERY_KIND
def test_nothing_asked_nothing_recorded(kind):
    ours, _ = twins(kind, 5, 17)
    ours.requires_grad_(False)
    output, _ = ours(torch.randn(4, 3, 5))
    assert not output.requires_grad


@EVERY_KIND
def test_backward_in_eval(kind, calls):
    ours, theirs = twins(kind, 5, 17, num_layers=2, dropout=0.5)
    compare(ours.eval(), theirs.eval(), make_inputs(ours, 4, 3))
    assert calls == {"forward": 4, "backward": 2}


@EVERY_KIND
def test_backward_twice(kind, threads):
    """retain_graph: what was kept for backward is not consumed by it."""
    ours, _ = twins(kind, 40, 100)
    inputs = [t.requires_grad_() for t in make_inputs(ours, 31, 13).values()]
    loss = plain_call(ours, *inputs)[0].square().sum()
    wanted = [*inputs, *ours.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, wanted)


@EVERY_KIND
def test_gradients_accumulate(kind):
    ours, _ = twins(kind, 5, 17)
    x = torch.randn(4, 3, 5)
    for _ in range(2):
        ours(x)[0].sum().backward()
    doubled = [w.grad for w in ours.parameters()]
    once = torch.autograd.grad(ours(x)[0].sum(), list(ours.parameters()))
    for two, one in zip(doubled, once, strict=True):
        torch.testing.assert_close(two, 2 * one)


@EVERY_KIND
@pytest.mark.parametrize("result", ["output", "h_n"])
def test_results_may_be_changed_in_place(kind, result):
    """``y += residual`` between forward and backward is legal where torch's kernels allow it."""
    ours, theirs = twins(kind, 5, 17, dtype=torch.float64)

    def loss(outputs):
        outputs[result].mul_(2).add_(1)
        return sum(t.square().sum() for t in outputs.values())

    compare(ours, theirs, make_inputs(ours, 4, 3), loss=loss)


@EVERY_KIND
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_a_weight_changed_before_backward_is_noticed(kind, name):
    ours, _ = twins(kind, 5, 17)
    loss = ours(torch.randn(4, 3, 5))[0].sum()
    with torch.no_grad():
        ours.get_parameter(name).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@EVERY_KIND
def test_saved_tensors_may_move(kind):
    """Checkpointing and hooks on what is saved for backward."""
    ours, _ = twins(kind, 5, 17)
    x = torch.randn(4, 3, 5)
    weights = list(ours.parameters())
    plain = torch.autograd.grad(ours(x)[0].sum(), weights)
    again = torch.utils.checkpoint.checkpoint(ours, x, use_reentrant=False)[0]
    with torch.autograd.graph.save_on_cpu():
        moved = ours(x)[0]
    for y in (again, moved):
        for found, expected in zip(torch.autograd.grad(y.sum(), weights), plain, strict=True):
            assert found.equal(expected)
