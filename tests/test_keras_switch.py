"""accelerate_keras and restore_keras: what they change, what they refuse, and whole models."""

import os

import pytest
import torch
from conftest import spying
from torch.testing import assert_close

import fastrnn

os.environ["KERAS_BACKEND"] = "torch"
import keras  # which reads that

KINDS = ["LSTM", "GRU", "SimpleRNN"]


def loops():
    """What Keras's classes have of their own."""
    return [vars(getattr(keras.layers, kind)).get("inner_loop") for kind in KINDS]


THEIRS = loops()


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    fastrnn.restore_keras()
    assert loops() == THEIRS


def test_there_and_back():
    fastrnn.accelerate_keras()
    ours = loops()
    assert not set(ours) & set(THEIRS)
    fastrnn.accelerate_keras()  # once is enough
    assert loops() == ours
    fastrnn.restore_keras()
    assert loops() == THEIRS
    fastrnn.restore_keras()
    assert loops() == THEIRS
    fastrnn.accelerate_keras()
    assert not set(loops()) & set(THEIRS)


def another_loop(self, sequences, states, mask):
    return NotImplemented


def another_layer(self, units, activation="tanh", dropout=0.0, **kwargs):
    return NotImplemented


@pytest.mark.parametrize(
    ("place", "name", "value", "says"),
    [
        (keras.layers, "SimpleRNN", None, "SimpleRNN"),
        (keras.layers, "GRUCell", None, "GRUCell"),
        (keras.layers.GRU, "inner_loop", another_loop, "GRU.inner_loop takes .*states, mask"),
        (keras.layers.SimpleRNN, "__init__", another_layer, "SimpleRNN has no go_backwards, re"),
        (keras.activations, "get", None, "get"),
    ],
    ids=["no layer", "no cell", "another loop", "other options", "no activations"],
)
def test_a_version_that_is_not_known(monkeypatch, place, name, value, says):
    """One error, and nothing has changed."""
    if value is None:
        monkeypatch.delattr(place, name)
    else:
        monkeypatch.setattr(place, name, value)
    before = [vars(place) for place in (keras.layers.LSTM, keras.layers.GRU)]
    before = [each.get("inner_loop") for each in before]
    with pytest.raises(RuntimeError, match=rf"Keras {keras.__version__}.* nothing.*{says}"):
        fastrnn.accelerate_keras()
    assert before == [keras.layers.LSTM.inner_loop, keras.layers.GRU.inner_loop]
    monkeypatch.undo()
    fastrnn.accelerate_keras()
    assert not set(loops()) & set(THEIRS)


def test_another_back_end(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Keras runs on jax: set KERAS_BACKEND=torch"):
        fastrnn.accelerate_keras()
    assert loops() == THEIRS


def model():
    """Words, padded in front as Keras pads them, through all kinds of layers."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(9, 6, mask_zero=True),
            layers.Bidirectional(layers.LSTM(8, return_sequences=True, dropout=0.3)),
            layers.GRU(8, return_sequences=True, go_backwards=True),
            layers.SimpleRNN(8),
            layers.Dense(1),
        ]
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras's own, at numpy 2
def test_a_model_is_trained_and_saved(tmp_path):
    """As on Keras's own loops, but for the rounding of float32: the numbers are near 1, and a few
    steps of SGD add up some dozens of roundings of 6e-8.
    """
    lengths, found = [7, 3, 5, 1] * 4, []
    torch.manual_seed(2)
    words = [torch.randint(1, 9, (n,)).tolist() for n in lengths]
    x = torch.from_numpy(keras.utils.pad_sequences(words, maxlen=7))
    y = torch.randn(len(words), 1)
    for ours in (False, True):
        if ours:
            fastrnn.accelerate_keras()
        net = model()
        net.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
        with spying() as calls:
            net.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
            outputs = net(x)
        assert bool(calls["forward"] and calls["backward"]) == ours
        assert not calls["torch"]
        found.append([outputs, *[w.value for w in net.weights]])
    assert_close(*found, rtol=1e-5, atol=1e-5)
    net.save(tmp_path / "net.keras")
    fastrnn.restore_keras()
    again = keras.models.load_model(tmp_path / "net.keras")
    assert_close(again(x), outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_keeps_no_mask(kind):
    """The program is right for a mask that it has not seen; without masks it holds our operator."""
    layer, x = getattr(keras.layers, kind)(5, return_sequences=True), torch.randn(3, 4, 2)
    seen, other = torch.arange(4) < torch.tensor([[[4], [2], [1]], [[1], [4], [3]]])
    want = layer(x), layer(x, mask=other)
    fastrnn.accelerate_keras()
    program = torch.export.export(layer, (x,), {"mask": seen}).module()
    assert_close(program(x, mask=other), want[1], rtol=1e-5, atol=1e-6)
    program = torch.export.export(layer, (x,))
    assert "fastrnn" in str(program.graph)
    assert_close(program.module()(x), want[0], rtol=1e-5, atol=1e-6)


def assert_left(layer, x):
    """Accelerated or not, the layer computes by itself, to the bit."""
    want = layer(x)
    fastrnn.accelerate_keras()
    with spying() as calls:
        assert torch.equal(layer(x), want)
    assert not calls


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_are_left(dtype):
    layer = keras.layers.GRU(5, dtype=dtype, recurrent_initializer="glorot_uniform")
    assert_left(layer, torch.randn(3, 4, 2).to(getattr(torch, dtype)))


def test_autocast_is_left():
    with torch.autocast("cpu"):
        assert_left(keras.layers.SimpleRNN(5), torch.randn(3, 4, 2))


def test_another_engine():
    """backends.use says who computes, here as elsewhere."""
    layer, x = keras.layers.LSTM(5), torch.randn(3, 4, 2)
    fastrnn.accelerate_keras()
    want = layer(x)
    with spying() as calls, fastrnn.backends.use("torch"):
        assert_close(layer(x), want, rtol=1e-5, atol=1e-6)
    assert calls == {"torch": 1}
