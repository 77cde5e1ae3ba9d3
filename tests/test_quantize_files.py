"""Quantized modules as files, copies, traces and of other dtypes."""

import copy
import io
import pickle

import pytest
import torch
from compiling import compiled
from test_quantize import Tagger
from test_quantize_layers import flat

import fastrnn


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRUCell, fastrnn.zoo.PeepholeLSTM])
@torch.no_grad()
def test_other_dtypes(cls, dtype):
    """In and out they are the model's; what is between is float32, and so the same bits."""
    layer, x = cls(3, 4, dtype=dtype), torch.randn(5, 2, 3).to(dtype)
    x = x[0] if cls is fastrnn.GRUCell else x
    wide = copy.deepcopy(layer).float().quantize()
    results = flat(layer.quantize()(x))
    assert all(t.dtype == dtype for t in results)
    for ours, theirs in zip(results, flat(wide(x.float())), strict=True):
        assert torch.equal(ours, theirs.to(dtype))
    assert all(map(torch.equal, flat(wide.to(dtype)(x)), results))  # converted afterwards
    assert all(p.dtype == dtype for p in layer.dequantize().parameters())
    ours, theirs = flat(layer(x))[0], flat(wide.dequantize()(x))[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # float64's bias became float32


def test_another_dtype_than_its_own_is_refused_as_by_a_float_layer():
    layer = fastrnn.LSTM(3, 4).quantize()
    with pytest.raises(ValueError, match=r"weights of torch\.float32, and not of torch\.float64"):
        layer(torch.randn(5, 2, 3, dtype=torch.float64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(torch.randn(5, 2, 3))
    assert y.dtype == torch.bfloat16


def test_files_hold_the_integers():
    layer, other = (fastrnn.LSTM(3, 4).quantize() for _ in range(2))
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        y, before = layer(x)[0], other(x)[0]
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        assert not torch.equal(y, before)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(x)[0], y)  # packed anew
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x)[0], y)
            assert type(twin.dequantize()) is fastrnn.LSTM
    integers = layer.weight_ih_l0.clone()
    with pytest.raises(RuntimeError, match=r"load that before fastrnn\.quantize"):
        layer.load_state_dict(fastrnn.LSTM(3, 4).state_dict())
    assert torch.equal(layer.weight_ih_l0, integers)


def test_weights_that_change_are_packed_anew():
    layer, x = fastrnn.GRU(3, 4).quantize(), torch.randn(5, 2, 3)
    with torch.no_grad():
        y, _ = layer(x)
        layer.weight_hh_l0_scale.mul_(2)
        assert not torch.equal(layer(x)[0], y)
        layer.weight_hh_l0_scale.div_(2)
        assert torch.equal(layer(x)[0], y)
    with torch.inference_mode():
        assert torch.equal(layer(x)[0], y)


@pytest.mark.parametrize("form", [("int8", "int8"), ("bfloat16", "float32")])
def test_export_and_compile(form):
    model = Tagger(fastrnn).eval()
    fastrnn.quantize(model, *form)
    ids = torch.randint(11, (7, 3))
    with torch.no_grad():
        y = model(ids)
        steps = torch.export.Dim("steps", min=2, max=50)
        program = torch.export.export(model, (ids,), dynamic_shapes=({0: steps},))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        program = torch.export.load(file).module()
        assert torch.equal(program(ids), y)
        assert torch.equal(program(ids[:4]), model(ids[:4]))
        assert torch.equal(compiled(model, "eager")[0](ids), y)


def test_data_in_a_trace_with_lengths():
    layer, x = fastrnn.LSTM(3, 4).quantize(), torch.randn(5, 2, 3)
    lengths = torch.tensor([5, 2])

    def call(x, lengths):
        return layer(x, lengths=lengths)[0]

    with torch.no_grad():
        y = compiled(call, "eager")[0](x, lengths)
        torch.testing.assert_close(y, call(x, lengths), rtol=0, atol=0.01)  # one rounding of h


def test_explain_says_what_is_computed():
    layer = fastrnn.zoo.PeepholeLSTM(3, 4).quantize("int8", "float32")
    choice = fastrnn.backends.explain(layer, torch.randn(5, 2, 3))
    assert choice.name == "numba"
    assert choice.reason.startswith("int8 weights times float32 on CPU, for inference")


@pytest.mark.parametrize("H", [16, 64])
@torch.no_grad()
def test_heads_in_a_trace(H):
    layer, x = fastrnn.zoo.SLSTM(5, H, heads=2).eval().quantize(), torch.randn(6, 2, 5)
    y, _ = layer(x)
    assert torch.equal(compiled(layer, "eager")[0](x)[0], y)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x)[0], y)
