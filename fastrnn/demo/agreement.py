"""The training job, done twice in turn: with torch.nn and with fastrnn. Do they agree?

Both start from the same weights and see the same text. Only the order in which floating-point sums
are taken differs, so that the losses first differ in their last digit. Training then multiplies any
difference, step after step, whatever made it: torch.nn in float32 leaves torch.nn in float64 in the
same way. So three things are asked: that the losses of the first steps agree to rounding, that
those of the whole run stay close, and that fastrnn's trained weights, put into torch.nn's layer,
do what they did in fastrnn's, where no training comes between.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

import fastrnn

from .training import Run, build, evaluate, write

# All in bits per character. Where a job is so wild (a high learning rate, a tiny batch) that
# rounding parts any two runs by more, the limits on the losses grow: to TIMES_ROUNDING of what
# float32 makes of torch.nn's own first losses, and to the standard deviation of its last ones.
FIRST = 10  # steps before training has multiplied rounding to anything that matters
FIRST_LIMIT = {torch.float32: 1e-4, torch.float64: 1e-7}
TIMES_ROUNDING = 100
WHOLE_RUN_LIMIT = 0.25  # of the 4 to 5 that training takes off
SAME_WEIGHTS_LIMIT = {torch.float32: 1e-5, torch.float64: 1e-10}


@dataclass
class Agreement:
    """One thing asked of the two: how far they are apart, and how far they may be."""

    what: str
    difference: float
    limit: float | None  # None: for information

    @property
    def passed(self):
        return self.limit is None or self.difference <= self.limit


class Comparison:
    """A run with torch.nn's layer and one with fastrnn's."""

    def __init__(self, options):
        self.options, self.corpus = options, options.corpus
        self.layer = options.layer.upper()
        self.torch, self.ours = self._start(nn, options.dtype), self._start(fastrnn, options.dtype)
        self.held_out = {self.torch: [], self.ours: []}  # bits per character, before and after

    def _start(self, library, dtype):
        """A run with the layer of ``library``, from the one set of first weights."""
        model = build(getattr(library, self.layer), len(self.corpus.characters), self.options)
        return Run(model.to(dtype), self.options.lr)

    def train(self, steps):
        """Take ``steps`` steps with each in turn, A B A B, and yield after each pair."""
        for _, window in zip(range(steps), self.corpus.train(), strict=False):
            self.torch.step(*window)
            self.ours.step(*window)
            yield

    def evaluate(self):
        """Measure both on the text held out."""
        for run, bits in self.held_out.items():
            bits.append(evaluate(run.model, self.corpus.held_out()))

    def speed(self, run):
        """Characters per second, by the median step."""
        return self.options.batch * self.options.length / median(run.seconds)

    def agreements(self):
        """The Agreements, after training."""
        dtype, losses = self.options.dtype, self.torch.losses
        apart = differences(losses, self.ours.losses)
        first, limit = apart[:FIRST], FIRST_LIMIT[dtype]
        rounding = []
        if dtype == torch.float32:
            own = differences(losses[: len(first)], self._exact_losses(len(first))).max().item()
            rounding = [Agreement("  the same, torch.nn in float32 and float64", own, None)]
            limit = max(limit, TIMES_ROUNDING * own)
        yield Agreement(f"Losses of the first {len(first)} steps", first.max().item(), limit)
        yield from rounding
        yield Agreement(
            f"Losses of all {len(losses)} steps, on average",
            apart.mean().item(),
            max(WHOLE_RUN_LIMIT, torch.tensor(losses[len(losses) // 2 :]).std(correction=0).item()),
        )
        theirs = self._start(nn, dtype)
        theirs.model.load_state_dict(self.ours.model.state_dict())
        there, here = evaluate(theirs.model, self.corpus.held_out()), self.held_out[self.ours][-1]
        yield Agreement(
            f"fastrnn's weights in torch.nn.{self.layer}, text held out",
            abs(there - here),
            SAME_WEIGHTS_LIMIT[dtype],
        )

    def _exact_losses(self, steps):
        """What torch.nn's first losses are in float64."""
        run = self._start(nn, torch.float64)
        with one_thread():
            for _, window in zip(range(steps), self.corpus.train(), strict=False):
                run.step(*window)
        return run.losses

    def sample(self, count=400):
        """``count`` characters that fastrnn's model writes, after having read some held out."""
        inputs, _, _ = next(self.corpus.held_out())
        generator = torch.Generator().manual_seed(self.options.seed)
        return self.corpus.decode(write(self.ours.model, inputs[:, 0], count, generator))


@contextmanager
def one_thread():
    """On several, torch.nn in float64 waits for them so often that a busy machine stalls it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(a, b):
    """How far two lists of losses are apart, step by step."""
    a, b = (torch.tensor(losses, dtype=torch.float64) for losses in (a, b))
    return (a - b).abs()
