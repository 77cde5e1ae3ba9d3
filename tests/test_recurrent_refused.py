"""A step that no kernel can run: it runs in plain PyTorch, and says so once; errors are its own."""

import re
import warnings

import pytest
import torch
from custom_cells import Sorted, assert_same, loop, make, plain_call, trained
from torch import nn

import fastrnn
from fastrnn import backends
from fastrnn import step as steps
from fastrnn.kernels.symbolic.refusals import Refused as RefusedStep

WORDS = r"Sorted\.step runs in plain PyTorch, step by step, which is slow: \.sort is no operation"
LINE = r"custom_cells\.py, line \d+: return torch\.tanh\(wx\[0\] \+ uh\[0\]\)\.sort\(-1\)\.values"


def test_a_step_that_no_kernel_can_run(monkeypatch):
    monkeypatch.setattr(steps, "_warned", set())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        module, x, hx, _ = make(Sorted, 5, 9, num_layers=2, bidirectional=True)
        assert_same(trained(plain_call, module, x, hx, {}), trained(loop, module, x, hx, {}))
        module.eval()(x)  # all is said
        Sorted(3, 4)(torch.zeros(1, 1, 3))
    (warning,) = told
    assert re.search(WORDS, str(warning.message))
    assert re.search(LINE, str(warning.message))
    assert warning.filename == plain_call.__code__.co_filename  # where it is called
    choice = backends.explain(module, x, hx)
    assert choice.name == "reference"
    assert "a step that no kernel can run: .sort" in choice.reason
    for engine in ("numba", "triton"):
        with backends.use(engine), pytest.raises(backends.Refused, match="no kernel can run"):
            module(x, hx)
    with backends.use("torch"):
        assert_same(module(x, hx), loop(module, x, hx))


def test_strict_refuses_it():
    with pytest.raises(RefusedStep, match=LINE):
        Sorted(5, 9, strict=True)(torch.zeros(6, 3, 5))


def test_tensors_of_a_module_are_not_taken_for_constants():
    """Their numbers may change, in place, and nobody would see it."""

    class Scaled(fastrnn.Recurrent):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.register_buffer("scale", torch.tensor(0.5))
            self.linear = nn.Linear(9, 9, dtype=torch.float64)

        def step(self, wx, uh, h):
            return torch.tanh(wx[0] + uh[0]) * self.scale + self.linear(h)

    module, x, hx, _ = make(Scaled, 5, 9)
    with pytest.warns(UserWarning, match=r"a ModuleTensor in the arithmetic of a step"):
        before = module(x, hx)
    module.scale.fill_(2.0)
    assert_same(module(x, hx), loop(module, x, hx))
    assert (module(x, hx)[0] - before[0]).abs().max() > 0.1


def test_errors_of_a_step_are_its_own():
    class Three(fastrnn.Recurrent):
        gates = 3

        def step(self, wx, uh, h):
            i, f, g, o = wx + uh
            return i + f + g + o

    with pytest.raises(ValueError, match=r"expected 4, got 3") as caught:
        Three(5, 9)(torch.zeros(6, 3, 5))
    (note,) = caught.value.__notes__
    assert note.startswith("Three.step (")
    assert "was read with 3 gates, which wx and uh have" in note


def test_a_gate_that_is_made_twice_names_the_step():
    class Twice(fastrnn.Recurrent):
        def step(self, wx, uh, h):
            return torch.tanh(uh(2 * h, 0) + uh(h, 0))

    with pytest.raises(TypeError, match="made twice") as caught:
        Twice(4, 5, strict=True)(torch.randn(3, 2, 4))
    line = Twice.step.__code__.co_firstlineno
    assert f"{__file__}, line {line}" in str(caught.value)
