"""The tiles of both kernels, and what each needs of a GPU: pure functions of plain numbers.

A program keeps its tile of the recurrent weights on chip for the whole sequence, and the programs
of a lane (BB sequences of a direction) wait for each other at every step. So a layer fits where one
program's tile fits the shared memory, and where the programs of one lane run at the same time: its
H decides. Lanes for which there is no room then have launches of their own, one after another.

``gates`` are those of the recurrent product everywhere here: 0 where there is none. Then nothing is
kept and nobody waits, and every H fits.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

from .grids import Launches, backward_grid, cdiv, forward_grid


class Device(NamedTuple):
    """What the choice asks of a GPU."""

    arch: int  # 90 for compute capability 9.0; 0x942 for gfx942
    processors: int
    shared: int  # bytes that a program may have at most
    shared_total: int  # bytes of a multiprocessor
    name: str = ""
    margin: int = 0  # processors that no launch takes


class Forward(NamedTuple):
    """A program's share of the forward pass; all units where BU >= H: then nobody waits."""

    BU: int  # hidden units
    BB: int  # sequences
    KC: int  # columns of the weights that are multiplied at once
    warps: int
    ahead: int  # chunks of h that are on their way while one is multiplied


class Backward(NamedTuple):
    """A program's share of the backward pass: a square of the weights of each gate."""

    GU: int  # hidden units, of those that give and of those that take
    BB: int  # sequences
    warps: int


RESERVED = 1024  # bytes of shared memory that the driver takes for each program
BARRIERS = 64  # and the compiler, on sm100
WARPS = 8  # that a multiprocessor holds for certain: at the most registers a thread can have
BATCHES = (16, 32, 64, 128)
ROWS = 64  # of a forward tile, all gates together: the least that wgmma takes
FREE = 64, 4  # units and sequences of a program that multiplies nothing: two a thread
AHEAD = 32  # registers of a thread for h; with more it spills
CHUNKS = 128  # of the weights, times sequences, beyond which a program spills
ALONE = 128  # units at most that a program has alone; with more the compiler gives up on sm80
MOST = 8  # gates: of more, a program has no room for the sums
OLDEST = 80  # compute capability, times ten: older GPUs have no bfloat16, and little shared memory


class Precision(NamedTuple):
    """What differs between the arithmetics, as the compiler's count of registers has it."""

    itemsize: int
    chunk: int  # columns of the weights that a piece of them has at least
    warps: int  # of a forward program
    alone: int  # sums of a thread, at most, where a program has all units
    square: int  # sums of a thread, at most, in backward
    widest: int  # H beyond which the weights do not stay on the chip; see also ``widest``


PRECISIONS = {
    "half": Precision(2, 256, 4, alone=32, square=16, widest=1536),
    "tf32": Precision(4, 128, 4, alone=16, square=8, widest=768),
    "fp32": Precision(4, 64, 8, alone=8, square=4, widest=512),
}


def precision(dtype, tf32):
    """The name in PRECISIONS of how tensors of ``dtype`` are multiplied."""
    return "half" if dtype != "float32" else "tf32" if tf32 else "fp32"


def widest(kind, gates):
    """The widest H of a layer: with the many rows of one gate, a thread has no room beyond 1024."""
    most = PRECISIONS[kind].widest
    return min(most, 1024) if gates == 1 else most


def power(n):
    """The least power of two that is at least n, and 16: the least that matrix units take."""
    return max(16, 1 << (n - 1).bit_length())


def row_groups(gates):
    """Groups of rows in a forward tile: GRU's three gates are made up to four."""
    return 1 << (gates - 1).bit_length() if gates else 0


def forward_shared(tile, gates, kind, H):
    """Bytes of shared memory that forward needs, at most.

    The weights, and beside them h as it comes in, or sums on their way between threads: of more
    rows where a program has all of them.
    """
    if not gates:  # those of x, on their way between threads
        return BARRIERS + 4 * MOST * tile.BU * tile.BB
    chunks, item = cdiv(H, tile.KC), PRECISIONS[kind].itemsize
    weights = row_groups(gates) * tile.BU * tile.KC * chunks * item
    states = tile.BB * tile.KC * item * (tile.ahead + 1)
    beside = max(states, 4 * max(ROWS, tile.BU) * tile.BB)
    return BARRIERS + weights + beside * (item if tile.BU >= H else 1)


def backward_shared(tile, gates, kind, H):
    """Bytes of shared memory that backward needs, at most: likewise."""
    item = PRECISIONS[kind].itemsize
    gradients = item * gates * tile.GU * tile.BB if kind == "half" else 0
    beside = max(gradients, 4 * tile.GU * max(tile.BB, 4 * tile.warps))
    return BARRIERS + item * gates * tile.GU**2 + beside


