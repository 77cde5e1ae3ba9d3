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

import torch
from torch.autograd import forward_ad

from ..kernels import private
from ..kernels.gpu import verdicts
from . import process

TRIAL, PROVING = "fastrnn.gpu.trial:rows", "proving"
OF_KEY, OF_PROCESS = 20, 120  # seconds
FAIR = 5  # that kernels have at least, before it is held against them that they have not ended
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


class Prover:
    """Tries kernels for calls of this process.

    worker: makes a Worker for a GPU's index; clock: seconds; hindrance: as that above.
    """

    def __init__(self, worker=process.on_gpu, clock=time.monotonic, hindrance=hindrance):
        self.worker, self.clock, self.hindrance = worker, clock, hindrance
        self.left = OF_PROCESS

    def __call__(self, table, key, item):
        """The Verdict on a call, None without: as choice.fit asks. It is final for this process."""
        if key in table.known or not table.tries or self.hindrance():
            return table.known.get(key)
        with table.lock:  # of threads that come at once one tries
            if key not in table.known:
                table.add(key, self._tried(table, key, item))
            return table.known[key]

    def _tried(self, table, key, item):
        if table.others_try(key):
            return None
        limit = min(OF_KEY, self.left)
        if limit <= 0:
            private.say(
                f"trying kernels has taken {OF_PROCESS} s of this process, so torch serves what "
                "comes from here on: python -m fastrnn gpu, or fastrnn.tune, try beforehand"
            )
            return None
        private.say(f"trying our kernels on this GPU, once: {key.label} (at most {limit:.0f} s)")
        if torch.cuda.is_initialized():  # what is under way would take time from them
            torch.cuda.synchronize(item["device"])
        began, worker = self.clock(), self.worker(item["device"])
        try:
            latest = time.monotonic() + limit  # of which the process takes some to start
            verdict, why = trial(worker, table, key, item, limit, latest, clock=self.clock)
        except Exception as error:  # the caller wants a result of a layer, and torch has one
            verdict, why = None, f"nothing can be tried here: {type(error).__name__}: {error}"
        finally:
            worker.stop()
            self.left -= self.clock() - began
        if verdict is None or not verdict.right:
            private.say(f"torch serves {key.label}: {verdict.why if verdict else why}")
        return verdict


def trial(worker, table, key, item, limit, latest=inf, note=None, clock=time.monotonic):
    """(the Verdict on a key, or None; why there is none), tried in a worker as Worker.rows says.

    note(phase) is called with what is being done.
    """
    verdict, why, phase, since = None, "", "", None
    item = item | {"key": key._asdict(), "facts": table.facts}
    try:
        for row in worker.rows(TRIAL, item, limit, latest):
            if "phase" in row:
                phase = row["phase"]
                (note or str)(phase)
            if phase == PROVING and since is None:  # from here on kernels may do anything
                since = clock()
                table.begin(key)
            if "verdict" in row:
                _, verdict = verdicts.read(row)
            why = row.get("failed") or row.get("none") or why
            late = row.get("outside") or (
                row.get("late") and (phase != PROVING or clock() - since < FAIR)
            )
            if row.get("killed") and since is not None and not late and verdict is None:
                verdict = verdicts.wrong(why)
    finally:
        if since is not None:
            table.end(key)
    return verdict, why


_prover = ContextVar("fastrnn_gpu_prover", default=Prover())  # noqa: B039  one for a process


def prover(traced):
    """What choice.fit may have kernels tried by; None where nothing is to be tried."""
    return None if traced else _prover.get()


@contextmanager
def asking(prover):
    """Within this context calls ask another prover, of this thread or task; None: nobody."""
    token = _prover.set(prover)
    try:
        yield
    finally:
        _prover.reset(token)
