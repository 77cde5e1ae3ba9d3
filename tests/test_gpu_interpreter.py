"""The GPU engine in Triton's interpreter, step by step: outputs and gradients are torch.nn's."""

import math

import pytest
import torch
from against_torch import EVERY_KIND, compare, make_inputs, packing, plain_call, twins
from by_pieces import either
from gpu_layers import ALONE, GRID, TOLERANCE, check, served
from interpreter import interpreted
from torch.autograd.graph import saved_tensors_hooks

from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.schedule import dense
from fastrnn.kernels.weights import Weights

__all__ = ["interpreted"]
TILES = pytest.mark.parametrize("tile", [GRID, ALONE], ids=["grid", "alone"])


@TILES
@EVERY_KIND
def test_layer(interpreted, kind, tile):
    interpreted(check, kind, tile)


@TILES
@EVERY_KIND
def test_two_directions_and_layers(interpreted, kind, tile):
    interpreted(check, kind, tile, bidirectional=True, num_layers=2)


@TILES
@EVERY_KIND
def test_packed(interpreted, kind, tile):
    """Rows that end, and in the other direction begin, while others go on."""
    interpreted(check, kind, tile, 5, 4, lengths=[5, 3, 3, 1], bidirectional=True)


def ragged(kind, tile):
    resets = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]]).bool()
    check(kind, tile, 4, 4, call=either([3, 4, 0, 1], resets), bidirectional=True)


@EVERY_KIND
def test_lengths_and_resets(interpreted, kind):
    interpreted(ragged, kind, GRID)


@TILES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY_KIND
def test_halves(interpreted, kind, dtype, tile):
    interpreted(check, kind, tile, dtype=dtype, bidirectional=True)


OPTIONS = {
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "no-states": {"states": False},
    "one-step": {"T": 1},
    "two-blocks": {"B": 18, "T": 2, "bidirectional": True},
    "aligned": {"H": 24},
    "tiny": {"H": 1, "B": 1},
    "three-groups": {"H": 41, "T": 5, "lengths": [5, 5, 2]},
    "unsorted": {"lengths": [2, 4, 3]},
    "frozen": {"frozen": ("x", "h0")},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@EVERY_KIND
def test_options(interpreted, kind, options):
    interpreted(check, kind, GRID, **options)


@pytest.mark.parametrize("ahead", [0, 1, 2])
@EVERY_KIND
def test_chunks_ahead(interpreted, kind, ahead):
    """Of the three in which h comes."""
    interpreted(check, kind, ((16, 16, 16, 4, ahead), GRID[1]), T=3, H=41)


PROJECTED = {
    "plain": {},
    "packed": {"lengths": [5, 3, 3, 1], "T": 5, "B": 4, "bidirectional": True, "bias": False},
    "stack": {"num_layers": 2, "bidirectional": True, "recompute": True},
}


@pytest.mark.parametrize("options", PROJECTED.values(), ids=PROJECTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_projection(interpreted, dtype, options):
    interpreted(check, "lstm", GRID, dtype=dtype, proj_size=6, **options)


def packed_with_another_default_device():
    ours, theirs = twins("lstm", 5, 21, proj_size=6)
    call = packing([4, 3, 1], "meta")
    with served(GRID):
        compare(
            ours, theirs, make_inputs(ours, 4, 3), call=call, tolerance=TOLERANCE[torch.float32]
        )


def test_another_default_device(interpreted):
    interpreted(packed_with_another_default_device)


def in_several_launches(kind):
    """On a GPU with room for one lane backward and two forward, lanes come one after another."""
    from fastrnn.kernels.gpu import launch
    from fastrnn.kernels.gpu.sizes import Device

    lengths = [6] * 5 + [4] * 20 + [1] * 8  # the last lanes end early, or begin late
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "describe", lambda device: Device(90, 2, 232448, 233472))
        made = check(kind, GRID, 6, 33, lengths=lengths, bidirectional=True)
    found = [[grid for *_, grid in each.each()] for each in made]
    forward, backward = [(1, 2, 2)] * 3, [(1, 2, 2)] * 6
    assert found == [forward, backward, forward]  # the last in inference


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_several_launches(interpreted, kind):
    interpreted(in_several_launches, kind)


def recomputed(kind, tile):
    """Gates that are not kept are computed anew."""
    from fastrnn.kernels.gpu import engine, products

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ROWS", 5)  # so that there are blocks of them
        check(kind, tile, recompute=True)
    check(kind, tile, 5, 4, lengths=[5, 3, 3, 1], bidirectional=True, recompute=True)
    layer, cell = twins(kind, 5, 32)[0].requires_grad_(False), CELLS[kind]
    x, *states = make_inputs(layer, 4, 4).values()
    weights = [Weights(*layer._flat_weights, None)]
    rest = dense(4, 4), weights, states
    with served(tile):
        nothing, states_only, everything = (
            sum(t.nbytes for t in engine.layer(cell, x.flatten(0, 1), *rest, keep)[2])
            for keep in (Keep.NOTHING, Keep.STATES, Keep.ALL)
        )
    assert nothing == 0
    assert everything - states_only == 4 * 4 * 32 * cell.kept * 4
    assert states_only == 4 * 4 * 32 * cell.states * 4


@TILES
@EVERY_KIND
def test_recompute(interpreted, kind, tile):
    interpreted(recomputed, kind, tile)


def not_finite(kind, tile, value):
    """It stays in the rows that have it, although H has padding."""
    ours, theirs = twins(kind, 5, 21)
    inputs = make_inputs(ours, 4, 3)
    inputs["x"][1, 1, 2] = value
    with served(tile):
        compare(ours, theirs, inputs, tolerance=TOLERANCE[torch.float32])


@TILES
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_not_finite(interpreted, kind, value, tile):
    interpreted(not_finite, kind, tile, value)


def kept_is_written(kind, options):
    """Where nobody wrote there would be NaN (conftest); H = 21 is made up to 24."""
    kept = []
    ours, _ = twins(kind, 5, 21, bidirectional=True)
    ours.recompute = options.get("recompute", False)
    inputs = make_inputs(ours, 4, 3)
    with served(GRID), saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        plain_call(ours, *inputs.values())
    assert kept
    assert all(t.isfinite().all() for t in kept if t.is_floating_point())
    assert not any(t.dtype == torch.uint8 for t in kept)


@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=str)
@EVERY_KIND
def test_what_is_kept_is_written(interpreted, kind, options):
    interpreted(kept_is_written, kind, options)


def kept_is_looked_at(kind):
    """When backward gets it again: a kernel would read behind its end."""
    ours, _ = twins(kind, 5, 21)
    inputs = make_inputs(ours, 4, 3)
    with served(GRID):
        for change in (lambda t: t[:1], lambda t: t.double()):

            def other(t, change=change):
                """The states of all rows changed, the rest as it was."""
                return change(t) if t.shape[:2] == (12, 1) else t

            with saved_tensors_hooks(lambda t: t, other):
                y, *_ = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs.values()))
            with pytest.raises(RuntimeError, match="must keep shape, dtype and device"):
                y.sum().backward()


@EVERY_KIND
def test_what_is_kept_is_looked_at(interpreted, kind):
    interpreted(kept_is_looked_at, kind)
