"""Runs all programs of a grid at once, as a GPU that has room for them would.

The machine holds the registers of every thread. It takes turns: it draws a program, and others that
are at the same place in the code, and runs these, a Gang, until they come to a barrier, end, or go
different ways. So programs overtake each other in every manner, and where many are at the same
place NumPy computes for all of them at once.
"""

import numpy as np
import torch

from . import asynchronous, table, text
from .found import Stuck
from .gang import Gang
from .memory import Global, Shared
from .operands import UNSIGNED, bits_of

TURNS = 100_000  # of a run: more than any test needs
GARBAGE = 0x7FC0DEAD7FC0DEAD  # in registers that nobody has written: NaN, as float32


class Code:
    """A kernel, ready to run."""

    def __init__(self, ptx, shared):
        """shared: bytes of shared memory that a program has."""
        self.kernel, self.shared = text.read(ptx), shared
        asynchronous.check(self.kernel)
        self.steps = [table.build(each) for each in self.kernel.instructions]
        sizes = [table.accessed(each) for each in self.kernel.instructions]
        self.grain = {
            space: min((size for where, size in sizes if where == space), default=4)
            for space in ("global", "shared")
        }


class Machine:
    """A grid of programs of a Code.

    arguments: as the kernel is given them, a tensor or a number each; late: programs that have no
    room until all others have ended; then no races are looked for.
    """

    def __init__(self, code, grid, arguments, seed=0, late=()):
        self.code, self.grid, self.random = code, grid, np.random.default_rng(seed)
        self.programs, self.threads = int(np.prod(grid)), code.kernel.threads
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        self.memory = Global(tensors, self.programs, code.grain["global"], ordered=not late)
        self.shared = Shared(code.shared, self.programs, code.grain["shared"])
        self.arguments = {
            name: self.memory.pointer(a) if isinstance(a, torch.Tensor) else a
            for name, a in zip(code.kernel.parameters, arguments, strict=True)
        }
        self.registers = {}
        self.at = np.zeros(self.programs, int)  # each program's next instruction
        self.stretch = np.zeros(self.programs, np.int64)  # how many barriers it has passed
        self.live, self.late = np.ones(self.programs, bool), np.zeros(self.programs, bool)
        self.late[list(late)] = True

    def run(self):
        """Until all have ended; then the tensors hold what was stored."""
        with np.errstate(all="ignore"):
            for waiting in (~self.late, self.late):
                for _ in range(TURNS):
                    if not (ready := np.flatnonzero(self.live & waiting)).size:
                        break
                    Gang(self, self._drawn(ready)).run()
                else:
                    raise Stuck(f"{ready.size} of {self.programs} programs never end")
        self.memory.read_back()

    def _drawn(self, ready):
        """A program, and of those at the same place all, every other one at random, or none."""
        first = self.random.choice(ready)
        alike = ready[self.at[ready] == self.at[first]]
        share = self.random.choice([0.0, 0.5, 1.0, 1.0])
        return alike[(self.random.random(alike.size) < share) | (alike == first)]

    def register(self, name):
        """(programs, threads)"""
        if name not in self.registers:
            kind = UNSIGNED[bits_of(name)]
            garbage = kind(GARBAGE & np.iinfo(kind).max) if kind is not np.bool_ else False
            self.registers[name] = np.full((self.programs, self.threads), garbage, kind)
        return self.registers[name]
