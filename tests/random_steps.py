"""Random steps for hypothesis, in plain PyTorch, over all operations of the table."""

import torch
from hypothesis import strategies as st
from torch.nn import functional as F

import fastrnn
from fastrnn.kernels.symbolic.cell import Cell

# Of values between -2 and 2 or so, such that results are no larger.
VALUES = {
    "add": lambda a, b, c: a + b,
    "sub": lambda a, b, c: a - b,
    "mul": lambda a, b, c: a * b,
    "div": lambda a, b, c: a / (b * b + 0.5),
    "neg": lambda a, b, c: -a,
    "sigmoid": lambda a, b, c: torch.sigmoid(a),
    "tanh": lambda a, b, c: torch.tanh(a),
    "relu": lambda a, b, c: torch.relu(a),
    "exp": lambda a, b, c: torch.exp(torch.minimum(a, b) - torch.abs(a)),
    "expm1": lambda a, b, c: torch.expm1(torch.tanh(a)),
    "log": lambda a, b, c: torch.log(torch.abs(a) + 0.25),
    "softplus": lambda a, b, c: F.softplus(a),
    "abs": lambda a, b, c: abs(a),
    "sqrt": lambda a, b, c: torch.sqrt(a * a + 0.125),
    "rsqrt": lambda a, b, c: torch.rsqrt(abs(a) + 0.5),
    "erf": lambda a, b, c: torch.erf(a),
    "maximum": lambda a, b, c: torch.maximum(a, b),
    "minimum": lambda a, b, c: torch.minimum(a, b),
    "where": lambda a, b, c: torch.where(c, a, b),
    "where of a number": lambda a, b, c: torch.where(c, a, 0.5),
    "mask": lambda a, b, c: c * a,
    "clip_gradient": lambda a, b, c: fastrnn.clip_gradient(a, 0.125),
    "1 - a": lambda a, b, c: 1 - a,
    "a / 4": lambda a, b, c: a / 4,
    "0.75 a": lambda a, b, c: a * 0.75,
    "a a": lambda a, b, c: a**2,
    "a + 0": lambda a, b, c: a + torch.zeros_like(b),
}
CONDITIONS = {
    "lt": lambda a, b, c, d: a < b,
    "le": lambda a, b, c, d: a <= 0.25,
    "gt": lambda a, b, c, d: a > b,
    "ge": lambda a, b, c, d: a <= -0.5,
    "eq": lambda a, b, c, d: a == b,
    "ne": lambda a, b, c, d: a != b,
    "and": lambda a, b, c, d: c & d,
    "or": lambda a, b, c, d: c | d,
    "not": lambda a, b, c, d: ~c,
}
PLACE = st.integers(0, 200)
LINE = st.tuples(st.sampled_from([*VALUES, *CONDITIONS]), PLACE, PLACE, PLACE, PLACE)


def pick(values, place):
    """One of them, the latest for small numbers."""
    return values[-1 - place % len(values)]


@st.composite
def cells(draw, most=14, **ports):
    """Cells of up to ``most`` lines. Each result is any of their values, new ones more often."""
    lines = draw(st.lists(LINE, min_size=1, max_size=most))
    apart = draw(st.booleans())
    results = draw(st.lists(PLACE, min_size=3, max_size=3))

    def step(wx, uh, states, own, inputs):
        values = [*wx, *uh, *states, *own, *inputs]
        conditions = [values[0] < 0]
        for name, *places in lines:
            a, b = (pick(values, place) for place in places[:2])
            c, d = (pick(conditions, place) for place in places[2:])
            if name in VALUES:
                values.append(VALUES[name](a, b, c))
            else:
                conditions.append(CONDITIONS[name](a, b, c, d))
        output, *new = [pick(values, place) for place in results[: 1 + len(states)]]
        return (output, tuple(new)) if apart else tuple(new)

    return Cell(f"{lines}, {results}", step, **ports)  # so that hypothesis shows it
