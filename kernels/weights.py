"""One direction of one layer's parameters."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    ih: Tensor  # (G*H, I)
    hh: Tensor  # (G*H, H or P)
    b_ih: Tensor | None  # (G*H,)
    b_hh: Tensor | None  # (G*H,)
    hr: Tensor | None  # (P, H)


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
