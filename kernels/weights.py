"""One direction of one layer's parameters."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    ih: Tensor  # (G*H, I)
    hh: Tensor  # (G*H, H or P)
    b_ih: Tensor | None  # (G*H,)
    b_hh: Tensor | None  # (G*H,)
    hr: Tensor | None  # (P, H)


def fit(cell, D, I, B, states, directions):
    """Whether all shapes fit together. I, B: columns and sequences of the input; states: the shape
    of each; directions: a Weights of shapes for each of a stack's, D of them a layer.
    """
    hh, hr = directions[0].hh, directions[0].hr
    if len(hh) != 2 or (hr is not None and len(hr) != 2):
        return False
    H = hh[0] // cell.gates
    S = H if hr is None else hr[0]
    for shape, width in zip(states, (S, H), strict=False):
        if shape != (len(directions), B, width):
            return False
    M = cell.gates * H
    for i, weights in enumerate(directions):
        expected = (M, I if i < D else S * D), (M, S), (M,), (M,), (S, H)
        for shape, size in zip(weights, expected, strict=True):
            if shape is not None and shape != size:
                return False
    return True


def split(flat, count):
    """``count`` Weights from torch's flat list, which leaves out what is absent; None if it is
    incomplete.
    """
    each = len(flat) // count
    if each * count != len(flat) or each not in (2, 3, 4, 5):
        return None
    found = []
    for i in range(0, len(flat), each):
        ih, hh, *rest = flat[i : i + each]
        biases = rest[:2] if each >= 4 else (None, None)
        found.append(Weights(ih, hh, *biases, rest[-1] if each in (3, 5) else None))
    return found
