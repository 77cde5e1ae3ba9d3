"""The emulator in the place of a GPU: layers on CPU tensors run on what Triton compiles for one.

with emulated(90), fastrnn.backends.use("triton"):
    y, (h, c) = fastrnn.LSTM(5, 40)(torch.randn(4, 3, 5))
"""

from contextlib import ExitStack, contextmanager
from functools import lru_cache
from unittest import mock

from bench.aot.compiler import compiling_for, target
from bench.aot.rows import GPUS
from fastrnn.kernels.gpu import attempt, choice, guard, kernels, launch, products, tiles

from .machine import Code, Machine

_code = lru_cache(16)(Code)


class Emulated:
    """What ``emulated`` gives: what it has run, and what it has found wrong."""

    def __init__(self, arch, fault, seed):
        self.arch, self.fault, self.seed = arch, fault, seed
        self.launches = []  # (name of the kernel, its grid), in order
        self.found = []  # what was raised in them: most often a Detected

    def launch(self, kernel, grid, arguments):
        """Compile and run a kernel, as ``kernel[grid](**arguments)`` on the GPU would."""
        with compiling_for(target(f"sm{self.arch}")):
            compiled = kernel.warmup(grid=(1,), **arguments)
        grid = (*grid, 1, 1)[:3]
        self.launches.append((compiled.metadata.name, grid))
        fault = self.fault if self.fault and self.fault.is_in(compiled.metadata.name) else None
        ptx = compiled.asm["ptx"]
        code = _code(fault.change(ptx) if fault else ptx, compiled.metadata.shared)
        names = [n for n, kind in compiled.src.signature.items() if kind != "constexpr"]
        given = [arguments[name] for name in names]
        given += [0] * (len(code.kernel.parameters) - len(given))  # memory that Triton may ask for
        late = fault.late if fault else ()
        Machine(code, grid, given, self.seed + len(self.launches), late).run()


class _Kernel:
    """In the place of a kernel of Triton's."""

    def __init__(self, kernel, machine):
        self.kernel, self.machine = kernel, machine

    def __getitem__(self, grid):
        def launch(**arguments):
            try:
                self.machine.launch(self.kernel, grid, arguments)
            except Exception as error:
                self.machine.found.append(error)
                raise

        return launch


@contextmanager
def emulated(arch=90, fault=None, *, seed=0, tf32=False, forward=None, backward=None):
    """Within this context the GPU engine's launches run here, on CPU tensors.

    It gives an Emulated: ``launches`` are those that were made, ``found`` what was wrong with them.
    That is raised where the kernel is launched; but whoever launches may catch it, and have another
    engine serve. So it is raised again at the end, unless a fault was planted: then ask ``found``.

    arch: a compute capability, times ten, that bench.aot knows: 80, 90 or 120, say; fault: of
    faults.py, or None; seed: of the order in which programs run; tf32: whether float32 is
    multiplied so; forward, backward: tiles in the place of those that would be chosen, as tuples.

    It does not say which engine serves: ``fastrnn.backends.use("triton")`` does.
    """
    machine, made = Emulated(arch, fault, seed), {}

    def in_place_of(bind):
        def bound(cell):
            return made.setdefault((bind, cell), _Kernel(bind(cell), machine))

        return bound

    tile = forward and tiles.Forward(*forward), backward and tiles.Backward(*backward)
    with ExitStack() as stack:
        for patch in (
            mock.patch.object(kernels, "forward", in_place_of(kernels.forward)),
            mock.patch.object(kernels, "backward", in_place_of(kernels.backward)),
            mock.patch.object(choice, "obstacle", return_value=None),
            mock.patch.object(launch, "describe", return_value=GPUS[f"sm{arch}"]),
            mock.patch.object(launch, "STEPWISE", False),
            mock.patch.object(products, "tf32", return_value=tf32),
            # what has failed here says nothing about anybody else
            *(mock.patch.dict(d, clear=True) for d in (attempt._failed, guard._words, guard._off)),
        ):
            stack.enter_context(patch)
        if any(tile):
            stack.enter_context(tiles.using(*tile))
        if fault:
            stack.enter_context(fault.applied())
        yield machine
    if machine.found and not fault:
        raise machine.found[0]
