"""torch.compile: a layer is one operator of a full graph, which holds for every T and B."""

import shutil

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    TOLERANCE,
    build,
    make_inputs,
    plain_call,
    under_autocast,
)
from compiling import compiled, differs, layers_in
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import fastrnn
from fastrnn import backends

INDUCTOR = pytest.param(
    "inductor",
    marks=pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler"),
)
OPTIONS = {
    "plain": {},
    "stack": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no-bias": {"bias": False},
    "recompute": {"recompute": True},
}
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@EVERY_KIND
@EVERY_OPTION
def test_compiled_is_eager(kind, options):
    """Outputs and gradients to the bit; compiled anew as T changes, as B does, and never again."""
    ours = build(fastrnn, kind, 5, 8, **options)
    fast, graphs = compiled(ours)
    for T, B in ((4, 3), (7, 3), (9, 6), (20, 2), (33, 5)):
        assert not differs(ours, fast, make_inputs(ours, T, B))
    assert len(graphs) <= 3
    assert len(layers_in(graphs[-1])) == ours.num_layers


@EVERY_KIND
@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
def test_cells_and_layers_in_a_model(kind, cell):
    """Inside another module, with sizes said to vary: one compilation serves all."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = build(fastrnn, kind, 5, 8, cell=cell), nn.Linear(8, 3)

        def forward(self, x):
            y = self.rnn(x)
            return self.head(y[0] if isinstance(y, tuple) else y)

    model = Model()
    fast, graphs = compiled(model)
    for T, B in ((4, 3), (7, 6), (20, 2)):
        x = torch.randn(B, 5) if cell else torch.randn(T, B, 5)
        for dim in range(x.dim() - 1):
            torch._dynamo.mark_dynamic(x, dim)
        found, expected = fast(x), model(x)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(y.sum(), list(model.parameters())) for y in (found, expected)]
        torch.testing.assert_close(*grads)
    assert len(graphs) == 1


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("backend", [INDUCTOR])
def test_inductor(kind, cell, backend):
    ours = build(fastrnn, kind, 5, 8, cell=cell)
    inputs = make_inputs(ours, 4, 3)
    fast, _ = compiled(ours, backend)
    assert not differs(ours, fast, inputs, tolerance=TOLERANCE[torch.float32])


@EVERY_KIND
def test_size_of_the_graph(kind):
    sizes = set()
    for T in (2, 50):
        fast, graphs = compiled(build(fastrnn, kind, 5, 8))
        fast(torch.randn(T, 3, 5))
        sizes.add(len(graphs[0].graph.nodes))
    assert len(sizes) == 1


CALLS = {
    "unbatched": lambda m, x: m(x[:, 0]),
    "autocast": under_autocast(True),
    "no-grad": torch.no_grad()(plain_call),
    "training": plain_call,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_ways_to_call(call):
    """The same values, dtypes and need of gradients; and the same random numbers for dropout."""
    ours = fastrnn.LSTM(5, 8, num_layers=2, dropout=0.5)
    fast, _ = compiled(ours)
    x, results = torch.randn(4, 3, 5), []
    for module in (fast, ours):
        torch.manual_seed(3)
        results.append(torch.utils._pytree.tree_leaves(call(module, x)))
    for found, expected in zip(*results, strict=True):
        assert found.equal(expected)
        assert found.dtype == expected.dtype
        assert found.requires_grad == expected.requires_grad


PACKED = [[4, 3, 1], [1, 3, 2], [9, 7, 6, 5, 3, 1, 1]]


@EVERY_KIND
@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's
def test_packed(kind, states):
    """Lengths are values, not shapes: a graph serves them all, made for rows sorted or not."""
    ours = build(fastrnn, kind, 5, 8, num_layers=2, bidirectional=True)
    fast, graphs = compiled(ours)
    for lengths in PACKED:

        def call(module, x, *states, lengths=lengths):
            falling = sorted(lengths, reverse=True) == lengths
            return plain_call(module, pack_padded_sequence(x, lengths, False, falling), *states)

        inputs = make_inputs(ours, max(lengths), len(lengths), states=states)
        assert not differs(ours, fast, inputs, call)
    assert len(graphs) <= 3
    assert len(layers_in(graphs[-1])) == 2


def test_packed_rows_are_checked_when_they_come():
    """What a trace cannot compare, the operator does: nothing is read out of bounds."""
    ours = fastrnn.GRU(5, 8)
    fast, _ = compiled(ours)
    rows = pack_padded_sequence(torch.randn(4, 3, 5), [4, 3, 1])
    with pytest.raises(RuntimeError, match=r"batch_sizes .* 8 rows"):
        fast(rows, torch.zeros(1, 2, 8))
    wrong = rows._replace(batch_sizes=torch.tensor([3, 3, 3, 3]))
    with pytest.raises(RuntimeError, match=r"batch_sizes .* 8 rows"):
        fast(wrong, torch.zeros(1, 3, 8))


def test_projection():
    ours = fastrnn.LSTM(5, 8, proj_size=3, bidirectional=True)
    fast, graphs = compiled(ours)
    assert not differs(ours, fast, make_inputs(ours, 4, 3))
    assert layers_in(graphs[0])


@EVERY_KIND
def test_changed_weights(kind):
    """Weights that are computed, and a state_dict that is loaded, reach a compiled layer."""
    ours = nn.utils.parametrizations.weight_norm(build(fastrnn, kind, 5, 8), "weight_hh_l0")
    fast, graphs = compiled(ours)
    inputs = make_inputs(ours, 4, 3)
    for _ in range(2):
        assert not differs(ours, fast, inputs, tolerance=TOLERANCE[torch.float32])
        with torch.no_grad():
            for weight in ours.parameters():
                weight.mul_(0.5)
    assert len(graphs) == 1


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_engine_of_the_compilation(engine, calls):
    ours = fastrnn.GRU(5, 8)
    fast, graphs = compiled(ours)
    with backends.use(engine):
        fast(torch.randn(4, 3, 5))
    assert not layers_in(graphs[0])


@EVERY_KIND
def test_second_derivative_is_refused(kind):
    """By torch: what it compiles has no second derivative."""
    ours = build(fastrnn, kind, 5, 8)
    fast, _ = compiled(ours)
    x = torch.randn(4, 3, 5, requires_grad=True)
    (dx,) = torch.autograd.grad(fast(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        dx.sum().backward()


class Observer(TorchDispatchMode):
    """Sees the operators that are called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@EVERY_KIND
@EVERY_OPTION
def test_observed(kind, options):
    """A dispatch mode sees a layer as one operator, and its second derivatives as plain PyTorch.

    Unobserved, a stack is one call, which rounds otherwise: so in float64.
    """
    ours = build(fastrnn, kind, 5, 8, dtype=torch.float64, **options)
    inputs = make_inputs(ours, 4, 3)
    x, *states = (t.requires_grad_() for t in inputs.values())
    leaves = [x, *states, *ours.parameters()]
    results = []
    with Observer() as observer:
        loss = plain_call(ours, x, *states)[0].square().sum()
        results.append(torch.autograd.grad(loss, leaves, create_graph=True))
        assert "fastrnn.layer.default" in observer.seen
        results.append(torch.autograd.grad(sum(g.square().sum() for g in results[0]), leaves))
    loss = plain_call(ours, x, *states)[0].square().sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    torch.testing.assert_close(results, [first, second])
