"""A class and its step: what it may say, when it is read, what of it no kernel can run."""

import threading
import warnings

import pytest
import torch
from custom_cells import Peephole, Skip, assert_same, loop, make, plain_call, trained
from torch import nn

import fastrnn
from fastrnn import step as steps
from fastrnn.kernels.symbolic.symbol import Symbol


def cell(module):
    """What its step is now."""
    return steps.cell_of_module(module, module.training, module._edition)


class Leaky(fastrnn.Recurrent):
    """A step that reads attributes of its module."""

    def __init__(self, *sizes, leak=0.25, **options):
        super().__init__(*sizes, **options)
        self.leak = leak

    def step(self, wx, uh, h):
        new = torch.tanh(wx[0] + uh[0])
        return self.leak * h + (1 - self.leak) * (new if self.training else new * 0.5)


class Child(Peephole):
    """A subclass: its parameters, one of which it replaces, one it does without."""

    p_i, p_f, extra = None, fastrnn.Scalar(0.5), fastrnn.PerUnit(0.1)

    def step(self, wx, uh, h, c):
        i, f, g, o = wx + uh
        c = torch.sigmoid(f + self.p_f * c) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o + self.p_o * c) * torch.tanh(c) * self.extra, c


class Grandchild(Child):
    """Nothing of its own."""


def test_attributes_are_read_anew_when_they_are_set():
    module, x, hx, _ = make(Leaky, 5, 9)
    for module.leak in (0.25, 0.75):
        for training in (True, False, True):
            module.train(training)
            assert_same(module(x, hx), loop(module, x, hx))
    assert cell(module) is cell(module)
    before = cell(module)
    module.weight_ih_l0 = nn.Parameter(torch.zeros_like(module.weight_ih_l0))
    assert cell(module) is before


def test_modules_that_say_the_same_share_a_cell():
    assert cell(Leaky(5, 9)) is cell(Leaky(3, 2, 2)) is not cell(Leaky(3, 2, leak=0.5))


@pytest.mark.parametrize("cls", [Child, Grandchild])
def test_subclasses(cls, calls):
    assert list(cls.signature.own) == ["p_f", "p_o", "extra"]
    module, x, hx, _ = make(cls, 5, 9, num_layers=2)
    assert module.p_f_l1.shape == ()
    assert not hasattr(module, "p_i_l0")
    assert_same(trained(plain_call, module, x, hx, {}), trained(loop, module, x, hx, {}))
    assert calls == {"forward": 2, "backward": 2}


def test_two_classes_of_one_name():
    def made(sign):
        class Same(fastrnn.Recurrent):
            def step(self, wx, uh, h):
                return torch.tanh(wx[0] + sign * uh[0])

        return Same

    for cls in map(made, (1.0, -1.0, 1.0)):
        module, x, hx, _ = make(cls, 5, 9)
        assert_same(trained(plain_call, module, x, hx, {}), trained(loop, module, x, hx, {}))
    assert cell(made(1.0)(5, 9)) is cell(made(1.0)(3, 2)) is not cell(made(-1.0)(5, 9))


