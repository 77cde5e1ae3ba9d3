"""Rollouts as one call, as docs/reinforcement.md has them, against a loop over their steps.

The loop multiplies the state by zero where an episode begins, and takes one step of torch.nn's
layer in float64 or, for a cell of the zoo, of the plain loop.
"""

import plain_loop
import pytest
import torch
from against_torch import EVERY_KIND, TOLERANCE, build_pair, difference

import fastrnn

T, B, I, H = 11, 5, 3, 8
BEGINS = {
    "some": lambda: torch.rand(T, B) < 0.3,
    "the first step of some": lambda: (torch.arange(T)[:, None] == 0) & (torch.arange(B) < 3),
    "all": lambda: torch.ones(T, B, dtype=torch.bool),
}
EVERY_BEGIN = pytest.mark.parametrize("begins", BEGINS)


def leaf(*sizes):
    return torch.randn(*sizes, dtype=torch.float64, requires_grad=True)


def walked(step, x, states, begins, first=None):
    """(output, final states) of a loop. first: the states that episodes begin with, or zeros."""
    outputs = []
    for now, new in zip(x, begins.double()[..., None], strict=True):
        states = [s * (1 - new) for s in states]
        if first is not None:
            states = [s + f * new for s, f in zip(states, first, strict=True)]
        y, states = step(now[None], states)
        outputs.append(y[0])
    return torch.stack(outputs), *states


def with_gradients(outputs, leaves):
    """The outputs, and the gradients that a sum of them with uneven weights gives the leaves."""
    loss = sum((y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum() for y in outputs)
    return *(y.detach() for y in outputs), *torch.autograd.grad(loss, leaves)


def same(found, expected):
    assert len(found) == len(expected)
    errors = [difference(*pair) for pair in zip(found, expected, strict=True)]
    assert max(errors) <= TOLERANCE[torch.float64], errors


@EVERY_BEGIN
@EVERY_KIND
def test_is_init(kind, begins):
    """torchrl's modules: batch first, and is_init with a dimension of its own."""
    ours, theirs = build_pair(kind, I, H, num_layers=2, batch_first=True, dtype=torch.float64)
    x, states = leaf(B, T, I), [leaf(2, B, H) for _ in range(1 + (kind == "lstm"))]
    is_init = BEGINS[begins]().T.unsqueeze(-1)

    def step(x, states):
        y, new = theirs(x.transpose(0, 1), tuple(states) if kind == "lstm" else states[0])
        return y.transpose(0, 1), list(new) if kind == "lstm" else [new]

    y, *finals = walked(step, x.transpose(0, 1), states, is_init.squeeze(-1).T)
    expected = with_gradients([y.transpose(0, 1), *finals], (x, *states, *theirs.parameters()))
    hx = tuple(states) if kind == "lstm" else states[0]
    y, finals = ours(x, hx, resets=is_init.squeeze(-1))
    finals = finals if kind == "lstm" else [finals]
    same(with_gradients([y, *finals], (x, *states, *ours.parameters())), expected)


@EVERY_BEGIN
@pytest.mark.parametrize("learned", [False, True], ids=["zeros", "a learned state"])
def test_is_first(learned, begins):
    """DreamerV3's recurrent cell over replayed chunks; episodes may begin in a learned state."""
    gru = fastrnn.zoo.BlockGRU(I, H, heads=2, dtype=torch.float64)
    for parameter in gru.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    x, carried, begin = leaf(T, B, I), leaf(1, B, H), leaf(H)
    is_first, weights = BEGINS[begins](), dict(gru.named_parameters())
    leaves = x, carried, *([begin] if learned else []), *weights.values()

    def step(x, states):
        return plain_loop.run("BlockGRU", weights, x, states, 1, 1, [{}])

    def first():
        return begin.tanh().expand(1, B, H) if learned else None

    expected = walked(step, x, [carried], is_first, [first()] if learned else None)
    found = gru(x, carried, resets=is_first, reset_to=first())
    same(with_gradients(found, leaves), with_gradients(expected, leaves))


def test_acting_is_the_same_a_step_at_a_time():
    """What a policy sees while it acts is what it is trained on, to the bit."""
    lstm = fastrnn.LSTM(I, H, num_layers=2)
    x, begins = torch.randn(T, B, I), BEGINS["some"]()
    with torch.no_grad():
        state = torch.randn(2, B, H), torch.randn(2, B, H)
        y, end = lstm(x, state, resets=begins)
        for t in range(T):
            now, state = lstm(x[t : t + 1], state, resets=begins[t : t + 1])
            assert now[0].equal(y[t])
    assert all(map(torch.equal, state, end))
