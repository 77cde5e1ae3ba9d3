"""Weights of eight or sixteen bits: how they are made, and what is computed with them.

A matrix W of int8 has a scale for each row (an output unit): W = scale * values. Rows of x and h
that it multiplies are of int8 too, with a scale each, found on the way; or they stay float32.
"""

from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

OFFSET, MOST, LEAST = 128, 127.0, 2.0**-100  # as kernels/cpu/registers/narrow.py has them
WIDEST = 2**16  # columns whose sums surely stay within 32 bits


class Form(NamedTuple):
    """What weights are of, and what they are multiplied with."""

    weights: str  # "int8" or "bfloat16"
    activations: str  # "int8" or "float32"

    @property
    def dtype(self):
        return getattr(torch, self.weights)

    @property
    def in_bytes(self):
        """Whether both are of int8."""
        return self.activations == "int8"


FORMS = Form("int8", "int8"), Form("int8", "float32"), Form("bfloat16", "float32")


class Matrix:
    """A weight in one of FORMS, where others are tensors: what the engines know of it.

    values: (M, K) int8 or bfloat16; scales: (M,) float32, None for bfloat16; dtype: of the weight
    that it stands for, and so of what its layer is given. All is computed in float32.
    """

    def __init__(self, form, values, scales, dtype=torch.float32):
        self.form, self.values, self.scales, self.dtype = form, values, scales, dtype
        self.shape, self.device = values.shape, values.device

    @classmethod
    def of(cls, weight, form, percentile=100.0):
        """A float tensor (M, K), rounded to nearest, ties to even.

        percentile: of a row's magnitudes, what becomes 127; larger ones are cut off there. Raises
        ValueError where a number is not finite, or is too large for float32.
        """
        dtype, weight = weight.dtype, weight.detach().float()
        if not weight.isfinite().all():
            raise ValueError("some of its weights are infinite or NaN")
        if form.weights == "bfloat16":
            values = weight.bfloat16()
            if not values.isfinite().all():
                raise ValueError("some of its weights are too large for bfloat16")
            return cls(form, values, None, dtype)
        sizes = weight.abs()
        largest = sizes.amax(1) if percentile == 100 else sizes.quantile(percentile / 100, 1)
        largest = torch.where(largest < LEAST, sizes.amax(1), largest)
        scales = torch.where(largest < LEAST, 0.0, largest / MOST)
        values = torch.where(scales[:, None] > 0, weight / scales[:, None], 0.0)
        return cls(form, values.round_().clamp_(-MOST, MOST).to(torch.int8), scales, dtype)

    def __getitem__(self, rows):
        scales = None if self.scales is None else self.scales[rows]
        return Matrix(self.form, self.values[rows], scales, self.dtype)

    def float(self):
        """The tensor (M, K) of float32 that it stands for."""
        values = self.values.float()
        return values if self.scales is None else values * self.scales[:, None]

    def linear(self, a, bias):
        """a W.T + bias in plain PyTorch, of rows (N, K) of float32; integers are summed exactly."""
        if not self.form.in_bytes:
            found = torch.nn.functional.linear(a, self.values.float())
            found = found if self.scales is None else found * self.scales
        else:
            values, scales = rows_in_bytes(a)
            sums = values.double() @ self.values.double().T  # exact: below 2**53
            found = sums.float() * self.scales * scales[:, None]
        return found if bias is None else found + bias


def stamp_of(tensors):
    """What changes when the numbers of one of these tensors, or None, do."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors if t is not None]


def tensors_of(weights):
    """The tensors, or None, that some weights consist of."""
    found = []
    for each in weights:
        found += [each.values, each.scales] if isinstance(each, Matrix) else [each]
    return found


def remembered(what, matrix, tensors, make):
    """``make()``, which follows from these tensors and ``what`` alone: made once, and again when
    one of them has changed. It is kept as long as the numbers of ``matrix``, which is among them.
    """
    stamp, known = stamp_of(tensors), _made.setdefault(matrix.values, {})
    if known.get(what, (None,))[0] != stamp:
        with torch.inference_mode(False):
            known[what] = stamp, make(), held(tensors)
    return known[what][1]


def forget(values):
    """Nothing that was made of these numbers of a Matrix is remembered any more."""
    _made.pop(values, None)


def held(tensors):
    """The memory of the tensors, or None: as long as it is held, nothing else can stand there."""
    return [t.untyped_storage() for t in tensors if t is not None]


_made = WeakTensorKeyDictionary()  # {the numbers of a Matrix: {what: (stamp, what was made)}}


def linear(a, weight, bias=None):
    """torch's, of a tensor or a Matrix."""
    if isinstance(weight, Matrix):
        return weight.linear(a, bias)
    return torch.nn.functional.linear(a, weight, bias)


def rows_in_bytes(a):
    """(whole numbers from -127 to 127 as float32, scales): rows of float32 as the kernels narrow
    them. Where a number of a row is not finite, its scale is NaN.
    """
    largest = a.abs().amax(1)
    known = largest.isfinite()
    enough = known & (largest >= LEAST)
    inverse = torch.where(enough, MOST / largest, 0.0)
    scales = torch.where(enough, largest / MOST, 0.0).masked_fill(~known, torch.nan)
    return (a.nan_to_num(0.0, 0.0, 0.0) * inverse[:, None]).round(), scales
