"""Programs that wait in vain: NaN, a flag, one error, and then the engine is off. In Triton's
interpreter, where programs one after another wait for those to come.
"""

import threading
import time
from contextlib import contextmanager

import gpu_cells
import pytest
import torch
from gpu_layers import GRID, served
from interpreter import interpreted

import fastrnn
from fastrnn.kernels.gpu import guard
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.schedule import dense

tl = pytest.importorskip("triton.language", reason="Triton is not installed")
__all__ = ["interpreted"]
CPU = torch.device("cpu")


@pytest.fixture
def new(monkeypatch):
    for name in ("_words", "_off"):
        monkeypatch.setattr(guard, name, {})


@contextmanager
def in_vain(looks=10):
    """Within this context whole sequences are launched, whose programs do not run together."""
    from fastrnn.kernels.gpu import launch

    with pytest.MonkeyPatch.context() as patch, launch.patience(looks):
        for name in ("_words", "_off"):
            patch.setattr(guard, name, {})
        patch.setattr(launch, "STEPWISE", False)
        yield


@pytest.mark.usefixtures("new")
def test_one_error():
    """After it the engine is off on that device, whatever is written to the word."""
    word = guard.word(CPU)
    assert word is guard.word(CPU) is guard.word(torch.device("meta"))
    assert word.dtype == torch.int32
    guard.check(CPU)
    assert guard.off(CPU) is None
    word.fill_(1)
    with pytest.raises(RuntimeError, match="waited in vain for others") as error:
        guard.check(CPU)
    assert not isinstance(error.value, fastrnn.backends.Refused)
    guard.check(CPU)
    assert "did not all arrive" in guard.off(CPU)
    guard.check(torch.device("cuda", 1))
    assert guard.off(torch.device("cuda", 1)) is None


@pytest.mark.usefixtures("new")
def test_graphs_are_watched(monkeypatch, capsys):
    """Replays are no calls of ours: it is said while they go on, once; and the error stays due."""
    threads, at_exit = threading.active_count(), []
    monkeypatch.setattr(guard, "LOOK", 0.01)
    monkeypatch.setattr(guard, "_watched", set())
    monkeypatch.setattr(guard.atexit, "register", lambda *call: at_exit.append(call))
    guard.private.say.cache_clear()
    for _ in range(2):
        guard.watch(CPU)
    assert threading.active_count() == threads + 1
    ((tell, device),) = at_exit
    assert not tell(device)
    assert capsys.readouterr().err == ""
    guard.word(CPU).fill_(1)
    end = time.monotonic() + 60
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    tell(device)
    assert capsys.readouterr().err.count("have waited in vain") == 1
    with pytest.raises(RuntimeError, match="waited in vain for others"):
        guard.check(CPU)
    guard.private.say.cache_clear()
    assert tell(device)  # who was told by an error is not told again
    assert capsys.readouterr().err == ""


def captured():
    """A launch that goes into a graph has them watched; another one has not."""
    from fastrnn.kernels.gpu import launch

    layer, x = fastrnn.GRU(5, 21), torch.randn(4, 3, 5)
    with pytest.MonkeyPatch.context() as patch, served(GRID), torch.no_grad():
        watched = []
        patch.setattr(guard, "watch", watched.append)
        layer(x)
        assert not watched
        patch.setattr(launch, "capturing", lambda device: True)
        layer(x)
        assert set(watched) == {CPU}


def test_captured(interpreted):
    interpreted(captured)


def what_is_left():
    """Of patience: all of it at first, less once all programs run, nothing for who was let down."""
    import triton

    from fastrnn.kernels.gpu import blocks

    @triton.jit
    def look(counter, left, due, patience, all_run, wait: tl.constexpr):
        tl.store(left, wait(counter, due, patience, all_run > 0))

    left = torch.zeros(1, dtype=torch.int32)
    for due, patience, all_run, expected in (
        (3, 2**30, 0, 2**30),
        (3, 2**30, 1, 2**23),
        (3, 7, 1, 7),
        (4, 7, 0, 0),
        (4, 7, 1, 0),
        (3, 0, 1, 0),
    ):
        look[(1,)](
            torch.full((1,), 3, dtype=torch.int32), left, due, patience, all_run, blocks.wait
        )
        assert left.item() == expected


def forward():
    """All is NaN from the step on whose states were waited for."""
    layer, x = fastrnn.GRU(5, 21), torch.randn(4, 3, 5)
    with served(GRID), in_vain(), torch.no_grad():
        y, final = layer(x)
        assert y[0, :, :16].isfinite().all()  # of the first program, that had not to wait
        assert y[1:].isnan().all()
        assert final.isnan().all()
        with pytest.raises(RuntimeError, match="waited in vain"):
            layer(x)
        with pytest.raises(fastrnn.backends.Refused, match="did not all arrive"):
            layer(x)  # no other error, but that it was asked for
    with served(GRID), torch.no_grad():
        assert layer(x)[0].isfinite().all()


def backward():
    """And every gradient that goes through an exchange."""
    layer, x = fastrnn.LSTM(5, 21), torch.randn(4, 3, 5).requires_grad_()
    with served(GRID):
        y, _ = layer(x)
        with in_vain():
            found = torch.autograd.grad(y.sum(), [x, *layer.parameters()], retain_graph=True)
            assert all(gradient.isnan().any() for gradient in found)
            with pytest.raises(RuntimeError, match="waited in vain"):
                y.sum().backward()


def own_cells(name):
    """Of any number of states, and where the output is none of them."""
    from fastrnn.kernels.gpu import engine

    cell = gpu_cells.CELLS[name]
    x, weights, states, inputs = gpu_cells.made(cell, dense(4, 3), 1, 5, 21, torch.float32)
    given = cell, x, dense(4, 3), weights, states, Keep.NOTHING, inputs
    with served(GRID), in_vain(), torch.no_grad():
        y, finals, _ = engine.layer(*given)
        late, last = y[3:], y[9:]
        assert late.isnan().any()
        assert last.isnan().all()
        assert all(final.isnan().all() for final in finals)


def test_forward(interpreted):
    interpreted(what_is_left)
    interpreted(forward)


def test_backward(interpreted):
    interpreted(backward)


@pytest.mark.parametrize("name", ["two_gates", "slstm", "masked"])
def test_own_cells(interpreted, name):
    interpreted(own_cells, name)
