"""torch's functions on symbols: their values and derivatives are torch's, at special points too."""

import pytest
import torch
from derived import by_autograd, by_derivation, cell_of_values, given_to
from torch import nn
from torch.nn import functional as F

import fastrnn
from fastrnn.kernels.symbolic import cell, operations, tensors
from fastrnn.kernels.symbolic.graph import Graph

INF, NAN = float("inf"), float("nan")
ONE = {
    **{name: getattr(torch, name) for name in (
        "sigmoid", "tanh", "relu", "exp", "expm1", "log", "abs", "sqrt", "rsqrt", "neg", "erf",
        "square", "reciprocal", "absolute", "negative", "clone",
    )},
    **{f"F.{name}": getattr(F, name) for name in (
        "sigmoid", "tanh", "relu", "relu6", "silu", "mish", "elu", "leaky_relu", "hardtanh",
        "hardsigmoid", "softplus", "gelu", "logsigmoid", "softsign", "tanhshrink",
    )},
    **{f"nn.{each}": each for each in (
        nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.SiLU(), nn.GELU("tanh"), nn.ELU(0.5),
        nn.LeakyReLU(0.2), nn.Hardtanh(-0.5, 2.0), nn.Softplus(2.0, 10.0), nn.Softplus(),
        nn.LogSigmoid(), nn.Softsign(), nn.ReLU6(), nn.Hardsigmoid(), nn.Mish(), nn.Tanhshrink(),
    )},
    "expit": torch.special.expit, "special.erf": torch.special.erf,
    "special.expm1": torch.special.expm1, "F.leaky_relu 2": lambda x: F.leaky_relu(x, 0.3),
    "F.elu negative": lambda x: F.elu(x, -1.5), "methods": lambda x: x.sigmoid().tanh().abs().neg(),
    **{f"power {p}": lambda x, p=p: x**p for p in (1, 2, 2.0, 3, 4, 0.5, -1)},
    "pow": lambda x: x.pow(2) + torch.pow(x, 3.0), "- x": lambda x: -abs(-x),
    "clamp": lambda x: x.clamp(-1, 1), "clamp by name": lambda x: torch.clamp(x, max=0.5, min=-1),
    "clamp below": lambda x: x.clamp(min=0.0), "clamp above": lambda x: x.clip(max=0.0),
    "clamp_min": lambda x: torch.clamp_min(x, 1.0), "clamp_max": lambda x: x.clamp_max(1.0),
    "clamp crossed": lambda x: x.clamp(1.0, -1.0), "clamp at -0": lambda x: x.clamp(-0.0, 20.0),
    "where": lambda x: torch.where(x < 0, x * x, 0.5), "where 2": lambda x: x.where(x > 1, 2.0),
    "where by name": lambda x: torch.where(condition=x > 0, input=x, other=-x),
    "where of numbers": lambda x: torch.where(x >= 0, 0.5, 0.25) * x,
    "where of conditions": lambda x: torch.where((x < -1) | ~(x <= 1) & (x != 20), x, 0.0),
    "logical": lambda x: torch.where(
        torch.logical_or(x < -1, torch.logical_and(torch.logical_not(x < 1), torch.ne(x, 3))), x, 1
    ),
    "a mask": lambda x: (x > 0) * x + x * (x <= -1) + (x == 1) + (x > 5) / (1 + x * x),
    "a mask as floats": lambda x: x * (x > 0).float() + (1 - (x < -2).type_as(x)) * x,
    "constants": lambda x: x + torch.ones_like(x) - torch.full_like(x, 0.5) * torch.zeros_like(x),
    "1 / (1 / x)": lambda x: 1 / (1 / x), "x / 3": lambda x: x / 3 - 3 / (x + 30),
    "of known conditions": lambda x: torch.where(
        (torch.zeros_like(x) < 1) & (x > 0) | ~(torch.ones_like(x) > 0), x, -x
    ),
    "known infinities": lambda x: torch.exp(-torch.reciprocal(torch.zeros_like(x))) + x,
    "x - 0, 0 - x": lambda x: (x - 0.0) * 2 + (0.0 - x), "x + 0": lambda x: 1 / (x + 0.0),
    "x + -0": lambda x: 1 / (x + -0.0), "-(x - x)": lambda x: 1 / -(x - x),
    "rsub": lambda x: torch.rsub(x, 2) + torch.rsub(x, x * x, alpha=2),
    "softplus of a threshold": lambda x: F.softplus(x, 1.0, 0.5),
}  # fmt: skip
TWO = {
    **{name: getattr(torch, name) for name in (
        "maximum", "minimum", "max", "min", "add", "sub", "mul", "div", "true_divide", "subtract",
        "multiply", "divide",
    )},
    "alpha": lambda a, b: torch.add(a, b, alpha=3) + a.sub(b, alpha=0.5),
    "lerp": lambda a, b: torch.lerp(a, b, 0.25) + a.lerp(b, a),
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.5) + torch.addcmul(a, b, b),
    "addcdiv": lambda a, b: torch.addcdiv(a, a, b * b + 1, value=2.0),
    "clamp": lambda a, b: a.clamp(b, b + 1), "clamp a side": lambda a, b: torch.clamp(a, max=b),
    "comparisons": lambda a, b: torch.where(a < b, a, b) + torch.where(torch.ge(a, b), a, -b),
    "equal": lambda a, b: torch.where(a == b, a * b, a), "-": lambda a, b: -(a - b) - (-a) - (-b),
    "products": lambda a, b: (-a) * (-b) + (-a) / b + a * -1 * (1 * b),
    "clip_gradient": lambda a, b: fastrnn.clip_gradient(a * b, 0.5),
}  # fmt: skip
POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 6.0, -6.0, 20.0, -20.0, 20.5, 5.0]
POINTS += [1e-9, -1e-9, 1e-30, 100.0, -100.0, 800.0, -800.0, 1e-310]


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def values(points):
    return torch.cat([float64(points), torch.linspace(-7, 7, 141, dtype=torch.float64)])


