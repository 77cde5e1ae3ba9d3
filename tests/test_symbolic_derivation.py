"""What is derived from random steps: forward, the gradients, and what is kept, by other means."""

from itertools import combinations

import pytest
import torch
from derived import PORTS, by_autograd, by_derivation, given_to, on_tensors, same
from hypothesis import given
from hypothesis import strategies as st
from random_steps import cells

from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.symbolic import derive
from fastrnn.kernels.symbolic.graph import needed
from fastrnn.kernels.symbolic.operations import CONDITIONS, OPERATIONS


@given(cells(**PORTS), st.sampled_from([1, 10, 40, 1000]))
def test_forward_and_gradients(cell, price):
    """Whatever is kept: where that is dear, all but the inputs is computed anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derive, "KEEP", price)
        kept = cell.kept
    inputs, grads = given_to(cell, 3, 5), [torch.randn(3, 5).double() for _ in range(3)]
    for tensors in inputs[1:3]:  # ties, and gradients that meet bounds
        tensors[0][0] = inputs[0][0][0]
    expected, exact = by_autograd(cell, inputs, grads)
    found, gradients = by_derivation(cell, inputs, grads)
    assert kept == cell.kept
    for value, ours in zip(expected, found, strict=True):
        assert same(ours.expand(3, 5), value.expand(3, 5))
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours.shape == (3, 5)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def cost(kept, read, free):
    """Of keeping these nodes and computing anew what else is read; None if that cannot be."""
    anew = [n for n in needed(read, {*free, *kept}) if n.op != "number"]
    if any(not n.args for n in anew):
        return None
    return derive.KEEP * len(kept) + sum(OPERATIONS[n.op].cost for n in anew)


@given(cells(most=7, gates=2, states=1, own=1), st.sampled_from([3, 10, 40]))
def test_what_is_kept_costs_least(cell, price):
    """Of all that could be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derive, "KEEP", price)
        asked = []
        patch.setattr(derive, "kept", lambda *args: asked.append(args) or kept(*args))
        derivation = cell.derivation
        ((backward, forward, free),) = asked
        forward = {n for n in forward if n not in set(free)}
        read = {n for n in backward if n in forward}
        for node in needed(backward, {*forward, *free}):
            read |= forward.intersection(node.args)
        candidates = [n for n in forward if n.op not in CONDITIONS and not n.is_number()]
        costs = [
            cost(chosen, read, free)
            for count in range(len(candidates) + 1)
            for chosen in combinations(candidates, count)
        ]
        assert cost(derivation.kept, read, free) == min(c for c in costs if c is not None)


kept = derive.kept


# As they were when they were written by hand. ``operations``: forward and backward, at most; one of
# backward's adds the output's gradient to the state's.
BY_HAND = {
    "lstm": {
        "kept": 4, "dgates": 4, "dx": (0, 1, 2, 3), "dh": (0, 1, 2, 3), "after": (1,),
        "operations": (13, 24),
    },
    "gru": {
        "kept": 4, "dgates": 4, "dx": (1, 2, 0), "dh": (1, 2, 3), "after": (),
        "operations": (10, 16),
    },
    "rnn_tanh": {
        "kept": 0, "dgates": 1, "dx": (0,), "dh": (0,), "after": (0,), "operations": (2, 4),
    },
    "rnn_relu": {
        "kept": 0, "dgates": 1, "dx": (0,), "dh": (0,), "after": (0,), "operations": (2, 3),
    },
}  # fmt: skip


def operations(text):
    """How many lines of a text compute something."""
    return sum(line.startswith("    v") for line in text.splitlines())


@pytest.mark.parametrize("kind", BY_HAND)
def test_torchs_cells_are_as_good_as_by_hand(kind):
    cell, expected = CELLS[kind], dict(BY_HAND[kind])
    forward, backward, *_ = cell.text.split("def ")[1:]
    most_forward, most_backward = expected.pop("operations")
    assert operations(forward) <= most_forward
    assert operations(backward) <= most_backward
    assert {name: getattr(cell, name) for name in expected} == expected
    assert not cell.apart
    assert not cell.staged


@pytest.mark.parametrize("kind", BY_HAND)
def test_torchs_cells(kind):
    cell = CELLS[kind]
    inputs = given_to(cell, 4, 7)
    grads = [torch.randn(4, 7).double() for _ in range(1 + cell.states)]
    expected, exact = by_autograd(cell, inputs, grads)
    found, gradients = by_derivation(cell, inputs, grads)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients, exact, rtol=1e-14, atol=1e-14)
    assert on_tensors(cell, inputs)[0].equal(found[0])
