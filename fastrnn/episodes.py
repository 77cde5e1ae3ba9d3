"""Policies that walk through their episodes step by step: all steps in one call of their LSTM.

A policy of sb3-contrib's RecurrentPPO has a static method ``_process_sequence``, which calls the
LSTM once for each step, since an episode may begin at any of them. With ``resets`` one call does.
The policy gets another function in its place, on the object alone: its class stays as it is. Such a
policy is known by what its method takes and what it does in an example, not by the name of a class.
"""

from functools import partial
from inspect import getattr_static, signature

import torch
from torch import nn

from . import backends
from .modules import LSTM

NAME = "_process_sequence"
TAKES = ["features", "lstm_states", "episode_starts", "lstm"]
WHAT = f"{NAME}({', '.join(TAKES)})"


def walks(module):
    """Whether ``module`` may be such a policy: it has an LSTM, and a method of that name."""
    return hasattr(type(module), NAME) and any(isinstance(c, nn.LSTM) for c in module.children())


def join(policy):
    """Let ``policy`` call its LSTM once for all steps. Why it cannot, else None."""
    theirs, mine = getattr(type(policy), NAME), vars(policy).get(NAME)
    if mine is not None:
        return "it is fastrnn's already" if _is_ours(mine) else f"its {NAME} was replaced"
    if not isinstance(getattr_static(type(policy), NAME), staticmethod):
        return f"its {NAME} is no static method"
    try:
        why = _difference(theirs)
    except Exception as error:  # whatever a function that only looks alike makes of our example
        why = f"its {NAME} does not take what {WHAT} takes: {error!r}"
    if why is None:
        vars(policy)[NAME] = partial(_in_one_call, theirs)
    return why


def part(policy):
    """Undo ``join``. Why there is nothing to undo, else None."""
    if not _is_ours(vars(policy).get(NAME)):
        return "its steps are its own already"
    del vars(policy)[NAME]
    return None


def _is_ours(function):
    return isinstance(function, partial) and function.func is _in_one_call


def _difference(theirs):
    """Why the function ``theirs`` is not the one that we know; None if it is."""
    takes = signature(theirs)
    if list(takes.parameters) != TAKES:
        return f"its {NAME} takes {takes}, not ({', '.join(TAKES)})"
    return None if _agrees(theirs) else f"its {NAME} does something else than the {WHAT} we know"


def _agrees(theirs):
    """Whether ``theirs`` finds what we do, in an example: 2 sequences of 3 steps, 3 of 6 begin."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        lstm = LSTM(2, 3, num_layers=2, device="cpu", dtype=torch.float64)
    with torch.no_grad(), backends.use("torch"):  # which has nothing to compile for it
        for number, weights in enumerate(lstm.parameters()):
            weights.copy_(_waves(number, *weights.shape))
        given = _waves(1, 6, 2), (_waves(2, 2, 2, 3), _waves(3, 2, 2, 3))
        starts = torch.tensor([1.0, 0, 0, 0, 1, 1], dtype=torch.float64)
        (y, (h, c)), (their_y, (their_h, their_c)) = (
            process(*given, starts, lstm) for process in (partial(_in_one_call, theirs), theirs)
        )
    pairs = (y, their_y), (h, their_h), (c, their_c)
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-10) for a, b in pairs)


def _waves(number, *shape):
    """Numbers that are the same in every run."""
    count = torch.Size(shape).numel()
    angles = torch.arange(count, dtype=torch.float64, device="cpu") * (1 + number)
    return angles.sin().view(shape)


def _in_one_call(theirs, features, lstm_states, episode_starts, lstm):
    """(outputs, states) as ``theirs`` returns them.

    features: rows (n * T, width), those of each of n sequences together.
    lstm_states: h and c that the sequences begin with, (layers, n, width) each.
    episode_starts: (n * T,) numbers, 0 where the state is carried on.
    """
    n = lstm_states[0].shape[1]
    if episode_starts.numel() == n or not _serves(lstm):
        return theirs(features, lstm_states, episode_starts, lstm)
    x = features.reshape(n, -1, lstm.input_size).transpose(0, 1)
    resets = (episode_starts != 0).view(n, -1).transpose(0, 1)
    y, states = lstm(x, tuple(lstm_states), resets=resets)
    return y.transpose(0, 1).flatten(0, 1), states


def _serves(lstm):
    """Whether one call of ``lstm`` comes to one of each step, and takes ``resets``."""
    ours = isinstance(lstm, LSTM) and type(lstm).forward is LSTM.forward
    return ours and not ("forward" in vars(lstm) or lstm.bidirectional or lstm.batch_first)
