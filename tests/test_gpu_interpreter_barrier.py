"""The GPU engine's programs as processes that really wait for each other, and races that are seen.

A slow program is what turns a missing wait into a wrong number: every run has one, in turn.
"""

import pytest
from against_torch import EVERY_KIND, differences, make_inputs, outputs_and_gradients, twins
from gpu_layers import ALONE, GRID, check, served
from interpreter import in_processes, interpreted

__all__ = ["interpreted"]
# At H = 21 there are two groups of units: two programs forward, two by two backward.
FORWARD = [(0, 0, 0), (0, 1, 0)]
BACKWARD = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def meet(kind, slow=(None,), **options):
    for index in slow:
        with in_processes(slow=index):
            check(kind, GRID, **options)


@pytest.mark.parametrize("slow", [FORWARD, BACKWARD], ids=["forward", "backward"])
def test_whoever_is_slow(interpreted, slow):
    interpreted(meet, "lstm", slow, T=9)


@EVERY_KIND
def test_together(interpreted, kind):
    interpreted(meet, kind, T=6)


def in_parts(tile):
    """A sequence in several launches is one in a single launch, to the bit."""
    from fastrnn.kernels.gpu import launch

    ours, _ = twins("lstm", 5, 21)
    inputs, found = make_inputs(ours, 5, 3), []
    for steps in (3, 100):
        with pytest.MonkeyPatch.context() as patch, served(tile):
            patch.setattr(launch, "STEPS", steps)
            with in_processes():
                found.append(outputs_and_gradients(ours, inputs))
    assert not differences(*found, 0)


@pytest.mark.parametrize("tile", [GRID, ALONE], ids=["grid", "alone"])
def test_in_parts(interpreted, tile):
    interpreted(in_parts, tile)


def test_many_programs(interpreted):
    """Three groups of units; and two blocks of sequences, that end, in two directions."""
    lengths = [5] * 3 + [4] * 13 + [2]
    interpreted(meet, "gru", H=41, T=5)
    interpreted(meet, "lstm", T=5, B=17, lengths=lengths, bidirectional=True)


def two_places(patch):
    """The ring of partial sums is too short: one is overwritten that is still to be read."""
    from fastrnn.kernels.gpu import engine

    patch.setattr(engine, "RING", 2)


def one_counter(patch):
    """All steps are counted together: a program that is ahead counts for one that is behind."""
    import triton
    import triton.language as tl

    from fastrnn.kernels.gpu import blocks, kernels

    def counter_of(step, group, counters, RING: tl.constexpr):
        return counters + group * RING * LINE  # noqa: F821

    def arrivals_by(step, each, RING: tl.constexpr):
        return each * (step - RING + 1)

    def planted(function, **names):
        return triton.jit(kernels.rebind(function, names))

    names = {f.__name__: planted(f, tl=tl, LINE=blocks.LINE) for f in (counter_of, arrivals_by)}
    backward = kernels.backward
    patch.setattr(kernels, "backward", lambda cell: planted(backward(cell).fn, **names))


def is_seen(race, slow):
    """With the race the gradients are wrong; without it, as slowly, they are right."""
    with pytest.MonkeyPatch.context() as patch, in_processes(slow=slow, pause=0.05):
        race(patch)
        with pytest.raises(AssertionError, match="float64:\nd x: "):
            check("lstm", GRID, T=9)
    meet("lstm", [slow], T=9)


@pytest.mark.parametrize(
    ("race", "slow"),
    # who reads partial sums late; who stores them late
    [(two_places, (0, 1, 0)), (one_counter, (0, 1, 1))],
    ids=["two-places", "one-counter"],
)
def test_a_race_is_seen(interpreted, race, slow):
    interpreted(is_seen, race, slow)
