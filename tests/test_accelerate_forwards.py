"""``accelerate`` of users' classes that do more than derive: a forward, a reduction, a registry."""

import copy
import functools
import pickle

import pytest
import torch
from against_torch import compare, make_inputs, truth
from test_modules import by_file, by_pickle
from torch import nn

import fastrnn


class Doubling(nn.LSTM):
    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


class Halving:
    """A class to be mixed in."""

    def forward(self, x, hx=None):
        return super().forward(x / 2, hx)


class Mixed(Halving, nn.GRU):
    pass


class Both(Doubling):
    def forward(self, x, hx=None):
        return super().forward(x / 4, hx)


class Roundabout(nn.RNN):
    """By way of a method, and of a function within it."""

    def forward(self, x, hx=None):
        return self.run(x, hx)

    def run(self, x, hx):
        def last(y):
            return super(Roundabout, self).forward(y, hx)

        return last(2 * x)


def noted(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Decorated(nn.LSTM):
    @noted
    def forward(self, x, hx=None):
        return super().forward(x, hx)


class CellOf(nn.GRUCell):
    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


class ByName(nn.LSTM):
    def forward(self, x, hx=None):
        return nn.LSTM.forward(self, x, hx)


class OnByName(ByName):
    """Comes to another's forward, and with that no further."""

    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


@pytest.mark.parametrize("made", [Doubling, Mixed, Both, Roundabout, Decorated, CellOf])
def test_a_forward_that_calls_super(made, calls):
    module = made(5, 7)
    theirs = truth(module, made(5, 7).double())
    assert fastrnn.accelerate(module).changed == {"": made.__name__}
    compare(module, theirs, make_inputs(module, 4, 3))
    assert calls == {"forward": 2, "backward": 1}
    assert type(by_pickle(module)) is type(module)
    fastrnn.restore(module)
    assert type(module) is made


def test_a_forward_that_calls_super_of_a_parametrised_module(calls):
    module = Doubling(5, 7)
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    theirs = copy.deepcopy(module).double()
    fastrnn.accelerate(module)
    compare(module, theirs, make_inputs(module, 4, 3))
    assert calls == {"forward": 2, "backward": 1}


@pytest.mark.parametrize("made", [ByName, OnByName])
def test_a_forward_that_does_not(made):
    module = made(5, 7)
    why = "ByName has a forward of its own that never calls super().forward"
    assert fastrnn.accelerate(module).left == {"": why}
    assert type(module) is made


KNOWN = {}


class Known(nn.LSTM):
    """A class that is told of its subclasses, and wants to hear a key."""

    def __init_subclass__(cls, *, key, **kwargs):
        super().__init_subclass__(**kwargs)
        KNOWN[key] = cls


class KnownByKey(Known, key="here"):
    pass


class Listing(type):
    """A metaclass that keeps a list."""

    def __init__(cls, name, bases, body):
        super().__init__(name, bases, body)
        KNOWN[name] = cls


class Listed(nn.GRU, metaclass=Listing):
    pass


class Sealed(nn.LSTM):
    """One that lets nobody see its class made into another."""

    def __setattr__(self, name, value):
        if name == "__class__":
            raise RuntimeError("sealed")
        super().__setattr__(name, value)


def test_classes_that_keep_account_of_classes(calls):
    """No account has a class of ours afterwards; what would get into one is left, and says so."""
    model = nn.ModuleDict(
        {"known": KnownByKey(5, 7), "listed": Listed(5, 7), "sealed": Sealed(5, 7)}
    )
    before = dict(KNOWN)
    done = fastrnn.accelerate(model)
    assert done.changed == {"known": "KnownByKey", "sealed": "Sealed"}
    assert done.left == {"listed": "its metaclass Listing may keep account of classes"}
    assert before == KNOWN
    new = by_pickle(model)
    assert [type(m) for m in new.values()] == [type(m) for m in model.values()]
    theirs = truth(new["known"], KnownByKey(5, 7).double())
    compare(new["known"], theirs, make_inputs(new["known"], 4, 3))
    assert calls == {"forward": 2, "backward": 1}
    fastrnn.restore(model)
    assert [type(m) for m in model.values()] == [KnownByKey, Listed, Sealed]


def test_a_class_that_cannot_be_made_leaves_nothing_half_done(monkeypatch):
    """The modules before it and after it change all the same."""
    from fastrnn import conversion

    def refusing(cls):
        if cls is Doubling:
            raise ValueError("not this one")
        return conversion.TWINS[cls]

    monkeypatch.setattr(conversion, "accelerated", refusing)
    model = nn.Sequential(nn.LSTM(3, 4), Doubling(4, 4), nn.GRU(4, 4))
    done = fastrnn.accelerate(model)
    assert done.changed == {"0": "LSTM", "2": "GRU"}
    assert done.left == {"1": "no class can be made of Doubling: ValueError('not this one')"}
    assert [type(m) for m in model] == [fastrnn.LSTM, Doubling, fastrnn.GRU]


class Rebuilding(nn.LSTM):
    """Pickled as a call and its arguments, and a note of its own."""

    def __reduce__(self):
        return Rebuilding.anew, (self.input_size, self.hidden_size), self.__getstate__()

    @staticmethod
    def anew(*sizes):
        new = Rebuilding(*sizes)
        new.made_by = "anew"
        return new


class ByItsType(nn.GRU):
    def __reduce_ex__(self, protocol):
        return type(self), (self.input_size, self.hidden_size), self.__getstate__()


@pytest.mark.parametrize("made", [Rebuilding, ByItsType])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle, by_file])
def test_a_reduction_of_its_own(made, copied, calls):
    module = made(5, 7)
    theirs = truth(module, made(5, 7).double())
    fastrnn.accelerate(module)
    new = copied(module)
    assert type(new) is type(module)
    assert hasattr(new, "made_by") == (made is Rebuilding)
    compare(new, theirs, make_inputs(new, 4, 3))
    assert calls == {"forward": 2, "backward": 1}
    fastrnn.restore(new)
    assert type(new) is made


def test_every_protocol():
    module = Rebuilding(3, 4)
    fastrnn.accelerate(module)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert type(pickle.loads(pickle.dumps(module, protocol))) is type(module)


class Recomputing(nn.LSTM):
    """One to whom ``recompute`` means something else."""

    def recompute(self):
        return "what the user meant"


def test_recompute_stays_the_users():
    module, other = Recomputing(5, 7), nn.GRU(5, 7)
    other.recompute = "here, too"
    texts = repr(module), repr(other)
    for m in (module, other):
        expected = m(torch.ones(4, 3, 5))[0]
        fastrnn.accelerate(m)
        torch.testing.assert_close(m(torch.ones(4, 3, 5))[0], expected)
    assert (repr(module), repr(other)) == texts
    assert module.recompute() == "what the user meant"
    assert type(module)(5, 7).recompute() == "what the user meant"
    assert other.recompute == "here, too"
