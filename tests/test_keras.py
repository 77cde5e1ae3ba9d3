"""accelerate_keras: Keras's layers on our kernels do what they do on Keras's own, in float64."""

import os

import pytest
import torch
from conftest import spying
from torch.testing import assert_close

import fastrnn

os.environ["KERAS_BACKEND"] = "torch"
import keras  # which reads that
from keras.src.backend.common import dtypes

B, T, I, H = 4, 6, 3, 5
KINDS = ["LSTM", "GRU", "SimpleRNN"]
EVERY_LAYER = pytest.mark.parametrize("kind", KINDS)
STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}
steps = torch.arange(T)
MASKS = {
    "right": steps < torch.tensor([[6], [2], [0], [5]]),
    "left": steps >= torch.tensor([[0], [4], [6], [1]]),
    "holes": torch.rand(B, T, generator=torch.Generator().manual_seed(3)) < 0.6,
    "floats": (steps < torch.tensor([[3], [2], [6], [5]])).double(),
    "all": steps < torch.full((B, 1), 9),
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Keras's layers are Keras's again afterwards. Till then float64 is float64 to it, which else
    multiplies such matrices in float32.
    """
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    yield
    fastrnn.restore_keras()


def results(layer, x, states=None, times=1, **call):
    """Outputs, states and all gradients of a layer that is called so many times."""
    inputs = [x.clone().requires_grad_(), *[s.clone().requires_grad_() for s in states or ()]]
    found = []
    for _ in range(times):
        y = layer(inputs[0], initial_state=inputs[1:] or None, **call)
        found += y if isinstance(y, (tuple, list)) else [y]
        weights = [w.value for w in layer.trainable_variables]
        loss = sum((y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum() for y in found[-3:])
        wanted = [t for t in inputs + weights if t.requires_grad]
        found += torch.autograd.grad(loss, wanted, allow_unused=True)
        found = [t if t is None else t.detach() for t in found]
    return found


def compare(make, served, states=0, **call):
    """Two layers of the same seeds, one on Keras's own loop and one on ours, have one result.

    served: how many calls of the fused kernel there are forward.
    """
    x = torch.randn(B, T, I, dtype=torch.float64)
    initial = [torch.randn(B, H, dtype=torch.float64) for _ in range(states)]
    found = []
    for ours in (False, True):
        (fastrnn.accelerate_keras if ours else fastrnn.restore_keras)()
        keras.utils.set_random_seed(1)
        layer = make()
        layer.build(x.shape)
        for weight in layer.trainable_variables:  # biases that are not zero, too
            weight.assign(weight.value + 0.2 * torch.randn(weight.shape, dtype=torch.float64))
        with spying() as calls:
            found.append(results(layer, x, initial, **call))
        assert (calls["forward"], calls["torch"]) == ((served, 0) if ours else (0, 0))
    assert_close(*found, rtol=1e-11, atol=1e-12)


def maker(kind, **options):
    def make():
        return getattr(keras.layers, kind)(H, dtype="float64", **options)

    return make


OPTIONS = {
    "last": {},
    "sequences": {"return_sequences": True, "return_state": True},
    "no bias": {"use_bias": False, "return_state": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "zeros": {"zero_output_for_mask": True, "return_sequences": True},
    "zeros last": {"zero_output_for_mask": True, "return_state": True},
}


@EVERY_LAYER
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(kind, options):
    compare(maker(kind, **options), 1, STATES[kind])
    compare(maker(kind, **options), 1)


@EVERY_LAYER
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_masks(kind, mask, options):
    compare(maker(kind, **options), 1, STATES[kind], mask=mask)


@EVERY_LAYER
def test_no_step_is_there(kind):
    mask = torch.zeros(B, T, dtype=torch.bool)
    compare(maker(kind, return_sequences=True, return_state=True), 0, STATES[kind], mask=mask)


@EVERY_LAYER
@pytest.mark.parametrize("mask", [None, MASKS["holes"]], ids=["full", "masked"])
def test_stateful(kind, mask):
    """As a layer without a memory that is given the states that the call before has left.

    Keras's own LSTM and GRU have no gradient here: they write over the states that it needs.
    """
    options, x = {"return_sequences": True, "return_state": True}, torch.randn(B, T, I).double()
    keras.utils.set_random_seed(1)
    given = maker(kind, **options)()
    want = results(given, x, mask=mask)
    states = want[1 : 1 + STATES[kind]]
    want = results(given, x, states, mask=mask)
    fastrnn.accelerate_keras()
    keras.utils.set_random_seed(1)
    layer = maker(kind, stateful=True, **options)()
    results(layer, x, mask=mask)
    with spying() as calls:
        found = results(layer, x, mask=mask)
    assert calls["forward"] == 1
    skipped = 2 + STATES[kind]  # the gradients of the states given
    assert_close(found, want[:skipped] + want[2 * skipped - 2 :], rtol=1e-11, atol=1e-12)
    layer.reset_state()
    assert_close(layer(x, mask=mask)[0], given(x, mask=mask)[0], rtol=1e-11, atol=1e-12)


@EVERY_LAYER
@pytest.mark.parametrize("mask", [None, MASKS["right"]], ids=["full", "masked"])
def test_dropout_of_the_input(kind, mask):
    """The same numbers are dropped, and they are others for each call, and none in inference."""
    make = maker(kind, dropout=0.5, seed=7, return_sequences=True)
    compare(make, 2, training=True, times=2, mask=mask)
    compare(make, 1, training=False, mask=mask)


@EVERY_LAYER
@pytest.mark.parametrize("mask", [None, *MASKS.values()], ids=["full", *MASKS])
def test_bidirectional(kind, mask):
    inner = maker(kind, return_sequences=True, return_state=True)
    compare(
        lambda: keras.layers.Bidirectional(inner(), dtype="float64"), 2, 2 * STATES[kind], mask=mask
    )


def test_relu():
    make = maker("SimpleRNN", activation="relu", return_sequences=True)
    compare(make, 1, mask=MASKS["left"])


class Shifted(keras.layers.LSTM):
    """A user's own layer, that adds to what Keras's does."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(sequences + 1, initial_state, mask, training)


def test_a_class_derived_from_a_layer():
    compare(lambda: Shifted(H, dtype="float64"), 1, mask=MASKS["holes"])


class OtherCell(keras.layers.GRUCell):
    def call(self, inputs, states, training=False):
        y, states = super().call(inputs, states, training=training)
        return 2 * y, states


def of_another_cell():
    layer = maker("GRU", use_cudnn=False)()
    layer.cell = OtherCell(H, dtype="float64")
    return layer


UNSERVED = {
    "activation": (maker("LSTM", activation="relu"), {}),
    "recurrent activation": (maker("GRU", recurrent_activation="hard_sigmoid"), {}),
    "linear": (maker("SimpleRNN", activation=None), {}),
    "reset before": (maker("GRU", reset_after=False), {}),
    "unrolled": (maker("SimpleRNN", unroll=True), {}),
    "cuDNN by name": (maker("LSTM", use_cudnn=True), {}),
    "recurrent dropout": (maker("LSTM", recurrent_dropout=0.5, seed=1), {"training": True}),
    "another cell": (of_another_cell, {}),
    "a mask of another form": (maker("GRU"), {"mask": MASKS["right"][:, :, None]}),
}


@pytest.mark.parametrize(("make", "call"), UNSERVED.values(), ids=UNSERVED)
def test_what_is_not_for_our_kernels_runs_as_keras_runs_it(make, call):
    compare(make, 0, **call)


def test_each_gate_with_a_dropout_of_its_own():
    make = maker("LSTM", dropout=0.5, implementation=1, use_cudnn=False, seed=1)
    compare(make, 0, training=True)
    compare(make, 1)
