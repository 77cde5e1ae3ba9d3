"""Timing several functions against each other."""

import gc
import random
import time
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch

TURN = 0.005  # seconds that a turn lasts, at least: a shorter function is called repeatedly
FEWEST = 3
PAUSE = 0.002  # before a turn, for threads that another library left spinning to go to sleep


@dataclass
class Times:
    """What a race found of one function."""

    seconds: np.ndarray  # per call, one element a round
    cores: float  # that the process had, on average; below 1: others wanted the machine too


def turn(run, calls, device="cpu"):
    """Seconds per call, and processor seconds of all threads per call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in repeat(None, calls):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def calls_per_turn(run, device="cpu"):
    """How many calls fill a turn. The first call warms up what a slow function need not."""
    if turn(run, 1, device)[0] > 100 * TURN:
        return 1
    return max(1, round(TURN / turn(run, 1, device)[0]))


def race(runs, seconds, rounds, case):
    """{name: Times}, the functions taking turns, in a new order each round.

    So a machine whose speed drifts is as fast for one as for the other, and no function keeps step
    with another process that takes the processor away at regular times. It ends after ``rounds``
    rounds and ``seconds`` seconds, whichever is later; slow functions have FEWEST rounds at least.
    """
    order, shuffle = list(runs), random.Random(0).shuffle
    calls = {name: calls_per_turn(run, case.device) for name, run in runs.items()}
    turns = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        start, done, elapsed = time.perf_counter(), 0, 0.0
        while runs and (
            done < FEWEST or elapsed < seconds or (done < rounds and elapsed < 10 * seconds)
        ):
            shuffle(order)
            for name in order:
                if case.threads > 1:
                    time.sleep(PAUSE)
                turns[name].append(turn(runs[name], calls[name], case.device))
            done, elapsed = done + 1, time.perf_counter() - start
    finally:
        gc.enable()
    found = {}
    for name, pairs in turns.items():
        wall, cpu = np.array(pairs).T
        found[name] = Times(wall, float(cpu.sum() / wall.sum()))
    return found


def quantiles(values):
    """(median, 20 % quantile, 80 % quantile)."""
    q20, median, q80 = np.quantile(values, [0.2, 0.5, 0.8])
    return float(median), float(q20), float(q80)
