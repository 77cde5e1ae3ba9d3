"""A process of its own for what uses the GPU: kernels may hang there, or end its context.

It is started from the interpreter's command line: multiprocessing would run the user's own script
again in it, which is not always written for that.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from math import inf
from signal import SIGKILL, SIGTERM
from types import MappingProxyType

import torch

START = 90  # seconds that a new process may take until it is ready
BOOT = (
    "import sys; from pkgutil import resolve_name; "
    "resolve_name(sys.argv[1])(int(sys.argv[2]), *sys.argv[3:])"
)
SERVE = "fastrnn.gpu.process:serve"
TRIED = "FASTRNN_GPU_TRIED"  # the variable that tells such a process which GPU is meant


class Worker:
    """The process, if it runs.

    environment: variables that differ from ours; serve: what it runs, module:function, which is
    given the number of a descriptor and these ``arguments``.
    """

    def __init__(self, environment=(), serve=SERVE, arguments=()):
        self.environment, self.serve, self.arguments = dict(environment), serve, arguments
        self.process = self.connection = None

    def start(self):
        """Raises OSError where no process is to be had."""
        from multiprocessing import Pipe

        self.connection, theirs = Pipe()
        folders = [folder or os.getcwd() for folder in sys.path if isinstance(folder, str)]
        command = [sys.executable or "python", "-P", "-c", BOOT, self.serve, str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # signals to our group are not for it
            )

    def rows(self, name, item, limit, latest=inf, phases=MappingProxyType({})):
        """The rows of an item as they come. The last says "failed" if there will be no more.

        name: of a generator function of the item, module:function, which is called there. limit:
        seconds, from when the process has started; phases: {phase: seconds} for which they are
        counted anew, from the row that says so. latest: on the clock, whatever the limits are. What
        has come to an end by time is "late", and by the latter "cut".
        """
        try:
            if self.process is None:
                self.start()
                if not self._comes(time.monotonic() + START, latest):
                    yield item | _late("the process was not ready in time", latest)
                    self.stop()
                    return
                self.connection.recv()
            since = time.monotonic()
            self.connection.send((name, item))
            while self._comes(since + limit, latest):
                row = self.connection.recv()
                if row is None:
                    return
                if row.get("phase") in phases:
                    limit, since = phases[row["phase"]], time.monotonic()
                yield row
                if row.get("killed"):
                    self.stop()
                    return
            yield item | _late(f"killed after {time.monotonic() - since:.0f} s", latest)
        except (EOFError, OSError):
            row = item | {"failed": "the process died", "killed": True}
            yield row | {"outside": True} if self._was_ended() else row
        self.stop()

    def _comes(self, *ends):
        """Whether a row comes before any of these times."""
        return self.connection.poll(max(0.0, min(ends) - time.monotonic()))

    def _was_ended(self):
        """Whether somebody else has ended the process, as a system that runs out of memory does."""
        if self.process is None:
            return False
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        return self.process.returncode in (-SIGKILL, -SIGTERM)

    def stop(self):
        if self.process:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):  # it ends as soon as the driver lets it
                self.process.wait(5)
            self.connection.close()
            self.process = None


def _late(why, latest):
    return {"failed": why, "killed": True, "late": True, "cut": time.monotonic() >= latest}


def on_gpu(index):
    """A Worker for kernels on a GPU. It sees what this process sees, and finds that GPU by its
    ``uuid``: how a variable would have to name it, or the part of it that is there, only the driver
    knows.
    """
    from ..kernels.gpu import launch  # which takes Triton

    return Worker(
        {
            "FASTRNN_GPU_MARGIN": str(launch.margin()),  # so that tiles are chosen alike
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # so that its products are the same each time
            "FASTRNN_GPU": "off",  # but for what a trial asks for
            TRIED: uuid(index),
        }
    )


def uuid(index):
    """What tells a GPU, or a part of one, from all others."""
    return str(torch.cuda.get_device_properties(index).uuid)


def place(index, wanted):
    """Where a process sees that GPU: at the same index mostly. None where it does not see it."""
    count = torch.cuda.device_count()
    order = sorted(range(count), key=lambda each: each != index)
    return next((each for each in order if uuid(each) == wanted), None)


def serve(descriptor):
    """In the new process: items come as (module:function, item); rows go back, None after the last.

    What fails is a row, too; "killed" if the GPU no longer works for this process.
    """
    import traceback
    from multiprocessing.connection import Connection
    from pkgutil import resolve_name

    with Connection(descriptor) as connection:
        connection.send("ready")
        while (request := connection.recv()) is not None:
            name, item = request
            try:
                for row in resolve_name(name)(item):
                    connection.send(row)
            except Exception as error:
                traceback.print_exc()
                sys.stderr.flush()
                row = item | {"failed": f"{type(error).__name__}: {error}"[:500]}
                if not _alive():
                    connection.send(row | {"killed": True})
                    break
                connection.send(row)
            connection.send(None)


def _alive():
    """Whether the GPU still works for this process: after a bad access it does not."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True
