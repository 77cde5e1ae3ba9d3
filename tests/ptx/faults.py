"""Faults to plant: each is one that a change of the kernels, or of the compiler, might bring.

Those of the text are planted in the PTX, where Triton has put what they take away; each says which
Detected must be raised, whatever numbers come out.
"""

import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

from fastrnn.kernels.gpu import engine

from .found import GlobalRace, InFlight, OutOfBounds, SharedRace, Unfenced

BAR = r"bar\.sync\s+0;"


class Fault(NamedTuple):
    name: str
    raises: tuple = ()  # which Detected may say so; none: it is seen in the numbers
    change: Callable = str  # of the text; where there is no place for the fault, it stays as it is
    late: tuple = ()  # programs that start when all others have ended, see machine.py
    ring: int = engine.RING
    kernel: str | None = None  # "forward" or "backward"; None: in both

    def __str__(self):
        return f"{self.name} {self.kernel or ''}".strip()

    def is_in(self, kernel):
        return self.kernel in (None, kernel)

    @contextmanager
    def applied(self):
        """Within this context what is no part of the text is at fault, too."""
        with mock.patch.object(engine, "RING", self.ring):
            yield


def without(pattern):
    """Takes away whatever matches."""
    return lambda ptx: re.sub(pattern, "", ptx)


def without_one(number, begin=0):
    """Takes away a barrier of those that stand before ``begin``: the number-th, -1 for the last."""

    def change(ptx):
        barriers = [m.span() for m in re.finditer(BAR, ptx[: begin or None])]
        if not barriers:
            return ptx
        first, end = barriers[number]
        return ptx[:first] + ptx[end:]

    return change


def without_last_before(pattern):
    """Takes away the last barrier that stands before the first match."""

    def change(ptx):
        found = re.search(pattern, ptx)
        return without_one(-1, found.start())(ptx) if found else ptx

    return change


def no_wait(ptx):
    """The branch back to another look at the counter."""
    look = re.search(r"ld\.global\.gpu\.acquire", ptx)
    if not look:
        return ptx
    branch = re.compile(r"@%p\d+ bra[^;]*;").search(ptx, look.end())
    return ptx[: branch.start()] + ptx[branch.end() :]


NO_BARRIER = Fault(
    "no barrier before the release",
    (GlobalRace,),
    without_last_before(r"(atom|red)\.global\.gpu\.release"),
)
NO_FENCE = Fault("no proxy fence", (Unfenced,), without(r"fence\.proxy\.async[^;]*;"))
NO_BARRIER_BEFORE_UNIT = Fault(
    "no barrier before the matrix unit",
    (SharedRace, Unfenced),
    without_last_before(r"wgmma\.fence"),
)
NO_WAIT_FOR_UNIT = Fault(
    "no wait for the matrix unit", (InFlight,), without(r"wgmma\.wait_group[^;]*;")
)
NO_WAIT = Fault("no wait", (GlobalRace,), no_wait)
RELAXED_WAIT = Fault(
    "a relaxed wait", (GlobalRace,), lambda ptx: ptx.replace("ld.global.gpu.acquire", "ld.global")
)
RELAXED_RELEASE = Fault(
    "a relaxed release",
    (GlobalRace,),
    lambda ptx: re.sub(r"((?:atom|red)\.global\.gpu)\.release", r"\1.relaxed", ptx),
)
NO_MASK = Fault(
    "no mask", (OutOfBounds,), lambda ptx: re.sub(r"@%p\d+ (ld\.global\.cg)", r"\1", ptx)
)
RING_OF_TWO = Fault("a ring of two", (GlobalRace,), ring=2)
ABSENT = Fault("an absent program", late=(1,))
IN_TEXT = NO_BARRIER, NO_WAIT, RELAXED_WAIT, RELAXED_RELEASE, NO_MASK  # of any kernel that meets
OF_UNIT = NO_FENCE, NO_BARRIER_BEFORE_UNIT, NO_WAIT_FOR_UNIT  # and of those with wgmma
