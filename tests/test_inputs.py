"""What else a layer may be given: packed rows, any strides, half precision, dropout."""

import pytest
import torch
from against_torch import (
    EVERY_KIND,
    FLOATS,
    HALVES,
    KINDS,
    build,
    compare,
    make_inputs,
    packing,
    plain_call,
    twins,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import fastrnn

LENGTHS = {
    "falling": [9, 7, 7, 4, 1],
    "equal": [6, 6, 6],
    "one": [5],
    "steps-of-one": [1, 1],
    "unsorted": [2, 9, 1, 7, 9, 3],
    "many": [31, *range(1, 30), 30, 12],
}


@EVERY_KIND
@FLOATS
@pytest.mark.parametrize("states", [True, False], ids=["hx", "no-hx"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed(kind, lengths, states, dtype, calls):
    ours, theirs = twins(kind, 5, 17, dtype=dtype, num_layers=2, bidirectional=True)
    inputs = make_inputs(ours, max(lengths), len(lengths), states)
    compare(ours, theirs, inputs, call=packing(lengths))
    assert calls == {"forward": 4, "backward": 2}


@pytest.mark.parametrize(
    "options", [{"proj_size": 7}, {"batch_first": True}, {"bias": False}], ids=str
)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_with_options(lengths, options, calls):
    ours, theirs = twins("lstm", 5, 17, bidirectional=True, **options)
    inputs = make_inputs(ours, max(lengths), len(lengths))
    compare(ours, theirs, inputs, call=packing(lengths))
    assert calls == {"forward": 2, "backward": 1}


@pytest.mark.parametrize("options", [{}, {"proj_size": 7}], ids=str)
def test_packed_with_another_default_device(options, calls):
    ours, theirs = twins("lstm", 5, 17, **options)
    compare(ours, theirs, make_inputs(ours, 4, 3), call=packing([4, 3, 1], "meta"))
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@pytest.mark.parametrize("count", [2, 3], ids="threads={}".format)
@pytest.mark.parametrize("H", [48, 220], ids="H{}".format)
def test_packed_on_threads(kind, H, count, calls):
    """Parts of equal work, not of equally many sequences; some have no row left at the end."""
    torch.set_num_threads(count)
    ours, theirs = twins(kind, 40, H, bidirectional=True)
    lengths = LENGTHS["many"]
    compare(ours, theirs, make_inputs(ours, 31, len(lengths)), call=packing(lengths))
    assert calls == {"forward": 2, "backward": 1}


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=25),
    kind=st.sampled_from(KINDS),
    H=st.integers(1, 40),
    bidirectional=st.booleans(),
    threads=st.integers(1, 2),
)
def test_packed_drawn(lengths, kind, H, bidirectional, threads):
    torch.set_num_threads(threads)
    ours, theirs = twins(kind, 6, H, bidirectional=bidirectional)
    inputs = make_inputs(ours, max(lengths), len(lengths))
    compare(ours, theirs, inputs, call=packing(lengths))


@EVERY_KIND
def test_packed_result_is_torchs(kind):
    """The PackedSequence that comes back has the fields of torch's, and pads as torch's does."""
    ours, theirs = twins(kind, 5, 17, dtype=torch.float64)
    rows = pack_sequence(list(torch.randn(3, 6, 5).double()), enforce_sorted=False)
    found, expected = ours(rows)[0], theirs(rows)[0]
    assert type(found) is PackedSequence
    for field, wanted in zip(found[1:], expected[1:], strict=True):
        assert field.equal(wanted)


# Memory layouts of the same numbers.
LAYOUTS = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every-second": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "part-of-wider": lambda t: torch.nn.functional.pad(t, (3, 2), value=9.0)[..., 3:-2],
    "unaligned": lambda t: torch.cat([t.new_ones(1), t.flatten()])[1:].view(t.shape),
    "first-repeated": lambda t: t[:1].expand(t.shape),
    "last-repeated": lambda t: t[..., :1].expand(t.shape),
}