def compare(function, *inputs, tolerance=1e-13, atol=1e-300):
    made = cell_of_values(function, len(inputs))
    zeros = torch.zeros_like(inputs[0])
    given = [[zeros], [], [zeros], [], list(inputs)]
    grads = torch.where(torch.arange(len(zeros)) % 2 > 0, 1.5, -0.75).double(), zeros
    (expected, _), exact = by_autograd(made, given, grads)
    (found, _), gradients = by_derivation(made, given, grads)
    close = {"rtol": tolerance, "equal_nan": True}
    torch.testing.assert_close(
        found.expand_as(zeros), expected.expand_as(zeros), **close, atol=atol
    )
    for ours, theirs in zip(gradients, exact, strict=True):
        # sums whose digits cancel, as in 1 - tanh^2, are torch's to the last but these
        torch.testing.assert_close(ours, theirs, **close, atol=1e-13)


@pytest.mark.parametrize("name", ONE)
def test_one(name):
    # torch has 1 / 6 in float32 in the derivative of hardsigmoid, and softplus beyond rounding
    compare(ONE[name], values(POINTS), tolerance=1e-7 if "ardsigmoid" in name else 1e-13)


@pytest.mark.parametrize("name", TWO)
def test_two(name):
    points = values(POINTS[:-1])  # what is divided by 1e-310 has no gradient that can be compared
    a, b = torch.cartesian_prod(points, points).unbind(1)
    # of a product and a sum torch makes one rounding, where the processor can
    compare(TWO[name], a.contiguous(), b.contiguous(), atol=1e-14)


# Values alone: of NaN torch's clamp has a gradient of 0, ours is what arrives; that of infinity is
# NaN by one formula, 0 by the other.
@pytest.mark.parametrize("name", ONE)
def test_values_that_are_not_finite(name):
    points = float64([NAN, INF, -INF, 1.0])
    made = cell_of_values(ONE[name])
    found = made.forward([points], [], [points], [], [points])[0]
    torch.testing.assert_close(
        found.expand(4).double(), ONE[name](points).double(), equal_nan=True, rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("name", ["maximum", "minimum", "relu", "where", "abs", "clip_gradient"])
def test_gradients_that_are_not_finite(name):
    """An infinite gradient stays with whom it belongs to."""
    function = (ONE | TWO)[name]
    count = 2 if name in TWO else 1
    made = cell_of_values(function, count)
    zeros, big = float64([0.0] * 4), float64([INF, -INF, NAN, INF])
    inputs = [float64([1.0, 2.0, 3.0, -4.0]), float64([2.0, 1.0, 1.0, 1.0])]
    given = [[zeros], [], [zeros], [], inputs[:count]]
    _, exact = by_autograd(made, given, (big, zeros))
    _, found = by_derivation(made, given, (big, zeros))
    torch.testing.assert_close(found, exact, equal_nan=True)


def test_what_reaches_nothing_has_no_gradient():
    """Exactly zero, where infinity times zero would be NaN."""

    def step(wx, uh, states, own, inputs):
        limit = torch.exp(uh[0]) * own[0]
        return (torch.where(limit < inputs[0], wx[0] * 2, wx[0] * 4),)

    made = cell.Cell("one", step, gates=2, states=1, own=1, inputs=1)
    given = [[torch.full((3,), INF).double() for _ in each] for each in given_to(made, 3)]
    _, found = by_derivation(made, given, (torch.ones(3).double(), torch.ones(3).double()))
    assert [t.tolist() for t in found] == [[8.0] * 3] + [[0.0] * 3] * 6


def test_the_table_is_known_to_all():
    """Each operation that is called by a name has a function on tensors, and no other has."""
    called = {n for n, o in operations.OPERATIONS.items() if o.text.startswith(n)}
    assert tensors.OPERATIONS.keys() == called | {"zeros_like"}


@pytest.mark.parametrize("name", [n for n, o in operations.OPERATIONS.items() if o.value])
def test_what_is_of_numbers(name):
    """As torch computes it, with infinities and NaN."""
    operation, graph = operations.OPERATIONS[name], Graph()
    numbers = [0.0, -0.0, 1.0, -2.5, 0.3, 800.0, -800.0, INF, -INF, NAN]
    for a in numbers:
        for b in numbers[:1] if len(operation.takes) == 1 else numbers:
            if name == "clip_gradient" and not b > 0:
                continue
            found = graph.op(name, *(a, b)[: len(operation.takes)])
            if name in operations.CONDITIONS:
                found = graph.op("where", found, 1, 0)
            scope = {"x": float64([a]), "y": b if name == "clip_gradient" else float64([b])}
            theirs = eval(operation.text.format("x", "y"), dict(tensors.OPERATIONS), scope)
            close = {"equal_nan": True, "rtol": 1e-14, "atol": 0}
            torch.testing.assert_close(float64([found.value]), theirs.double(), **close)
