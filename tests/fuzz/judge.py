"""How far from torch.nn in float64 a result may be."""

import torch

LIMIT = 8.0  # units
NEIGHBOURS = 24
TINY = {torch.float64: 1e-300, torch.float16: 2.0**-24}  # one denormal of float16
SMALL = 1e-36  # elsewhere: what the bfloat16 instructions flush to zero, 1e-38, times some weights


def worst(value, theirs, exact, lost=False):
    """(the largest error, the largest magnitude) where torch's own result is finite too.

    Where the truth is not finite and torch says so too, nothing else will do; but where ``lost``,
    NaN will do for an infinity. Where torch's numbers alone are not finite, they overflowed on the
    way, and anything goes.
    """
    exact, theirs, value = exact.double(), theirs.double(), value.double()
    said = ~exact.isfinite() & ((exact == theirs) | (exact.isnan() & theirs.isnan()))
    if lost:
        said &= ~(exact.isinf() & value.isnan())
    if not value[said].allclose(exact[said], equal_nan=True):
        return torch.inf, 1.0
    both = exact.isfinite() & theirs.isfinite()
    if not both.any():
        return 0.0, 0.0
    error = float((value - exact)[both].abs().max())
    return (torch.inf if error != error else error), float(exact[both].abs().max())


class Judge:
    """Measures errors in units of torch.nn's own.

    A unit is the largest error of torch.nn in the same dtype, or half of one rounding of the
    largest element: no result can be expected to be nearer than that. Both libraries round in their
    own order, so an error of ours has no more to do with the same error of torch's than two draws
    from a hat: hence the factor LIMIT. A tensor of a few elements may be right by luck, and a ReLU
    that rounds to the other side of zero changes all that follows, once in many draws: so where
    the limit is broken, torch.nn is also measured on neighbours, the same problem with every number
    moved by up to one rounding, and the largest of those errors is the unit.

    For float64 there is no better truth: its unit is torch.nn's error in float32, 2**-29 times.
    """

    def __init__(self, problem, torchs):
        self.problem, self.torchs = problem, torchs
        self.dtype = problem.case.dtype
        self.theirs_in = torch.float32 if self.dtype == torch.float64 else self.dtype
        self.scale = 2.0**-29 if self.dtype == torch.float64 else 1.0
        self.exact = torchs(problem, torch.float64)
        self.theirs = torchs(problem, self.theirs_in)
        self._neighbours = None

    def units(self, name, value):
        """The error of ``value`` in units, for the tensor of that name."""
        exact, theirs = self.exact[name], self.theirs[name]
        if exact is None:  # of c_n alone torch says of some weights that they have no part in it
            return torch.inf if value is not None and value.any() else 0.0
        if value is None:
            return torch.inf
        if value.shape != exact.shape or value.dtype != self.dtype:
            return torch.inf
        # cells write the derivative of tanh as d - d t t, which of an infinite d makes NaN
        error, largest = worst(value, theirs, exact, lost=name.startswith("d "))
        unit, _ = worst(theirs, theirs, exact)
        floor = torch.finfo(self.dtype).eps / 2 * largest + TINY.get(self.dtype, SMALL)
        units = error / max(unit * self.scale, floor)
        if LIMIT < units < torch.inf:
            units = min(units, error / max(self.neighbours(name) * self.scale, floor))
        return units

    def neighbours(self, name):
        """torch.nn's largest error on problems one rounding away from this one."""
        if self._neighbours is None:
            generator = torch.Generator().manual_seed(0)
            eps = torch.finfo(self.theirs_in).eps

            def moved(t):
                steps = torch.randint(-1, 2, t.shape, generator=generator)
                return (t.double() * (1 + eps * steps)).to(self.theirs_in)

            self._neighbours = []
            for _ in range(NEIGHBOURS):
                near = self.problem.each(moved)
                self._neighbours.append(
                    (self.torchs(near, torch.float64), self.torchs(near, self.theirs_in))
                )
        errors = [worst(t[name], t[name], e[name])[0] for e, t in self._neighbours]
        return max(errors)
