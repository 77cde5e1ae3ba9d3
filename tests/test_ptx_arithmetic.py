"""Instructions of the PTX emulator, one by one, against NumPy and torch."""

import numpy as np
import pytest
import torch

from tests.ptx.snippets import compute
from tests.ptx.text import Unknown

EDGES = [
    0,
    1,
    2,
    31,
    32,
    33,
    0x7FFFFFFF,
    0x80000000,
    0x80000001,
    0xFFFFFFFF,
    0xFFFF8000,
    0x12345678,
]
INTEGERS = np.array([(a, b) for a in EDGES for b in EDGES], np.uint32)
INTEGERS = np.concatenate(
    [INTEGERS, np.random.default_rng(0).integers(0, 2**32, (16, 2), np.uint32)]
)
A, B = INTEGERS[:160].T
SIGNED_A, SIGNED_B = A.view(np.int32).astype(np.int64), B.view(np.int32).astype(np.int64)
WIDE_A, WIDE_B = A.astype(np.uint64), B.astype(np.uint64)

FLOATS = torch.randn(80, generator=torch.Generator().manual_seed(0)).numpy()
FLOATS *= np.float32(10) ** np.repeat(np.arange(-44, 36, 4, np.float32), 4)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 65504.0, 65519.9, 65520.0, 2.0**-24, 3e38]
FLOATS = np.concatenate([FLOATS, np.array(SPECIAL, np.float32)])
FLOATS = np.concatenate([FLOATS, 1 + np.arange(40, dtype=np.float32) / 2**9])  # ties of bfloat16
FLOATS = np.resize(FLOATS, 128)
OTHERS = np.roll(FLOATS, 7)


def low(values):
    return (np.asarray(values) & 0xFFFFFFFF).astype(np.uint32)


INTEGER_LINES = {
    "add.s32 %r0, %r1, %r2;": low(SIGNED_A + SIGNED_B),
    "sub.s32 %r0, %r1, -3;": low(SIGNED_A + 3),
    "mul.lo.s32 %r0, %r1, %r2;": A * B,
    "mul.hi.s32 %r0, %r1, %r2;": low((SIGNED_A * SIGNED_B) >> 32),
    "mul.hi.u32 %r0, %r1, %r2;": low((WIDE_A * WIDE_B) >> np.uint64(32)),
    "mul.wide.s32 %rd1, %r1, %r2; mov.b64 {_, %r0}, %rd1;": low((SIGNED_A * SIGNED_B) >> 32),
    "mul.wide.u32 %rd1, %r1, %r2; mov.b64 {%r0, _}, %rd1;": A * B,
    "mad.lo.s32 %r0, %r1, %r2, 7;": A * B + np.uint32(7),
    "mad.wide.s32 %rd2, %r1, 3, %rd1; shr.u64 %rd2, %rd2, 32; cvt.u32.u64 %r0, %rd2;": low(
        (SIGNED_A * 3 + 5) >> 32
    ),
    "min.s32 %r0, %r1, %r2;": low(np.minimum(SIGNED_A, SIGNED_B)),
    "max.s32 %r0, %r1, %r2;": low(np.maximum(SIGNED_A, SIGNED_B)),
    "max.u32 %r0, %r1, %r2;": np.maximum(A, B),
    "and.b32 %r0, %r1, %r2;": A & B,
    "or.b32 %r0, %r1, %r2;": A | B,
    "xor.b32 %r0, %r1, %r2;": A ^ B,
    "not.b32 %r0, %r1;": ~A,
    "neg.s32 %r0, %r1;": low(-SIGNED_A),
    "shl.b32 %r0, %r1, %r2;": np.where(B < 32, A << (B % np.uint32(32)), 0),
    "shr.u32 %r0, %r1, %r2;": np.where(B < 32, A >> (B % np.uint32(32)), 0),
    "shr.s32 %r0, %r1, %r2;": low(SIGNED_A >> np.minimum(B, 31)),
    "bfe.u32 %r0, %r1, 5, 9;": (A >> np.uint32(5)) & np.uint32(511),
    "bfe.s32 %r0, %r1, 0, 16;": low(A.astype(np.uint16).view(np.int16).astype(np.int64)),
    "prmt.b32 %r0, %r1, %r2, 0x5410U;": (A & 0xFFFF) | (B << np.uint32(16)),
    "prmt.b32 %r0, %r1, %r2, 0x7632;": (A >> np.uint32(16)) | (B & 0xFFFF0000),
    "mov.b32 {%rs1, %rs2}, %r1; mov.b32 %r0, {%rs2, %rs1};": (A >> np.uint32(16))
    | (A << np.uint32(16)),
    "cvt.u16.u32 %rs1, %r1; cvt.u32.u16 %r0, %rs1;": A & 0xFFFF,
    "cvt.s64.s32 %rd1, %r1; shr.u64 %rd1, %rd1, 32; cvt.u32.u64 %r0, %rd1;": low(SIGNED_A >> 32),
    "setp.lt.s32 %p1, %r1, %r2; selp.b32 %r0, %r1, 9, %p1;": np.where(SIGNED_A < SIGNED_B, A, 9),
    "setp.lt.u32 %p1, %r1, %r2; selp.b32 %r0, %r1, 9, %p1;": np.where(A < B, A, 9),
    "mov.b32 %r0, 5; setp.ne.b32 %p1, %r1, 1; @!%p1 add.s32 %r0, %r1, 1;": np.where(A == 1, 2, 5),
    "mov.b32 %r0, 5; mov.pred %p1, -1; @%p1 mov.b32 %r0, 6;": np.full_like(A, 6),
}


