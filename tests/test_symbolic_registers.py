"""The operations of steps on registers: how far off they are, over all that a float can be."""

import pytest
import torch
from registers import error, on_registers
from torch.nn import functional as F

from fastrnn.kernels.cpu.compiled import machine
from fastrnn.kernels.cpu.registers.activations import make_activations
from fastrnn.kernels.cpu.registers.exponentials import make_exponentials
from fastrnn.kernels.symbolic.operations import OPERATIONS

INF, NAN = float("inf"), float("nan")
# At most so many units in the last place, in float32; float64, of which torch's own are a few more.
ONE = {
    "sigmoid": (torch.sigmoid, 2.5, 4),
    "tanh": (torch.tanh, 2.5, 4),
    "relu": (torch.relu, 0, 0),
    "exp": (torch.exp, 1.0, 2),
    "expm1": (torch.expm1, 3.0, 4),
    "log": (torch.log, 3.0, 4),
    "softplus": (lambda x: F.softplus(x, threshold=40.0), 3.5, 4),
    "abs": (torch.abs, 0, 0),
    "neg": (torch.neg, 0, 0),
    "sqrt": (torch.sqrt, 0.5, 1),
    "rsqrt": (torch.rsqrt, 1.5, 2),
    "erf": (torch.erf, 2.5, 4),
    "clip_gradient": (lambda x: x, 0, 0),
}
STEP = {name: function for name, (function, _, _) in ONE.items()}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
# In which sigmoid and tanh are to 14 bits, and what is rounded to 8 does not notice.
BFLOAT16 = 1 / 32


def floats(dtype):
    """All of bfloat16; of the others each power of 2, what is near to it, and some ranges."""
    if dtype == torch.bfloat16:
        return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    limits = torch.finfo(dtype)
    lowest, highest = (-149, 128) if dtype == torch.float32 else (-1074, 1024)
    powers = torch.exp2(torch.arange(lowest, highest, dtype=torch.float64))
    near = torch.cat([powers, powers * 1.5, powers * (1 + limits.eps), powers * (1 - limits.eps)])
    ranges = [(0.0, 1.2), (0.5, 2.0), (0.0, 20.0), (80.0, 110.0), (700.0, 760.0)]
    lines = [torch.linspace(*ends, 20000, dtype=torch.float64) for ends in ranges]
    positive = torch.cat([near, *lines, torch.tensor([0.0, INF, NAN, limits.max])]).to(dtype)
    return torch.cat([positive, -positive])


@DTYPES
def test_functions_of_one(dtype):
    """NaN passes, infinities are exact, and numbers too small to be normal lose no digit."""
    x = floats(dtype)
    found = dict(zip(ONE, on_registers(list(STEP.values()), x), strict=True))
    exact = {name: function(x.double()) for name, function in STEP.items()}
    # what is no normal number, sigmoid may have as 0
    tiny, s = torch.finfo(dtype).tiny, exact["sigmoid"]
    assert (found["sigmoid"][s < tiny] <= tiny).all()
    found["sigmoid"] = torch.where(s < tiny, s.to(found["sigmoid"].dtype), found["sigmoid"])
    allowed = {
        n: {torch.float32: a, torch.float64: b, torch.bfloat16: BFLOAT16}[dtype]
        for n, (_, a, b) in ONE.items()
    }
    errors = {name: error(values, exact[name], dtype) for name, values in found.items()}
    assert {n: e for n, e in errors.items() if not e <= allowed[n]} == {}


POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -7.25, 1e-40, -1e-40, 1e30, INF, -INF, NAN]
TWO = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "number": lambda a, b: 2.0 / (a * 0.5 - 1.0),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "maximum of a number": lambda a, b: torch.maximum(a, torch.full_like(a, 0.5)),
    "lt": lambda a, b: torch.where(a < b, 1.0, a),
    "le": lambda a, b: torch.where(a <= b, b, 0.25),
    "eq": lambda a, b: torch.where(a == b, 0.5, -0.5),
    "ne": lambda a, b: torch.where(a != 1.0, a, b),
    "gt": lambda a, b: torch.where(b > a, a, 0.5),
    "and": lambda a, b: torch.where((a < b) & (b > 0), a, b),
    "or": lambda a, b: torch.where((a < b) | (b <= a), a, 9.0),
    "not": lambda a, b: torch.where(~(a < b), a, b),
}


@DTYPES
def test_functions_of_two(dtype):
    """Exact, but for a zero's sign; and what is compared with NaN is false."""
    points = torch.tensor(POINTS, dtype=torch.float64).to(dtype)
    a, b = (t.contiguous() for t in torch.cartesian_prod(points, points).unbind(1))
    wide = torch.promote_types(dtype, torch.float32)
    for name, found in zip(TWO, on_registers(list(TWO.values()), a, b), strict=True):
        expected = TWO[name](a.to(wide), b.to(wide))
        close = {"rtol": 1e-3 if dtype == torch.bfloat16 else 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(found, expected.to(wide), **close, msg=name)


def test_the_engine_has_the_table():
    """Each operation of values that is called by a name; a mean is made of all units."""
    called = {n for n, o in OPERATIONS.items() if o.text.startswith(n)} - {"mean"}
    for dtype in machine.ELEMENTS.values():
        found = make_activations(dtype) | make_exponentials(dtype)
        assert found.keys() == called | {"zeros_like"}


def test_every_operation_is_measured():
    assert OPERATIONS.keys() - {"mean", "where"} <= ONE.keys() | TWO.keys()
