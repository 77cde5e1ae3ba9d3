"""What bits mean: numbers of 32, 16 and 19 bits, and vectors of two in a register."""

import numpy as np

F32, F64, U16, U32, U64 = np.float32, np.float64, np.uint16, np.uint32, np.uint64
UNSIGNED_OF = {8: np.uint8, 16: U16, 32: U32, 64: U64}
LEAST = F32(2.0**-126)  # of a normal float32


def signed(bits):
    """Unsigned integers as signed ones of as many bits."""
    return bits.view({2: np.int16, 4: np.int32, 8: np.int64}[bits.dtype.itemsize])


def unsigned(integers):
    return integers.view({2: U16, 4: U32, 8: U64}[integers.dtype.itemsize])


def float32(bits):
    """The float32 that 32 bits are."""
    return bits.view(F32)


def bits32(values):
    return np.asarray(values, F32).view(U32)


def flushed(values):
    """``values`` with zeros for what is too small for a normal float32 (.ftz)."""
    return np.where(np.abs(values) < LEAST, np.copysign(F32(0), values), values)


def from_bf16(bits):
    """The float32 that a bfloat16 is."""
    return (bits.astype(U32) << U32(16)).view(F32)


def to_bf16(values):
    """Rounded to nearest, ties to even; a NaN is PTX's own."""
    bits = np.asarray(values, F32).view(U32).astype(U64)
    rounded = (bits + U64(0x7FFF) + ((bits >> U64(16)) & U64(1))) >> U64(16)
    return np.where(np.isnan(values), U16(0x7FFF), rounded.astype(U16))


def from_f16(bits):
    return bits.view(np.float16).astype(F32)


def to_f16(values):
    """Rounded to nearest, ties to even."""
    return np.asarray(values, F32).astype(np.float16).view(U16)


def as_tf32(bits):
    """What a matrix unit makes of a float32: the lower 13 bits do not count."""
    return (bits & U32(0xFFFFE000)).view(F32)


def to_tf32(values):
    """Rounded to nearest, ties away from zero (cvt.rna.tf32): a float32 of 19 bits."""
    bits = values.view(U32)
    rounded = (bits + U32(0x1000)) & U32(0xFFFFE000)
    return np.where(np.isfinite(values), rounded, bits)


WIDEN = {"bf16": from_bf16, "f16": from_f16, "f32": float32, "tf32": as_tf32}
NARROW = {"bf16": to_bf16, "f16": to_f16, "f32": bits32}


def halves(bits):
    """The lower and the upper 16 of 32 bits."""
    return bits.astype(U16), (bits >> U32(16)).astype(U16)


def joined(low, high):
    """32 bits of twice 16."""
    return low.astype(U32) | (high.astype(U32) << U32(16))


def parts(bits, kind):
    """The numbers in 32 bits, as float32, lower ones first: two halves or one of tf32."""
    each = (bits,) if kind == "tf32" else halves(bits)
    return tuple(map(WIDEN[kind], each))