@pytest.mark.parametrize("line", INTEGER_LINES)
def test_integers(line):
    found = compute("mov.b64 %rd1, 5; " + line, A, B)
    np.testing.assert_array_equal(found, INTEGER_LINES[line].astype(np.uint32))


def test_division_is_rounded_towards_zero():
    a, b = np.array([7, -7, 7, -7] * 8, np.int32), np.array([2, 2, -2, -2] * 8, np.int32)
    found = compute("div.s32 %r3, %r1, %r2; rem.s32 %r4, %r1, %r2; sub.s32 %r0, %r3, %r4;", a, b)
    expected = np.trunc(a / b) - np.fmod(a, b)
    np.testing.assert_array_equal(found.view(np.int32), expected.astype(np.int32))


def as_floats(values):
    return np.asarray(values, np.float32).view(np.uint32)


def rounded(dtype):
    """The bits of FLOATS in two bytes, by torch."""
    return (
        torch.from_numpy(FLOATS)
        .to(dtype)
        .view(torch.int16)
        .numpy()
        .view(np.uint16)
        .astype(np.uint32)
    )


def same(found, expected):
    """Bit by bit, but that every NaN is as good as any other."""
    found, expected = (each.view(np.float32) for each in (found, np.asarray(expected, np.uint32)))
    np.testing.assert_array_equal(found, expected)


