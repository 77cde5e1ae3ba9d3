"""The modules are torch's own in everything but speed: names, weights, copies, files, hooks."""

import copy
import io
import pickle

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    TOLERANCE,
    build,
    build_pair,
    compare,
    difference,
    make_inputs,
    plain_call,
    twins,
)
from torch import nn

import fastrnn

BIG = {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.2}


@EVERY_KIND
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": True},
        {"cell": True, "bias": False},
        BIG,
        {"bias": False, "dtype": torch.float64},
    ],
    ids=str,
)
def test_is_torchs_module(kind, options):
    """Same class tree, names, shapes, initial weights, text and defaults as torch's."""
    ours, theirs = build_pair(kind, 5, 17, **options)
    assert isinstance(ours, type(theirs))
    assert type(ours).__name__ == type(theirs).__name__
    assert repr(ours) == repr(theirs)
    assert type(ours).__doc__.startswith(type(theirs).__doc__)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].equal(value), name
        assert found[name].dtype == value.dtype
    for name in theirs.__constants__:
        assert getattr(ours, name) == getattr(theirs, name)


def test_projected_lstm_is_torchs():
    ours, theirs = build_pair("lstm", 5, 17, proj_size=4, bidirectional=True)
    assert repr(ours) == repr(theirs)
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    assert all(a[0] == b[0] and a[1].equal(b[1]) for a, b in pairs)


def by_pickle(module):
    return pickle.loads(pickle.dumps(module))


def by_file(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_state(module):
    """Into a new module, by way of a file of weights alone."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    rnn = {"nonlinearity": module.nonlinearity} if hasattr(module, "nonlinearity") else {}
    new = type(module)(module.input_size, module.hidden_size, **rnn)
    new.load_state_dict(torch.load(file, weights_only=True))
    return new


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, by_pickle, by_file, by_state])
def test_copies(kind, cell, copied, calls):
    """A copy computes, trains, and does not share what a deep copy should not share."""
    ours, theirs = twins(kind, 5, 17, cell=cell)
    inputs = make_inputs(ours, 4, 3)
    compare(ours, theirs, inputs)
    new = copied(ours)
    assert type(new) is type(ours)
    if copied is not copy.copy:
        for weight in ours.parameters():
            weight.data.fill_(torch.nan)
    calls.clear()
    compare(new, theirs, inputs)
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@CELL_OR_LAYER
def test_weights_of_torchs(kind, cell):
    """A checkpoint of torch's into ours, strictly; ``twins`` goes the other way all the time."""
    ours, theirs = (build(library, kind, 5, 17, cell=cell) for library in (fastrnn, nn))
    ours.load_state_dict(theirs.state_dict())
    compare(ours, theirs.double(), make_inputs(ours, 4, 3))


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("move", ["double", "half", "bfloat16", "to", "share_memory"])
def test_moved(kind, cell, move):
    """The weights after .to() and its kin are the ones that are used."""
    ours, theirs = twins(kind, 5, 17, cell=cell)
    plain_call(ours, *make_inputs(ours, 4, 3).values())
    ours = ours.to(torch.float64) if move == "to" else getattr(ours, move)()
    theirs.load_state_dict(ours.state_dict())
    compare(ours, theirs, make_inputs(ours, 4, 3))


@EVERY_KIND
def test_float_there_and_back(kind, calls):
    ours, theirs = twins(kind, 5, 17, num_layers=2)
    ours.double().float()
    compare(ours, theirs, make_inputs(ours, 4, 3))
    assert calls == {"forward": 4, "backward": 2}


@EVERY_KIND
def test_hooks_run(kind):
    ours, _ = twins(kind, 5, 17)
    seen = []
    ours.register_forward_hook(lambda module, args, result: seen.append("forward"))
    ours.register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    ours.weight_hh_l0.register_hook(lambda gradient: seen.append("weight"))
    ours(torch.randn(4, 3, 5, requires_grad=True))[0].sum().backward()
    assert sorted(seen) == ["backward", "forward", "weight"]


@EVERY_KIND
@CELL_OR_LAYER
def test_functional_call(kind, cell):
    ours, theirs = twins(kind, 5, 17, cell=cell)
    weights = {name: torch.randn_like(w) for name, w in ours.named_parameters()}
    theirs.load_state_dict(weights)

    def called(*args):
        return torch.func.functional_call(ours, weights, args)

    inputs = make_inputs(ours, 4, 3)
    with torch.no_grad():
        found = plain_call(called, *inputs.values())
    expected = plain_call(theirs, *(value.double() for value in inputs.values()))
    leaves = torch.utils._pytree.tree_leaves
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        assert difference(a, b.detach()) <= TOLERANCE[torch.float32]
