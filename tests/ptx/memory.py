"""Memory as a kernel sees it: tensors far from each other, and each program's shared memory."""

import numpy as np
import torch

from .found import GlobalRace, Misaligned, OutOfBounds, SharedRace, Unfenced
from .shadow import Programs, Warps

BASE, GUARD, ALIGNMENT = 1 << 32, 4096, 512  # bytes
UNIT = 1 << 10  # the number of a warp that is none: of the matrix unit


class Memory:
    """What both kinds have: ``bytes``; ``grain``, the bytes of the smallest access; ``race``."""

    def put(self, elements, at, values, line):
        """Store ``values``. Where several threads write the same place they must agree, as those do
        that hold the same number of a tensor; which one comes last, nobody knows.
        """
        elements[at] = values
        if (elements[at] != values).any():
            raise self.race(f"threads write different values to a place at once: {line}")

    def _places(self, at, size):
        """(..., number): what an access at a byte touches, counted in grains."""
        return at[..., None] // self.grain + np.arange(-(-size // self.grain))

    def _spread(self, at, size, *of_each):
        """All in one row: the places of every access, and what belongs to an access, for each."""
        places = self._places(at, size)
        return places.reshape(-1), *(np.repeat(v, places.shape[-1]) for v in of_each)


class Global(Memory):
    """The tensors of a launch, in one array of bytes, with guards between that are nobody's."""

    race = GlobalRace

    def __init__(self, tensors, programs, grain, ordered=True):
        """grain: bytes of the smallest access; ordered: whether races are looked for."""
        self.grain, self.places, size = grain, {}, 0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.places:
                size = -(-(size + GUARD) // ALIGNMENT) * ALIGNMENT
                self.places[storage.data_ptr()] = size, storage
                size += storage.nbytes()
        self.bytes = np.full(-(-(size + GUARD) // 64) * 64, 0xA5, np.uint8)
        self.valid = np.zeros(len(self.bytes) // grain, bool)
        for at, storage in self.places.values():
            self.bytes[at : at + storage.nbytes()] = _bytes_of(storage)
        for tensor in tensors:
            if not tensor.is_contiguous():
                raise ValueError("a kernel's tensors are contiguous")
            at = self.pointer(tensor) - BASE
            self.valid[at // grain : -(-(at + tensor.nbytes) // grain)] = True
        self.order = Programs(len(self.valid), programs) if ordered else None

    def pointer(self, tensor):
        storage = tensor.untyped_storage()
        at, _ = self.places[storage.data_ptr()]
        return BASE + at + tensor.data_ptr() - storage.data_ptr()

    def read_back(self):
        """The tensors get what the kernel has stored."""
        for at, storage in self.places.values():
            _bytes_of(storage)[:] = self.bytes[at : at + storage.nbytes()]

    def offsets(self, addresses, size, line):
        """Where in ``bytes`` accesses of ``size`` bytes are, all of which are allowed."""
        at = addresses - BASE
        if (at % size).any():
            raise Misaligned(f"{size} bytes at {addresses[at % size != 0][0]:#x}: {line}")
        inside = (at >= 0) & (at + size <= len(self.bytes))
        if inside.all():
            inside = self.valid[self._places(at, size)].all(-1)
        if not inside.all():
            raise OutOfBounds(f"{addresses[~inside][0]:#x} is in no tensor: {line}")
        return at

    def read(self, at, size, moments, warps, line):
        """at: as ``offsets`` gives it."""
        if self.order:
            self.order.read(*self._spread(at, size, moments, warps), line)

    def write(self, at, size, moments, warps, line):
        if self.order:
            self.order.write(*self._spread(at, size, moments, warps), line)


def _bytes_of(storage):
    return torch.tensor([], dtype=torch.uint8).set_(storage).numpy()


class Shared(Memory):
    """The shared memory of all programs: a row of bytes for each."""

    race = SharedRace

    def __init__(self, size, programs, grain):
        self.size, self.grain = size, grain
        self.row = -(-max(size, 1) // 16) * 16
        self.bytes = np.full((programs, self.row), 0xFF, np.uint8)
        self.warps = Warps(self.bytes.size // grain)
        self.unfenced = np.zeros(self.bytes.size // grain, bool)
        self.fenced = np.full(self.unfenced.shape, -1, np.int64)  # when, at last

    def offsets(self, programs, addresses, size, line):
        """Where in ``bytes``, taken as one row, accesses are; all three of one shape."""
        if (addresses % size).any():
            raise Misaligned(f"{size} bytes of shared memory: {line}")
        beyond = (addresses < 0) | (addresses + size > self.size)
        if beyond.any():
            raise OutOfBounds(f"shared memory at {addresses[beyond][0]} of {self.size}: {line}")
        return programs * self.row + addresses

    def read(self, at, size, moments, warps, line):
        """at: as ``offsets`` gives it."""
        self.warps.read(*self._spread(at, size, moments, warps), line)

    def write(self, at, size, moments, warps, line):
        places, *rest = self._spread(at, size, moments, warps)
        self.warps.write(places, *rest, line)
        self.unfenced[places] = True

    def fence(self, programs, moments):
        """What these have written, matrix units may read after the next barrier."""
        unfenced = self.unfenced.reshape(len(self.bytes), -1)
        for program, moment in zip(programs, moments, strict=True):
            places = np.flatnonzero(unfenced[program])
            unfenced[program, places] = False
            self.fenced[program * unfenced.shape[1] + places] = moment

    def read_by_unit(self, programs, addresses, moments, line):
        """As ``read``, through the asynchronous proxy, as if by a warp apart.

        addresses: (number,), the same in all ``programs``; moments: of each program.
        """
        beyond = (addresses < 0) | (addresses >= self.size)
        if beyond.any():
            raise OutOfBounds(f"shared memory at {addresses[beyond][0]} of {self.size}: {line}")
        places = ((programs * self.row)[:, None] + addresses) // self.grain
        fresh = self.fenced[places] == moments[:, None]
        if (self.unfenced[places] | fresh).any():
            raise Unfenced(
                "a matrix unit reads what was written without a proxy fence and a barrier since: "
                f"{line}"
            )
        unit = np.full(places.size, UNIT, np.int16)
        self.warps.read(places.reshape(-1), np.repeat(moments, len(addresses)), unit, line)
