"""How fast is it? Ours and torch's in turn, timed by the GPU's own events."""

from statistics import median

import torch

from ..kernels.gpu.verdicts import GAIN, Timed

ROUNDS, FEWEST, SECONDS = 25, 5, 0.25  # of a race
# Seconds: shorter calls are repeated within a turn. Each turn begins on an idle GPU, so that 50 to
# 100 us of the host's time count in it.
TURN = 5e-3
LENGTHS = 32, 256  # steps
SPREAD = 0.2  # of the times of one function, beyond which they say nothing
ROWS = 2**19  # of a batch, at most: else its sequences are as much shorter


def seconds_of(run, calls):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def race(runs, clock=None):
    """{name: seconds of a call in each round}, the functions taking turns. clock: as seconds_of."""
    clock = clock or seconds_of
    calls, spent, found = {}, 0.0, {name: [] for name in runs}
    for name, run in runs.items():
        run()  # compiles, and fills caches
        calls[name] = max(1, round(TURN / clock(run, 1)))
    for done in range(ROUNDS):
        if done >= FEWEST and spent > SECONDS:
            break
        for name, run in runs.items() if done % 2 else reversed(runs.items()):
            found[name].append(clock(run, calls[name]))
            spent += found[name][-1] * calls[name]
    return found


def lengths(B):
    """The two numbers of steps with which B sequences are timed."""
    most = max(LENGTHS[0], ROWS // B)
    return LENGTHS[0], max(2 * LENGTHS[0], min(LENGTHS[1], most))


def timed(T, times):
    """The Timed of a race; None where times differ so much that they say nothing."""
    ours, theirs = times["ours"], times["torch"]
    if max(map(spread, (ours, theirs))) > SPREAD:
        return None
    won = sum(t >= GAIN * o for o, t in zip(ours, theirs, strict=True)) / len(ours)
    return Timed(T, median(ours), median(theirs), won)


def spread(times):
    """By how much the slower times are above the faster ones, without the slowest and fastest."""
    ordered, fifth = sorted(times), len(times) // 5
    return ordered[-1 - fifth] / ordered[fifth] - 1
