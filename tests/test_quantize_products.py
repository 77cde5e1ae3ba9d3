"""Weights of eight and sixteen bits: how they are rounded, and that integers are summed exactly."""

import pytest
import torch
from conftest import run_python
from torch import nn

import fastrnn
from fastrnn.kernels import form as forms
from fastrnn.kernels.form import FORMS, Matrix, rows_in_bytes

BYTES = FORMS[0]
EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=["x".join(f) for f in FORMS])


class Sum(fastrnn.Recurrent):
    """A step that shows its two products as they are."""

    def step(self, wx, uh, h):
        return wx[0] + uh[0]


class Three(fastrnn.Recurrent):
    """The same of three gates."""

    gates, states = 3, ("h", "a", "b")

    def step(self, wx, uh, h, a, b):
        return wx[0] + uh[0], wx[1] + uh[1], wx[2] + uh[2]


def test_rounding_is_to_the_nearest_of_255_numbers():
    weight = torch.tensor([[-2.54, 0.01, 0.03, 1.28], [0.0, 0.0, 0.0, 0.0], [1e-20, 0, 6e-21, 0]])
    matrix = Matrix.of(weight, BYTES)
    assert matrix.values.tolist() == [[-127, 0, 2, 64], [0, 0, 0, 0], [127, 0, 76, 0]]
    assert matrix.scales.tolist() == pytest.approx([0.02, 0.0, 1e-20 / 127])
    error = (matrix.float() - weight).abs().amax(1)
    assert (error <= matrix.scales * 0.5000001).all()


def test_a_percentile_cuts_off_what_is_larger():
    weight = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([50.0])])[None]
    assert Matrix.of(weight, BYTES).scales.item() == pytest.approx(50 / 127)
    matrix = Matrix.of(weight, BYTES, percentile=98.0)
    assert matrix.scales.item() == pytest.approx(1 / 127, rel=0.02)
    assert matrix.values[0, -1] == 127


def test_bfloat16_is_rounded_as_torch_does():
    weight = torch.randn(5, 7)
    matrix = Matrix.of(weight, FORMS[2])
    assert torch.equal(matrix.values, weight.bfloat16())
    assert matrix.scales is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39])
@EVERY_FORM
def test_weights_that_are_no_numbers_are_refused(form, bad):
    weight = torch.zeros(2, 3, dtype=torch.float64)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match="infinite or NaN"):
        Matrix.of(weight, form)


def test_rows_become_bytes_with_a_scale_each():
    a = torch.tensor([[0.5, -1.0, 0.25], [0.0, 0.0, 0.0], [1e-35, 0.0, 0.0]])
    a = torch.cat([a, torch.tensor([[1.0, float("nan"), 2.0], [float("inf"), 0.0, 1.0]])])
    values, scales = rows_in_bytes(a)
    assert values[:3].tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0]]
    assert scales[:3].tolist() == pytest.approx([1 / 127, 0.0, 0.0])
    assert scales[3:].isnan().all()


SIZES = [(1, 1, 1, 1), (1, 3, 5, 7), (2, 4, 64, 64), (1, 17, 130, 33), (1, 33, 3, 100)]


def products(form, cls, T, B, I, H, bias=True):
    """(the engine's, plain PyTorch's) results of one step."""
    torch.manual_seed(B + H)
    layer = cls(I, H, bias=bias).quantize(*form)
    x, hx = 3 * torch.randn(1, B, I), tuple(torch.randn(1, B, H) for _ in cls.states)
    hx = hx[0] if len(hx) == 1 else hx
    found = []
    for engine in ("numba", "reference"):
        with fastrnn.backends.use(engine), torch.no_grad():
            y, h = layer(x, hx)
            found.append([y, *(h if isinstance(h, tuple) else (h,))])
    return found


@pytest.mark.parametrize("cls", [Sum, Three])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bytes_are_multiplied_exactly(cls, sizes):
    """The same bits as those of whole numbers, multiplied in float64 by torch."""
    ours, plain = products(BYTES, cls, *sizes)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS[1:], ids=["x".join(f) for f in FORMS[1:]])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_weights_alone(form, sizes):
    """float32 sums of up to 130 products, in another order than torch's."""
    ours, plain = products(form, Three, *sizes, bias=False)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_largest_sums_do_not_overflow():
    """All 127 times 127, of as many columns as there may be: 32 bits hold it."""
    K = forms.WIDEST
    layer = Sum(K, 1, bias=False)
    nn.init.ones_(layer.weight_ih_l0)
    nn.init.zeros_(layer.weight_hh_l0)
    layer.quantize()
    with torch.no_grad():
        for sign in (1, -1):
            y, _ = layer(torch.full((1, 1, K), float(sign)))
            assert y.item() == pytest.approx(sign * K, rel=1e-6)  # of float32's 2**-24


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_number_spoils_its_own_row_alone(bad):
    layer = fastrnn.LSTM(5, 9).quantize()
    x = torch.randn(4, 3, 5)
    with torch.no_grad():
        good, _ = layer(x)
        x[1, 2, 0] = bad
        y, _ = layer(x)
    assert torch.equal(y[:, :2], good[:, :2])
    assert torch.equal(y[0], good[0])
    assert y[1:, 2].isnan().all()


PROGRAM = """
import torch
from test_quantize_products import BYTES, SIZES, Three, products
for sizes in SIZES:
    ours, plain = products(BYTES, Three, *sizes)
    assert all(map(torch.equal, ours, plain)), sizes
from fastrnn.kernels.cpu.compiler.target import registers
print(registers().of_bytes)
"""
CPUS = {
    "by pairs": ("skylake-avx512", "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx2,+fma"),
    "by pairs of AVX2": ("haswell", "+avx2,+fma"),
    "one by one": ("nehalem", "+sse4.2"),
}


@pytest.mark.parametrize("way", CPUS)
def test_other_cpus_give_the_same_bits(way):
    """Those without VNNI multiply pairs of words, or one number at a time."""
    name, features = CPUS[way]
    said, _ = run_python(PROGRAM, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    assert way.startswith(said.strip())
