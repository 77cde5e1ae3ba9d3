"""Calls so short that they are mostly the Python around the kernels: what it does, and how little.

Counted are calls of Python functions, which are the same on every machine, busy or not.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from against_torch import EVERY_KIND, build, build_pair, twins
from torch import nn

import fastrnn
from fastrnn.kernels import gate, schedule
from fastrnn.kernels.cpu.host import layouts

HOUSE = [str(Path(module.__file__).parent) for module in (fastrnn, fastrnn.kernels)]


def calls_of(function):
    """How many calls of this project's Python functions a call comes to, once it is warm."""
    found = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(tuple(HOUSE)):
            found.append(frame.f_code.co_name)

    function()
    function()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


@EVERY_KIND
def test_an_inference_call_asks_little(kind):
    module, x = build(fastrnn, kind, 8, 8), torch.randn(1, 1, 8)
    with torch.no_grad():
        found = calls_of(lambda: module(x))
    assert len(found) <= 50, found


@EVERY_KIND
def test_a_training_step_asks_little(kind):
    module, x = build(fastrnn, kind, 8, 8), torch.randn(1, 1, 8)
    found = calls_of(lambda: module(x)[0].sum().backward())
    assert len(found) <= 145, found


@EVERY_KIND
def test_a_further_layer_adds_what_a_layer_takes(kind):
    x, found = torch.randn(1, 1, 8), []
    for layers in (1, 2, 3):
        module = build(fastrnn, kind, 8, 8, num_layers=layers)
        with torch.no_grad():
            found.append(len(calls_of(lambda module=module: module(x))))
    assert found[2] - found[1] <= 30


@EVERY_KIND
def test_lengths_share_layouts(kind):
    """A stream whose length varies: one for each power of two, and the right results."""
    ours, theirs = twins(kind, 3, 11)
    caches = layouts.forward_layout, layouts.backward_layout
    before = [cache.cache_info().misses for cache in caches]
    for T in range(1, 33):
        x = torch.randn(T, 2, 3)
        y, expected = ours(x)[0], theirs(x.double())[0]
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
        y.sum().backward()
        expected.sum().backward()
    after = [cache.cache_info().misses for cache in caches]
    assert all(a - b <= 6 for a, b in zip(after, before, strict=True))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 5), (7, 1), (6, 4), (3, 13)], ids=str)
def test_dense_steps_are_what_their_sizes_say(T, B):
    dense, general = schedule.dense(T, B), schedule.Steps([B] * T)
    for name in ("T", "B", "N", "dense", "falling", "rounded"):
        assert getattr(dense, name) == getattr(general, name)
    assert np.array_equal(dense.sizes, general.sizes)
    assert np.array_equal(dense.offsets, general.offsets)
    for parts in range(1, 5):
        assert dense._begins(parts) == general._begins(parts)
    for rows in range(T * B + 1):
        for reverse in (False, True):
            assert dense.last(rows, reverse) == general.last(rows, reverse)


def test_what_is_whole_is_left_as_it_is():
    good, turned = torch.randn(3, 4), torch.randn(4, 3).t()
    tensors = good, None, good[1:]
    assert gate.whole(tensors) is tensors
    first, second = gate.whole((good, turned))
    assert first is good
    assert second.equal(turned)
    assert second.is_contiguous()


@EVERY_KIND
def test_every_gradient_has_memory_of_its_own(kind):
    module = build(fastrnn, kind, 3, 5, num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, 3, requires_grad=True)
    y, _ = module(x)
    grads = torch.autograd.grad(y.sum(), [x, *module.parameters()])
    assert len({g.untyped_storage().data_ptr() for g in grads}) == len(grads)
    assert all(g.untyped_storage().nbytes() == g.nbytes for g in grads)


@EVERY_KIND
@pytest.mark.parametrize("used", [[0], [1], [-1], [0, -1]], ids=str)
def test_results_that_nobody_uses(kind, used):
    """Their gradients are zeros, which nobody hands over: of the output, too."""
    found = []
    for module, dtype in zip(twins(kind, 3, 5), (torch.float32, torch.float64), strict=True):
        torch.manual_seed(0)
        x = torch.randn(4, 2, 3).to(dtype).requires_grad_()
        y, finals = module(x)
        results = [y, *(finals if isinstance(finals, tuple) else [finals])]
        loss = sum((results[i] ** 2).sum() for i in used)
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@EVERY_KIND
def test_shapes_that_fitted_once_are_looked_at_again(kind):
    """The weights' shapes are changed in place, after calls that went well: torch's error.

    In float64: oneDNN's LSTM reads what is not there.
    """
    said, x = [], torch.randn(4, 2, 3).double()
    for module in build_pair(kind, 3, 5):
        module.double()(x)
        module.weight_hh_l0.data = module.weight_hh_l0.data[:, 1:].contiguous()
        with pytest.raises(RuntimeError) as error:
            module(x)
        said.append(str(error.value))
    assert said[0] == said[1]


@EVERY_KIND
@pytest.mark.parametrize("change", ["in the registry", "an attribute"])
def test_weights_that_are_exchanged_are_seen(kind, change):
    """As functional_call and weight_norm exchange them, behind the module's back."""
    ours, theirs = build_pair(kind, 3, 5)
    x = torch.randn(4, 2, 3)
    ours(x), theirs(x)
    weight = torch.randn_like(ours.weight_ih_l0)
    for module in (ours, theirs):
        if change == "in the registry":
            module._parameters["weight_ih_l0"] = nn.Parameter(weight.clone())
        else:
            del module._parameters["weight_ih_l0"]
            module.__dict__["weight_ih_l0"] = weight.clone()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-5, atol=1e-5)
