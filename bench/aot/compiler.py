"""Compiling the GPU kernels ahead of time, for any GPU, on a machine that has none.

The compiler is asked through Triton's own launch path, with a driver that only knows the target's
name: so what is compiled, and found in Triton's cache, is what a launch would compile.
"""

import re
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastrnn.kernels import schedule
from fastrnn.kernels.gpu import engine, kernels, tiles
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.weights import Weights

from . import sass

INSTRUCTIONS = ("tcgen05.mma", "wgmma.mma_async", "mma.sync", "v_mfma")


def target(name):
    """Triton's target for "sm90" or "gfx942"."""
    if name.startswith("gfx"):
        return GPUTarget("hip", name, 64)
    return GPUTarget("cuda", int(name.removeprefix("sm")), 32)


class Layer(NamedTuple):
    """What is compiled for."""

    cell: Cell
    dtype: str
    tf32: bool
    H: int
    B: int = 16
    D: int = 1
    packed: bool = False


class _Driver:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, target):
        self.target = target

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return str(self.target.arch)  # a key of Triton's: one "device" for each target

    def get_current_stream(self, device):
        return 0


@contextmanager
def compiling_for(target):
    """Within this context Triton's ``warmup`` compiles for ``target``."""
    driver.set_active(_Driver(target))
    try:
        yield
    finally:
        driver.set_active(None)  # so that the next to ask finds this machine's own, if it has one


class _Recorder:
    """In the place of a kernel: ``take(kernel, arguments)`` instead of a launch."""

    def __init__(self, kernel, take):
        self.kernel, self.take = kernel, take

    def __getitem__(self, grid):
        return lambda **arguments: self.take(self.kernel, arguments)


def compiled(target, layer, forward=None, backward=None, keep=Keep.ALL):
    """{"forward": ..., "backward": ...} as a training step of ``layer`` would launch on ``target``.

    It is the engine that runs, on tensors without numbers. A tile that is None is not compiled.
    """
    found, wanted = {}, {"forward": forward, "backward": backward}

    def recorded(name, cell):
        def take(kernel, arguments):
            if wanted[name]:
                found[name] = kernel.warmup(grid=(1,), **arguments)

        return _Recorder(getattr(kernels, name)(cell), take)

    recorders = {name: partial(recorded, name) for name in wanted}
    with (
        mock.patch.object(engine, "kernels", SimpleNamespace(**recorders)),
        mock.patch.object(engine.products, "tf32", return_value=layer.tf32),
        tiles.using(forward or tiles.Forward(16, 16, 16, 4, 0), backward),
        compiling_for(target),
        torch.device("meta"),
    ):
        _train(layer, keep, backward is not None)
    return found


def _train(layer, keep, backward):
    cell, H, D, B = layer.cell, layer.H, layer.D, layer.B
    empty = partial(torch.empty, dtype=getattr(torch, layer.dtype))
    rows, steps = cell.gates * H, schedule.Steps([B, 1]) if layer.packed else schedule.dense(2, B)
    hh = (empty(rows, H), empty(rows)) if cell.recurrent else (None, None)
    own = empty(cell.own, H) if cell.own else None
    weights = [Weights(empty(rows, H), hh[0], empty(rows), hh[1], None, own)] * D
    x, states = empty(steps.N, H), [empty(D, B, H)] * cell.states
    inputs = empty(steps.N, cell.inputs, H) if cell.inputs else None
    y, finals, kept = engine.layer(cell, x, steps, weights, states, keep, inputs)
    if backward:
        needed = [Weights(*(w is not None for w in weights[0]))] * D
        given = cell, x, steps, weights, states, keep, kept, (y, *finals), True, needed
        engine.gradients(*given, inputs, bool(cell.inputs))


def resources(found):
    """{registers, spilled (bytes a thread), shared (bytes), instruction, held, trips} of compiled
    code; trips: see sass.round_trips, None where nobody knows.
    """
    text = found.asm["ttgir"]
    row = {"shared": found.metadata.shared, "held": weights_are_held(text)}
    if "amdgcn" in found.asm:
        code = found.asm["amdgcn"]
        registers, spilled = (
            int(re.search(rf"\.vgpr_{n}:\s*(\d+)", code)[1]) for n in ("count", "spill_count")
        )
        row |= {"registers": registers, "spilled": 4 * spilled, "trips": None}
    else:
        code, cubin = found.asm["ptx"], found.asm["cubin"]
        said = sass.cuobjdump("--dump-resource-usage", cubin)
        registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", said).groups())
        trips = sass.round_trips(sass.instructions(sass.cuobjdump("--dump-sass", cubin)))
        row |= {"registers": registers, "spilled": stack, "trips": trips}
    row["instruction"] = next((name for name in INSTRUCTIONS if name in code), None)
    return row


def weights_are_held(ttgir):
    """Whether the weights are neither loaded nor copied to shared memory inside the time loop."""
    addresses, values, looping = {"%weights"}, set(), False
    for line in ttgir.splitlines():
        looping = looping or "scf.for" in line
        result, _, operation = line.strip().partition(" = ")
        used = set(re.findall(r"%[\w-]+", operation))
        if re.match(r"(tt|amdg|amdgpu)\.(buffer_)?load\b", operation) and used & addresses:
            if looping:
                return False
            values.add(result)
        elif used & values and not re.search(r"\bdot|_dot|mma", operation):
            if looping and ("local_alloc" in operation or "local_store" in operation):
                return False
            values.add(result)
        elif used & addresses:
            addresses.add(result)
    return bool(values)
