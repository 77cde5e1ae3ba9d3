"""Compiles, on all processors but a few, what the items are going to launch.

Triton compiles a kernel when it is first launched, which takes a second, and finds it in its cache
from then on. The same code compiled here beforehand is in that cache already.
"""

import os
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

from .. import machine, tree

SPARE = 4  # processors that are left to the measuring process


class Call(NamedTuple):
    """The arguments of aot.compiler.compiled."""

    layer: tuple
    forward: tuple
    backward: tuple | None
    keep: int


class Compilers:
    """The processes at work, which end by themselves or are stopped.

    failures: the file that they write to, a line for each call that was not compiled.
    """

    def __init__(self, sections, device, failures):
        todo = [(section, item) for section in sections for item in section.items if "case" in item]
        count = max(1, machine.cores() - SPARE)
        context, self.failures, self.processes = get_context("spawn"), failures, []
        self.failures.write_text("")
        for share in filter(None, (todo[n::count] for n in range(count))):
            given = share, tuple(device), failures
            self.processes.append(context.Process(target=serve, args=given, daemon=True))
            self.processes[-1].start()

    def failed(self):
        """A line for each call that was not compiled so far, and each process that died."""
        died = [f"a process ended with {p.exitcode}" for p in self.processes if p.exitcode]
        return died + self.failures.read_text(errors="replace").splitlines()

    def stop(self):
        for process in self.processes:
            process.kill()
            process.join()


def serve(todo, device, failures):
    """Compiles what ``todo``, pairs of a section and an item, will launch."""
    os.nice(10)
    tree.use(machine.ROOT)
    for section, item in todo:
        with _noted(failures, item):
            for call in calls(section, item, device):
                with _noted(failures, call):
                    _compile(call, device)


@contextmanager
def _noted(failures, what):
    """An exception is a line of the file ``failures``."""
    try:
        yield
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        with open(failures, "a") as file:
            print(f"{line}, of {what}", file=file)


def _compile(call, device):
    import torch

    from ..aot.compiler import compiled, target

    torch.set_num_threads(1)
    arch = device[0]
    compiled(target(f"sm{arch}" if arch < 0x900 else f"gfx{arch:x}"), **call._asdict())


def device_of(row):
    """The sizes.Device that the environment's row describes, as a plain tuple."""
    names = "arch", "processors", "shared", "shared_total", "name", "margin"
    return tuple(row[name] for name in names)


def calls(section, item, device):
    """The Calls for what an item launches; none where it does not fit."""
    from fastrnn.kernels.gpu import tiles
    from fastrnn.kernels.gpu.sizes import Device, fitting, precision
    from fastrnn.kernels.keep import Keep

    from ..aot.compiler import Layer
    from . import oracle

    if "case" not in item:
        return []
    case, tf32 = oracle.case_of(item), item["arithmetic"] == "tf32"
    cell = oracle.cell_of(item)
    layer = Layer(cell, case.dtype, tf32, case.H, case.B, case.directions, case.packed)
    sizes = (cell.gates, case.dtype, tf32, case.B, case.H, case.directions, Device(*device))
    forward, backward = tiles.choose_forward(*sizes), tiles.choose_backward(*sizes)
    if isinstance(forward, str):
        return []
    if "direction" in item:
        kind = precision(case.dtype, tf32)
        tried = fitting(item["direction"], sizes[0], kind, *sizes[3:])
        if item["direction"] == "forward":
            return [Call(layer, tile, None, Keep.NOTHING) for tile in tried]
        return [Call(layer, forward, tile, Keep.ALL) for tile in tried]
    found = []
    if case.training and not isinstance(backward, str):
        found.append(Call(layer, forward, backward, Keep.ALL))
    if not case.training or section.run.endswith("measure"):
        found.append(Call(layer, forward, None, Keep.NOTHING))
    return found