def resident(shared, warps, device):
    """How many programs are certain to run at the same time."""
    processors = max(1, device.processors - device.margin)
    return processors * min(device.shared_total // (shared + RESERVED), WARPS // warps)


def forward_tiles(gates, kind, H):
    """The forward tiles of this layer, best first."""
    if not gates:
        yield Forward(*FREE, 16, 4, 0)
        return
    p = PRECISIONS[kind]
    for warps in (p.warps, 8):
        if power(H) <= ALONE and row_groups(gates) * power(H) * 16 <= 32 * warps * p.alone:
            yield Forward(power(H), 16, power(H), warps, 0)
            break
    if widest(kind, gates) < H:
        return
    units = min(ROWS // row_groups(gates), power(H))
    chunk = min(p.chunk, power(H))
    padded = cdiv(H, chunk) * chunk
    if padded in (2 * chunk, 4 * chunk * (gates > 1)) and kind != "fp32":
        chunk *= 2  # fewer pieces, as each is a wait for memory; of more, threads have no room
    for batch in BATCHES:
        yield Forward(units, batch, chunk, p.warps, padded // chunk - 1)
        if batch <= 64 and batch * cdiv(H, p.chunk) <= CHUNKS:
            for ahead in 1, 0:
                yield Forward(units, batch, max(16, chunk * 16 // batch), p.warps, ahead)


def backward_tiles(gates, kind, H):
    """The backward tiles of this layer, best first."""
    if not gates:
        yield Backward(*FREE, 4)
        return
    p = PRECISIONS[kind]
    squares = [128, 64, 32] if kind == "half" and H > 256 else [64, 32, 128]
    if power(H) <= 256:
        squares.insert(0, power(H))  # one program
    for units in squares if widest(kind, gates) >= H else ():
        for batch in BATCHES:
            for warps, sums in ((4, min(8, p.square)), (8, p.square)):
                if units * batch <= 32 * warps * sums:
                    yield Backward(min(units, power(H)), batch, warps)
                    break


def forward_suits(tile, gates, kind, H, arch):
    """Whether threads have room for the chunks of h that come ahead: all of them or none, and on
    sm90, whose matrix units read them from shared memory, one.
    """
    elements = (tile.ahead + 1) * tile.BB * tile.KC // (32 * tile.warps)
    registers = elements * PRECISIONS[kind].itemsize // 4
    if arch == 90 and tile.ahead == 1 and gates > 1:
        return registers <= 2 * AHEAD
    return registers <= AHEAD and tile.ahead in (0, cdiv(H, tile.KC) - 1)


def backward_suits(tile, gates, kind, H, arch):
    """Triton 3.7.1 fails to compile one gate alone for sm100."""
    return not (100 <= arch < 120 and gates == 1 and tile.GU >= H)


class Kernel(NamedTuple):
    """What is known of the kernel of a direction of time, as functions."""

    tile: type
    tiles: Callable  # (gates, kind, H): all that there are, best first
    shared: Callable  # (tile, gates, kind, H): bytes of shared memory
    suits: Callable  # (tile, gates, kind, H, arch): whether the compiler makes it well
    grid: Callable  # (groups, blocks, directions): the grid of a launch

    def programs(self, tile, H):
        """How many a lane has."""
        return prod(self.grid(cdiv(H, tile[0]), 1, 1))


KERNELS = {
    "forward": Kernel(Forward, forward_tiles, forward_shared, forward_suits, forward_grid),
    "backward": Kernel(Backward, backward_tiles, backward_shared, backward_suits, backward_grid),
}


def launches(direction, tile, gates, kind, B, H, D, device):
    """The Launches of a kernel in this tile. direction: of KERNELS; kind: of PRECISIONS."""
    kernel, groups = KERNELS[direction], cdiv(H, tile[0])
    room = resident(kernel.shared(tile, gates, kind, H), tile.warps, device)
    together = room // kernel.programs(tile, H) if gates and groups > 1 else None
    grid = kernel.grid if gates else partial(kernel.grid, takers=1)
    return Launches(cdiv(B, tile.BB), D, groups, together, grid)


def fitting(direction, gates, kind, B, H, D, device, best=()):
    """The tiles that the device can run: ``best``, then those with the fewest launches first."""
    kernel = KERNELS[direction]

    def found(tile):
        return launches(direction, tile, gates, kind, B, H, D, device)

    def fits(tile):
        if not kernel.suits(tile, gates, kind, H, device.arch):
            return False
        return kernel.shared(tile, gates, kind, H) <= device.shared and found(tile).together != 0

    if device.arch < OLDEST or gates > MOST:
        return []
    every = sorted(kernel.tiles(gates, kind, H), key=lambda tile: found(tile).count)
    return list(dict.fromkeys(filter(fits, (*best, *every))))
