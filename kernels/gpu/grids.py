"""How the programs of a kernel come to run: launches, one after another, and the grid of each."""

from collections.abc import Callable
from math import inf
from typing import NamedTuple


def cdiv(a, b):
    return -(-a // b)


def forward_grid(groups, blocks, directions, takers=None):
    return blocks, groups, directions


def backward_grid(groups, blocks, directions, takers=None):
    """takers: to so many groups each gives; to all of them, but without a product."""
    return blocks * directions, takers or groups, groups


class Launches(NamedTuple):
    """The programs of a kernel: in blocks of BB sequences, and D directions."""

    blocks: int
    D: int
    groups: int  # of units
    together: int | None  # lanes at a time, 0 if there is no room for one; None: nobody waits
    grid: Callable  # of a launch: (groups, blocks, directions)

    @property
    def at_once(self):
        """How many blocks, in how many directions, a launch takes."""
        if self.together is None:
            return self.blocks, self.D
        directions = self.D if self.together >= self.D else 1
        return max(1, self.together // directions), directions

    @property
    def count(self):
        """How many there are; more than any number, if there is no room for a lane."""
        blocks, directions = self.at_once
        count = cdiv(self.blocks, blocks) * cdiv(self.D, directions)
        return inf if self.together == 0 else count

    def each(self):
        """(first block, first direction, grid) of each launch."""
        blocks, directions = self.at_once
        for block in range(0, self.blocks, blocks):
            for d in range(0, self.D, directions):
                yield block, d, self.grid(self.groups, min(blocks, self.blocks - block), directions)
