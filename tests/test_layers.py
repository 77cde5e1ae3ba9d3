"""Layers, output by output and gradient by gradient, against torch.nn in float64."""

import pytest
import torch
from against_torch import EVERY_KIND, FLOATS, KINDS, compare, make_inputs, twins
from conftest import spying
from hypothesis import given
from hypothesis import strategies as st


def assert_fused(calls, layers=1):
    """``compare`` ran ours twice forward and once backward, on the fused engine and no other."""
    assert calls == {"forward": 2 * layers, "backward": layers}


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("T", [1, 2, 31], ids="T{}".format)
@pytest.mark.parametrize("B", [1, 7, 13], ids="B{}".format)
@pytest.mark.parametrize("H", [1, 3, 17, 33, 100], ids="H{}".format)
def test_sizes(kind, T, B, H, dtype, calls):
    ours, theirs = twins(kind, H // 2 + 1, H, dtype=dtype)
    compare(ours, theirs, make_inputs(ours, T, B))
    assert_fused(calls)


OPTIONS = {
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "3-layers": {"num_layers": 3},
    "bidirectional": {"bidirectional": True},
    "2-layers-both-ways": {"num_layers": 2, "bidirectional": True},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("states", [True, False], ids=["hx", "no-hx"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(kind, options, states, dtype, calls):
    ours, theirs = twins(kind, 5, 17, dtype=dtype, **options)
    compare(ours, theirs, make_inputs(ours, 7, 6, states))
    assert_fused(calls, ours.num_layers)


@FLOATS
@pytest.mark.parametrize("states", [True, False], ids=["hx", "no-hx"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("P", [1, 5, 16, 33], ids="P{}".format)
def test_projection(P, options, states, dtype, calls):
    ours, theirs = twins("lstm", 5, P + 1 + P // 2, dtype=dtype, proj_size=P, **options)
    compare(ours, theirs, make_inputs(ours, 7, 6, states))
    assert_fused(calls, ours.num_layers)


@EVERY_KIND
@pytest.mark.parametrize("options", [{}, OPTIONS["all"]], ids=["plain", "all"])
def test_unbatched(kind, options, calls):
    ours, theirs = twins(kind, 5, 17, **options)
    compare(ours, theirs, make_inputs(ours, 7, None))
    assert_fused(calls, ours.num_layers)


# Where a call is cut for two threads: at rows, at hidden units (few rows, or weights too large for
# a core's cache), or at both.
CUTS = {"rows": (20, 48), "units": (5, 100), "large": (16, 220), "uneven": (23, 33)}


@EVERY_KIND
@pytest.mark.parametrize("count", [2, 3, 4], ids="threads={}".format)
@pytest.mark.parametrize(("B", "H"), CUTS.values(), ids=CUTS)
def test_threads(kind, B, H, count, calls):
    torch.set_num_threads(count)
    ours, theirs = twins(kind, 40, H, bidirectional=True)
    compare(ours, theirs, make_inputs(ours, 21, B))
    assert_fused(calls)


@pytest.mark.parametrize(("B", "H"), CUTS.values(), ids=CUTS)
def test_projection_on_threads(B, H, threads, calls):
    ours, theirs = twins("lstm", 40, H, proj_size=H // 2 + 1)
    compare(ours, theirs, make_inputs(ours, 21, B))
    assert_fused(calls)


@EVERY_KIND
def test_a_row_does_not_depend_on_its_batch(kind, threads):
    """Bit for bit: the same sequence alone, and among others."""
    ours, _ = twins(kind, 9, 33)
    x = torch.randn(12, 29, 9)
    with torch.no_grad():
        together = ours(x)[0]
        for b in (0, 5, 28):
            assert ours(x[:, b : b + 1])[0].equal(together[:, b : b + 1])


@EVERY_KIND
def test_same_call_same_bits(kind):
    torch.set_num_threads(2)
    ours, _ = twins(kind, 40, 100)
    x = torch.randn(31, 13, 40, requires_grad=True)
    first, again = (
        torch.autograd.grad(ours(x)[0].square().sum(), [x, *ours.parameters()]) for _ in range(2)
    )
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("H", [1, 17, 33, 65], ids="H{}".format)
@pytest.mark.parametrize("kind", [*KINDS, "lstm-projected"])
def test_writes_stay_inside(kind, H, threads, guards, calls):
    """No element beyond any buffer, input or weight is written, nor read into a result."""
    kind, *projected = kind.split("-")
    P = {"proj_size": H // 2 + 1} if projected and H > 1 else {}
    ours, theirs = twins(kind, 3, H, bidirectional=True, **P)
    for weight in ours.parameters():
        weight.data = guards.tensor(weight.data)
    inputs = make_inputs(ours, 19, 21)
    inputs = {name: guards.tensor(value) for name, value in inputs.items()}
    compare(ours, theirs, inputs)
    assert guards.intact()
    assert len(guards.made) > 10
    assert_fused(calls)


@st.composite
def layers(draw):
    """Constructor arguments, and the sizes of an input."""
    kind = draw(st.sampled_from(KINDS))
    H = draw(st.integers(1, 70))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        # a rounding on the other side of ReLU's kink is another gradient: not to be compared
        "dtype": draw(st.sampled_from([torch.float32, torch.float64][kind == "rnn_relu" :])),
    }
    if kind == "lstm" and H > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, H - 1))
    T, B = draw(st.integers(1, 40)), draw(st.none() | st.integers(1, 40))
    return kind, draw(st.integers(1, 70)), H, T, B, options


@given(layer=layers(), states=st.booleans(), threads=st.integers(1, 3), data=st.data())
def test_drawn(layer, states, threads, data):
    kind, width, H, T, B, options = layer
    torch.set_num_threads(threads)
    with spying() as calls:
        ours, theirs = twins(kind, width, H, **options)
        inputs = make_inputs(ours, T, B, states)
        names = [*inputs, *(name for name, _ in ours.named_parameters())]
        frozen = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1), label="frozen")
        for module in (ours, theirs):
            for name in frozen - inputs.keys():
                module.get_parameter(name).requires_grad_(False)
        compare(ours, theirs, inputs, frozen=frozen)
        # a layer of which nothing is asked needs no backward, if none is before it
        assert calls.keys() == {"forward", "backward"}
        # and where only later layers are trained, each is a call of its own
        assert 2 <= calls["forward"] <= 2 * options["num_layers"]
