"""fastrnn.quantize where models are unusual: ties, hooks, names of a user's own, empty batches."""

import copy
import pickle

import pytest
import torch
from test_quantize_layers import flat
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import fastrnn


class Loud(nn.LSTM):
    """A class with a parameter, a child and attributes of its own, whose names could be ours."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight_mix, self.form, self.ready = nn.Parameter(torch.eye(3)), "loud", 7
        self.head = nn.Linear(4, 2)

    def forward(self, input, hx=None):
        assert (self.form, self.ready) == ("loud", 7)
        y, states = super().forward(input @ self.weight_mix, hx)
        return self.head(y), states


class Named(nn.GRU):
    """Told of its subclasses, and copied in its own way."""

    def __init_subclass__(cls, key):
        raise AssertionError

    def __getstate__(self):
        return super().__getstate__() | {"own": 1}


class Twice(fastrnn.Recurrent):
    def directions(self):
        return [w._replace(hh=2 * w.hh) for w in super().directions()]

    def step(self, wx, uh, h):
        return torch.tanh(wx[0] + uh[0])


def test_names_of_a_users_own_stay_the_users():
    model, x = Loud(3, 4), torch.randn(5, 2, 3)
    order = [name for name, _ in model.named_parameters()]
    before = model(x)[0]
    fastrnn.quantize(model)
    assert model.weight_mix.requires_grad
    assert model.weight_mix.dtype == torch.float32
    assert (model(x)[0] - before).abs().max() < 0.02
    half = copy.deepcopy(model).bfloat16()
    assert half.head.weight.dtype == torch.bfloat16
    assert half(x.bfloat16())[0].dtype == torch.bfloat16
    assert [n for n, _ in model.dequantize().named_parameters()] == order


def test_classes_that_are_told_of_their_subclasses():
    layer, x = Named(3, 4), torch.randn(5, 2, 3)
    fastrnn.quantize(layer)
    with torch.no_grad():
        y, _ = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x)[0], y)
            assert twin.own == 1
            assert type(twin.dequantize()) is Named


def test_tied_biases_train_again():
    layers = nn.ModuleList([nn.LSTM(4, 4), nn.LSTM(4, 4), nn.Linear(4, 16)])
    tied = layers[0].bias_ih_l0
    layers[1].bias_ih_l0 = layers[2].bias = tied
    fastrnn.quantize(layers)
    assert layers[2].bias is tied
    assert tied.requires_grad
    fastrnn.dequantize(layers)
    assert all(p.requires_grad for p in layers.parameters())
    assert layers[0].bias_ih_l0 is layers[1].bias_ih_l0 is layers[2].bias is tied


def _pruned(layer, name):
    prune.l1_unstructured(layer, name, amount=0.5)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_weights_that_are_computed_are_left_and_nothing_breaks():
    model = nn.ModuleList([
        _pruned(fastrnn.zoo.MGU(3, 4), "weight_hh_l0"),
        _pruned(nn.GRUCell(3, 4), "weight_hh"),
        nn.utils.weight_norm(nn.RNN(3, 4), "weight_ih_l0"),
        nn.GRU(3, 4),
        Twice(3, 4),
        nn.GRUCell(0, 4),
    ])  # fmt: skip
    model[3].weight_ih_l0_scale = 1.0
    before, names = [type(m) for m in model], list(model.state_dict())
    left = fastrnn.quantize(model).left
    assert [type(m) for m in model] == before
    assert list(model.state_dict()) == names
    assert all("remove parametrizations, weight_norm or pruning" in left[n] for n in "012")
    assert left["3"] == "it has an attribute weight_ih_l0_scale of its own"
    assert left["4"] == "its directions() computes another weight_hh_l0"
    assert left["5"] == "weight_ih has 0 columns; there may be 1 to 65,536"


@pytest.mark.parametrize("engine", ["numba", "reference"])
@torch.no_grad()
def test_empty_batches(engine):
    """As torch.nn's layers have them."""
    layers = [fastrnn.LSTM(3, 4, bidirectional=True), fastrnn.zoo.MGU(3, 4), fastrnn.GRUCell(3, 4)]
    for layer in layers:
        x = torch.randn(0, 3) if isinstance(layer, nn.GRUCell) else torch.randn(5, 0, 3)
        shapes = [t.shape for t in flat(layer(x))]
        layer.quantize()
        with fastrnn.backends.use(engine):
            assert [t.shape for t in flat(layer(x))] == shapes


