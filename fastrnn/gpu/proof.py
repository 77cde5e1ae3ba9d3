"""Is a kernel right? Every output and every gradient against float64, on hostile ground.

That is: NaN in all memory that nobody has written, guards round it, another stream at work, few
looks at a counter before a program gives up; the same bits each time; a GPU that is full.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..kernels.gpu import attempt, guard, launch, sizes, tiles
from . import oracle
from .guards import guarded

LOOKS = 2**18  # at a counter, some 0.2 s: no program that runs at the same time is so late
TIMES = 3
FULLEST = 1024  # sequences, where programs wait for nobody
SIDE = 2048  # of the products of another stream


class Check(NamedTuple):
    T: int
    B: int
    packed: bool
    times: int = TIMES


def checks(layer, tile, packed, device):
    """What is to be right: an odd size, and as many lanes as a launch may have."""
    blocks = max(t.BB for t in tile if t)
    most = max(_at_once(layer, *each, device) for each in zip(sizes.KERNELS, tile, strict=True))
    yield Check(37, 2 * blocks + 3, packed)
    yield Check(64, most, packed, 1)


def _at_once(layer, direction, tile, device):
    """The sequences of a launch that fills the GPU; 0 without a tile."""
    if tile is None:
        return 0
    kind = sizes.precision(str(layer.dtype).removeprefix("torch."), layer.arithmetic == "tf32")
    given = layer.cell.hgates, kind, FULLEST, layer.H, layer.D, device
    return min(FULLEST, sizes.launches(direction, tile, *given).at_once[0] * tile.BB)


def prove(layer, tile, check):
    """ "" if the layer is right in tiles (forward, backward); else what is wrong."""
    numbers = layer.numbers(check.T, check.B, check.packed)
    truth, usual = (layer.results(m, numbers) for m in (layer.exact, layer.theirs))
    if not all(t.isfinite().all() for t in truth.values()):
        return "float64 itself has no finite answer to the numbers that were drawn"
    first = None
    for recompute in [False] * check.times + [True] * layer.training:
        layer.ours.recompute = recompute
        with ground(layer.device, tile) as guards:
            found = layer.results(layer.ours, numbers)
            if layer.device.type == "cuda":
                torch.cuda.synchronize(layer.device)
            guard.check(layer.device)
            if failed := attempt.failures():  # and others have stepped in
                return failed[-1]
            if not guards.intact():
                return "a kernel wrote outside of its memory"
        if first is None or recompute:
            row = oracle.worst(truth, found, usual, layer.arithmetic, layer.jumps)
            if not row["right"]:
                return "{of} is off by {error:.1e}, {allowed:.1e} allowed".format(**row)
        elif not all(first[name].equal(tensor) for name, tensor in found.items()):
            return "another run gave other bits"
        first = first or found
    return ""


@contextmanager
def ground(device, tile):
    """Where kernels have to be right: a Guards."""
    with busy(device), tiles.using(*tile), launch.patience(LOOKS), guarded(device) as guards:
        yield guards


@contextmanager
def busy(device):
    """Another stream of the GPU has work, and goes on with it; elsewhere there is none."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        square = torch.randn(SIDE, SIDE, device=device)
        for _ in range(20):
            square = square @ square / SIDE
    yield
