"""Who has read and written what: accesses to the same place that nothing orders are races.

Time is counted by a program's barriers. What all its warps did before one is done before whatever
they do after it; between two barriers, a warp's accesses are ordered with its own only. Between
programs there is order where one released at an address and the other acquired there, and from its
next barrier on (PTX ISA, "Memory Consistency Model", of which this is the part that is needed):
each program knows how many stretches between barriers of each other one are over, a vector clock.

Both are on the safe side: a thread's own accesses right before its release or after its acquire,
with no barrier between, count as unordered although PTX orders them.
"""

import numpy as np

from .found import GlobalRace, SharedRace

NOBODY, SEVERAL = -1, -2
PROGRAM = 1 << 40  # a moment is program * PROGRAM + the number of the stretch


class Warps:
    """Order within a program; of ``size`` places of memory, shared or global."""

    def __init__(self, size, kind=SharedRace):
        self.kind = kind
        self.written, self.writer = np.full(size, NOBODY, np.int64), np.zeros(size, np.int16)
        self.seen, self.reader = np.full(size, NOBODY, np.int64), np.zeros(size, np.int16)

    def read(self, places, moments, warps, line):
        """All three of one shape: each thread's places, its moment, its warp."""
        self._raise(places, self._foreign_write(places, moments, warps), "read", "written", line)
        others = (self.seen[places] == moments) & (self.reader[places] != warps)
        self.reader[places] = readers = np.where(others, SEVERAL, warps)
        self.seen[places] = moments
        lost = places[self.reader[places] != readers]  # two warps at once: one was overwritten
        self.reader[lost] = SEVERAL

    def write(self, places, moments, warps, line):
        """Several warps may write a place at once, if it is the same: see memory.py."""
        others = (self.seen[places] == moments) & (self.reader[places] != warps)
        self._raise(places, others, "written", "read", line)
        self._raise(places, self._foreign_write(places, moments, warps), "written", "written", line)
        self.written[places], self.writer[places] = moments, warps
        self.writer[places[self.writer[places] != warps]] = SEVERAL

    def _foreign_write(self, places, moments, warps):
        return (self.written[places] == moments) & (self.writer[places] != warps)

    def _raise(self, places, wrong, now, before, line):
        if wrong.any():
            raise self.kind(
                f"place {places[wrong][0]} is {now}, and {before} by another warp, with no barrier "
                f"between: {line}"
            )


class Programs:
    """Order between programs, of ``size`` places of global memory; and within them, by Warps."""

    def __init__(self, size, programs):
        self.warps = Warps(size, GlobalRace)
        self.known = np.zeros((programs, programs), np.int64)  # [i, j]: of j's stretches, by i
        self.pending = np.zeros_like(self.known)  # what was acquired since the last barrier
        self.published = {}  # address: what its releases made known
        self.read_in = np.zeros((programs, size), np.int32)  # 1 + the stretch of the last read
        self.reader = np.full(size, NOBODY, np.int16)  # of all reads so far

    def read(self, places, moments, warps, line):
        self._after_writes(places, moments, "read", line)
        self.warps.read(places, moments, warps, line)
        program = (moments // PROGRAM).astype(np.int16)
        before = self.reader[places]
        self.reader[places] = mine = np.where(
            (before == NOBODY) | (before == program), program, SEVERAL
        )
        self.reader[places[self.reader[places] != mine]] = SEVERAL
        self.read_in[program, places] = moments % PROGRAM + 1

    def write(self, places, moments, warps, line):
        self._after_writes(places, moments, "written", line)
        self._after_reads(places, moments, line)
        self.warps.write(places, moments, warps, line)
        if (self.warps.written[places] != moments).any():
            raise GlobalRace(f"two programs write the same place at once: {line}")

    def _after_writes(self, places, moments, what, line):
        written, program = self.warps.written[places], moments // PROGRAM
        foreign = (written != NOBODY) & (written // PROGRAM != program)
        if foreign.any():
            who, when = np.divmod(written[foreign], PROGRAM)
            late = self.known[program[foreign], who] <= when
            if late.any():
                raise GlobalRace(
                    f"program {program[foreign][late][0]}: what program {who[late][0]} writes is "
                    f"{what}, in no order: {line}"
                )

    def _after_reads(self, places, moments, line):
        program = moments // PROGRAM
        foreign = (self.reader[places] != NOBODY) & (self.reader[places] != program)
        if foreign.any():
            places, program = places[foreign], program[foreign]
            early = self.known[program] < self.read_in[:, places].T
            early[np.arange(len(places)), program] = False
            if early.any():
                i, reader = np.argwhere(early)[0]
                raise GlobalRace(
                    f"program {program[i]} writes what program {reader} reads, in no order: {line}"
                )

    def release(self, program, address, stretch):
        """What ``program`` knows, and did before its last barrier, is known to who acquires."""
        self.known[program, program] = stretch
        before = self.published.get(address, 0)
        self.published[address] = np.maximum(self.known[program], before)

    def acquire(self, program, address):
        if address in self.published:
            np.maximum(self.pending[program], self.published[address], out=self.pending[program])

    def barrier(self, programs):
        """Now all threads of these know what one has acquired."""
        self.known[programs] = np.maximum(self.known[programs], self.pending[programs])
