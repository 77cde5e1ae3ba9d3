"""A team of threads that run one compiled function at the same time, each taking a part of it.

Where torch brought GNU OpenMP along, the team is OpenMP's own: torch's operations before and after
ours run on the very same threads, so neither finds the other still spinning for work on its core,
and a hand-over costs about a microsecond. Elsewhere, and in a forked child, Python threads serve.
"""

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp_parallel():
    """GOMP_parallel(function, argument, threads, flags), or None where the process has none.

    None too where OpenMP has been told that it may give fewer threads than asked for: the members
    of a team wait for each other.
    """
    try:
        library = ctypes.CDLL(None)
        function = library.GOMP_parallel
        limited = library.omp_get_thread_limit() < 2**31 - 1
        if limited or library.omp_get_dynamic() or library.omp_get_max_active_levels() < 1:
            return None
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = None
    return function


class Team:
    """``size`` threads, the caller included, that ``run`` one function."""

    def __init__(self, size, start):
        self.size, self._start = size, start

    def run(self, compiled, plan):
        """Run a compiled function on a plan (an array), ``size`` times at once, to the end."""
        address, _ = plan.buffer_info()
        if self.size == 1:
            compiled.ctypes(address)
        else:
            self._start(compiled, address, self.size)


class Teams:
    """Gives out teams. One call at a time has several threads; others meanwhile work alone."""

    def __init__(self):
        self.busy = threading.Lock()
        self.forked = False
        self.workers = []

    @contextmanager
    def members(self, wanted):
        """A team of ``wanted`` threads, or of one where they are taken."""
        if wanted <= 1 or not self.busy.acquire(blocking=False):
            yield Team(1, None)
            return
        try:
            openmp = None if self.forked else _openmp_parallel()
            yield Team(wanted, self._on_python_threads if openmp is None else _on(openmp))
        finally:
            self.busy.release()

    def _on_python_threads(self, compiled, address, size):
        while len(self.workers) < size - 1:
            self.workers.append(Worker())
        for worker in self.workers[: size - 1]:
            worker.todo.put((compiled.ctypes, address))
        compiled.ctypes(address)
        for worker in self.workers[: size - 1]:
            worker.done.get()

    def after_fork(self):
        """Threads do not survive a fork, and the lock may have been held: begin anew."""
        self.__init__()
        self.forked = True  # OpenMP's own pool cannot be used in a forked child


def _on(openmp):
    return lambda compiled, address, size: openmp(compiled.address, address, size, 0)


class Worker:
    def __init__(self):
        self.todo, self.done = SimpleQueue(), SimpleQueue()
        threading.Thread(target=self._work, name="fastrnn", daemon=True).start()

    def _work(self):
        while True:
            function, address = self.todo.get()
            function(address)
            self.done.put(None)


TEAM = Teams()
os.register_at_fork(after_in_child=TEAM.after_fork)
