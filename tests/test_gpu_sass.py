"""What is read from NVIDIA's machine code."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench.aot import sass


def listing(*code):
    """As cuobjdump prints (text, the counter it sets, those it waits for)."""
    lines = []
    for n, (text, sets, waits) in enumerate(code):
        control = sets << 5 | sum(1 << counter for counter in waits) << 11
        lines.append(f"        /*{16 * n:04x}*/   {text} ;   /* 0x{n:016x} */")
        lines.append(f"{'':40}/* 0x{control << 41:016x} */")
    return "\n".join(lines)


LOOK = ("LDG.E.STRONG.GPU R41, desc[UR60][R150.64]", 4, ()), ("CCTL.IVALL", sass.NONE, (4,))
ADDED = ("@P4 REDG.E.ADD.STRONG.GPU desc[UR60][R84.64], R13", sass.NONE, ())
LOADS = [(f"@P0 LDG.E.128.STRONG.GPU R{n}, desc[UR60][R2.64]", n, ()) for n in range(3)]
SUMS = [(f"FADD R9, R9, R{n}", sass.NONE, (n,)) for n in range(3)]
OTHER = ("MUFU.EX2 R8, R8", 5, ()), ("FADD R8, R8, 1", sass.NONE, (5,))


def trips(*code):
    return sass.round_trips(sass.instructions(listing(*code)))


def test_round_trips():
    assert trips(*LOOK, *LOADS, *OTHER, *SUMS, ADDED, *LOADS, *SUMS) == 1
    assert trips(*LOOK, LOADS[0], SUMS[0], *LOADS[1:], *SUMS[1:], ADDED) == 2
    assert (
        trips(*LOOK, *[line for pair in zip(LOADS, SUMS, strict=True) for line in pair], ADDED) == 3
    )
    assert trips(*LOADS, *SUMS, *LOOK, *OTHER, ADDED) == 0
    assert trips(*LOADS, *SUMS) == 0
    with pytest.raises(ValueError, match="never adds"):
        trips(*LOOK, *LOADS, *SUMS)
