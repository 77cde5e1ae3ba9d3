"""The GPU engine in Triton's interpreter, step by step: outputs and gradients are torch.nn's."""

import math
from contextlib import contextmanager

import pytest
import torch
from against_torch import EVERY_KIND, compare, make_inputs, packing, plain_call, twins
from interpreter import interpreted
from torch import nn

import fastrnn
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.steps import dense
from fastrnn.kernels.weights import Weights

__all__ = ["interpreted"]
TOLERANCE = {
    torch.float32: 2e-4,  # as in against_torch.py
    # x, weights, states, gates and their gradients are rounded to 11 or 8 bits: five such roundings
    torch.float16: 2.5e-3,
    torch.bfloat16: 2e-2,
}
# (BU, BB, KC, warps, sequential) and (GU, BB, warps): two groups of units, at H = 21, or one
GRID = (16, 16, 16, 4, False), (16, 16, 4)
ALONE = (32, 16, 32, 4, True), (32, 16, 4)
TILES = pytest.mark.parametrize("tile", [GRID, ALONE], ids=["grid", "alone"])


@contextmanager
def served(tile):
    """Within this context our layers run on the GPU engine, in tiles of this shape.

    What it gives is a list of the Launches that were made.
    """
    from fastrnn.kernels.gpu import launch, tiles

    made, run = [], launch.run

    def noted(kernel, launches, *args, **kwargs):
        made.append(launches)
        return run(kernel, launches, *args, **kwargs)

    with (
        fastrnn.backends.use("triton"),
        tiles.using(tiles.Forward(*tile[0]), tiles.Backward(*tile[1])),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(launch, "run", noted)
        yield made


def check(
    kind, tile, T=4, B=3, H=21, *, lengths=None, states=True, recompute=False, frozen=(),
    dtype=torch.float32, **options,
):  # fmt: skip
    """compare() on the GPU engine."""
    ours, theirs = twins(kind, 5, H, dtype=dtype, **options)
    ours.recompute = recompute
    call = packing(lengths) if lengths else plain_call
    inputs = make_inputs(ours, T, B, states)
    with served(tile) as made:
        compare(ours, theirs, inputs, call=call, frozen=frozen, tolerance=TOLERANCE[dtype])
    assert len(made) == 3 * ours.num_layers  # forward twice, and backward
    return made


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


PROJECTED = {
    "plain": {},
    "packed": {"lengths": [5, 3, 3, 1], "T": 5, "B": 4, "bidirectional": True, "bias": False},
    "stack": {"num_layers": 2, "bidirectional": True, "recompute": True},
}


@pytest.mark.parametrize("options", PROJECTED.values(), ids=PROJECTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_projection(interpreted, dtype, options):
    interpreted(check, "lstm", GRID, dtype=dtype, proj_size=6, **options)


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
    with served(tile):
        nothing, states_only, everything = (
            engine.layer(cell, x.flatten(0, 1), dense(4, 4), weights, states, keep)[2]
            for keep in (Keep.NOTHING, Keep.STATES, Keep.ALL)
        )
    assert nothing is None
    assert everything.nbytes - states_only.nbytes == 4 * 4 * 32 * cell.kept * 4
    assert states_only.nbytes == 4 * 4 * 32 * cell.states * 4


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


def activations():
    import triton
    import triton.language as tl

    from fastrnn.kernels.gpu.activations import OPERATIONS

    @triton.jit
    def apply(x, y, operation: tl.constexpr):
        at = tl.arange(0, 1024)
        tl.store(y + at, operation(tl.load(x + at)))

    x = torch.cat([torch.logspace(-30, 2, 510), torch.tensor([0.0, math.inf])])
    x = torch.cat([x, -x])
    x[600] = math.nan
    for name, exact in (("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("relu", torch.relu)):
        y = torch.empty_like(x)
        apply[(1,)](x, y, OPERATIONS[name])
        # relative to each value: a GPU's exp and division are as good as a few roundings of 6e-8
        torch.testing.assert_close(
            y.double(), exact(x.double()), rtol=2e-6, atol=1e-37, equal_nan=True, msg=name
        )


def test_activations(interpreted):
    interpreted(activations)


def gives_up():
    """Programs one after another wait for ever for those to come."""
    from fastrnn.kernels.gpu import launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "STEPWISE", False)
        patch.setattr(launch, "SPIN_LIMIT", 10)
        with pytest.raises(RuntimeError, match="did not all arrive"):
            check("lstm", GRID)


def test_spin_limit(interpreted):
    interpreted(gives_up)


def choices():
    """Who serves what on a GPU, as asked of CPU tensors in its place."""
    from fastrnn import backends

    def asked(kind="lstm", H=8, P=None, **options):
        dtype = options.pop("dtype", torch.float32)
        layer = nn.LSTM(4, H, proj_size=P) if P else twins(kind, 4, H)[1]
        layer = layer.to(dtype)
        inputs = make_inputs(layer, 3, 2).values()
        return backends._on_gpu(
            [*inputs, *layer.parameters()], options.pop("step", False), (CELLS[kind], 1)
        )

    for kind in CELLS:
        for dtype in backends.TRITON_DTYPES:
            assert asked(kind, dtype=dtype).name == "triton"
    assert asked(P=2).name == "triton"
    refused = {
        "float64": asked(dtype=torch.float64),
        "single step": asked(step=True),
        "beyond": asked(H=5000),
    }
    with pytest.MonkeyPatch.context() as patch:  # torch.autocast does nothing without a GPU
        patch.setattr(torch, "is_autocast_enabled", "cuda".__eq__)
        refused["autocast"] = asked()
    for word, choice in refused.items():
        assert choice.name == "torch"
        assert word in choice.reason


def test_choices(interpreted):
    interpreted(choices)


def test_no_gpu():
    """Without the interpreter CPU tensors are refused."""
    with (
        fastrnn.backends.use("triton"),
        pytest.raises(RuntimeError, match=r"the triton engine cannot serve this: .*no GPU"),
    ):
        fastrnn.backends.explain(torch.zeros(2))
