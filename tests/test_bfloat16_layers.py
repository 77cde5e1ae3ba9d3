"""Layers in bfloat16, and under autocast to it: no more error than torch's own.

The truth is torch.nn in float64 on the same numbers; torch.nn in bfloat16 says how far from it one
may be.
"""

from collections import Counter

import pytest
import torch
from against_torch import (
    BFLOAT16_PRODUCTS,
    EVERY_KIND,
    KINDS,
    build,
    build_pair,
    make_inputs,
    name_outputs,
    outputs_and_gradients,
    packing,
    plain_call,
    truth,
    twins,
    under_autocast,
    weighted_sum,
)
from torch import nn

import fastrnn

WIDE, NARROW = torch.float32, torch.bfloat16
EITHER_WAY = pytest.mark.parametrize("auto", [True, False], ids=["autocast", "tensors"])
OPTIONS = {
    "plain": {},
    "stacked": {"num_layers": 2, "bidirectional": True},
    "dropout": {"num_layers": 3, "dropout": 0.5},
    "no-bias": {"bias": False, "batch_first": True},
}
LENGTHS = pytest.mark.parametrize(
    "lengths", [None, [20, 9, 2, 1, 8, 20, 19, 3]], ids=["dense", "packed"]
)


def distance(value, exact):
    """Root mean square of the error, relative to that of the truth."""
    return float((value.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def assert_no_worse_than_torch(kind, auto, call, **options):
    """Each output and gradient of ours is at most 1.2 times as far from the truth as torch's.

    The roundings of the two are not the same ones. Root mean squares over some hundred elements
    scatter by a tenth: two such tenths are granted. ReLU's derivative jumps: a unit that rounds to
    the other side of zero outweighs all other errors, so there chance has to be averaged out.
    """
    squares = Counter()
    for draw in range(12 if kind == "rnn_relu" else 1):
        torch.manual_seed(draw)
        dtype = WIDE if auto else NARROW
        ours = build(fastrnn, kind, 72, 128, dtype=dtype, **options)
        theirs = truth(ours, build(nn, kind, 72, 128, dtype=dtype, **options))
        inputs = make_inputs(ours, 20, 8)
        exactly = truth(ours, build(nn, kind, 72, 128, dtype=torch.float64, **options))
        exact = outputs_and_gradients(exactly, {n: t.double() for n, t in inputs.items()}, call)
        for module in (ours, theirs):
            found = outputs_and_gradients(module, inputs, under_autocast(auto, call))
            for name, value in found.items():
                squares[name, module is ours] += distance(value, exact[name]) ** 2
    ratios = {name: (squares[name, True] / squares[name, False]) ** 0.5 for name in exact}
    assert max(ratios.values()) <= 1.2, ratios


@BFLOAT16_PRODUCTS
@EVERY_KIND
@EITHER_WAY
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@LENGTHS
def test_no_less_accurate_than_torch(kind, options, lengths, auto, calls):
    call = packing(lengths) if lengths else plain_call
    assert_no_worse_than_torch(kind, auto, call, **options)
    assert calls.keys() == {"forward", "backward"}


@BFLOAT16_PRODUCTS
@EITHER_WAY
@LENGTHS
def test_projection_is_no_less_accurate(lengths, auto, calls):
    call = packing(lengths) if lengths else plain_call
    assert_no_worse_than_torch("lstm", auto, call, proj_size=50, bidirectional=True)
    assert calls.keys() == {"forward", "backward"}


@BFLOAT16_PRODUCTS
@EVERY_KIND
@EITHER_WAY
@pytest.mark.parametrize("B", [1, 7])
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 17), (33, 31), (64, 66)], ids=str)
def test_sizes(kind, I, H, B, auto, calls):
    """Odd depths, tails of registers, one row: next to torch.nn in float64."""
    ours, theirs = twins(kind, I, H, dtype=WIDE if auto else NARROW, bidirectional=True)
    inputs = make_inputs(ours, 6, B)
    exact = {name: value.double() for name, value in inputs.items()}
    expected = outputs_and_gradients(theirs, exact)
    found = outputs_and_gradients(ours, inputs, under_autocast(auto))
    for name, value in found.items():
        if kind == "rnn_relu" and name.startswith("d "):
            continue  # its derivative jumps: see assert_no_worse_than_torch
        # x, weights and states have 8 bits: five roundings of 4e-3, of sums of terms of size 1
        scale = max(1.0, expected[name].abs().max())
        assert (value - expected[name]).abs().max() < 2e-2 * scale, name
    assert calls.keys() == {"forward", "backward"}