def test_threads_that_come_at_once_read_a_step_once():
    reads, start = [], threading.Barrier(6)

    class Counted(fastrnn.Recurrent):
        def step(self, wx, uh, h):
            if isinstance(h, Symbol):
                reads.append(threading.get_ident())
            return torch.tanh(wx[0] * 0.75 + uh[0])

    module, x, hx, _ = make(Counted, 5, 9)
    found = []

    def call():
        start.wait()
        found.append(module(x, hx))

    team = [threading.Thread(target=call) for _ in range(6)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert len(found) == 6
    assert len(set(reads)) == 1
    for each in found:
        assert_same(each, loop(module, x, hx))


class Few(Peephole):
    def step(self, wx, uh, h, c):
        return h


class FewInPlain(Few):
    def step(self, wx, uh, h, c):
        return h.sort(-1).values


class Wide(fastrnn.Recurrent):
    def step(self, wx, uh, h):
        return torch.cat([h, h], -1)


FEW = r"step \(.*\.py, line \d+\) returns 1 states; it has 2: h, c\. An output that is no state is"
SHAPE = r"Wide\.step \(.*\.py, line \d+\) returns an output of shape .*3, 18.*, not .*3, 9"
STEPS = {"few": (Few, FEW), "few, plain": (FewInPlain, FEW), "wide": (Wide, SHAPE)}


@pytest.mark.parametrize(("cls", "words"), STEPS.values(), ids=STEPS)
@pytest.mark.filterwarnings("ignore:.*runs in plain PyTorch")
def test_what_a_step_returns(cls, words):
    with pytest.raises(ValueError, match=words):
        cls(5, 9)(torch.zeros(6, 3, 5))


def one(self, wx, uh, h):
    return h


def rest(self, wx, *others):
    return wx[0]


CLASSES = {
    "no gates": ({"gates": 0, "step": one}, r"Bad\.gates should be a number from 1 to 8, not 0"),
    "many gates": ({"gates": 9, "step": one}, r"Bad\.gates should be a number from 1 to 8, not 9"),
    "no states": ({"states": (), "step": one}, r"Bad\.states should be names, each once"),
    "a state twice": ({"states": ("h", "h"), "step": one}, r"Bad\.states should be names"),
    "wx as a state": ({"states": ("wx",), "step": one}, r"Bad\.states should be names"),
    "a state missing": ({"states": ("h", "c"), "step": one}, r"Bad\.step \(.*\) should take c"),
    "others": ({"step": rest}, r"Bad\.step \(.*\) should name all that it takes"),
    "hx": ({"step": lambda self, wx, h, hx: h}, "cannot be called hx"),
    "a weight": ({"step": one, "bias_ih": fastrnn.PerUnit()}, "a parameter cannot be called"),
}


@pytest.mark.parametrize(("body", "words"), CLASSES.values(), ids=CLASSES)
def test_classes_that_cannot_be(body, words):
    with pytest.raises(TypeError, match=words):
        type("Bad", (fastrnn.Recurrent,), body)


ARGUMENTS = {
    "hidden_size": ((5, 0), {}), "input_size": ((0, 5), {}), "num_layers": ((5, 9, 0), {}),
    "heads": ((5, 9), {"heads": 2.0}), "dropout": ((5, 9), {"dropout": 1.5}),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_cannot_be(name):
    sizes, options = ARGUMENTS[name]
    with pytest.raises(ValueError, match=f"Peephole: {name} should be a"):
        Peephole(*sizes, **options)


def test_no_step_and_no_parameter():
    with pytest.raises(TypeError, match="Recurrent has no step"):
        fastrnn.Recurrent(5, 9)
    with pytest.raises(TypeError, match="init should be a number or a function, not 'ones'"):
        fastrnn.PerUnit("ones")


def test_a_parameter_of_another_shape():
    module, x, hx, inputs = make(Skip, 5, 9)
    for name, shape in (("v_l0", (9,)), ("weight_ih_l0", (18, 5)), ("scale_l0", ())):
        good = getattr(module, name)
        setattr(module, name, nn.Parameter(torch.zeros(8, 1)))
        words = rf"Skip\.{name} should be of shape {shape}, not (8, 1)"
        with pytest.raises(RuntimeError) as caught:
            module(x, hx, **inputs)
        assert str(caught.value) == words.replace("\\", "")
        setattr(module, name, good)
    with warnings.catch_warnings(action="error"):
        module(x, hx, **inputs)


class InPlace(fastrnn.Recurrent):
    """What is changed is changed under all of its names, as tensors are."""

    gates = 2

    def step(self, wx, uh, h):
        a, b = 1.0 * wx[0], 1.0 * uh[1]
        same, old = a, b
        a += uh[0]
        b *= h
        b /= 2.0
        return torch.tanh(a) * same + torch.tanh(wx[1]) - old


def test_what_is_changed_in_place():
    module, *given = make(InPlace, 5, 9)
    assert_same(trained(plain_call, module, *given), trained(loop, module, *given))
