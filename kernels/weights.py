"""One direction of one layer's parameters."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    ih: Tensor  # (G*H, I)
    hh: Tensor | None  # (G*H, H or P); H / heads columns, until these are apart
    b_ih: Tensor | None  # (G*H,)
    b_hh: Tensor | None  # (G*H,)
    hr: Tensor | None  # (P, H)
    own: Tensor | None = None  # (number, H): the cell's own parameters


def expected(cell, D, I, B, directions):
    """The shapes that fit together: of each state, and a Weights for each direction of a stack.

    I, B: columns and sequences of the input; D: directions of a layer; directions: a Weights of
    shapes for each, of which the first says how many units there are.
    """
    ih, hr = directions[0].ih, directions[0].hr
    H = ih[0] // cell.gates
    S, M = H if hr is None else hr[0], cell.gates * H
    states = [(len(directions), B, width) for width in (S, *[H] * (cell.states - 1))]
    columns = [I] * D + [S * D] * (len(directions) - D)
    return states, [Weights((M, i), (M, S), (M,), (M,), (S, H), (cell.own, H)) for i in columns]


def fit(cell, D, I, B, states, directions):
    """Whether the shapes are as ``expected``."""
    first = directions[0]
    if not first.ih or (first.hr is not None and not first.hr):
        return False  # scalars
    ends, weights = expected(cell, D, I, B, directions)
    for given, sizes in zip((states, *directions), (ends, *weights), strict=True):
        for shape, size in zip(given, sizes, strict=True):
            if shape is not None and shape != size:
                return False
    return True


# For each number of tensors, which these are; and for a cell without a recurrent product.
RECURRENT = {
    2: ("ih", "hh"),
    3: ("ih", "hh", "hr"),
    4: ("ih", "hh", "b_ih", "b_hh"),
    5: ("ih", "hh", "b_ih", "b_hh", "hr"),
}
POINTWISE = {1: ("ih",), 2: ("ih", "b_ih")}


def split(flat, count, cell=None):
    """``count`` Weights from torch's flat list, which leaves out what is absent; None if it is
    incomplete. Parameters of the cell's own come last.
    """
    each = len(flat) // int(count)  # which a trace may have as a symbol
    own = ("own",) if cell is not None and cell.own else ()
    forms = RECURRENT if cell is None or cell.recurrent else POINTWISE
    if each * count != len(flat) or each - len(own) not in forms:
        return None
    names = forms[each - len(own)] + own
    return [_named(names, flat[i : i + each]) for i in range(0, len(flat), each)]


def _named(names, tensors):
    there = dict(zip(names, tensors, strict=True))
    return Weights(*[there.get(name) for name in Weights._fields])
