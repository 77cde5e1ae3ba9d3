"""Compiles, on all processors but a few, what the items are going to launch.

Triton compiles a kernel when it is first launched, which takes a second, and finds it in its cache
from then on. The same code compiled here beforehand is in that cache already.
"""

import os
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
    spin_limit: int


def start(sections, device, log):
    """The processes at work, which end by themselves or are killed."""
    todo = [(section, item) for section in sections for item in section.items if "case" in item]
    count = max(1, machine.cores() - SPARE)
    context, found = get_context("spawn"), []
    for share in filter(None, (todo[n::count] for n in range(count))):
        process = context.Process(target=serve, args=(share, tuple(device), log), daemon=True)
        process.start()
        found.append(process)
    return found


def serve(todo, device, log):
    """Compiles what ``todo``, pairs of a section and an item, will launch."""
    os.nice(10)
    tree.use(machine.ROOT)
    import torch

    from fastrnn.kernels.gpu import sizes

    from ..aot.compiler import compiled, target

    torch.set_num_threads(1)
    device = sizes.Device(*device)
    name = f"sm{device.arch}" if device.arch < 0x900 else f"gfx{device.arch:x}"
    for section, item in todo:
        for call in calls(section, item, device):
            try:
                compiled(target(name), **call._asdict())
            except Exception as error:  # it is reported when the item itself fails
                with open(log, "a") as file:
                    print(f"not compiled beforehand: {call}: {error}", file=file)


def device_of(row):
    """The sizes.Device that the environment's row describes, as a plain tuple."""
    return tuple(row[name] for name in ("arch", "processors", "shared", "shared_total"))


def calls(section, item, device):
    """The Calls for what an item launches; none where it does not fit."""
    from fastrnn.kernels.gpu import tiles
    from fastrnn.kernels.gpu.sizes import fitting, precision
    from fastrnn.kernels.keep import Keep

    from ..aot.compiler import Layer
    from . import oracle

    if "case" not in item:
        return []
    case, tf32 = oracle.case_of(item), item["arithmetic"] == "tf32"
    cell = oracle.cell_of(item)
    layer = Layer(cell.name, case.dtype, tf32, case.H, case.B, case.directions, case.packed)
    sizes = (cell.gates, case.dtype, tf32, case.B, case.H, case.directions, device)
    forward, backward = tiles.choose_forward(*sizes), tiles.choose_backward(*sizes)
    if isinstance(forward, str):
        return []
    if "direction" in item:
        kind = precision(case.dtype, tf32)
        tried = fitting(item["direction"], sizes[0], kind, *sizes[3:])
        if item["direction"] == "forward":
            return [Call(layer, tile, None, Keep.NOTHING, section.spins) for tile in tried]
        return [Call(layer, forward, tile, Keep.ALL, section.spins) for tile in tried]
    found = []
    if case.training and not isinstance(backward, str):
        found.append(Call(layer, forward, backward, Keep.ALL, section.spins))
    if not case.training or section.run.endswith("measure"):
        found.append(Call(layer, forward, None, Keep.NOTHING, section.spins))
    return found
