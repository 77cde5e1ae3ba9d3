"""What a step may not do: each refusal names it, the file, the line and its text."""

import linecache
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastrnn
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.refusals import Refused

OUTSIDE, LAST = torch.ones(3), []


def changed(x):
    x[0] = 1.0


# By what the message says first: steps of two values, as lambdas of one line each.
REFUSED = {
    "`if`, `and`, `or` or `not` on a value": [
        lambda x, h: x if x > 0 else h,
        lambda x, h: x and h,
        lambda x, h: not x,
        lambda x, h: max(x, h),
    ],
    "a value cannot become a number": [
        lambda x, h: x.item(),
        lambda x, h: float(x),
        lambda x, h: int(x),
        lambda x, h: math.exp(x),
        lambda x, h: [1, 2][x],
        lambda x, h: x.tolist(),
    ],
    "a value is one number of a unit: it has no parts": [
        lambda x, h: x[0],
        lambda x, h: x[:, 0],
        lambda x, h: list(x),
        lambda x, h: len(x),
        lambda x, h: sum(x),
        lambda x, h: 1 in x,
    ],
    "a value cannot be changed": [lambda x, h: changed(x)],
    ".add_ is no operation": [lambda x, h: x.add_(1)],
    ".relu_ is no operation": [lambda x, h: x.relu_()],
    ".shape is no operation": [lambda x, h: x * x.shape[0]],
    ".size is no operation": [lambda x, h: x.size()],
    ".to is no operation": [lambda x, h: h.to("cpu")],
    ".dtype is no operation": [lambda x, h: torch.zeros(3, dtype=x.dtype)],
    ".detach is no operation": [lambda x, h: x.detach()],
    "torch's sigmoid_ is no operation": [lambda x, h: torch.sigmoid_(x)],
    "torch's sin is no operation": [lambda x, h: torch.sin(x)],
    "torch's cat is no operation": [lambda x, h: torch.cat([x, h])],
    "torch's stack is no operation": [lambda x, h: torch.stack((x, h))],
    "torch's softmax is no operation": [lambda x, h: F.softmax(x, -1)],
    "torch's dropout is no operation": [lambda x, h: F.dropout(x, 0.5)],
    "torch's linear is no operation": [lambda x, h: nn.Linear(2, 2)(x)],
    "torch's matmul is no operation": [lambda x, h: torch.matmul(x, h)],
    "torch's rand_like is no operation": [lambda x, h: torch.rand_like(x)],
    "torch's where is no operation|where with these arguments": [lambda x, h: torch.where(x > 0)],
    "inplace=True": [
        lambda x, h: F.relu(x, inplace=True),
        lambda x, h: F.relu(x, True),
        lambda x, h: F.leaky_relu(x, 0.1, True),
        lambda x, h: nn.ELU(inplace=True)(x),
    ],
    "with these arguments is no operation": [
        lambda x, h: torch.sigmoid(x, out=OUTSIDE),
        lambda x, h: torch.add(x, h, out=OUTSIDE),
        lambda x, h: torch.zeros_like(x, dtype=torch.float64),
        lambda x, h: torch.mul(x, h, out=OUTSIDE),
        lambda x, h: torch.div(x, h, rounding_mode="floor"),
        lambda x, h: x.sigmoid(1),
        lambda x, h: x.clamp(0, 1, 2),
        lambda x, h: torch.max(x),
    ],
    "a Tensor in the arithmetic of a step": [
        lambda x, h: x + OUTSIDE,
        lambda x, h: OUTSIDE * x,
        lambda x, h: torch.maximum(x, OUTSIDE),
        lambda x, h: torch.where(x > 0, OUTSIDE, x),
    ],
    "a Parameter in the arithmetic": [lambda x, h: x * nn.Parameter(torch.ones(()))],
    "a str in the arithmetic": [lambda x, h: x + "1"],
    "a NoneType in the arithmetic": [lambda x, h: x == None],  # noqa: E711
    "a ndarray in the arithmetic": [lambda x, h: x * np.ones(3)],
    "a complex in the arithmetic": [lambda x, h: x + 1j],
    "a power whose exponent": [
        lambda x, h: x**h,
        lambda x, h: 2**x,
        lambda x, h: torch.pow(2, x),
        lambda x, h: torch.tensor(2.0) ** x,
    ],
    "a power of 2.5": [lambda x, h: x**2.5],
    "a power of 7": [lambda x, h: torch.pow(x, 7)],
    "% and // are no": [lambda x, h: x % 2, lambda x, h: 1 // x],
    r"\^ is no": [lambda x, h: (x > 0) ^ (h > 0)],
    "a product with a matrix": [lambda x, h: x @ h],
    "add takes a value": [lambda x, h: (x > 0) + (h > 0), lambda x, h: 1 + (h > 0)],
    "sub takes a value": [lambda x, h: 1 - (h > 0), lambda x, h: x - (h > 0)],
    "mul takes a value": [lambda x, h: (x > 0) * 2.0],
    "neg takes a value": [lambda x, h: -(x > 0)],
    "sigmoid takes a value": [lambda x, h: torch.sigmoid(x > 0)],
    "eq takes a value": [lambda x, h: (x > 0) == (h > 0)],
    "where takes a condition": [
        lambda x, h: torch.where(x, h, x),
        lambda x, h: h.where(x, 0.0),
    ],
    "where takes a value": [lambda x, h: torch.where(x > 0, h > 0, x)],
    "and takes a condition": [lambda x, h: x & h, lambda x, h: torch.logical_and(x, h > 0)],
    "or takes a condition": [lambda x, h: (x > 0) | True],
    "not takes a condition": [lambda x, h: ~x],
    ".float": [lambda x, h: x.float()],
    "a mean that is not over all": [lambda x, h: x.mean(), lambda x, h: torch.mean(x, 0)],
    "a value of another step": [lambda x, h: x + another()],
    "TypeError: ": [
        lambda x, h: torch.where(True, h, x),
        lambda x, h: np.tanh(x), lambda x, h: f"{x:.2f}", lambda x, h: (x, h) + 1],
    "AttributeError: ": [lambda x, h: torch.does_not_exist(x)],
}  # fmt: skip
CASES = [
    pytest.param(what, step, id=f"{what[:24]}-{number}")
    for what, steps in REFUSED.items()
    for number, step in enumerate(steps)
]


def another():
    """A value of a step that is over."""

    def step(wx, uh, states, own, inputs):
        LAST.append(wx[0])
        return states

    _ = Cell("another", step, gates=1, states=1).traced
    return LAST.pop()


def traced(function):
    def step(wx, uh, states, own, inputs):
        return (function(wx[0], states[0]),)

    return Cell("refused", step, gates=1, states=1).traced


@pytest.mark.parametrize(("what", "step"), CASES)
def test_what_is_refused(what, step):
    with pytest.raises(Refused, match=what) as caught:
        traced(step)
    line = step.__code__.co_firstlineno
    if "changed" in step.__code__.co_names:  # where it is done, not where that is called
        line = changed.__code__.co_firstlineno + 1
    text = linecache.getline(__file__, line).strip()
    assert str(caught.value).endswith(f"\n  {__file__}, line {line}: {text}")


RETURNED = {
    "2 states, not 1": lambda x, h: (h, h),
    "0 states": lambda x, h: (),
    "a condition, no value": lambda x, h: (x < h,),
    "a list, no value": lambda x, h: [h],
    "a NoneType, no value": lambda x, h: None,
    "a Tensor, no value": lambda x, h: (OUTSIDE,),
    "a tuple, no value": lambda x, h: (h, ((h, h),)),
}


@pytest.mark.parametrize(("what", "step"), RETURNED.items(), ids=RETURNED)
def test_what_a_step_returns(what, step):
    """The message says where the step begins."""

    def whole(wx, uh, states, own, inputs):
        return step(wx[0], *states)

    with pytest.raises(Refused, match=f"^cell returns {what}") as caught:
        _ = Cell("cell", whole, gates=1, states=1).traced
    assert f"{__file__}, line {whole.__code__.co_firstlineno}: def whole" in str(caught.value)


def test_a_limit_that_is_a_value():
    with pytest.raises(ValueError, match="limit should be a number above zero"):
        traced(lambda x, h: fastrnn.clip_gradient(x, h))


def test_gates_that_do_not_fit():
    def step(wx, uh, states, own, inputs):
        return (sum(wx + uh),)

    with pytest.raises(Refused, match="3 gates and 0 cannot be computed with together") as caught:
        _ = Cell("cell", step, gates=3, states=1, recurrent=False).traced
    assert str(caught.value).endswith("return (sum(wx + uh),)")


def test_errors_of_the_steps_own():
    """What a step itself raises is no refusal."""
    with pytest.raises(ZeroDivisionError):
        traced(lambda x, h: 1 / 0)


NUMBERS = {
    "int": 2, "float": 2.0, "float32": np.float32(2), "float64": np.float64(2),
    "int64": np.int64(2), "tensor": torch.tensor(2.0), "tensor of whole numbers": torch.tensor(2),
}  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_all_kinds(number):
    """Left and right of a value they are what they are with a tensor."""

    def function(x):
        yield from (number + x, x + number, number - x, x - number, number * x, number / x)
        yield from (torch.where(number < x, x, number), torch.where(x >= number, number, x))
        yield torch.where(number == x, x, 0.0)

    def step(wx, uh, states, own, inputs):
        return sum(function(wx[0])), states

    x, h = torch.tensor([[1.0, 2.0, -3.0]]).double(), torch.zeros(1, 3).double()
    cell = Cell("numbers", step, gates=1, states=1)
    torch.testing.assert_close(cell.forward([x], [x], [h], [], [])[0], sum(function(x)))


def test_a_name_that_is_bound_anew():
    """``c += x`` makes another value, as ``c = c + x`` does."""

    def step(wx, uh, states, own, inputs):
        (c,) = states
        c += wx[0]
        c *= 2
        return (c,)

    x, c = torch.randn(2, 1, 3).double()
    _, (new,), _ = Cell("cell", step, gates=1, states=1).forward([x], [x], [c], [], [])
    assert new.equal((c + x) * 2)
