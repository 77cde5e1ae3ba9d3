"""Quantized layers and cells: every one, in every form of a call, against plain PyTorch on the same
integers; and what does not depend on the batch or on threads.
"""

import pytest
import torch
import zoo_cases
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
from fastrnn.kernels.form import FORMS

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=["x".join(f) for f in FORMS])
LAYERS = [
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 5, "num_layers": 2}),
    ("GRU", {"bias": False}),
    ("GRU", {"batch_first": True, "bidirectional": True}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
]
EVERY_LAYER = pytest.mark.parametrize(
    ("kind", "options"), LAYERS, ids=[f"{k}-{'-'.join(map(str, o))}" for k, o in LAYERS]
)
# One state of h that rounds to another of 255 numbers, since two ways to compute sigmoid differ in
# their last bit, moves what comes after it by about a hundredth.
ROUNDED = {"rtol": 0, "atol": 0.02}


def flat(results):
    """All tensors of a result."""
    if isinstance(results, torch.Tensor):
        return [results]
    if isinstance(results, nn.utils.rnn.PackedSequence):
        return [results.data]
    return [t for each in results for t in flat(each)]


def close(ours, plain):
    """Most numbers agree to rounding of float32, and all within ROUNDED."""
    for a, b in zip(flat(ours), flat(plain), strict=True):
        torch.testing.assert_close(a, b, **ROUNDED)
        near = (a - b).abs() <= 1e-5 + 1e-4 * b.abs()
        assert near.float().mean() > 0.5


@torch.no_grad()
def both(call):
    """What the CPU engine makes of a call, and plain PyTorch on the same integers."""
    found = []
    for engine in ("numba", "reference"):
        with fastrnn.backends.use(engine):
            found.append(call())
    return found


@EVERY_FORM
@EVERY_LAYER
def test_layers(kind, options, form):
    layer = getattr(fastrnn, kind)(6, 20, **options)
    x = torch.randn(4, 3, 6)
    float_y, _ = layer(x)
    layer.quantize(*form)
    close(*both(lambda: layer(x)))
    with torch.no_grad():
        y, _ = layer(x)
    assert 0 < (y - float_y).abs().max() < 0.03  # of numbers up to 1, a few roundings to 1/255
    assert fastrnn.backends.explain(layer, x).name == "numba"


@EVERY_LAYER
def test_forms_of_a_call(kind, options):
    layer = getattr(fastrnn, kind)(6, 20, **options).quantize()
    x, first = torch.randn(4, 3, 6), layer.batch_first
    x = x.transpose(0, 1) if first else x
    states = [torch.randn_like(s) for s in flat(layer(x)[1])]
    hx = tuple(states) if len(states) > 1 else states[0]
    lengths, resets = torch.tensor([2, 4, 0]), torch.rand(x.shape[:2]) < 0.3
    packed = pack_padded_sequence(x, [4, 2, 1], first)
    calls = [
        lambda: layer(x, hx),
        lambda: layer(packed),
        lambda: layer(x[0] if first else x[:, 0]),
        lambda: layer(x, hx, lengths=lengths),
        lambda: layer(x, resets=resets),
        lambda: layer(x, hx, return_states=True),
    ]
    for call in calls:
        close(*both(call))


@torch.no_grad()
def test_lengths_are_those_of_each_sequence_alone():
    layer = fastrnn.LSTM(6, 20, bidirectional=True).quantize()
    x, lengths = torch.randn(7, 4, 6), [3, 7, 1, 5]
    y, (h, c) = layer(x, lengths=torch.tensor(lengths))
    for b, n in enumerate(lengths):
        alone, (h1, c1) = layer(x[:n, b : b + 1])
        assert torch.equal(y[:n, b : b + 1], alone)
        assert torch.equal(h[:, b : b + 1], h1)
        assert torch.equal(c[:, b : b + 1], c1)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@EVERY_FORM
@torch.no_grad()
def test_bits_do_not_depend_on_batch_or_threads(kind, form, team_sizes):
    layer = getattr(fastrnn, kind)(65, 150, bidirectional=True).quantize(*form)
    x = torch.randn(9, 50, 65)
    y, _ = layer(x)
    for few in (slice(0, 1), slice(3, 20), slice(17, 50)):
        assert torch.equal(layer(x[:, few])[0], y[:, few])
    torch.set_num_threads(2)
    assert torch.equal(layer(x)[0], y)
    assert 2 in team_sizes


CELLS = [("LSTMCell", {}), ("GRUCell", {"bias": False}), ("RNNCell", {"nonlinearity": "relu"})]


@pytest.mark.parametrize("library", [nn, fastrnn], ids=["torch", "fastrnn"])
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=[kind for kind, _ in CELLS])
@torch.no_grad()
def test_cells(library, kind, options):
    """A step of a cell is that of a layer, with the same bits."""
    cell = getattr(library, kind)(6, 20, **options)
    layer = getattr(fastrnn, kind.removesuffix("Cell"))(6, 20, **options)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    assert not fastrnn.quantize(cell).left
    layer.quantize()
    x = torch.randn(3, 6)
    states = [torch.randn(3, 20) for _ in range(2 if kind == "LSTMCell" else 1)]
    hx = tuple(states) if len(states) > 1 else states[0]
    wide = tuple(s[None] for s in states) if len(states) > 1 else states[0][None]
    for ours, theirs in ((cell(x, hx), layer(x[None], wide)[1]), (cell(x), layer(x[None])[1])):
        for a, b in zip(flat(ours), flat(theirs), strict=True):
            assert torch.equal(a, b[0])
    one = flat(cell(x[0]))[0]
    assert torch.equal(one, flat(cell(x[:1]))[0][0])


@zoo_cases.EVERY_CELL
@torch.no_grad()
def test_cells_of_the_zoo(name):
    module = zoo_cases.build(name, dtype=torch.float32).eval()
    given = {n: t.detach() for n, t in zoo_cases.arguments(name, module).items()}
    before = zoo_cases.call(module, given)
    found = fastrnn.quantize(module)
    assert list(found.changed) == [""]
    ours, plain = both(lambda: zoo_cases.call(module, given))
    close(ours, plain)
    for a, b in zip(ours, before, strict=True):
        assert (a - b).abs().max() < 0.1 * b.abs().max()


@pytest.mark.parametrize("H", [16, 64])
@torch.no_grad()
def test_heads(H):
    """Of 8 units they are multiplied as one, of 32 apart: then each has a scale of its own for the
    part of the state that it sees.
    """
    layer = fastrnn.zoo.SLSTM(5, H, heads=2).eval()
    x = torch.randn(6, 3, 5)
    before, _ = layer(x)
    layer.quantize()
    for found in both(lambda: layer(x)):
        assert (found[0] - before).abs().max() < 0.03


@torch.no_grad()
def test_long_sequences_stay_near():
    """The error of 500 steps is not that of one times 500: it is forgotten."""
    for kind in (fastrnn.LSTM, fastrnn.GRU):
        layer, x = kind(64, 128), torch.randn(500, 2, 64)
        y, _ = layer(x)
        error = (layer.quantize()(x)[0] - y).abs()
        assert error.max() < 0.08
        assert error[400:].mean() < 2 * error[:100].mean() + 1e-3
