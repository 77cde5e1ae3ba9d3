"""What a program spends on one of its phases, apart from the rest of it."""

from collections import Counter
from contextlib import contextmanager
from time import perf_counter

SECONDS = Counter()  # {name of a phase: seconds since the last clear()}


@contextmanager
def phase(name):
    begun = perf_counter()
    yield
    SECONDS[name] += perf_counter() - begun
