"""A stub for a kernel that fails before it has run, in any of the ways that are known."""

from contextlib import contextmanager

import pytest
import torch
from against_torch import plain_call
from gpu_layers import GRID

import fastrnn


def errors():
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources

    return [
        OutOfResources(300_000, 232_448, "shared memory"),
        CompilationError("def forward(): pass", None, "no such thing"),
        RuntimeError("PassManager::run failed"),
        RuntimeError("Triton Error [CUDA]: too many blocks in cooperative launch"),
        AssertionError("Cooperative launch requested but not supported on this device"),
        PermissionError(13, "Permission denied", "/root/.triton/cache"),
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    ]


@contextmanager
def failing(direction, error):
    """Within this context the GPU engine is chosen, and a kernel fails; what it gives is a list of
    the directions that were launched.
    """
    from fastrnn.kernels.gpu import attempt, kernels, tiles

    class Stub:
        def __init__(self, name, kernel):
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid):
            def call(**arguments):
                launched.append(self.name)
                if self.name == direction:
                    raise error
                self.kernel[grid](**arguments)

            return call

        def warmup(self, **arguments):
            return None

    launched, chosen = [], fastrnn.backends.Choice("triton", "")
    told = tiles.Forward(*GRID[0]), tiles.Backward(*GRID[1])
    with pytest.MonkeyPatch.context() as patch, tiles.using(*told):
        patch.setattr(attempt, "_failed", {})
        patch.setattr(fastrnn.substitute, "_told", set())
        patch.setattr(fastrnn.backends, "choose", lambda *arguments: chosen)
        for module in (fastrnn.modules, fastrnn.functional, fastrnn.known):
            patch.setattr(module, "usual", lambda: False)
        for name in ("forward", "backward"):
            real = getattr(kernels, name)
            patch.setattr(kernels, name, lambda cell, n=name, real=real: Stub(n, real(cell)))
        yield launched


def trained(layer, inputs, call=plain_call):
    """Outputs and gradients, flat."""
    found = torch.utils._pytree.tree_leaves(call(layer, *inputs.values()))
    outputs = [y for y in found if y is not None]  # of packed sequences there are indices, or none
    leaves = [x for x in (*inputs.values(), *layer.parameters()) if x.requires_grad]
    grads = torch.autograd.grad([y.sum() for y in outputs if y.requires_grad], leaves)
    return [*outputs, *grads]


def close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-4)
