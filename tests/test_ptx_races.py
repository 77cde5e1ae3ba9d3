"""What the PTX emulator finds wrong with a kernel: each in a few lines, and none without it."""

import pytest
import torch

from tests.ptx import gang, machine
from tests.ptx.found import GlobalRace, Misaligned, OutOfBounds, Parted, SharedRace, Stuck
from tests.ptx.snippets import run

# Thread t's word goes to word 63 - t: of the other warp. %r1: where mine is, %r2: the other's.
CROSSED = """
    shl.b32 %r1, %r99, 2; sub.s32 %r2, 252, %r1; add.s64 %rd10, %rd0, %rd99;
    st.shared.b32 [%r1], %r99;
    {between}
    ld.shared.b32 %r3, [%r2];
    {after}
    st.shared.b32 [%r1], %r3;
    st.global.b32 [%rd10], %r3;
"""


def crossed(between="bar.sync 0;", after="bar.sync 0;"):
    out = torch.zeros(64, dtype=torch.int32)
    run(CROSSED.format(between=between, after=after), out, threads=64, shared=256)
    return out


def test_shared_memory():
    assert torch.equal(crossed(), torch.arange(63, -1, -1, dtype=torch.int32))


@pytest.mark.parametrize(
    ("removed", "said"), [("between", "is read, and written"), ("after", "is written, and read")]
)
def test_a_race_in_shared_memory(removed, said):
    with pytest.raises(SharedRace, match=said):
        crossed(**{removed: "bar.warp.sync -1;"})


def test_two_warps_that_write_the_same_word():
    with pytest.raises(SharedRace, match="different values"):
        run(
            "and.b32 %r1, %r99, 31; shl.b32 %r1, %r1, 2; st.shared.b32 [%r1], %r99;",
            threads=64,
            shared=128,
        )


def test_two_warps_may_write_the_halves_of_a_word():
    """A place is as small as the smallest access."""
    run(
        "shr.u32 %r1, %r99, 5; and.b32 %r2, %r99, 31; shl.b32 %r2, %r2, 2; shl.b32 %r1, %r1, 1;"
        "add.s32 %r1, %r1, %r2; cvt.u16.u32 %rs1, %r1; st.shared.b16 [%r1], %rs1;",
        threads=64,
        shared=128,
    )


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ld.global.b32 %r1, [%rd10+4];", OutOfBounds),  # the last thread's
        ("st.global.b32 [%rd10+-4], %r99;", OutOfBounds),  # the first thread's
        ("ld.global.b32 %r1, [%rd99];", OutOfBounds),
        ("ld.global.v2.b32 {%r1, %r2}, [%rd10];", Misaligned),
        ("ld.shared.b32 %r1, [%r98+4];", OutOfBounds),
        ("st.shared.v2.b32 [%r98], {%r1, %r2};", Misaligned),
    ],
)
def test_bounds(line, kind):
    with pytest.raises(kind, match=r"line \d+: "):
        bounds(line)


@pytest.mark.parametrize(
    "line",
    [
        "ld.global.b32 %r1, [%rd10]; st.global.b32 [%rd10], %r1;",
        "ld.shared.b32 %r1, [%r98];",
        "setp.lt.s32 %p1, %r99, 31; @%p1 ld.global.b32 %r1, [%rd10+4];",
    ],
)
def test_within_bounds(line):
    bounds(line)


def bounds(line):
    """Of a view, whose neighbours are no less out of bounds."""
    begin = "add.s64 %rd10, %rd0, %rd99; shl.b32 %r98, %r99, 2;"
    run(begin + line, torch.zeros(96, dtype=torch.int32)[32:64], shared=128)


# Program 0 writes a word for each thread, program 1 reads what the other warp wrote.
MESSAGE = """
    add.s64 %rd10, %rd0, %rd99; mov.u32 %r1, %ctaid.x;
    setp.eq.s32 %p1, %r1, 1; setp.eq.s32 %p2, %r99, 0;
    @%p1 bra READER;
    st.global.b32 [%rd10], %r99;
    {before}
    mov.b32 %r3, 1;
    @%p2 atom.global.gpu.{release}.add.u32 %r2, [%rd1], %r3;
    bra END;
READER:
    bar.sync 0;
    @%p2 ld.global.{acquire}.b32 %r2, [%rd1];
    @%p2 st.shared.b32 [%rd5], %r2;
    bar.sync 0;
    ld.shared.b32 %r2, [global_smem];
    setp.lt.s32 %p3, %r2, 1;
    @%p3 bra READER;
    sub.s64 %rd11, %rd0, %rd99;
    ld.global.cg.b32 %r4, [%rd11+252];
    add.s64 %rd12, %rd2, %rd99;
    st.global.b32 [%rd12], %r4;
    {answer}
END:
"""


def message(
    before="bar.sync 0;", release="release", acquire="gpu.acquire", answer="", seed=0, **options
):
    word, counter, out = (torch.zeros(n, dtype=torch.int32) for n in (64, 1, 64))
    body = "mov.b64 %rd5, 0;" + MESSAGE.format(
        before=before, release=release, acquire=acquire, answer=answer
    )
    run(body, word, counter, out, threads=64, grid=(2, 1, 1), shared=4, seed=seed, **options)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_programs_that_meet(seed):
    assert torch.equal(message(seed=seed), torch.arange(63, -1, -1, dtype=torch.int32))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "fault",
    [
        {"before": ""},  # one warp says so before the other has stored
        {"release": "relaxed"},
        {"acquire": "b32", "release": "release"},
        {"answer": "bar.sync 0; st.global.b32 [%rd10], %r4;"},  # the words are written twice
    ],
    ids=str,
)
def test_programs_that_race(fault, seed):
    fault = {name: "cg" if value == "b32" else value for name, value in fault.items()}
    if "answer" in fault:
        message(seed=seed, answer=fault["answer"])  # after the acquire: it is in order
        fault["acquire"] = "cg"
    with pytest.raises(GlobalRace, match="in no order"):
        message(seed=seed, **fault)


def test_what_never_comes(monkeypatch):
    monkeypatch.setattr(machine, "TURNS", 200)
    with pytest.raises(Stuck, match="1 of 1 programs"):
        run("LOOK:\nbar.sync 0; bra LOOK;")


def test_an_endless_loop(monkeypatch):
    monkeypatch.setattr(gang, "STEPS", 200)
    with pytest.raises(Stuck, match="without a barrier"):
        run("LOOK:\nbra LOOK;")


def test_who_comes_late_runs_when_the_others_have_ended():
    """So it reads what they have written; which is no order, and not checked."""
    out = torch.zeros(3, dtype=torch.int32)
    run(
        "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd10, %r1, 4; add.s64 %rd10, %rd0, %rd10;"
        "ld.global.b32 %r2, [%rd0+8]; setp.eq.s32 %p1, %r99, 0;"
        "add.s32 %r2, %r2, 1; @%p1 st.global.b32 [%rd10], %r2;",
        out,
        grid=(3, 1, 1),
        late=(0,),
    )
    assert out[0] == 2


def test_threads_that_go_different_ways():
    with pytest.raises(Parted):
        run("setp.lt.s32 %p1, %r99, 7; @%p1 bra END;\nEND:")
