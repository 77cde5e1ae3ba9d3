"""Calls of few steps multiply with weights as they lie: the same bits as with packed ones."""

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, build
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
from fastrnn.kernels import schedule
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.cpu.host import layouts, shape

SIZES = [(1, 1, 16, 16), (1, 3, 5, 33), (2, 8, 40, 64), (4, 1, 300, 17), (3, 2, 64, 300)]


@pytest.fixture
def lie(monkeypatch):
    """Says whether weights are multiplied as they lie, whatever the size."""

    def say(lying):
        for name in ("PASSES", "BACKWARD_ROWS"):
            monkeypatch.setattr(layouts, name, 10**9 if lying else 0)
        layouts.forward_layout.cache_clear()
        layouts.backward_layout.cache_clear()

    yield say
    say(False)  # no layout of this test is met by another


def everything(layer, x):
    """Outputs, final states and all gradients."""
    y, hx = layer(x)
    outputs = [y, *states(hx)]
    inputs = [x, *layer.parameters()]
    return [*outputs, *torch.autograd.grad([t.square().sum() for t in outputs], inputs)]


@EVERY_KIND
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lying_or_packed(kind, size, dtype, lie, threads):
    T, B, I, H = size
    layer = build(fastrnn, kind, I, H, dtype=dtype, bidirectional=True)
    x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    results = []
    for lying in (True, False):
        lie(lying)
        results.append(everything(layer, x))
    for ours, packed in zip(*results, strict=True):
        assert ours.equal(packed)


MANY_UNITS = [
    {"T": 8, "B": 1, "H": 256},
    {"T": 40, "B": 1, "H": 64},
    {"T": 3, "B": 1, "H": 128, "num_layers": 2},
    {"T": 9, "B": 2, "H": 256, "lengths": [9, 1]},  # a step with one row left
]


@EVERY_KIND
@pytest.mark.parametrize("sizes", MANY_UNITS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_threads_that_share_the_units(kind, sizes, dtype, monkeypatch):
    """Each makes of the gradient of the state what it reads itself: no other would wait for it."""
    monkeypatch.setattr(shape, "MIN_WORK", 0)
    options = dict(sizes)
    T, B, H, lengths = (options.pop(name, None) for name in ("T", "B", "H", "lengths"))
    layer = build(fastrnn, kind, H, H, dtype=dtype, **options)
    one_thread_or_two(layer, torch.randn(T, B, H, dtype=dtype, requires_grad=True), lengths)


def one_thread_or_two(layer, x, lengths=None):
    """The gradients of both are the same, again and again."""
    results = []
    for threads in 1, *[2] * 5:
        torch.set_num_threads(threads)
        results.append(gradients_of_output(layer, x, lengths))
    for result in results[1:]:
        assert all(a.equal(b) for a, b in zip(result, results[0], strict=True))


def gradients_of_output(layer, x, lengths):
    y, _ = layer(x if lengths is None else pack_padded_sequence(x, lengths))
    y = y if lengths is None else y.data
    return torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])


def test_projected_units_that_threads_share(monkeypatch):
    monkeypatch.setattr(shape, "MIN_WORK", 0)
    layer = fastrnn.LSTM(64, 256, proj_size=128)
    one_thread_or_two(layer, torch.randn(8, 1, 64, requires_grad=True))


@EVERY_KIND
@pytest.mark.parametrize("options", [{"bias": False}, {"num_layers": 2}], ids=str)
def test_options(kind, options, lie):
    layer, x = build(fastrnn, kind, 20, 24, **options), torch.randn(2, 3, 20, requires_grad=True)
    results = []
    for lying in (True, False):
        lie(lying)
        results.append(everything(layer, x))
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


# LSTM's cell state is float32 within a call in bfloat16, and rounded between two.
STREAMS = [(kind, dtype) for kind in KINDS for dtype in (torch.float32, torch.float64)]
STREAMS += [(kind, torch.bfloat16) for kind in KINDS if CELLS[kind].states == 1]


@pytest.mark.parametrize(("kind", "dtype"), STREAMS, ids=str)
@pytest.mark.parametrize("chunks", [[1] * 12, [2, 5, 1, 4], [11, 1]], ids=str)
def test_a_stream_in_chunks(kind, dtype, chunks):
    """With its state carried on a stream gives the whole sequence's bits, whatever the chunks."""
    layer = build(fastrnn, kind, 40, 70, num_layers=2, dtype=dtype)
    x = torch.randn(sum(chunks), 2, 40, dtype=dtype)
    with torch.no_grad():
        whole, last = layer(x)
        hx, parts = None, []
        for chunk in x.split(chunks):
            y, hx = layer(chunk, hx)
            parts.append(y)
    assert torch.cat(parts).equal(whole)
    for ours, expected in zip(states(hx), states(last), strict=True):
        assert ours.equal(expected)


def states(hx):
    return hx if isinstance(hx, tuple) else (hx,)


def test_where_rows_are_shared_stays_where_it_is(monkeypatch):
    """A plan holds the address: a thread that comes at the same time must not replace it."""
    steps, begins, met = schedule.packed(torch.tensor([3, 2])), [], []
    compute = steps._begins

    def as_another_does(parts):
        if not met:
            met.append(True)
            begins.append(steps.bounds(parts))
        return compute(parts)

    monkeypatch.setattr(steps, "_begins", as_another_does)
    assert [steps.bounds(2)] == begins


@EVERY_KIND
@pytest.mark.parametrize("count", [2, 3], ids="threads={}".format)
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=str)
def test_fewer_rows_than_threads(kind, count, options, monkeypatch):
    """A thread without a row of its own does nothing, and nothing to others."""
    monkeypatch.setattr(shape, "MIN_WORK", 0)
    layer = build(fastrnn, kind, 107, 64, dtype=torch.float64, num_layers=2, **options)
    x = torch.randn(1, 1, 107, dtype=torch.float64, requires_grad=True)
    alone = everything(layer, x)
    torch.set_num_threads(count)
    for mine, theirs in zip(everything(layer, x), alone, strict=True):
        assert mine.equal(theirs)
