"""The shape of a call, and what is kept of it for backward."""

from math import prod
from typing import NamedTuple

import torch

from ...form import Form
from ...keep import Keep
from ..compiled import machine
from ..loops.pieces import CHUNK

MIN_WORK = 400_000  # multiply-adds below which a second thread does not pay


class Shape(NamedTuple):
    """All that the layout of a call depends on: x's dtype, steps, directions, and sizes."""

    dtype: torch.dtype
    T: int  # steps, rounded up to a power of two: calls of many lengths share few layouts
    B: int
    D: int
    I: int
    H: int
    S: int  # of the hidden state: H, or P if projected
    projected: bool
    form: Form | None = None  # of weights of fewer bits

    @classmethod
    def of(cls, cell, x, steps, directions, states):
        first = directions[0]
        projected, H = first.hr is not None, first.ih.shape[0] // cell.gates
        S = first.hr.shape[0] if projected else H
        D, I = len(directions), x.shape[-1]
        return cls(x.dtype, steps.rounded, steps.B, D, I, H, S, projected)

    def threads(self, cell, N):
        """How many threads the work on N rows, in multiply-adds, is worth."""
        work = N * self.D * self.H * (cell.gates * self.I + cell.hgates * self.S)
        return torch.get_num_threads() if work >= MIN_WORK else 1

    def kept(self, cell, N, gates=None):
        """What forward keeps of N rows for backward: {name: (shape, dtype)}, of what there is.

        The states after each row, the cell's values before its projection, and its gates;
        gates: of which rows, as ``gates`` says (None: of all).
        """
        D, H = self.D, self.H
        gate_rows = D * N if gates is None else sum(rows for _, _, rows in gates)
        found = {"after": ((D, N, self.S), self.dtype)}
        if cell.states > 1:
            found["extra_after"] = (D, N, cell.states - 1, H), machine.wide(self.dtype)
        if self.projected:
            found["m"] = (D, N, H), self.dtype
        if cell.derivation.means:
            found["means"] = (D, N, len(cell.derivation.means)), machine.wide(self.dtype)
        if cell.factors:
            found["factors"] = (D, cell.factors, N, H), self.dtype
        if cell.kept and gate_rows:
            found["gates"] = (gate_rows, cell.kept, H), self.dtype
        return found

    def gates(self, cell, keep, steps):
        """(step, row, rows) for each direction: from which of its steps on its gates are kept,
        which is the first of their rows, and how many these are.

        That is all of them (Keep.ALL), or so many that all that is kept is half of that: to compute
        more of them anew would cost over a quarter of the time.
        """
        N = steps.N
        if keep == Keep.ALL or cell.staged:
            return ((0, 0, N),) * self.D
        each = self.dtype.itemsize * cell.kept * self.H
        states = sum(prod(shape) * t.itemsize for shape, t in self.kept(cell, N, ()).values())
        half = (each - states / (self.D * N)) / 2
        # within one block of backward's all or nothing is computed anew
        rows = int(N * half / each) if half > 0 and N > CHUNK else 0
        found = []
        for d in range(self.D):
            reverse = cell.reverse(d)
            step = steps.last(rows, reverse)
            if step == steps.T:
                found.append((step, 0, 0))
            elif reverse:
                t = steps.T - 1 - step
                found.append((step, 0, int(steps.offsets[t] + steps.sizes[t])))
            else:
                found.append((step, int(steps.offsets[step]), N - int(steps.offsets[step])))
        return tuple(found)
