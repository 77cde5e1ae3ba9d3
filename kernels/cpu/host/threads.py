"""A team of threads that run one compiled function at the same time, each taking a part of it.

Where torch brought GNU OpenMP along, the team is OpenMP's own: torch's operations before and after
ours run on the very same threads, so neither finds the other still spinning for work on its core,
and a hand-over costs about a microsecond. Where there is none, or where it gives fewer threads than
it is asked for (so it does inside a parallel region, under a limit, and after ``omp_set_dynamic``),
threads serve that live as long as the call.

A team works inside calls of C functions only, which no signal handler can break off.
"""

import ctypes
import os
import threading
from array import array
from contextlib import contextmanager
from functools import cache

from ..compiled.crew import JOB, crew

COUNTED, CAME = (JOB.names.index(name) for name in ("counted", "came"))
PAUSE_HARD = 2  # omp_pause_hard, <omp.h>


@cache
def _openmp():
    """(GOMP_parallel(function, argument, threads, flags), the address of omp_get_num_threads).

    None where the process has no OpenMP, or one that cannot be paused.
    """
    try:
        library = ctypes.CDLL(None)
        parallel, number = library.GOMP_parallel, library.omp_get_num_threads
        library.omp_pause_resource_all.argtypes = (ctypes.c_int,)
    except (AttributeError, OSError, TypeError):
        return None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel, ctypes.cast(number, ctypes.c_void_p).value


class Team:
    """``size`` threads, the caller included, that ``run`` one function."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def run(self, compiled, plan):
        """Run a compiled function on a plan, an array, ``size`` times at once, to the end.

        RuntimeError where the system has no more threads to give; then nothing has run.
        """
        address = plan.buffer_info()[0]
        if self.size == 1:
            compiled.ctypes(address)
            return
        (attend, hire), openmp = crew(), _openmp()
        parallel, counted = openmp or (None, 0)
        fields = 0, compiled.address, address, self.size, counted, 0, attend.address, 0
        job = array("q", (*fields, *[0] * self.size))
        job[0] = here = job.buffer_info()[0]
        if parallel:
            parallel(attend.address, here, self.size, 0)
        if job[CAME] < self.size:
            job[COUNTED] = 0
            hire.ctypes(here)
        if job[CAME] < self.size:
            raise RuntimeError(f"fastrnn: the system gave {job[CAME]} of {self.size} threads")


ALONE = Team(1)  # the caller: nobody has to be waited for


class Teams:
    """Gives out teams. One call at a time has several threads; others meanwhile work alone."""

    def __init__(self):
        self.busy = threading.Lock()

    def members(self, wanted):
        """A context: a team of ``wanted`` threads, or of one where they are taken."""
        return ALONE if wanted <= 1 or self.busy.locked() else self._several(wanted)

    @contextmanager
    def _several(self, wanted):
        # Of two who find it free at once, one waits. To try and then to release would leave it
        # locked for good when a signal handler raises between the two.
        with self.busy:
            yield Team(wanted)

    def before_fork(self):
        """End the idle threads of GNU's OpenMP: a child, without them, would wait for them.

        Parent and child, torch's own operations among them, get new ones when they need them.
        LLVM's OpenMP sees to forks by itself.
        """
        library = ctypes.CDLL(None)
        if _openmp() and not hasattr(library, "__kmpc_fork_call"):
            library.omp_pause_resource_all(PAUSE_HARD)

    def after_fork(self):
        """Whoever held the lock, the child is without him."""
        self.__init__()


TEAM = Teams()
os.register_at_fork(before=TEAM.before_fork, after_in_child=TEAM.after_fork)
