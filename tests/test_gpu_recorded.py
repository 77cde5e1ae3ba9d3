"""Layers of graphs that are trained: sizes that are not proven are torch's, forward and backward.

In Triton's interpreter, by the operator that a graph has.
"""

from contextlib import nullcontext

import pytest
import torch
from failing_kernels import close, failing
from interpreter import interpreted

import fastrnn
from fastrnn import backends, substitute

__all__ = ["interpreted"]
KEEPS = pytest.mark.parametrize("keep", [0, 2], ids=["backward-runs-it-again", "all-is-kept"])


def made(T, packed):
    """The tensors of a call."""
    layer, sizes = fastrnn.LSTM(5, 21), None
    rows = 3 * T
    if packed:
        sizes = torch.tensor([3] * (T - 1) + [1])
        rows = int(sizes.sum())
    x = torch.randn(rows, 5, requires_grad=True)
    states = [torch.randn(1, 3, 21, requires_grad=True) for _ in range(2)]
    weights = [w.detach().requires_grad_() for w in layer.parameters()]
    return x, sizes, states, weights


def results(engine, keep, given, backward=nullcontext):
    """Outputs and gradients."""
    x, sizes, states, weights = given
    operators = torch.ops.fastrnn
    run = operators.layer if sizes is None else operators.layer_packed
    outputs = run(engine, "lstm", keep, x, sizes, states, weights)[:3]
    total = sum(output.square().sum() for output in outputs)
    with backward():
        grads = torch.autograd.grad(total, [x, *states, *weights])
    return [*outputs, *grads]


def each_by_its_verdict(keep, packed):
    """One graph meets both kinds."""
    asked = []

    def choose(tensors, step, layer, traced):
        asked.append(layer[1:])
        return backends.Choice("triton" if layer[1] > 3 else "torch", "")

    with failing("neither", None) as launched, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "choose", choose)
        patch.setattr(substitute, "_fixed", {})
        for T in (4, 3, 4, 3):
            given, trained = made(T, packed), bool(keep)
            launched.clear()
            asked.clear()
            close(results("triton", keep, given), results("numba", keep, given))
            assert bool(launched) is (T > 3)
            assert set(asked) <= {(T, 1, packed, trained), (T, 1, packed, True)}


@KEEPS
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_each_size_by_its_verdict(interpreted, keep, packed):
    interpreted(each_by_its_verdict, keep, packed)


def backward_knows(keep, first):
    """Who has served forward, whatever would be chosen by then."""
    given = made(4, False)
    expected = results("numba", keep, given)
    names = [first, *["torch" if first == "triton" else "triton"] * 9]

    def choose(*call):
        return backends.Choice(names.pop(0), "")

    with failing("neither", None) as launched, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "choose", choose)
        patch.setattr(substitute, "_fixed", {})
        close(results("triton", keep, given), expected)
        if keep:
            assert bool(launched) is (first == "triton")
        for context in (lambda: backends.use("triton"), lambda: backends.use("torch")):
            close(results("triton", keep, given, context), expected)


@KEEPS
@pytest.mark.parametrize("first", ["torch", "triton"])
def test_backward_knows_who_has_served(interpreted, keep, first):
    interpreted(backward_knows, keep, first)


def asked_for_in_forward_alone():
    """Then it is ours, and so is backward."""
    given = made(4, False)
    with failing("neither", None) as launched, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "choose", lambda *call: backends.Choice("torch", ""))
        patch.setattr(substitute, "_fixed", {})
        for _ in range(2):
            x, sizes, states, weights = given
            with backends.use("triton"):
                y = torch.ops.fastrnn.layer("triton", "lstm", 2, x, sizes, states, weights)[0]
            assert launched == ["forward"] * 4
            found = torch.autograd.grad(y.sum(), [x, *weights])
            launched.clear()
            y = torch.ops.fastrnn.layer("numba", "lstm", 2, x, sizes, states, weights)[0]
            close(found, torch.autograd.grad(y.sum(), [x, *weights]))
            # by now others have served such a layer, too
            close(results("triton", 2, given), results("numba", 2, given))
            assert not launched


def test_asked_for_in_forward_alone(interpreted):
    interpreted(asked_for_in_forward_alone)