@BFLOAT16_PRODUCTS
@EVERY_KIND
@EITHER_WAY
@pytest.mark.parametrize("H", [48, 220], ids="H{}".format)
@pytest.mark.parametrize("count", [2, 3], ids="threads={}".format)
def test_threads(kind, H, count, auto):
    """As on one thread to the bit: dx too, to which two directions add."""
    ours, _ = build_pair(kind, 40, H, dtype=WIDE if auto else NARROW, bidirectional=True)
    inputs = make_inputs(ours, 12, 33)
    alone = outputs_and_gradients(ours, inputs, under_autocast(auto))
    torch.set_num_threads(count)
    together = outputs_and_gradients(ours, inputs, under_autocast(auto))
    other = [name for name, value in alone.items() if not together[name].equal(value)]
    assert not other


@BFLOAT16_PRODUCTS
@EITHER_WAY
@pytest.mark.parametrize("scale", [1e4, 1e30], ids="{:g}".format)
def test_large_cell_states(scale, auto):
    """Where tanh is 1 its derivative is 0: any other, times such a state, would be a gradient."""
    ours, theirs = twins("lstm", 9, 17, dtype=WIDE if auto else NARROW)
    inputs = make_inputs(ours, 3, 5)
    inputs["c0"] = inputs["c0"].sign() * scale

    def of_output(outputs):
        return weighted_sum({"output": outputs["output"]})

    exact = {name: value.double() for name, value in inputs.items()}
    expected = outputs_and_gradients(theirs, exact, loss=of_output)
    found = outputs_and_gradients(ours, inputs, under_autocast(auto), loss=of_output)
    assert not expected["d c0"].any()
    for name, value in expected.items():  # as in test_sizes
        assert (found[name] - value).abs().max() <= 2e-2 * value.abs().max(), name


@BFLOAT16_PRODUCTS
@pytest.mark.parametrize(
    ("name", "value"), [("x", -1e30), ("h0", -1e4), ("x", 0.5)], ids=["x", "h0", "plain"]
)
def test_relu_is_on_the_right_side_of_zero(name, value):
    """Units that round to the other side, which changes gradients most, are no more than torch's.

    One number of x or h0 is ``value``.
    """
    wrong = Counter()
    for draw in range(40):
        torch.manual_seed(draw)
        ours = build(fastrnn, "rnn_relu", 30, 40, dtype=NARROW)
        inputs = make_inputs(ours, 6, 8)
        inputs[name].view(-1)[inputs[name].numel() // 2] = value
        exactly, theirs = (
            truth(ours, build(nn, "rnn_relu", 30, 40, dtype=dtype))
            for dtype in (torch.float64, NARROW)
        )
        with torch.no_grad():
            exact = exactly(*(value.double() for value in inputs.values()))[0]
            for module in (ours, theirs):
                found = module(*inputs.values())[0]
                wrong[module is ours] += int(((found > 0) != (exact > 0)).sum())
    assert 0 < wrong[True] <= wrong[False]


@BFLOAT16_PRODUCTS
@EVERY_KIND
@EITHER_WAY
def test_second_derivatives(kind, auto, calls):
    """Through the reference engine: torch.nn's in float64, but for bfloat16's roundings."""
    ours, theirs = twins(kind, 9, 16, dtype=WIDE if auto else NARROW)
    found = []
    for module, dtype in ((ours, None), (theirs, torch.float64)):
        torch.manual_seed(0)
        x = torch.randn(5, 4, 9).bfloat16().to(dtype or next(ours.parameters()).dtype)
        x.requires_grad_()
        outputs = name_outputs(module, under_autocast(auto and module is ours)(module, x))
        wanted = [x, *module.parameters()]
        first = torch.autograd.grad(weighted_sum(outputs), wanted, create_graph=True)
        total = sum(gradient.square().sum() for gradient in first)
        found.append(torch.autograd.grad(total, wanted))
    assert calls["reference"]
    for name, mine, exact in zip(("x", *KINDS * 2), *found, strict=False):
        assert distance(mine, exact) < 5e-2, name  # twice through what loses 2e-2 (test_sizes)


@BFLOAT16_PRODUCTS
@EVERY_KIND
def test_same_as_without_grad(kind):
    """What keeps nothing for backward computes the same numbers."""
    ours, _ = build_pair(kind, 9, 33, num_layers=2)
    inputs = make_inputs(ours, 6, 5).values()
    with torch.autocast("cpu", NARROW):
        kept = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs))
        with torch.no_grad():
            plain = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs))
    assert all(a.equal(b) for a, b in zip(kept, plain, strict=True))
