"""A cell: its ports, what is computed once, and ``clip_gradient`` on tensors."""

from threading import Barrier, Thread

import pytest
import torch
from torch import func
from torch.autograd import forward_ad

import fastrnn
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.gates import Gates, Product

PORTS = {"name": "cell", "step": CELLS["lstm"].step, "gates": 4, "states": 2}
BAD_PORTS = [
    {"gates": -1}, {"gates": 4.0}, {"gates": True}, {"gates": 10**6}, {"states": 0}, {"own": "1"},
    {"inputs": None}, {"recurrent": 1}, {"name": None}, {"name": "a\nb"}, {"name": "\x1b[2J"},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_PORTS, ids=repr)
def test_ports(bad):
    assert Cell(**PORTS).text == CELLS["lstm"].text
    with pytest.raises(ValueError, match="a cell"):
        Cell(**PORTS | bad)


def test_threads_find_the_same():
    """What a cell is compiled to is remembered by its functions."""
    for _ in range(20):
        cell, found, barrier = Cell(**PORTS), [], Barrier(4)

        def ask(cell=cell, found=found, barrier=barrier):
            barrier.wait()
            found.append((cell.traced, cell.derivation, cell.forward, cell.backward))

        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(
            mine is theirs for each in found for mine, theirs in zip(each, found[0], strict=True)
        )
        assert cell.text == CELLS["lstm"].text


def test_a_trace_stays_as_it_is():
    """What is derived from it is added to a graph of its own."""
    cell = Cell(**PORTS)
    before = len(cell.traced.graph.nodes)
    assert cell.derivation.kept
    assert len(cell.traced.graph.nodes) == before


def test_compilers_find_the_text():
    import inspect

    for name in ("forward", "backward", "whole"):
        source = inspect.getsource(CELLS["gru"].functions[name])
        assert source.startswith(f"def {name}(")
        assert source.rstrip() in CELLS["gru"].text + CELLS["gru"].derivation.whole


def test_gates():
    wx, uh = Gates(torch.ones(4, 2).unbind()), Product(torch.ones(4, 2).unbind(), None)
    for found, each in ((wx + uh, 2), (wx - uh, 0), (wx * 3, 3), (3 * uh + wx, 4), (wx[1:] + 1, 2)):
        assert isinstance(found, Gates)
        assert all(gate.tolist() == [each, each] for gate in found)
    assert isinstance(uh[0], torch.Tensor)
    with pytest.raises(TypeError, match="4 gates and 3"):
        wx + uh[:3]
    with pytest.raises(IndexError, match="gate 4 of 4"):
        uh(wx[0], 4)


X = torch.tensor([-3.0, 0.5, 2.0]).double()


def test_clip_gradient():
    x = X.clone().requires_grad_()
    y = fastrnn.clip_gradient(x, 0.75)
    assert y.equal(x)
    (dx,) = torch.autograd.grad(y, x, torch.tensor([-5.0, 0.5, torch.nan]).double())
    assert dx.tolist()[:2] == [-0.75, 0.5]
    assert dx[2].isnan()


def test_clip_gradient_differentiated():
    """By torch.func, by vmap, and forward, where it is the identity."""

    def loss(x):
        return (fastrnn.clip_gradient(x**3, 1.5) * x**2).sum()

    expected = torch.where(X * X > 1.5, 1.5, X * X) * 3 * X**2 + X**3 * 2 * X
    torch.testing.assert_close(func.grad(loss)(X), expected)
    torch.testing.assert_close(func.vmap(func.grad(loss))(X[:, None])[:, 0], expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, torch.ones_like(X))
        assert forward_ad.unpack_dual(fastrnn.clip_gradient(dual, 0.1)).tangent.tolist() == [1] * 3


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "1", None, torch.ones(2)], ids=repr)
def test_limits(limit):
    with pytest.raises(ValueError, match="limit should be a number above zero"):
        fastrnn.clip_gradient(X, limit)