@EVERY_KIND
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}], ids=str)
def test_input_and_state_strides(kind, layout, options, calls):
    ours, theirs = twins(kind, 5, 17, num_layers=2, **options)
    inputs = make_inputs(ours, 7, 6)
    compare(ours, theirs, {name: layout(value) for name, value in inputs.items()})
    assert calls == {"forward": 4, "backward": 2}


@EVERY_KIND
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("P", [{}, {"proj_size": 7}], ids=["", "projected"])
def test_weight_strides(kind, layout, P, calls):
    ours, theirs = twins(kind, 5, 17, num_layers=2, **P if kind == "lstm" else {})
    for name, weight in ours.named_parameters():
        weight.data = layout(weight.data)
        theirs.get_parameter(name).data = weight.data.double()
    compare(ours, theirs, make_inputs(ours, 7, 6))
    assert calls == {"forward": 4, "backward": 2}


# Losses whose gradients reach the layer with unusual strides, or not at all.
LOSSES = {
    "sum": lambda o: sum(t.sum() for t in o.values()),
    "output-only": lambda o: o["output"].square().sum(),
    "h_n-only": lambda o: o["h_n"].square().sum(),
    "last-state-only": lambda o: list(o.values())[-1].square().sum(),
    "some-rows": lambda o: o["output"][1::2].square().sum() + o["h_n"][..., ::3].sum(),
    "mean-of-columns": lambda o: o["output"].mean(-1).square().sum(),
    "transposed": lambda o: (o["output"].permute(2, 1, 0).contiguous() ** 2).sum(),
    "output-and-its-end": lambda o: o["output"][-1].square().sum() + o["h_n"].sum(),
}


@EVERY_KIND
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_gradients_that_come_in(kind, loss, batch_first, calls):
    ours, theirs = twins(kind, 5, 17, batch_first=batch_first, bidirectional=True)
    compare(ours, theirs, make_inputs(ours, 7, 6), loss=loss)
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
@HALVES
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_half_precision(kind, dtype, packed, calls):
    """Computed in float32 and rounded once: two layers lose no more than that."""
    ours, theirs = twins(kind, 9, 33, dtype=dtype, num_layers=2, bidirectional=True)
    inputs = make_inputs(ours, 31, 6)
    compare(ours, theirs, inputs, call=packing([31, 31, 20, 9, 2, 1]) if packed else plain_call)
    assert calls == {"forward": 4, "backward": 2}


@EVERY_KIND
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0], ids="p={}".format)
@pytest.mark.parametrize(
    "lengths", [None, [9, 4, 4, 1], [3, 9]], ids=["dense", "packed", "unsorted"]
)
def test_dropout(kind, p, training, lengths, calls):
    """The same elements are dropped as by torch under the same seed."""
    ours, theirs = twins(kind, 5, 17, dtype=torch.float64, num_layers=3, dropout=p)
    ours.train(training), theirs.train(training)
    inputs = make_inputs(ours, 9, len(lengths or "four"))
    compare(ours, theirs, inputs, call=packing(lengths) if lengths else plain_call)
    assert calls == {"forward": 6, "backward": 3}


@EVERY_KIND
def test_dropout_leaves_the_generator_where_torch_does(kind):
    states = []
    for library in (nn, fastrnn):
        layer = build(library, kind, 5, 17, num_layers=3, dropout=0.5)
        torch.manual_seed(3)
        layer(torch.ones(4, 6, 5))
        states.append(torch.get_rng_state())
    assert states[0].equal(states[1])


@EVERY_KIND
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}], ids=str)
def test_strides_that_come_out(kind, options):
    """Results lie in memory as torch's do, so that ``view`` works on ours where it does there."""
    ours, theirs = twins(kind, 5, 17, num_layers=2, dtype=torch.float64, **options)
    strides = []
    for module in (ours, theirs):
        inputs = [t.requires_grad_() for t in make_inputs(module, 7, 6).values()]
        output, final = plain_call(module, *inputs)
        wanted = [*inputs, *module.parameters()]
        results = [output, *final, *torch.autograd.grad(output.sum(), wanted)]
        strides.append([result.stride() for result in results])
    assert strides[0] == strides[1]
