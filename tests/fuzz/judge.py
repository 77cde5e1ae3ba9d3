"""How far from torch.nn in float64 a result may be."""

import torch

from .running import torchs

LIMIT = 8.0  # units
NEIGHBOURS = 200
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
    moved by up to one rounding, until one of those errors explains ours or all are drawn. These run
    without oneDNN, which adds both biases before all else: where two large ones cancel, that is
    luck too.

    Of float64 nothing knows the truth better than torch.nn's. The unit is its error in float32,
    2**-29 times; but where float32 says 0, as of the derivative of a gate that is shut (a
    difference of ones), that is no measure: one rounding of what goes into a gradient is allowed.
    """

    def __init__(self, problem):
        self.problem, self.dtype = problem, problem.case.dtype
        double = self.dtype == torch.float64
        self.theirs_in = torch.float32 if double else self.dtype
        self.scale = 2.0**-29 if double else 1.0
        self.exact, self.theirs = torchs(problem, torch.float64), torchs(problem, self.theirs_in)
        self._near = self._neighbours()
        self._drawn = []
        self.into = 0.0
        if double:
            factors = [
                max(
                    (float(t.nan_to_num(0, 0, 0).abs().max()) for t in group if t.numel()),
                    default=0,
                )
                for group in (problem.grads.values(), problem.inputs.values())
            ]
            self.into = torch.finfo(self.dtype).eps * factors[0] * max(1.0, factors[1])

    def units(self, name, value):
        """The error of ``value`` in units, for the tensor of that name."""
        exact, theirs = self.exact[name], self.theirs[name]
        if value is None:  # of what is empty torch.nn says so as well
            return torch.inf if exact.any() else 0.0
        if value.shape != exact.shape or value.dtype != self.dtype:
            return torch.inf
        # cells write the derivative of tanh as d - d t t, which of an infinite d makes NaN
        is_gradient = name.startswith("d ")
        error, largest = worst(value, theirs, exact, lost=is_gradient)
        floor = torch.finfo(self.dtype).eps / 2 * largest + TINY.get(self.dtype, SMALL)
        unit = max(worst(theirs, theirs, exact)[0] * self.scale, floor + is_gradient * self.into)
        if LIMIT * unit < error < torch.inf:
            for near_exact, near in self._near_ones():
                unit = max(unit, worst(near[name], near[name], near_exact[name])[0] * self.scale)
                if error <= LIMIT * unit:
                    break
        return error / unit

    def _near_ones(self):
        """The neighbours, those that were drawn before first."""
        yield from self._drawn
        for pair in self._near:
            self._drawn.append(pair)
            yield pair

    def _neighbours(self):
        """What torch.nn makes of problems one rounding away: in float64, and in the other dtype."""
        generator = torch.Generator().manual_seed(0)
        eps = torch.finfo(self.theirs_in).eps

        def moved(t):
            steps = torch.randint(-1, 2, t.shape, generator=generator)
            return (t.double() * (1 + eps * steps)).to(self.theirs_in)

        for _ in range(NEIGHBOURS):
            near = self.problem.each(moved)
            yield torchs(near, torch.float64), torchs(near, self.theirs_in, onednn=False)
