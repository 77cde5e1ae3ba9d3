"""Policies that walk through episodes step by step: one call of their LSTM, with the same results.

The policy here has what one of sb3-contrib's RecurrentPPO has: a static method that calls the LSTM
once for each step, with the state multiplied by zero where an episode begins.
"""

import copy
import pickle

import pytest
import torch
from torch import nn

import fastrnn

N, T = 4, 7
STARTS = {
    "none": lambda: torch.zeros(N, T),
    "the first step": lambda: (torch.arange(T) == 0).expand(N, T),
    "some": lambda: torch.rand(N, T) < 0.3,
    "all": lambda: torch.ones(N, T),
}


class Policy(nn.Module):
    def __init__(self, lstm=nn.LSTM, **options):
        super().__init__()
        self.actor = lstm(3, 5, **options)
        self.head = nn.Linear(2, 2)

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        n = lstm_states[0].shape[1]
        outputs = []
        for x, begins in zip(
            features.unflatten(0, (n, -1)).unbind(1), episode_starts.view(n, -1).T, strict=True
        ):
            h, c = (s * (1.0 - begins).unsqueeze(1) for s in lstm_states)
            y, lstm_states = lstm(x.unsqueeze(0), (h, c))
            outputs.append(y[0])
        return torch.stack(outputs, 1).flatten(0, 1), lstm_states


def example(lstm, starts="some", steps=T, n=N):
    """(features, states, starts) as the policy takes them."""
    D = lstm.num_layers * (1 + lstm.bidirectional)
    h = torch.randn(D, n, lstm.proj_size or 5, dtype=torch.float64, requires_grad=True)
    c = torch.randn(D, n, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(n * steps, 3, dtype=torch.float64, requires_grad=True)
    return x, (h, c), STARTS[starts]()[:n, :steps].double().flatten()


def results(policy, x, states, starts):
    """Output, final states and the gradients of all that has one."""
    y, (h, c) = policy._process_sequence(x, states, starts, policy.actor)
    loss = sum((one * torch.linspace(-1, 2, one.numel()).view_as(one)).sum() for one in (y, h, c))
    return y, h, c, *torch.autograd.grad(loss, (x, *states, *policy.actor.parameters()))


@pytest.mark.parametrize("starts", STARTS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"proj_size": 2}], ids=str)
def test_one_call_finds_what_the_steps_find(starts, options, calls):
    policy = Policy(**options).double()
    given = example(policy.actor, starts)
    expected = results(policy, *given)
    report = fastrnn.accelerate(policy)
    assert report.changed == {"": "Policy", "actor": "LSTM"}
    calls.clear()
    torch.testing.assert_close(results(policy, *given), expected, rtol=0, atol=1e-12)
    assert calls["forward"] == policy.actor.num_layers


def test_restored():
    policy = Policy()
    before = set(vars(policy))
    fastrnn.accelerate(policy)
    assert fastrnn.accelerate(policy).left[""] == "it is fastrnn's already"
    assert fastrnn.restore(policy).changed == {"": "Policy", "actor": "LSTM"}
    assert set(vars(policy)) == before
    assert policy._process_sequence is Policy._process_sequence
    assert fastrnn.restore(policy).left[""] == "its steps are its own already"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copied_and_pickled(again, calls):
    policy = nn.ModuleDict({"policy": Policy().double()})
    keys = policy.state_dict().keys()
    fastrnn.accelerate(policy)
    assert policy.state_dict().keys() == keys
    copied = again(policy)["policy"]
    x, states, starts = example(copied.actor)
    calls.clear()
    copied._process_sequence(x, states, starts, copied.actor)
    assert calls["forward"] == 1
    assert fastrnn.restore(copied).changed == {"": "Policy", "actor": "LSTM"}


class OwnForward(nn.LSTM):
    def forward(self, x, hx=None):
        y, states = super().forward(x, hx)
        return y + 1, states


@pytest.mark.parametrize(
    ("lstm", "options", "n"),
    [
        (OwnForward, {}, N),
        (nn.LSTM, {"bidirectional": True}, N),
        (nn.LSTM, {"batch_first": True}, 1),  # a step of one sequence is the same either way
    ],
    ids=str,
)
def test_an_lstm_whose_steps_are_no_whole_goes_step_by_step(lstm, options, n):
    policy = Policy(lstm, **options).double()
    given = example(policy.actor, n=n)
    expected = results(policy, *given)
    assert "" in fastrnn.accelerate(policy).changed
    torch.testing.assert_close(results(policy, *given), expected, rtol=0, atol=1e-12)


def test_a_single_step_goes_the_policys_own_way():
    """As while a rollout is collected: there is nothing to gain there."""
    policy, seen = Policy().double(), []
    fastrnn.accelerate(policy)
    policy.actor.register_forward_pre_hook(
        lambda module, args, options: seen.append((len(args[0]), list(options))), with_kwargs=True
    )
    for steps in (1, T):
        policy._process_sequence(*example(policy.actor, "all", steps), policy.actor)
    assert seen == [(1, []), (T, ["resets"])]


class OtherNames(Policy):
    @staticmethod
    def _process_sequence(features, states, starts, lstm):
        raise AssertionError("nobody should call it")


class NotStatic(Policy):
    def _process_sequence(self, features, lstm_states, episode_starts, lstm):
        raise AssertionError("nobody should call it")


class Normalised(Policy):
    """It has the names, and does more."""

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        y, states = Policy._process_sequence(features, lstm_states, episode_starts, lstm)
        return nn.functional.layer_norm(y, y.shape[-1:]), states


class StartsLate(Policy):
    """An episode that begins at a step forgets only after it."""

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        late = episode_starts.view(lstm_states[0].shape[1], -1).roll(1, 1).flatten()
        return Policy._process_sequence(features, lstm_states, late, lstm)


class WantsAList(Policy):
    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        return Policy._process_sequence(*features, lstm_states, episode_starts, lstm)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (OtherNames, "takes (features, states, starts, lstm), not (features, lstm_states,"),
        (NotStatic, "is no static method"),
        (Normalised, "does something else"),
        (StartsLate, "does something else"),
        (WantsAList, "does not take what"),
    ],
)
def test_another_method_of_that_name_is_left(made, why):
    policy = nn.Sequential(made())
    report = fastrnn.accelerate(policy)
    assert report.changed == {"0.actor": "LSTM"}
    assert why in report.left["0"]
    assert policy[0]._process_sequence.__qualname__ == made._process_sequence.__qualname__


def test_a_method_that_was_replaced_is_left():
    policy = Policy()
    policy._process_sequence = OtherNames._process_sequence
    assert fastrnn.accelerate(policy).left[""] == "its _process_sequence was replaced"
    fastrnn.restore(policy)
    assert policy._process_sequence is OtherNames._process_sequence


def test_random_numbers_stay_as_they_would_have_been():
    state = torch.random.get_rng_state()
    policy = Policy()
    after = torch.random.get_rng_state()
    assert not torch.equal(state, after)
    fastrnn.accelerate(policy)
    assert torch.equal(torch.random.get_rng_state(), after)
