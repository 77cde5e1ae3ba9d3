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
ACCESS = r"\b(?:ld|st|atom|red|ldmatrix|stmatrix|wgmma)\."


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


def barriers(ptx):
    """[[(begin, end), ...], ...]: those with no access to memory between them count as one."""
    found, apart = [], True
    for match in re.finditer(rf"({BAR})|{ACCESS}", ptx):
        if match[1] and not apart:
            found[-1].append(match.span())
        elif match[1]:
            found.append([match.span()])
        apart = not match[1]
    return found


def without_barrier(number):
    def change(ptx):
        for begin, end in reversed(barriers(ptx)[number]):
            ptx = ptx[:begin] + ptx[end:]
        return ptx

    return change


def without_barrier_before(pattern):
    """The last before the first match."""

    def change(ptx):
        if not (found := re.search(pattern, ptx)):
            return ptx
        before = sum(first < found.start() for (first, _), *_ in barriers(ptx))
        return without_barrier(before - 1)(ptx)

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
    without_barrier_before(r"(atom|red)\.global\.gpu\.release"),
)
NO_FENCE = Fault("no proxy fence", (Unfenced,), without(r"fence\.proxy\.async[^;]*;"))
NO_BARRIER_BEFORE_UNIT = Fault(
    "no barrier before the matrix unit",
    (SharedRace, Unfenced),
    without_barrier_before(r"wgmma\.fence"),
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
