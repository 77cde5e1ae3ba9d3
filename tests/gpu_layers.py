"""Layers on the GPU engine, in Triton's interpreter."""

from contextlib import contextmanager

import pytest
import torch
from against_torch import compare, make_inputs, packing, plain_call, twins

import fastrnn

TOLERANCE = {
    torch.float32: 2e-4,  # as in against_torch.py
    # x, weights, states, gates and their gradients are rounded to 11 or 8 bits: five such roundings
    torch.float16: 2.5e-3,
    torch.bfloat16: 2e-2,
}
# (BU, BB, KC, warps, ahead) and (GU, BB, warps): two groups of units, at H = 21, or one
GRID = (16, 16, 16, 4, 1), (16, 16, 4)
ALONE = (32, 16, 32, 4, 0), (32, 16, 4)


@contextmanager
def served(tile):
    """Within this context our layers run on the GPU engine, in tiles of this shape (None: chosen).

    What it gives is a list of the Launches that were made.
    """
    from fastrnn.kernels.gpu import launch, tiles

    made, run = [], launch.run
    told = tile and (tiles.Forward(*tile[0]), tiles.Backward(*tile[1]))

    def noted(kernel, launches, *args, **kwargs):
        made.append(launches)
        return run(kernel, launches, *args, **kwargs)

    with (
        fastrnn.backends.use("triton"),
        tiles.using(*told or ()),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(launch, "run", noted)
        yield made


def check(
    kind, tile, T=4, B=3, H=21, *, lengths=None, states=True, recompute=False, frozen=(),
    dtype=torch.float32, call=None, **options,
):  # fmt: skip
    """compare() on the GPU engine."""
    ours, theirs = twins(kind, 5, H, dtype=dtype, **options)
    ours.recompute = recompute
    call = call or (packing(lengths) if lengths else plain_call)
    inputs = make_inputs(ours, T, B, states)
    with served(tile) as made:
        compare(ours, theirs, inputs, call=call, frozen=frozen, tolerance=TOLERANCE[dtype])
    assert len(made) == 3 * ours.num_layers  # forward twice, and backward
    return made
