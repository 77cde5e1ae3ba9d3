"""fastrnn.quantize: what it changes and what it leaves, files and copies, and clear errors."""

import copy
import pickle

import pytest
import torch
from compiling import compiled
from torch import nn
from torch.nn.utils import parametrize

import fastrnn
from fastrnn.kernels.form import WIDEST


class Tagger(nn.Module):
    def __init__(self, library):
        super().__init__()
        self.embed, self.say = nn.Embedding(11, 6), nn.Linear(32, 4)
        self.read = library.LSTM(6, 16, num_layers=2, bidirectional=True, dropout=0.3)
        self.step = library.GRUCell(32, 32)

    def forward(self, ids):
        y, _ = self.read(self.embed(ids))
        return self.say(self.step(y[-1]))


class Louder(nn.GRU):
    """A user's class, which calls its base."""

    def forward(self, input, hx=None):
        y, h = super().forward(2 * input, hx)
        return 2 * y, h


class Own(nn.LSTM):
    def forward(self, input, hx=None):
        return input


class Branching(fastrnn.Recurrent):
    def step(self, wx, uh, h):
        return wx[0] + uh[0] if h.sum() > 0 else uh[0]


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


LIBRARIES = pytest.mark.parametrize("library", [nn, fastrnn], ids=["torch", "fastrnn"])


@LIBRARIES
def test_a_model_there_and_back(library):
    model = Tagger(library).eval()
    ids, names, kinds = torch.randint(11, (7, 3)), list(model.state_dict()), str(model)
    order, before = [n for n, _ in model.named_parameters()], model(ids)
    modules = {name: module for name, module in model.named_modules()}
    found = fastrnn.quantize(model)
    assert found.model is model
    assert found.changed == {"read": "LSTM", "step": "GRUCell"}
    assert not found.left
    assert {n: m for n, m in model.named_modules()} == modules  # the very objects
    assert str(found).splitlines()[0] == (
        "2 of 2 recurrent modules changed to weights of int8, multiplied by int8"
    )
    assert len(found.noise["read"]["weight_ih_l0"]) == 4
    assert len(found.noise["step"]["weight_hh"]) == 3
    assert min(min(gates) for gates in found.noise["read"].values()) > 35
    assert "QuantizedLSTM(6, 16, num_layers=2" in str(model)
    assert model.say.weight.requires_grad
    with torch.no_grad():
        after = model(ids)
    assert 0 < (after - before).abs().max() < 0.02
    assert fastrnn.dequantize(model) is model
    assert (str(model), list(model.state_dict())) == (kinds, names)
    assert [n for n, _ in model.named_parameters()] == order
    assert all(p.requires_grad for p in model.parameters())
    again = model(ids)
    assert 0 < (again - before).abs().max() < 0.02
    again.sum().backward()


def test_a_copy_leaves_the_model():
    model = nn.Sequential(nn.LSTM(3, 4))
    found = fastrnn.quantize(model, inplace=False)
    assert type(model[0]) is nn.LSTM
    assert model[0].weight_ih_l0.dtype == torch.float32
    assert found.model[0].weight_ih_l0.dtype == torch.int8


def test_a_layer_alone():
    layer = fastrnn.LSTM(3, 4)
    assert layer.quantize("bfloat16") is layer
    assert layer.weight_hh_l0.dtype == torch.bfloat16
    assert "weight_hh_l0_scale" not in layer.state_dict()
    assert layer.dequantize() is layer
    assert type(layer) is fastrnn.LSTM
    with pytest.raises(ValueError, match="LSTM cannot be quantized: weight_ih_l0 is torch"):
        layer.to("meta").quantize()


def test_weights_take_a_quarter_of_the_memory():
    layer = nn.LSTM(256, 256)
    before = sum(t.nbytes for t in layer.state_dict().values())
    fastrnn.quantize(layer)
    assert sum(t.nbytes for t in layer.state_dict().values()) < 0.27 * before


