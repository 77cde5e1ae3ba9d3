"""What the behaviours have in common."""

import torch

import fastrnn

from ... import data
from ...cases import Case
from .. import oracle

BASE = Case("LSTM", 60, 32, 256, 256, device="cuda", dtype="bfloat16")


class Skip(Exception):
    """This machine cannot tell; the message says why."""


def same(first, second, what):
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name} differs: {what}"


def served(layer, numbers):
    """Our kernels serve it: else whatever is seen says nothing of them."""
    choice = fastrnn.backends.explain(layer, numbers.input, numbers.hx)
    assert choice.name == "triton", choice


def ours(case, numbers, **options):
    """oracle.results, by our kernels."""
    served(data.module(fastrnn, case), numbers)
    return oracle.results(fastrnn, case, numbers, **options)
