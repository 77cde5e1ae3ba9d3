"""When kernels are tried: at the first eager call of a kind, in another process, within limits.

Not while anything records, transforms or captures the call, in backward, in a forked child, or
beside other ranks, which would decide each for itself: there torch serves, unless there is a
verdict.
"""

import os
import time
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from threading import RLock, Timer
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from ..kernels import private
from ..kernels.gpu import verdicts
from . import process

TRIAL, PROVING = "fastrnn.gpu.trial:rows", "proving"
OF_PROCESS = 120  # seconds that calls of this process wait for trials, all of them together
IDLE = 10  # seconds after which a process that tries nothing is ended: it has memory of the GPU
_forked = []
os.register_at_fork(after_in_child=lambda: _forked.append(True))


def hindrance():
    """Why nothing is tried in this call, if so."""
    reasons = {
        "torch.compile or torch.export records": torch.compiler.is_compiling(),
        "a dispatch mode watches": torch._C._len_torch_dispatch_stack() > 0,
        "torch.jit.trace records": torch._C._is_tracing(),
        "torch.func is active": torch._C._are_functorch_transforms_active(),
        "forward-mode AD is active": forward_ad._current_level >= 0,
        "backward is under way": torch._C._current_graph_task_id() != -1,
        "a CUDA graph captures": torch.cuda.is_initialized()
        and torch.cuda.is_current_stream_capturing(),
        "this is a forked process": bool(_forked),
        "there are other ranks": _ranks() > 1,
    }
    return next((why for why, so in reasons.items() if so), None)


def _ranks():
    """How many processes train together; torchrun says so before they have met."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    told = os.environ.get("WORLD_SIZE", "")
    return int(told) if told.isdecimal() else 1


class Limits(NamedTuple):
    """Seconds of a trial; the process for it has process.START to begin, where there is none."""

    compiling: float
    running: float  # of kernels, from then on


OF_CALL = Limits(60, 20)


class Prover:
    """Tries kernels for calls of this process.

    worker: makes a Worker for a GPU's index; clock: seconds; hindrance: as that above.
    """

    final = True  # what it says of a key it says to the end: see choice.fit

    def __init__(self, worker=process.on_gpu, clock=time.monotonic, hindrance=hindrance):
        self.worker, self.clock, self.hindrance = worker, clock, hindrance
        self.left, self.workers, self.timer = OF_PROCESS, {}, None
        self.lock, self.busy = RLock(), False  # a finalizer may call a layer during a trial

    def __call__(self, table, key, item):
        """The Verdict on a call, None without: as choice.fit asks. It is final for this process,
        also if nothing could be tried: no engine changes while a model is trained.
        """
        if key not in table.known:
            if not table.tries or self.hindrance():
                table.add(key, None)
            else:
                self._first(table, key, item)
        return table.known[key]

    def _first(self, table, key, item):
        """Of threads that come at once one tries."""
        with self.lock:
            if key in table.known:
                return
            if self.busy:
                table.add(key, None)
                return
            self.busy = True
            try:
                table.add(key, self._tried(table, key, item))
            finally:
                self.busy = False

    def _tried(self, table, key, item):
        if table.others_try(key):
            return None
        if self.left <= 0:
            private.say(
                f"trying kernels has taken {OF_PROCESS} s of this process, so torch serves what "
                "comes from here on: python -m fastrnn gpu, or fastrnn.tune, try beforehand"
            )
            return None
        private.say(
            f"trying our kernels on this GPU, once: {key.label} (they run for "
            f"{min(OF_CALL.running, self.left):.0f} s at most)"
        )
        if torch.cuda.is_initialized():  # what is under way would take time from them
            torch.cuda.synchronize(item["device"])
        all_of_it = self.left == OF_PROCESS
        began, latest = self.clock(), time.monotonic() + self.left
        try:
            worker = self._worker(item["device"])
            verdict, why = trial(worker, table, key, item, OF_CALL, latest, all_of_it)
        except Exception as error:  # the caller wants a result of a layer, and torch has one
            self.stop()
            verdict, why = None, f"nothing can be tried here: {type(error).__name__}: {error}"
        except BaseException:
            self.stop()  # it is still at work
            raise
        finally:
            self.left -= self.clock() - began
        self._stop_when_idle()
        if verdict is None or not verdict.right:
            private.say(f"torch serves {key.label}: {verdict.serves(None)[1] if verdict else why}")
        return verdict

    def _worker(self, index):
        """The one of that GPU: it takes seconds to start, and mostly there are several keys."""
        if index not in self.workers:
            self.workers[index] = self.worker(index)
        return self.workers[index]

    def _stop_when_idle(self):
        if self.timer:
            self.timer.cancel()
        self.timer = Timer(IDLE, self.stop)
        self.timer.daemon = True  # if this process ends before, so does the other: see serve
        try:
            self.timer.start()
        except RuntimeError:  # there is no thread to be had, as while the interpreter ends
            self.stop()

    def stop(self):
        """End the processes that there are; they are started anew if need be."""
        with self.lock:
            while self.workers:
                self.workers.popitem()[1].stop()


def trial(worker, table, key, item, limits, latest=inf, all_of_it=True, note=None):
    """(the Verdict on a key, or None; why there is none), tried in a worker as Worker.rows says.

    note(phase) is called with what is being done. What takes too long is a verdict, too, so that
    nobody waits for it again: unless it was ``latest`` that came before, and then only if that left
    it ``all_of_it``, the time that a process has for all.
    """
    verdict, why, phase, marked = None, "", "starting", False
    item = item | {"key": key._asdict(), "facts": table.facts}
    try:
        given = TRIAL, item, limits.compiling, latest, {PROVING: limits.running}
        for row in worker.rows(*given):
            if "phase" in row:
                phase = row["phase"]
                (note or str)(phase)
            if phase == PROVING and not marked:  # from here on kernels may do anything
                marked = True
                table.begin(key)
            if "verdict" in row:
                _, verdict = verdicts.read(row)
            why = row.get("failed") or row.get("none") or why
            if verdict is None and row.get("late"):
                why = f"{verdicts.SLOW}{phase}: {why}"
                verdict = verdicts.wrong(why) if all_of_it or not row["cut"] else None
            elif verdict is None and row.get("killed") and marked and not row.get("outside"):
                verdict = verdicts.wrong(why)
    finally:
        if marked:
            table.end(key)
    return verdict, why


_prover = ContextVar("fastrnn_gpu_prover", default=Prover())  # noqa: B039  one for a process


def prover():
    """What choice.fit may have kernels tried by; None where nothing is to be tried."""
    return _prover.get()


@contextmanager
def asking(prover):
    """Within this context calls ask another prover, of this thread or task; None: nobody."""
    token = _prover.set(prover)
    try:
        yield
    finally:
        _prover.reset(token)