@torch.no_grad()
def test_new_weights_are_seen():
    layer, other, x = (
        fastrnn.GRU(3, 4).quantize(),
        fastrnn.GRU(3, 4).quantize(),
        torch.randn(5, 2, 3),
    )
    with torch.inference_mode():
        inside = fastrnn.GRU(3, 4).quantize()
        inside(x)
        inside.load_state_dict(other.state_dict())
        assert torch.equal(inside(x)[0], other(x)[0])
    for number in (5, 99, 7, 101):  # memory that was given back may be used again
        layer.weight_hh_l0 = torch.full((12, 4), number, dtype=torch.int8)
        assert torch.equal(layer(x)[0], copy.deepcopy(layer)(x)[0])


@torch.no_grad()
def test_other_floats_beside_the_integers_become_float32():
    """Whoever converts parameters by hand, or loads others, gets no other bytes read."""
    layer, x = fastrnn.zoo.PeepholeLSTM(3, 4).quantize(), torch.randn(5, 2, 3)
    y, _ = layer(x)
    for parameter in layer.parameters():
        parameter.data = parameter.data.half()
    torch.testing.assert_close(layer(x)[0], y, rtol=0, atol=0.01)  # biases of 11 bits; a rounding
    wide = {n: t.double() if t.is_floating_point() else t for n, t in layer.state_dict().items()}
    before, _ = layer(x)
    layer.load_state_dict(wide, assign=True)
    assert torch.equal(layer(x)[0], before)


WRONG = {
    "rows": (lambda c: c(torch.randn(2, 6), torch.randn(4, 2)), RuntimeError, r"shape \(2, 4\)"),
    "batch": (lambda c: c(torch.randn(3, 6), torch.randn(1, 12)), RuntimeError, r"shape \(3, 4\)"),
    "dtype": (lambda c: c(torch.ones(1, 6).long()), ValueError, r"torch\.int64"),
    "wider": (lambda c: c(torch.ones(1, 6).double()), ValueError, r"torch\.float64"),
    "state": (lambda c: c(torch.ones(1, 6), torch.ones(1, 4).double()), RuntimeError, "its states"),
    "no tensor": (lambda c: c("six"), ValueError, "takes a tensor"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_cell_is_given_is_checked(what):
    call, error, said = WRONG[what]
    with pytest.raises(error, match=said):
        call(fastrnn.GRUCell(6, 4).quantize())


def test_what_has_no_gradient_or_no_trace_says_so():
    layer, x = fastrnn.GRU(3, 4).quantize(), torch.randn(5, 2, 3)
    with pytest.raises(RuntimeError, match="has no gradient"):
        torch.func.jvp(lambda x: layer(x)[0], (x,), (x,))
    with pytest.raises(RuntimeError, match=r"use torch\.export"):
        torch.jit.trace(layer, x)
    big = nn.GRU(3, 4)
    big.weight_ih_l0.data[0, 0] = 3.4e38
    with pytest.raises(ValueError, match="too large for bfloat16"):
        fastrnn.quantize(big, "bfloat16")


@torch.no_grad()
def test_tools_see_it():
    model, x = nn.Sequential(fastrnn.GRU(3, 4)), torch.randn(5, 2, 3)
    counts = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
        fastrnn.quantize(model)
    assert counts[0] == counts[1] > 0
    graph = torch.fx.symbolic_trace(model)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]


def test_noise_of_odd_weights_is_a_number():
    layer = nn.RNN(3, 2)
    with torch.no_grad():
        layer.weight_ih_l0.mul_(1e-20)
        layer.weight_hh_l0.zero_()
    noise = fastrnn.quantize(layer).noise[""]
    assert noise["weight_ih_l0"][0] > 35
    assert noise["weight_hh_l0"] == [float("inf")]
    found = [fastrnn.quantize(nn.GRU(64, 64), form).noise[""] for form in ("int8", "bfloat16")]
    of_int8, of_bfloat16 = (min(each["weight_hh_l0"]) for each in found)
    assert of_int8 < of_bfloat16  # which keeps more of small numbers
