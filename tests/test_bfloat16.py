"""bfloat16 in the CPU engine: conversions, panels and products, against torch's own."""

import ctypes
from functools import partial

import pytest
import torch
from numba import njit, types

from fastrnn.kernels.cpu.compiler import build
from fastrnn.kernels.cpu.compiler.target import registers
from fastrnn.kernels.cpu.registers.bfloat16 import Bfloat16, Pairs
from fastrnn.kernels.cpu.registers.elements import Same, make_transpose, memory
from fastrnn.kernels.cpu.registers.microkernel import emit_gemm
from fastrnn.kernels.cpu.registers.panels import make_packing
from fastrnn.kernels.cpu.registers.simd import VecType

VEC = VecType(types.float32, 16)
ELEMENTS = {torch.float32: Same(VEC), torch.bfloat16: Bfloat16(VEC)}
needs_pairs = pytest.mark.skipif(not registers().bfloat16, reason="needs AVX512-BF16")


def every_bfloat16():
    """All 65536 of them."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)


def awkward_floats():
    """float32 around what bfloat16 rounds: ties, both sides of them, and what is not finite."""
    upper = every_bfloat16().float().view(torch.int32)
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    return (upper[:, None] | lower).flatten().view(torch.float32)


def converted(source, out_dtype):
    """``source``, loaded and stored through registers."""
    load = memory(ELEMENTS[source.dtype])["load"]
    store = memory(ELEMENTS[out_dtype])["store"]
    step, out_step = 16 * source.itemsize, 16 * out_dtype.itemsize

    @njit
    def copy(a, b, count):
        for i in range(0, count, 16):
            store(load(a + i // 16 * step, count - i), b + i // 16 * out_step, count - i)

    out = torch.full((len(source) + 16,), 9.0, dtype=out_dtype)
    copy(source.data_ptr(), out.data_ptr(), len(source))
    assert (out[len(source) :] == 9).all()
    return out[: len(source)]


def test_from_bfloat16():
    source = every_bfloat16()
    torch.testing.assert_close(
        converted(source, torch.float32), source.float(), rtol=0, atol=0, equal_nan=True
    )


def test_to_bfloat16():
    source = awkward_floats()
    expected = source.bfloat16()
    found = converted(source, torch.bfloat16)
    # the instruction takes denormal numbers for zero
    normal = source.isnan() | (source.abs() >= 2.0**-126)
    torch.testing.assert_close(found[normal], expected[normal], rtol=0, atol=0, equal_nan=True)
    assert found[~normal].abs().max() <= 2.0**-126


@pytest.mark.parametrize("count", range(1, 40))
def test_tails(count):
    source = torch.randn(count)
    assert converted(source, torch.bfloat16).equal(source.bfloat16())
    assert converted(source.bfloat16(), torch.float32).equal(source.bfloat16().float())


@pytest.mark.parametrize("source_dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("out_dtype", ELEMENTS, ids=str)
def test_transpose(source_dtype, out_dtype):
    transpose = make_transpose(ELEMENTS[source_dtype], ELEMENTS[out_dtype])
    call = njit(lambda *numbers: transpose(*numbers))
    for rows, columns in ((16, 16), (1, 16), (16, 1), (7, 13)):
        source = torch.randn(16, 20).to(source_dtype)
        out = torch.full((16, 18), 9.0, dtype=out_dtype)
        sizes = (20 * source.itemsize, rows, columns), (18 * out.itemsize, 16)
        call(source.data_ptr(), *sizes[0], out.data_ptr(), *sizes[1])
        expected = torch.zeros(columns, 16)
        expected[:, :rows] = source[:rows, :columns].T
        assert out[:columns, :16].equal(expected.to(out_dtype))
        assert (out[columns:] == 9).all()
        assert (out[:, 16:] == 9).all()


def interleaved(matrix):
    """(K, columns) as lines of pairs, zeros behind an odd K."""
    matrix = torch.nn.functional.pad(matrix, (0, 0, 0, len(matrix) % 2))
    return matrix.view(-1, 2, matrix.shape[1]).transpose(1, 2).bfloat16()


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 31, 32])
@pytest.mark.parametrize("columns", [1, 15, 16])
def test_stand(dtype, depth, columns):
    """Rows along K become lines of pairs."""
    stand = make_packing(Pairs(VEC), ELEMENTS[dtype])["stand"]
    source = torch.randn(columns, depth).to(dtype)
    out = torch.full((17, 16, 2), 9.0).bfloat16()
    call = njit(lambda *numbers: stand(*numbers))
    call(source.data_ptr(), depth * source.itemsize, columns, depth, out.data_ptr(), 64)
    lines = -(-depth // 2)
    assert out[:lines, :columns].equal(interleaved(source.T))
    assert (out[:lines, columns:] == 0).all()
    assert (out[lines:] == 9).all()


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("columns", [3, 16])
def test_put_line(dtype, depth, columns):
    """Rows across K become lines of pairs."""
    load_rows = memory(ELEMENTS[dtype])["load_rows"]
    put_line = make_packing(Pairs(VEC), ELEMENTS[dtype])["put_line"]
    source = torch.randn(2, 16).to(dtype)
    out = torch.full((2, 16, 2), 9.0).bfloat16()

    @njit
    def call(source, lds, rows, columns, out):
        put_line(load_rows(2, source, lds, rows, columns), out)

    call(source.data_ptr(), 16 * source.itemsize, depth, columns, out.data_ptr())
    expected = torch.zeros(1, 16, 2).bfloat16()
    expected[:, :columns] = interleaved(source[:depth, :columns])
    assert out[:1].equal(expected)
    assert (out[1:] == 9).all()


@needs_pairs
@pytest.mark.parametrize("rows", [1, 4, 6])
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 8, 9, 64, 255])
def test_products_of_pairs(rows, depth):
    """Each row ends where NaN begins: nothing is read beyond it."""
    made = build.code("a tile of pairs", [None], rows, partial(emit_gemm, Pairs(VEC), [(rows, 2)]))
    gemm = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(*made.addresses.values())
    a = torch.full((rows, depth + 3), torch.nan).bfloat16()
    a[:, :depth] = torch.randn(rows, depth)
    b = torch.randn(depth, 32).bfloat16()
    panel, init, c = interleaved(b).contiguous(), torch.randn(32), torch.full((rows, 33), 9.0)
    gemm(
        depth, a.data_ptr(), (depth + 3) * 2, panel.data_ptr(), 32 * 2 * 2, init.data_ptr(), 0,
        c.data_ptr(), 33 * 4,
    )  # fmt: skip
    exact = a[:, :depth].double() @ b.double() + init.double()
    # float32 sums of up to 255 terms, which grow to 60: roundings of 4e-6, a dozen of them in a row
    torch.testing.assert_close(c[:, :32].double(), exact, rtol=0, atol=5e-5)
    assert (c[:, 32] == 9).all()
