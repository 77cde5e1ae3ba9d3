"""Bad input: torch's error, to the letter, or torch's result; and nothing corrupted."""

import warnings

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, build, compare, make_inputs, twins
from conftest import run_python
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn

Z = torch.zeros


def outcome(call, *args):
    """The type and text of what was raised, or else the type and the numbers of the result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's about its own kernels
            result = call(*args)
    except Exception as error:
        return type(error), str(error)
    tensors = [t for t in torch.utils._pytree.tree_leaves(result) if t is not None]
    return type(result), [(t.dtype, tuple(t.shape), t.double().flatten().tolist()) for t in tensors]


def assert_same_outcome(call, *kinds):
    results = []
    for library in (fastrnn, nn):
        torch.manual_seed(0)
        results.append(outcome(call, library, *kinds))
    (kind, found), (expected_kind, expected) = results
    assert kind == expected_kind, f"{found}, where torch: {expected}"
    if isinstance(expected, str):
        assert found == expected
    else:
        assert found == [(d, s, pytest.approx(v, abs=1e-6, nan_ok=True)) for d, s, v in expected]


# Constructor arguments, good and bad: torch says which.
ARGUMENTS = [
    ((), {}),
    ((3,), {}),
    ((3, 4, 1, True, True), {}),
    ((0, 4), {}),
    ((3, 0), {}),
    ((-1, 4), {}),
    ((3.0, 4), {}),
    ((3, "4"), {}),
    ((3, 4), {"num_layers": 0}),
    ((3, 4), {"dropout": 2}),
    ((3, 4), {"dropout": True}),
    ((3, 4), {"dropout": "0.5"}),
    ((3, 4), {"bias": 1}),
    ((3, 4), {"batch_first": 1}),
    ((3, 4), {"proj_size": 2}),
    ((3, 4), {"proj_size": 4}),
    ((3, 4), {"proj_size": -1}),
    ((3, 4), {"nonlinearity": "tanh"}),
    ((3, 4), {"nonlinearity": "sigmoid"}),
    ((3, 4), {"hidden": 4}),
    ((3, 4), {"dtype": torch.int64}),
    ((3, 4), {"device": "nowhere"}),
]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize(("args", "options"), ARGUMENTS, ids=str)
def test_constructor(name, args, options):
    def call(library):
        return list(getattr(library, name)(*args, **options).state_dict().values())

    assert_same_outcome(call)


def test_dropout_with_one_layer_warns():
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        fastrnn.LSTM(3, 4, dropout=0.5)


def hx(kind, *shape, dtype=torch.float32, c=None):
    """A state of this shape; for the LSTM a pair."""
    h = Z(*shape, dtype=dtype)
    return (h, h if c is None else Z(*c)) if kind == "lstm" else h


# Calls of an input_size 3, hidden_size 4 layer.
LAYER_CALLS = {
    "good": lambda m, k: m(Z(5, 2, 3)),
    "input-width": lambda m, k: m(Z(5, 2, 7)),
    "input-1d": lambda m, k: m(Z(3)),
    "input-4d": lambda m, k: m(Z(5, 2, 2, 3)),
    "input-0d": lambda m, k: m(Z(())),
    "input-double": lambda m, k: m(Z(5, 2, 3).double()),
    "input-int": lambda m, k: m(Z(5, 2, 3).long()),
    "input-list": lambda m, k: m([[[0.0] * 3]]),
    "input-none": lambda m, k: m(None),
    "input-sparse": lambda m, k: m(Z(5, 2, 3).to_sparse()),
    "input-meta": lambda m, k: m(Z(5, 2, 3, device="meta")),
    "no-steps": lambda m, k: m(Z(0, 2, 3)),
    "no-rows": lambda m, k: m(Z(5, 0, 3)),
    "no-steps-unbatched": lambda m, k: m(Z(0, 3)),
    "hx-batch": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 3, 4)),
    "hx-width": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 2, 5)),
    "hx-layers": lambda m, k: m(Z(5, 2, 3), hx(k, 2, 2, 4)),
    "hx-2d": lambda m, k: m(Z(5, 2, 3), hx(k, 2, 4)),
    "hx-2d-unbatched": lambda m, k: m(Z(5, 3), hx(k, 1, 4)),
    "hx-3d-unbatched": lambda m, k: m(Z(5, 3), hx(k, 1, 1, 4)),
    "hx-double": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 2, 4, dtype=torch.float64)),
    "hx-other-kind": lambda m, k: m(Z(5, 2, 3), hx("gru" if k == "lstm" else "lstm", 1, 2, 4)),
    "hx-list": lambda m, k: m(Z(5, 2, 3), [Z(1, 2, 4), Z(1, 2, 4)]),
    "hx-three": lambda m, k: m(Z(5, 2, 3), (Z(1, 2, 4),) * 3),
    "hx-empty": lambda m, k: m(Z(5, 2, 3), ()),
    "c-width": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 2, 4, c=(1, 2, 5))),
    "c-batch": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 2, 4, c=(1, 3, 4))),
    "c-2d": lambda m, k: m(Z(5, 2, 3), hx(k, 1, 2, 4, c=(2, 4))),
    "too-many": lambda m, k: m(Z(5, 2, 3), None, None),
    "meta": lambda m, k: Z(m.to("meta")(Z(5, 2, 3, device="meta"))[0].shape),
    "double-layer": lambda m, k: m.double()(Z(5, 2, 3)),
    "weight-short": lambda m, k: setattr(m.bias_ih_l0, "data", Z(3)) or m(Z(5, 2, 3)),
    "weight-double": lambda m, k: (
        setattr(m.bias_ih_l0, "data", m.bias_ih_l0.data.double()) or m(Z(5, 2, 3))
    ),
}


@EVERY_KIND
@pytest.mark.parametrize("call", LAYER_CALLS.values(), ids=LAYER_CALLS)
def test_layer_call(kind, call):
    assert_same_outcome(lambda library: call(build(library, kind, 3, 4), kind))


@pytest.mark.parametrize("call", LAYER_CALLS.values(), ids=LAYER_CALLS)
def test_projected_call(call):
    assert_same_outcome(lambda library: call(library.LSTM(3, 5, proj_size=4), "lstm"))


CELL_CALLS = {
    "good": lambda m, k: m(Z(2, 3)),
    "input-width": lambda m, k: m(Z(2, 7)),
    "input-width-unbatched": lambda m, k: m(Z(7)),
    "input-0d": lambda m, k: m(Z(())),
    "input-3d": lambda m, k: m(Z(5, 2, 3)),
    "input-double": lambda m, k: m(Z(2, 3).double()),
    "input-int": lambda m, k: m(Z(2, 3).long()),
    "input-none": lambda m, k: m(None),
    "input-meta": lambda m, k: m(Z(2, 3, device="meta")),
    "no-rows": lambda m, k: m(Z(0, 3)),
    "hx-batch": lambda m, k: m(Z(2, 3), hx(k, 3, 4)),
    "hx-width": lambda m, k: m(Z(2, 3), hx(k, 2, 5)),
    "hx-1d": lambda m, k: m(Z(2, 3), hx(k, 4)),
    "hx-1d-unbatched": lambda m, k: m(Z(3), hx(k, 4)),
    "hx-2d-unbatched": lambda m, k: m(Z(3), hx(k, 1, 4)),
    "hx-3d": lambda m, k: m(Z(2, 3), hx(k, 1, 2, 4)),
    "hx-one-row": lambda m, k: m(Z(2, 3), hx(k, 1, 4)),
    "hx-double": lambda m, k: m(Z(2, 3), hx(k, 2, 4, dtype=torch.float64)),
    "hx-other-kind": lambda m, k: m(Z(2, 3), hx("gru" if k == "lstm" else "lstm", 2, 4)),
    "c-width": lambda m, k: m(Z(2, 3), hx(k, 2, 4, c=(2, 5))),
    "c-batch": lambda m, k: m(Z(2, 3), hx(k, 2, 4, c=(3, 4))),
    "double-cell": lambda m, k: m.double()(Z(2, 3)),
    "weight-shape": lambda m, k: setattr(m, "weight_hh", nn.Parameter(Z(4, 5))) or m(Z(2, 3)),
    "weight-short": lambda m, k: setattr(m.bias_ih, "data", Z(3)) or m(Z(2, 3)),
}


@EVERY_KIND
@pytest.mark.parametrize("call", CELL_CALLS.values(), ids=CELL_CALLS)
def test_cell_call(kind, call):
    assert_same_outcome(lambda library: call(build(library, kind, 3, 4, cell=True), kind))


def rows(count, sizes, dtype=torch.int64):
    return PackedSequence(Z(count, 3), torch.tensor(sizes, dtype=dtype))


PACKED_CALLS = {
    "good": lambda m, k: m(rows(5, [2, 2, 1])),
    "too-few-rows": lambda m, k: m(rows(4, [2, 2, 1])),
    "too-many-rows": lambda m, k: m(rows(6, [2, 2, 1])),
    "rising": lambda m, k: m(rows(5, [1, 2, 2])),
    "zero-sizes": lambda m, k: m(rows(4, [2, 2, 0])),
    "no-sizes": lambda m, k: m(rows(4, [])),
    "nothing": lambda m, k: m(rows(0, [])),
    "no-rows": lambda m, k: m(rows(0, [0, 0])),
    "int32-sizes": lambda m, k: m(rows(5, [2, 2, 1], torch.int32)),
    "float-sizes": lambda m, k: m(rows(5, [2, 2, 1], torch.float32)),
    "2d-sizes": lambda m, k: m(rows(5, [[2, 2, 1]])),
    "width": lambda m, k: m(PackedSequence(Z(5, 7), torch.tensor([2, 2, 1]))),
    "3d-data": lambda m, k: m(PackedSequence(Z(5, 1, 3), torch.tensor([2, 2, 1]))),
    "double": lambda m, k: m(PackedSequence(Z(5, 3).double(), torch.tensor([2, 2, 1]))),
    "hx-batch": lambda m, k: m(rows(5, [2, 2, 1]), hx(k, 1, 3, 4)),
    "hx-width": lambda m, k: m(rows(5, [2, 2, 1]), hx(k, 1, 2, 5)),
    "hx-2d": lambda m, k: m(rows(5, [2, 2, 1]), hx(k, 2, 4)),
    "c-batch": lambda m, k: m(rows(5, [2, 2, 1]), hx(k, 1, 2, 4, c=(1, 3, 4))),
    "unsorted-lengths": lambda m, k: m(pack_padded_sequence(Z(5, 2, 3), [2, 5])),
    "zero-length": lambda m, k: m(pack_padded_sequence(Z(5, 2, 3), [5, 0])),
    "lengths-too-long": lambda m, k: m(pack_padded_sequence(Z(5, 2, 3), [6, 5])),
}


@EVERY_KIND
@pytest.mark.parametrize("call", PACKED_CALLS.values(), ids=PACKED_CALLS)
def test_packed_call(kind, call):
    assert_same_outcome(lambda library: call(build(library, kind, 3, 4), kind))


@EVERY_KIND
def test_negative_batch_sizes(kind):
    """Their sum may well be the number of rows. In a process of its own, which it could destroy."""
    run_python(f"""
        from test_errors import *
        assert_same_outcome(lambda library: build(library, {kind!r}, 3, 4)(rows(3, [2, 2, -1])))
    """)


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("empty", [(5, 0), (1, 0)], ids=str)
def test_training_on_no_rows(kind, cell, empty):
    ours, theirs = twins(kind, 3, 4, cell=cell)
    compare(ours, theirs, make_inputs(ours, *empty))


@EVERY_KIND
def test_after_an_error_all_is_well(kind, calls):
    ours, theirs = twins(kind, 3, 17)
    inputs = make_inputs(ours, 4, 3)
    for bad in (Z(4, 3, 5), Z(4, 3, 3).double(), Z(0, 3, 3)):
        with pytest.raises((RuntimeError, ValueError)):
            ours(bad)
    compare(ours, theirs, inputs)
    assert calls["forward"] == 2
