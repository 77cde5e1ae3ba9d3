"""bfloat16 tensors, and autocast to bfloat16: torch's dtypes, and no more error than torch's own.

The truth is torch.nn in float64 on the same numbers; torch.nn in bfloat16 says how far from it one
may be.
"""

from collections import Counter
from itertools import product

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    KINDS,
    build,
    build_pair,
    compare,
    make_inputs,
    name_outputs,
    outputs_and_gradients,
    plain_call,
    truth,
    twins,
    weighted_sum,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
from fastrnn import backends
from fastrnn.kernels.cpu.target import registers

WIDE, NARROW = torch.float32, torch.bfloat16
products = pytest.mark.skipif(not registers().bfloat16, reason="needs AVX512-BF16")
EITHER_WAY = pytest.mark.parametrize("auto", [True, False], ids=["autocast", "tensors"])
OPTIONS = {
    "plain": {},
    "stacked": {"num_layers": 2, "bidirectional": True},
    "dropout": {"num_layers": 3, "dropout": 0.5},
    "no-bias": {"bias": False, "batch_first": True},
}


def autocast(enabled=True):
    return torch.autocast("cpu", NARROW, enabled=enabled)


def under(enabled, call=plain_call):
    def cast_call(module, *inputs):
        with autocast(enabled):
            return call(module, *inputs)

    return cast_call


def packing(lengths):
    def call(module, x, *states):
        rows = pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=False)
        return plain_call(module, rows, *states)

    return call


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
            found = outputs_and_gradients(module, inputs, under(auto, call))
            for name, value in found.items():
                squares[name, module is ours] += distance(value, exact[name]) ** 2
    ratios = {name: (squares[name, True] / squares[name, False]) ** 0.5 for name in exact}
    assert max(ratios.values()) <= 1.2, ratios


LENGTHS = pytest.mark.parametrize(
    "lengths", [None, [20, 9, 2, 1, 8, 20, 19, 3]], ids=["", "packed"]
)


@products
@EVERY_KIND
@EITHER_WAY
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@LENGTHS
def test_no_less_accurate_than_torch(kind, options, lengths, auto, calls):
    call = packing(lengths) if lengths else plain_call
    assert_no_worse_than_torch(kind, auto, call, **options)
    assert calls.keys() == {"forward", "backward"}


@products
@EITHER_WAY
@LENGTHS
def test_projection_is_no_less_accurate(lengths, auto, calls):
    call = packing(lengths) if lengths else plain_call
    assert_no_worse_than_torch("lstm", auto, call, proj_size=50, bidirectional=True)
    assert calls.keys() == {"forward", "backward"}


@products
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
    found = outputs_and_gradients(ours, inputs, under(auto))
    for name, value in found.items():
        if kind == "rnn_relu" and name.startswith("d "):
            continue  # its derivative jumps: see assert_no_worse_than_torch
        # x, weights and states have 8 bits: five roundings of 4e-3, of sums of terms of size 1
        scale = max(1.0, expected[name].abs().max())
        assert (value - expected[name]).abs().max() < 2e-2 * scale, name
    assert calls.keys() == {"forward", "backward"}


GIVEN = list(product([WIDE, NARROW], [None, WIDE, NARROW]))
FORMS = {
    "dense": plain_call,
    "equal": packing([4, 4, 4]),
    "ragged": packing([4, 2, 1]),
    "cell": plain_call,
}


