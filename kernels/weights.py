"""One direction of one layer's parameters."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    ih: Tensor  # (G*H, I)
    hh: Tensor  # (G*H, H or P)
    b_ih: Tensor | None  # (G*H,)
    b_hh: Tensor | None  # (G*H,)
    hr: Tensor | None  # (P, H)
