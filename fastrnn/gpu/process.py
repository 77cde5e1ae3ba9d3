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

import torch

START = 90  # seconds that a new process may take until it is ready
BOOT = (
    "import sys; from pkgutil import resolve_name; "
    "resolve_name(sys.argv[1])(int(sys.argv[2]), *sys.argv[3:])"
)
SERVE = "fastrnn.gpu.process:serve"


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

    def rows(self, name, item, limit, latest=inf):
        """The rows of an item as they come. The last says "failed" if there will be no more.

        name: of a generator function of the item, module:function, which is called there. limit:
        seconds; latest: on the clock. Until the process has started only that counts.
        """
        try:
            if self.process is None:
                self.start()
                if not self.connection.poll(max(0.0, min(START, latest - time.monotonic()))):
                    yield item | {"failed": "the process was not ready in time", "killed": True}
                    self.stop()
                    return
                self.connection.recv()
            limit = min(limit, latest - time.monotonic())
            end = time.monotonic() + limit
            self.connection.send((name, item))
            while self.connection.poll(max(0.0, end - time.monotonic())):
                row = self.connection.recv()
                if row is None:
                    return
                yield row
                if row.get("killed"):
                    self.stop()
                    return
            yield item | {"failed": f"killed after {limit:.0f} s", "killed": True, "late": True}
        except (EOFError, OSError):
            row = item | {"failed": "the process died", "killed": True}
            yield row | {"outside": True} if self._was_ended() else row
        self.stop()

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


def on_gpu(index):
    """A Worker that sees one GPU, which this process calls ``index``."""
    from ..kernels.gpu import launch  # which takes Triton

    return Worker(
        {
            "FASTRNN_GPU_MARGIN": str(launch.margin()),  # so that tiles are chosen alike
            "CUDA_VISIBLE_DEVICES": _name(index),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # so that its products are the same each time
            "FASTRNN_GPU": "off",  # but for what a trial asks for
        }
    )


def _name(index):
    """What CUDA_VISIBLE_DEVICES calls a GPU, whatever that is now."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if index < len(told) and told[index].strip().startswith("MIG-"):
        return told[index].strip()
    return "GPU-" + str(torch.cuda.get_device_properties(index).uuid).removeprefix("GPU-")


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