@EVERY_KIND
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("projected", [False, True], ids=["", "projected"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
def test_dtypes_are_torchs(kind, form, projected, grad):
    """Of outputs, states and all gradients, whatever dtypes the input and the states come in."""
    if projected and (kind != "lstm" or form == "cell"):
        pytest.skip("torch has no such thing")
    options = {"proj_size": 7} if projected else {}
    pair = build_pair(kind, 5, 17, cell=form == "cell", **options)
    for of_x, of_states in GIVEN:
        found = []
        for module in pair:
            inputs = make_inputs(module, *((None, 3) if form == "cell" else (4, 3)))
            inputs = {n: t.to(of_x if n == "x" else of_states) for n, t in inputs.items()
                      if n == "x" or of_states}  # fmt: skip
            with torch.set_grad_enabled(grad), autocast():
                if grad:
                    results = outputs_and_gradients(module, inputs, FORMS[form])
                else:
                    results = name_outputs(module, FORMS[form](module, *inputs.values()))
            found.append({name: value.dtype for name, value in results.items()})
        assert found[0] == found[1], (of_x, of_states)


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("of_x", [torch.float64, torch.float16, WIDE], ids=str)
@pytest.mark.parametrize("to", [NARROW, torch.float16], ids="to-{}".format)
def test_what_is_left_to_torch(kind, cell, of_x, to, calls):
    """Results or errors, they are torch's own."""
    if (of_x, to) == (WIDE, NARROW):
        pytest.skip("ours")
    pair = build_pair(kind, 5, 17, cell=cell)
    results = []
    for module in pair:
        torch.manual_seed(0)
        x = torch.randn(*(4, 3, 5)[cell:]).to(of_x)
        try:
            with torch.autocast("cpu", to):
                results.append(torch.utils._pytree.tree_leaves(module(x)))
        except RuntimeError as error:
            results.append(str(error))
    assert str(results[0]) == str(results[1])
    assert calls.keys() == {"torch"}


@EVERY_KIND
def test_autocast_may_end_within(kind):
    """Inside autocast(enabled=False) a layer is what it is outside."""
    ours, theirs = twins(kind, 5, 17)
    inputs = make_inputs(ours, 4, 3)
    with autocast():
        compare(ours, theirs, inputs, call=under(False))
    compare(ours, theirs, inputs)


@products
@EVERY_KIND
def test_gradients_of_weights_are_not_rounded(kind):
    """float32 parameters get float32 gradients: sums that bfloat16 never held."""
    ours, _ = build_pair(kind, 5, 17)
    found = outputs_and_gradients(ours, make_inputs(ours, 4, 3), under(True))
    for name, _ in ours.named_parameters():
        gradient = found[f"d {name}"]
        assert gradient.dtype == WIDE
        assert not gradient.equal(gradient.bfloat16().float())


@products
@EVERY_KIND
def test_weights_may_change_within(kind):
    """Nothing is remembered of weights that autocast has seen before."""
    ours, _ = build_pair(kind, 5, 17)
    x = torch.randn(4, 3, 5)
    with autocast(), torch.no_grad():
        before = ours(x)[0]
        for weight in ours.parameters():
            weight.zero_()
        after = ours(x)[0]
    assert before.any()
    assert not after.any()


@products
@EVERY_KIND
@EITHER_WAY
def test_backward_inside_autocast(kind, auto):
    """The same gradients, whether backward is called inside the context or after it."""
    ours, _ = build_pair(kind, 9, 33, dtype=WIDE if auto else NARROW)
    inputs = make_inputs(ours, 6, 5)
    outside = outputs_and_gradients(ours, inputs, under(auto))
    with autocast():
        inside = outputs_and_gradients(ours, inputs, under(auto))
    for name, value in outside.items():
        assert inside[name].equal(value), name


@products
@EVERY_KIND
@EITHER_WAY
@pytest.mark.parametrize("H", [48, 220], ids="H{}".format)
@pytest.mark.parametrize("count", [2, 3], ids="threads={}".format)
def test_threads(kind, H, count, auto):
    """As on one thread, but for the order of sums."""
    ours, _ = build_pair(kind, 40, H, dtype=WIDE if auto else NARROW, bidirectional=True)
    inputs = make_inputs(ours, 12, 33)
    alone = outputs_and_gradients(ours, inputs, under(auto))
    torch.set_num_threads(count)
    together = outputs_and_gradients(ours, inputs, under(auto))
    for name, value in alone.items():
        # sums in another order round to the next bfloat16 here and there; and of two directions
        # at once, the gradient of x is rounded to half a unit of 8 bits before it is added
        assert distance(together[name], value.double()) < 4e-3, name


@products
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
        outputs = name_outputs(module, under(auto and module is ours)(module, x))
        wanted = [x, *module.parameters()]
        first = torch.autograd.grad(weighted_sum(outputs), wanted, create_graph=True)
        total = sum(gradient.square().sum() for gradient in first)
        found.append(torch.autograd.grad(total, wanted))
    assert calls["reference"]
    for name, mine, exact in zip(("x", *KINDS * 2), *found, strict=False):
        assert distance(mine, exact) < 5e-2, name  # twice through what loses 2e-2 (test_sizes)


@products
@EVERY_KIND
def test_same_as_without_grad(kind):
    """What keeps nothing for backward computes the same numbers."""
    ours, _ = build_pair(kind, 9, 33, num_layers=2)
    inputs = make_inputs(ours, 6, 5).values()
    with autocast():
        kept = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs))
        with torch.no_grad():
            plain = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs))
    assert all(a.equal(b) for a, b in zip(kept, plain, strict=True))


def test_explains():
    with autocast():
        layer = backends.explain(torch.zeros(1))
        cell = backends.explain(torch.zeros(1), step=True)
    assert (layer.name, cell.name) == ("numba", "torch")
    assert layer.reason.startswith("autocast to bfloat16 on CPU")
    assert ("computed in float32" in layer.reason) == (not registers().bfloat16)
    assert cell.reason.startswith("autocast of one step")
