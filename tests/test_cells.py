"""The cell modules, and a layer as a chain of them, against torch.nn in float64."""

import pytest
import torch
from against_torch import (
    COUNTERPARTS,
    EVERY_KIND,
    FLOATS,
    HALVES,
    KINDS,
    TOLERANCE,
    build,
    compare,
    difference,
    make_inputs,
    outputs_and_gradients,
    truth,
    twins,
)
from hypothesis import given
from hypothesis import strategies as st
from test_inputs import LAYOUTS
from torch import nn

import fastrnn
from fastrnn.kernels.cells import CELLS


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("B", [1, 7, 13, None], ids="B{}".format)
@pytest.mark.parametrize("H", [1, 3, 17, 33, 100], ids="H{}".format)
def test_sizes(kind, B, H, dtype, calls):
    ours, theirs = twins(kind, H // 2 + 1, H, cell=True, dtype=dtype)
    compare(ours, theirs, make_inputs(ours, 1, B))
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("states", [True, False], ids=["hx", "no-hx"])
def test_options(kind, bias, states, threads, calls):
    ours, theirs = twins(kind, 70, 90, cell=True, bias=bias)
    compare(ours, theirs, make_inputs(ours, 1, 37, states))
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_strides(kind, layout, calls):
    ours, theirs = twins(kind, 5, 17, cell=True)
    for weight in ours.parameters():
        weight.data = layout(weight.data)
    truth(ours, theirs)
    inputs = make_inputs(ours, 1, 6)
    compare(ours, theirs, {name: layout(value) for name, value in inputs.items()})
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@HALVES
def test_half_precision(kind, dtype, calls):
    ours, theirs = twins(kind, 9, 33, cell=True, dtype=dtype)
    compare(ours, theirs, make_inputs(ours, 1, 6))
    assert calls == {"forward": 2, "backward": 1}


@given(
    kind=st.sampled_from(KINDS),
    width=st.integers(0, 70),
    H=st.integers(1, 70),
    B=st.none() | st.integers(1, 40),
    bias=st.booleans(),
    states=st.booleans(),
)
def test_drawn(kind, width, H, B, bias, states):
    ours, theirs = twins(kind, width, H, cell=True, bias=bias)
    compare(ours, theirs, make_inputs(ours, 1, B, states))


@EVERY_KIND
def test_a_layer_is_its_cell_step_by_step(kind):
    """Our layer and our cell agree, with one set of weights, through time and back."""
    layer, cell = (build(fastrnn, kind, 5, 17, cell=c, dtype=torch.float64) for c in (False, True))
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = torch.randn(6, 3, 5).double()
    state, outputs = None, []
    for step in x:
        state = cell(step, state)
        outputs.append(state[0] if kind == "lstm" else state)
    chained, whole = torch.stack(outputs), layer(x)[0]
    torch.testing.assert_close(whole, chained, rtol=1e-12, atol=1e-12)
    pairs = zip(cell.parameters(), layer.parameters(), strict=True)
    for ours, theirs in pairs:
        d_cell, d_layer = (
            torch.autograd.grad(y.square().sum(), w, retain_graph=True)[0]
            for y, w in ((chained, ours), (whole, theirs))
        )
        torch.testing.assert_close(d_layer, d_cell, rtol=1e-10, atol=1e-12)


def test_every_registered_cell_has_a_counterpart():
    """A cell without one would go untested: say in against_torch.py what it is to equal."""
    assert COUNTERPARTS.keys() == set(KINDS)


@EVERY_KIND
def test_backward_reads_the_new_states_that_the_cell_names(kind):
    """No other: engines need not keep them. And each of those, or they would be kept in vain."""
    cell = CELLS[kind]
    counts = 1, cell.states, cell.kept, cell.states, cell.states
    (dout,), dstates, kept, before, after = (torch.rand(count, 7) for count in counts)

    def gradients(after):
        return torch.stack(cell.backward(dout, dstates, kept, before, after, (), ())[0])

    expected = gradients(after)
    for i in range(cell.states):
        changed = after.clone()
        changed[i] = -1 - changed[i]  # another sign, and another size
        assert gradients(changed).equal(expected) == (i not in cell.after)


# From numbers too small to be normal to gates that are shut or open for good.
SCALES = [0.0, 1e-40, 1e-38, 1e-20, 1e-5, 1.0, 5.0, 30.0, 1e4, 1e18]


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("scale", SCALES, ids="{:g}".format)
def test_magnitudes(kind, scale, dtype):
    """No less accurate than torch's own kernels in our dtype, where rounding hurts those too.

    For a shut gate both lose the digits of 1 - s, by as much as happens to be lost in rounding s:
    past a point the gradients are nothing but rounding, and only the outputs are held to account.
    """
    ours, theirs = twins(kind, 9, 17, cell=True, dtype=dtype)
    same_dtype = truth(ours, build(nn, kind, 9, 17, cell=True, dtype=dtype))
    inputs = {name: value * scale for name, value in make_inputs(ours, 1, 64).items()}
    exact = outputs_and_gradients(theirs, {name: v.double() for name, v in inputs.items()})
    found, usual = (outputs_and_gradients(module, inputs) for module in (ours, same_dtype))
    for name, value in exact.items():
        if scale <= 30 or not name.startswith("d "):
            allowed = max(4 * difference(usual[name], value), TOLERANCE[dtype])
            assert difference(found[name], value) <= allowed, name


@EVERY_KIND
def test_at_zero(kind, calls):
    """Where relu has two derivatives torch takes 0; zeros of either sign go through the rest."""
    ours, theirs = twins(kind, 5, 17, cell=True)
    for weight in ours.parameters():
        weight.data.zero_()
    truth(ours, theirs)
    compare(ours, theirs, make_inputs(ours, 1, 4))
    compare(ours, theirs, {n: -0.0 * v.abs() for n, v in make_inputs(ours, 1, 4).items()})
    assert calls == {"forward": 4, "backward": 2}


@FLOATS
@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm"])
def test_activations_to_the_last_digits(kind, dtype):
    """Over the whole range, element by element: a few roundings from the exact value.

    The weights route x straight into tanh, or (o * tanh(i * g), all gates x) into sigmoid and tanh.
    """
    ours = build(fastrnn, kind, 1, 1, cell=True, bias=False, dtype=dtype)
    nn.init.ones_(ours.weight_ih)
    nn.init.zeros_(ours.weight_hh)
    span = torch.cat([torch.logspace(-30, 2, 4000), torch.linspace(0, 30, 4000)])
    x = torch.cat([span, -span]).to(dtype)[:, None]
    with torch.no_grad():
        found = ours(x)
    exact = x.double()
    h = torch.tanh(exact)
    if kind == "lstm":
        found, h = found[0], exact.sigmoid() * torch.tanh(exact.sigmoid() * h)
    normal = h.abs() > torch.finfo(dtype).tiny
    error = ((found.double() - h) / h)[normal].abs().max()
    assert error < 16 * torch.finfo(dtype).eps
