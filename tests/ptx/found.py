"""What the emulator finds wrong with a kernel."""


class Detected(RuntimeError):
    """A kernel does what it must not."""


class OutOfBounds(Detected):
    """It accesses memory that is no tensor's, or that its shared memory does not have."""


class Misaligned(Detected):
    """An address is no multiple of what is accessed there."""


class SharedRace(Detected):
    """Two warps of a program access the same place, one of them writes, no barrier is between."""


class GlobalRace(Detected):
    """Two programs do so, and no release that was acquired is between."""


class Unfenced(Detected):
    """A matrix unit reads what was written with no proxy fence, and then a barrier, since."""


class InFlight(Detected):
    """Something is touched that a matrix unit is still at work on."""


class Parted(Detected):
    """Threads of a program go different ways: this emulator cannot follow."""


class Stuck(Detected):
    """Programs wait for something that does not come."""
