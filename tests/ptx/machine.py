"""Runs all programs of a grid at once, as a GPU that has room for them would.

The machine holds the registers of every thread. It takes turns: it draws a program, and others that
are at the same place in the code, and runs these, a Gang, until they come to a barrier, end, or go
different ways. So programs overtake each other in every manner, and where many are at the same
place NumPy computes for all of them at once.
"""

from functools import cached_property

import numpy as np

from . import asynchronous, table, text
from .found import Parted, Stuck
from .meeting import BARRIER, END
from .memory import Global, Shared
from .operands import UNSIGNED, bits_of
from .shadow import PROGRAM

TURNS, STEPS = 100_000, 10_000_000  # of a run, and of one turn: more than any test needs
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
        tensors = [a for a in arguments if not isinstance(a, (int, float))]
        self.memory = Global(tensors, self.programs, code.grain["global"], ordered=not late)
        self.shared = Shared(code.shared, self.programs, code.grain["shared"])
        self.arguments = {
            name: self.memory.pointer(a) if any(a is t for t in tensors) else a
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


class Gang:
    """The programs that run together in a turn; what the instructions see of them."""

    def __init__(self, machine, programs):
        self.machine, self.programs = machine, programs
        self.memory, self.shared = machine.memory, machine.shared
        self.all = len(programs) == machine.programs
        self.shape = len(programs), machine.threads
        self.guard = None  # (programs, threads): who takes part in this instruction; None: all

    @cached_property
    def threads(self):
        return np.broadcast_to(np.arange(self.shape[1], dtype=np.uint32), self.shape)

    @cached_property
    def warps(self):
        return (self.threads // 32).astype(np.int16)

    @cached_property
    def moments(self):
        """The time of each thread, see shadow.py."""
        return np.broadcast_to(self.times[:, None], self.shape)

    @cached_property
    def times(self):
        return self.programs * PROGRAM + self.machine.stretch[self.programs]

    @property
    def anybody(self):
        """Whether any thread takes part in this instruction."""
        return self.guard is None or self.guard.any()

    def chosen(self, values):
        """(number,): of those that take part."""
        values = np.broadcast_to(values, self.shape)
        return values.reshape(-1) if self.guard is None else values[self.guard]

    def spread(self, values):
        """(programs, threads): the opposite, with anything for the others."""
        if self.guard is None:
            return values.reshape(self.shape)
        found = np.zeros(self.shape, values.dtype)
        found[self.guard] = values
        return found

    def place(self, name, axis):
        """%ctaid or %nctaid, a column."""
        if name == "nctaid":
            return np.uint32(self.machine.grid[axis])
        x, y, z = self.machine.grid
        found = np.unravel_index(self.programs, (z, y, x))[2 - axis]
        return found.astype(np.uint32)[:, None]

    def read(self, register):
        found = self.machine.register(register)
        return found if self.all else found[self.programs]

    def write(self, register, value):
        """What comes out for the threads that take part; bits of the register's size."""
        old = self.machine.register(register)
        value = np.asarray(value)
        if value.dtype != old.dtype:
            value = _as_bits(value, old.dtype, register)
        if self.guard is not None:
            value = np.where(self.guard, value, self.read(register))
        if not self.all:
            old[self.programs] = value
        elif value.shape == self.shape and value.base is None:
            self.machine.registers[register] = value
        else:
            self.machine.registers[register] = np.array(np.broadcast_to(value, self.shape))

    def run(self):
        """Until a step says that the turn is over."""
        steps, at = self.machine.code.steps, self.machine.at[self.programs[0]]
        for _ in range(STEPS):
            self.guard = steps[at].guard and steps[at].guard(self)
            way = steps[at].run(self)
            at += 1
            if way is not None:
                self.machine.at[self.programs] = at
                if self._leave(way):
                    return
                at = self.machine.at[self.programs[0]]
        raise Stuck(f"{STEPS} instructions without a barrier")

    def _leave(self, way):
        """Go where a step says; whether the turn is over."""
        machine = self.machine
        if way == END:
            machine.live[self.programs] = False
        elif way == BARRIER:
            machine.stretch[self.programs] += 1
            if self.memory.order:
                self.memory.order.barrier(self.programs)
        else:
            jump = self._agreed()
            machine.at[self.programs[jump]] = machine.code.kernel.labels[way]
            return jump.any() and not jump.all()
        return True

    def _agreed(self):
        """Whether each program jumps: all its threads, or none."""
        if self.guard is None:
            return np.ones(len(self.programs), bool)
        jump = self.guard[:, 0]
        if (self.guard != jump[:, None]).any():
            raise Parted("threads of a program go different ways")
        return jump


def _as_bits(value, dtype, register):
    if value.dtype.itemsize != dtype.itemsize or bool in (value.dtype, dtype):
        raise TypeError(f"{value.dtype} in {register}")
    return value.view(dtype)
