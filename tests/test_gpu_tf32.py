"""Factors of TF32 products are rounded to the nearest, as the matrix units do not.

In Triton's interpreter, with a product that leaves out the last 13 bits of a factor as they do.
"""

import math

import pytest
import torch
from against_torch import make_inputs, outputs_and_gradients, twins
from gpu_layers import ALONE, GRID, served
from interpreter import interpreted

tl = pytest.importorskip("triton.language", reason="Triton is not installed")
__all__ = ["interpreted"]


def bits(*values):
    return torch.tensor(values, dtype=torch.int64).to(torch.int32).view(torch.float32)


# One, a bit, a half and a little more than a half of a TF32 unit beyond it; both signs.
NEAREST = {
    0x3F800000: 0x3F800000,
    0x3F800001: 0x3F800000,
    0x3F800FFF: 0x3F800000,
    0x3F801000: 0x3F802000,
    0x3F801001: 0x3F802000,
    0xBF800FFF: 0xBF800000,
    0xBF801000: 0xBF802000,
    0x3FFFF000: 0x40000000,  # into the exponent
    0x00000000: 0x00000000,
    0x80000000: 0x80000000,
    0x7F800000: 0x7F800000,  # infinity
    0xFF800000: 0xFF800000,
    0x7F7FFFFF: 0x7F800000,  # beyond the largest
}
NANS = (0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFC00000)


def on_chip():
    """What the kernels do, and what is done to weights before."""
    import triton

    from fastrnn.kernels.gpu import blocks, products

    @triton.jit
    def apply(x, y, function: tl.constexpr, PRECISION: tl.constexpr):
        at = tl.arange(0, 32)
        tl.store(y + at, function(tl.load(x + at), PRECISION))

    def round_there(x, precision="tf32"):
        y = torch.empty(32)
        padded = torch.cat([x, torch.zeros(32 - len(x))])
        apply[(1,)](padded, y, blocks.rounded, precision)
        return y[: len(x)]

    given, expected = bits(*NEAREST), bits(*NEAREST.values())
    for function in (round_there, products.rounded):
        found = function(given)
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
        assert function(bits(*NANS)).isnan().all()
    assert torch.equal(round_there(given, "ieee").view(torch.int32), given.view(torch.int32))


def test_rounded(interpreted):
    interpreted(on_chip)


def planted(patch, nearest):
    """Products as the matrix units make them; of factors that are ``nearest``, or as they are."""
    import triton

    from fastrnn.kernels.gpu import kernels, products

    def product(a, b, total, PRECISION: tl.constexpr):
        if PRECISION == "tf32":
            a = (a.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
            b = (b.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
        return tl.dot(a, b, total)

    def rounded(x, PRECISION: tl.constexpr):
        return x

    names = {"product": triton.jit(kernels.rebind(product, {}))}
    if not nearest:
        names["rounded"] = triton.jit(kernels.rebind(rounded, {}))
        patch.setattr(products, "rounded", lambda factors: factors)
    for direction in ("forward", "backward"):
        kernel = getattr(kernels, direction)

        def bound(cell, kernel=kernel):
            return triton.jit(kernels.rebind(kernel(cell).fn, names))

        patch.setattr(kernels, direction, bound)


def is_nearest(kind, tile):
    """The error is a third of what it would be, against torch.nn in float64."""
    ours, theirs = twins(kind, 5, 30)
    inputs = make_inputs(ours, 8, 16)
    wide = {name: x.double() for name, x in inputs.items()}
    truth, errors = outputs_and_gradients(theirs, wide), []
    for nearest in (True, False):
        with pytest.MonkeyPatch.context() as patch, served(tile):
            patch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
            planted(patch, nearest)
            found = outputs_and_gradients(ours, inputs)
        apart = {n: (found[n] - truth[n]).norm() / truth[n].norm() for n in truth}
        errors.append(math.sqrt(sum(float(each) ** 2 for each in apart.values()) / len(apart)))
    nearest, cut = errors
    assert 1e-5 < nearest < 3e-4
    assert cut > 2 * nearest, errors


@pytest.mark.parametrize("tile", [GRID, ALONE], ids=["grid", "alone"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_nearest(interpreted, kind, tile):
    interpreted(is_nearest, kind, tile)
