"""``accelerate`` and ``restore`` of modules whose class is not torch.nn's: a user's, or made."""

import abc
import copy
import gc
import pickle
import weakref

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, build, compare, make_inputs, truth
from test_modules import by_file, by_pickle
from test_weights import REPARAMETRISED
from torch import nn

import fastrnn


class Derived(nn.LSTM):
    """A user's class with an initialisation, and no forward, of its own."""

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.zeros_(self.bias_hh_l0)


class Registered(nn.GRU, abc.ABC):
    """One whose class has a metaclass."""


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("first", ["accelerated", "reparametrised"])
@pytest.mark.parametrize("change", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_reparametrised(kind, cell, change, first, calls):
    """Either order; a parametrised module has a class of its own, made by torch."""
    modules = []
    for accelerated in (True, False):
        torch.manual_seed(2)
        module = build(nn, kind, 5, 17, cell=cell, dtype=torch.float64)
        if accelerated and first == "accelerated":
            fastrnn.accelerate(module)
        change(module, "weight_hh" if cell else "weight_hh_l0")
        modules.append(module.eval())
    ours, theirs = modules
    name = type(ours).__name__
    if first == "reparametrised":
        assert fastrnn.accelerate(ours).changed == {"": name}
    assert type(ours).__name__ == name
    compare(ours, theirs, make_inputs(ours, 4, 3))
    assert calls == {"forward": 2, "backward": 1}
    fastrnn.restore(ours)
    assert type(ours).__name__ == name
    calls.clear()
    compare(ours, theirs, make_inputs(ours, 4, 3))
    assert not calls


def test_a_copy_that_shares_the_class_is_no_part_of_it():
    lstm = nn.LSTM(5, 7)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    other = copy.deepcopy(lstm)
    assert type(other) is type(lstm)
    fastrnn.accelerate(lstm)
    assert isinstance(lstm, fastrnn.LSTM)
    assert not isinstance(other, fastrnn.LSTM)


def test_parametrisation_removed_afterwards():
    lstm = nn.LSTM(5, 7)
    nn.utils.parametrizations.orthogonal(lstm, "weight_hh_l0")
    nn.utils.parametrizations.weight_norm(lstm, "weight_ih_l0")
    fastrnn.accelerate(lstm)
    for name in ("weight_hh_l0", "weight_ih_l0"):
        nn.utils.parametrize.remove_parametrizations(lstm, name)
    assert type(lstm) is fastrnn.LSTM
    compare(lstm, truth(lstm, nn.LSTM(5, 7).double()), make_inputs(lstm, 4, 3))


@pytest.mark.parametrize("made", [Derived, Registered])
def test_a_subclass_without_forward(made, calls):
    module = made(5, 7, batch_first=True)
    theirs = truth(module, made(5, 7, batch_first=True).double())
    text = repr(module)
    assert fastrnn.accelerate(module).changed == {"": made.__name__}
    assert isinstance(module, made)
    assert repr(module) == text
    for copied in (copy.copy, copy.deepcopy, by_pickle, by_file):
        calls.clear()
        new = copied(module)
        assert type(new) is type(module)
        compare(new, theirs, make_inputs(module, 4, 3))
        assert calls == {"forward": 2, "backward": 1}
    fastrnn.restore(module)
    assert type(module) is made
    assert type(by_pickle(module)) is made


def test_a_subclass_parametrised():
    module = Derived(5, 7)
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    fastrnn.accelerate(module)
    assert isinstance(module, (Derived, fastrnn.LSTM))
    nn.utils.parametrize.remove_parametrizations(module, "weight_hh_l0")
    fastrnn.restore(module)
    assert type(module) is Derived


def test_a_pickle_of_a_restored_model_needs_torch_alone():
    model = nn.Sequential(nn.LSTM(3, 4), Derived(4, 4), nn.GRUCell(4, 4))
    fastrnn.accelerate(model)
    assert b"fastrnn" in pickle.dumps(model)
    fastrnn.restore(model)
    assert b"fastrnn" not in pickle.dumps(model)


def test_no_module_is_kept_alive():
    module = Derived(3, 4)
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    fastrnn.accelerate(module)
    fastrnn.restore(module)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