def test_classes_of_users():
    model = nn.ModuleList([Louder(3, 5), Louder(3, 5), Own(3, 5), Branching(3, 5)])
    fastrnn.accelerate(model[1])
    x = torch.randn(4, 2, 3)
    with pytest.warns(UserWarning, match="plain PyTorch"):
        y = [layer(x)[0] for layer in model]
    kinds = [type(layer) for layer in model]
    found = fastrnn.quantize(model)
    assert list(found.changed) == ["0", "1"]
    assert found.left["2"] == "Own has a forward of its own that never calls super().forward"
    assert found.left["3"].startswith("a step that no kernel can run")
    for layer, before in zip(model[:2], y, strict=False):
        assert isinstance(layer, Louder)
        with torch.no_grad():
            assert 0 < (layer(x)[0] - before).abs().max() < 0.05
        twin = pickle.loads(pickle.dumps(layer))
        with torch.no_grad():
            assert torch.equal(twin(x)[0], layer(x)[0])
        assert type(twin.dequantize()) is type(copy.deepcopy(layer).dequantize())
    fastrnn.dequantize(model)
    assert [type(layer) for layer in model] == kinds


def test_what_is_left():
    model = nn.ModuleDict({
        "computed": nn.RNN(3, 4),
        "wide": nn.RNNCell(WIDEST + 1, 1),
        "before": nn.GRU(3, 4),
        "meta": nn.GRU(3, 4, device="meta"),
    })  # fmt: skip
    parametrize.register_parametrization(model["computed"], "weight_hh_l0", Doubled())
    fastrnn.quantize(model["before"])
    found = fastrnn.quantize(model)
    assert not found.changed
    assert found.left["computed"].startswith("its weights are computed: remove parametriz")
    assert found.left["wide"] == "weight_ih has 65,537 columns; there may be 1 to 65,536"
    assert found.left["before"] == "it is quantized already"
    assert found.left["meta"] == (
        "weight_ih_l0 is torch.float32 on meta: it should be a float on a CPU"
    )
    assert "left: it is quantized already" in str(found)


def test_it_is_taken_back_before_a_model_is_restored():
    for change in (fastrnn.accelerate, fastrnn.restore):
        model = nn.Sequential(fastrnn.LSTM(3, 4).quantize())
        assert "fastrnn.dequantize(model) comes first" in change(model).left["0"]
        assert model[0].weight_ih_l0.dtype == torch.int8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "int4"}, "no quantization of int4 times int8: there are int8 weights times"),
        ({"activations": "bfloat16"}, "no quantization of int8 times bfloat16"),
        ({"weights": "bfloat16", "activations": "int8"}, "no quantization of bfloat16 times int8"),
        ({"percentile": 0}, "above 0, and 100 at most, not 0"),
        ({"percentile": 101.0}, "above 0, and 100 at most, not 101.0"),
    ],
)
def test_what_cannot_be_is_said(options, said):
    layer = nn.LSTM(3, 4)
    with pytest.raises(ValueError, match=said):
        fastrnn.quantize(layer, **options)
    assert type(layer) is nn.LSTM


def test_a_bad_weight_is_named_and_nothing_is_changed():
    model = nn.Sequential(nn.LSTM(3, 4), nn.LSTM(4, 4))
    with torch.no_grad():
        model[1].weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"1\.weight_hh_l0 cannot be quantized: some of its"):
        fastrnn.quantize(model)
    assert all(type(layer) is nn.LSTM for layer in model)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got list"):
        fastrnn.quantize([model])


def test_training_is_an_error():
    layer = fastrnn.GRU(3, 4).quantize()
    assert not any(p.requires_grad for p in layer.parameters())
    x = torch.randn(5, 2, 3, requires_grad=True)
    y, _ = layer(x)
    with pytest.raises(RuntimeError, match=r"has no gradient: call it under torch\.no_grad"):
        y.sum().backward()
    y, _ = compiled(layer, "eager")[0](x)
    with pytest.raises(RuntimeError, match=r"has no gradient: call it under torch\.no_grad"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="has no gradient"):
        torch.func.grad(lambda x: layer(x)[0].sum())(x.detach())
    with torch.no_grad():
        assert not layer(x)[0].requires_grad