with np.errstate(all="ignore"):
    FLOAT_LINES = {
        "add.f32 %r0, %r1, %r2;": as_floats(FLOATS + OTHERS),
        "sub.f32 %r0, %r1, 0f3F800000;": as_floats(FLOATS - np.float32(1)),
        "mul.rn.f32 %r0, %r1, %r2;": as_floats(FLOATS * OTHERS),
        "fma.rn.f32 %r0, %r1, %r1, %r2;": as_floats(FLOATS.astype(float) ** 2 + OTHERS),
        "neg.f32 %r0, %r1;": as_floats(-FLOATS),
        "abs.f32 %r0, %r1;": as_floats(np.abs(FLOATS)),
        "min.f32 %r0, %r1, %r2;": as_floats(np.fmin(FLOATS, OTHERS)),
        "max.NaN.f32 %r0, %r1, %r2;": as_floats(np.maximum(FLOATS, OTHERS)),
        "div.full.f32 %r0, %r1, %r2;": as_floats(FLOATS / OTHERS),
        "ex2.approx.f32 %r0, %r1;": as_floats(np.exp2(FLOATS.astype(float))),
        "rsqrt.approx.f32 %r0, %r1;": as_floats(1 / np.sqrt(FLOATS.astype(float))),
        "setp.lt.f32 %p1, %r1, %r2; selp.f32 %r0, %r1, %r2, %p1;": as_floats(
            np.where(FLOATS < OTHERS, FLOATS, OTHERS)
        ),
        "setp.geu.f32 %p1, %r1, %r2; selp.f32 %r0, %r1, %r2, %p1;": as_floats(
            np.where(~(FLOATS < OTHERS), FLOATS, OTHERS)
        ),
        "setp.ne.f32 %p1, %r1, %r1; selp.b32 %r0, 1, 2, %p1;": np.full(128, 2),
        "setp.neu.f32 %p1, %r1, %r1; selp.b32 %r0, 1, 2, %p1;": np.where(np.isnan(FLOATS), 1, 2),
        "setp.num.f32 %p1, %r1, %r2; selp.b32 %r0, 1, 2, %p1;": np.where(
            np.isnan(FLOATS) | np.isnan(OTHERS), 2, 1
        ),
        "cvt.rn.f32.s32 %r0, %r1;": as_floats(FLOATS.view(np.int32).astype(np.float32)),
        "cvt.rn.bf16.f32 %rs1, %r1; cvt.f32.bf16 %r0, %rs1;": rounded(torch.bfloat16) << 16,
        "add.rn.f32.bf16 %r0, %rs1, %r1;": as_floats(FLOATS + np.float32(1.5)),
        "mov.b64 %rd1, {%r1, %r2}; mul.f32x2 %rd1, %rd1, %rd1; mov.b64 {_, %r0}, %rd1;": as_floats(
            OTHERS * OTHERS
        ),
    }


@pytest.mark.parametrize("line", FLOAT_LINES)
def test_floats(line):
    same(compute("mov.b16 %rs1, 0x3FC0; " + line, FLOATS, OTHERS), FLOAT_LINES[line])


@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_pairs_of_halves(name):
    """The second operand is the lower half; rounding is torch's."""
    mine = rounded({"bf16": torch.bfloat16, "f16": torch.float16}[name])
    found = compute(f"cvt.rn.{name}x2.f32 %r0, %r1, %r2;", OTHERS, FLOATS)
    number = ~np.isnan(FLOATS)
    np.testing.assert_array_equal((found & 0xFFFF)[number], mine[number])
    number = ~np.isnan(OTHERS)
    np.testing.assert_array_equal((found >> 16)[number], np.roll(mine, 7)[number])


def test_small_numbers_are_flushed_where_the_name_says_so():
    small = np.full(32, 1e-39, np.float32)
    with_them, without = (
        compute(f"fma.rn{ftz}.f32 %r0, %r1, 0f3F800000, %r1;", small) for ftz in ("", ".ftz")
    )
    same(with_them, as_floats(small + small))
    same(without, np.zeros(32, np.uint32))


def test_tf32_is_rounded_to_nearest():
    """To 10 bits after the first, ties away from zero."""
    found = compute("cvt.rna.tf32.f32 %r0, %r1;", FLOATS).view(np.float32)
    finite = np.isfinite(found) & (np.abs(FLOATS) > 1e-37)
    scale = 2.0 ** np.floor(np.log2(np.abs(FLOATS[finite])).astype(float)) / 2**10
    exact = FLOATS[finite].astype(float) / scale
    expected = np.sign(exact) * np.floor(np.abs(exact) + 0.5) * scale
    np.testing.assert_array_equal(found[finite], expected.astype(np.float32))


@pytest.mark.parametrize(
    "line",
    [
        "sin.approx.f32 %r0, %r1;",
        "add.sat.f32 %r0, %r1, %r1;",
        "cvt.rz.bf16.f32 %rs1, %r1;",
        "shfl.sync.bfly.b32 %r0, %r1, 1, 31, -1;",
        "bar.sync 1;",
        "ld.volatile.global.b32 %r0, [%rd0];",
        "tcgen05.wait::ld.sync.aligned;",
    ],
)
def test_what_is_not_known_is_said_with_its_line(line):
    with pytest.raises(Unknown, match=r"line \d+: " + line.split()[0].rstrip(";")):
        compute(line, A)
