"""The behaviours that python -m bench.gpu asserts, as far as a CPU can tell."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gpu_cases import SMALL

from bench import data
from bench.gpu import behaviour, oracle
from bench.gpu.behaviour import common, eager, recorded


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small layers on the CPU."""
    most = {"T": 40, "B": 3, "I": 8, "H": 24}

    def smaller(case, **changes):
        return replace(case, **{n: min(v, most[n]) if n in most else v for n, v in changes.items()})

    for module in (eager, recorded):
        monkeypatch.setattr(module, "BASE", replace(SMALL, dtype="float32"))
        monkeypatch.setattr(module, "replace", smaller)


@pytest.fixture
def served(monkeypatch):
    """Whoever serves is taken for ours; a list of what was asked about."""
    asked = []
    for module in (common, eager, recorded):
        monkeypatch.setattr(module, "served", lambda *called: asked.append(called))
    return asked


@pytest.mark.parametrize("what", ["deterministic", "recompute", "very_long", "default_flags"])
def test_what_other_kernels_serve_says_nothing(what):
    with pytest.raises(AssertionError, match=r"Choice\(name='numba'"):
        behaviour.run(what)


@pytest.mark.parametrize("what", ["deterministic", "recompute", "very_long", "default_flags"])
def test_behaviours(what, served):
    assert behaviour.run(what)["right"]
    assert served


def test_torch_in_pieces_is_torch(monkeypatch):
    """The states go on from piece to piece, and gradients back."""
    monkeypatch.setattr(eager, "PIECE", 7)
    case = replace(SMALL, cell="GRU", T=30, dtype="float64")
    numbers = data.make(case)
    whole = oracle.results(torch.nn, case, numbers)
    pieces = oracle.results(SimpleNamespace(GRU=eager.InPieces), case, numbers)
    assert whole.keys() == pieces.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=1e-12, atol=1e-12)


def test_torch_never_gets_a_sequence_that_cudnn_refuses(monkeypatch, served):
    steps, forward = [], torch.nn.GRU.forward

    def noted(layer, x, hx):
        steps.append(len(x))
        return forward(layer, x, hx)

    assert eager.PIECE < 65_536
    monkeypatch.setattr(eager, "PIECE", 7)
    monkeypatch.setattr(torch.nn.GRU, "forward", noted)
    assert behaviour.run("very_long")["right"]
    assert set(steps) == {7, 40 % 7}


def test_flags_are_left_as_they_were():
    """To the letter: "none", of which nothing is known, is not "ieee"."""

    def flags():
        backends = torch.backends.cudnn.rnn, torch.backends.cudnn.conv, torch.backends.cuda.matmul
        return [b.fp32_precision for b in backends], torch.backends.cuda.matmul.allow_tf32

    before = flags()
    for name in ("tf32", "float32"):
        with oracle.arithmetic(name):
            assert (torch.backends.cudnn.rnn.fp32_precision == "tf32") == (name == "tf32")
        assert flags() == before


def test_what_a_graph_captures(monkeypatch, served):
    """A training step of a dense batch, and packed rows forward; x is read where it is."""
    captured = []
    monkeypatch.setattr(recorded, "_replayed", lambda *given: captured.append(given))
    assert behaviour.run("graph")["right"]
    for step, x in captured:
        before = [t.clone() for t in step()]
        with torch.no_grad():
            x.add_(1)
        assert any(not torch.equal(*pair) for pair in zip(before, step(), strict=True))
    (_, x), (_, rows) = captured
    assert x.dim() == 3
    assert rows.dim() == 2


def test_packed_numbers_of_one_shape():
    """Lengths differ, T and the number of rows do not."""
    case = replace(SMALL, T=40, packed=True)
    first, second = (recorded.packed(case, lengths) for lengths in ((40, 20, 10), (40, 15, 15)))
    assert first.x.shape == second.x.shape == (70, case.I)
    assert first.batch_sizes.shape == second.batch_sizes.shape
    assert not torch.equal(first.batch_sizes, second.batch_sizes)
    expected = torch.nn.utils.rnn.pack_sequence([torch.zeros(n) for n in (40, 20, 10)])
    assert torch.equal(first.batch_sizes, expected.batch_sizes)


def test_reduced_overhead(served):
    """On a CPU there are no CUDA graphs, which is noticed, after the numbers have been compared."""
    with pytest.raises(AssertionError, match="training is in no CUDA graph"):
        behaviour.run("reduced_overhead")
    assert len(served) == 3
    assert behaviour.run("reduced_overhead_packed")["right"]
    assert len(served) == 9
