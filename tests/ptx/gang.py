"""The programs that run together in a turn: what the instructions see of the machine."""

from functools import cached_property

import numpy as np

from .found import Parted, Stuck
from .meeting import BARRIER, END
from .shadow import PROGRAM

STEPS = 10_000_000  # of one turn: more than any test needs


class Gang:
    """programs: their numbers. What belongs to a thread is (programs, threads), or one for all."""

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
        if values.shape != self.shape:
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
        """What comes out for the threads that take part: bits of the register's size, in an array
        that nobody else holds.
        """
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
            jump = self._agreed(way)
            machine.at[self.programs[jump]] = machine.code.kernel.labels[way]
            return jump.any() and not jump.all()
        return True

    def _agreed(self, label):
        """Whether each program jumps to it: all its threads do, or none."""
        if self.guard is None:
            return np.ones(len(self.programs), bool)
        jump = self.guard[:, 0]
        if (self.guard != jump[:, None]).any():
            raise Parted(f"threads of a program go different ways: to {label}")
        return jump


def _as_bits(value, dtype, register):
    if value.dtype.itemsize != dtype.itemsize or bool in (value.dtype, dtype):
        raise TypeError(f"{value.dtype} in {register}")
    return value.view(dtype)
