"""FlopCounterMode counts our layers and cells as it counts torch.nn's."""

import math
from contextlib import nullcontext
from itertools import product

import pytest
import torch
from against_torch import (
    EVERY_KIND,
    KINDS,
    build,
    build_pair,
    make_inputs,
    name_outputs,
    packing,
    plain_call,
)
from conftest import run_python
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import fastrnn
from fastrnn import backends, operators

OPTIONS = {
    "plain": {},
    "stack": {"num_layers": 2, "bidirectional": True, "bias": False},
    "dropout": {"num_layers": 2, "dropout": 0.5},
    "cell": {"cell": True},
}
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
CALLS = {"dense": plain_call, "packed": packing([7, 5, 2])}
NEEDS = {
    "weights": set(),
    "x": {"x"},
    "h0": {"h0"},
    "c0": {"c0"},
    "x-alone": {"x", "frozen"},
    "h0-alone": {"h0", "frozen"},
    "weight_hh-alone": {"frozen", "weight_hh"},
    "bias-alone": {"frozen", "bias"},
}
EVERY_NEED = pytest.mark.parametrize("needs", NEEDS.values(), ids=NEEDS)
EVERY_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
TRAININGS = {
    f"{kind}-{name}-{need}-{call}": (kind, OPTIONS[name], CALLS[call], NEEDS[need])
    for kind, name, need, call in product(KINDS, OPTIONS, NEEDS, CALLS)
    if (need != "c0" or kind == "lstm")
    and (need != "bias-alone" or name != "stack")  # which has none
    and (call != "packed" or name != "cell")
}


def total(module, call, needs, *, forward=True, backward=True):
    """The flops of a call, of its gradients, or of both."""
    inputs = make_inputs(module, 7, 3, states=bool(needs & {"h0", "c0"}))
    for name, tensor in inputs.items():
        tensor.requires_grad_(name in needs)
    for name, weight in module.named_parameters():
        weight.requires_grad_("frozen" not in needs or any(name.startswith(n) for n in needs))
    counter = FlopCounterMode(display=False)
    with counter if forward else nullcontext():
        outputs = name_outputs(module, call(module, *inputs.values()))
        loss = sum(y.sum() for y in outputs.values())
        if backward and forward:
            loss.backward()
    if not forward:
        with counter:
            loss.backward()
    return counter.get_total_flops()


def same_as_torchs(kind, options, call, needs, **when):
    # in float64, since there is no formula for oneDNN's LSTM, which is of float32
    ours, theirs = build_pair(kind, 4, 5, dtype=torch.float64, **options)
    expected = total(theirs, call, needs, **when)
    assert expected > 0
    assert total(ours, call, needs, **when) == expected


@pytest.mark.parametrize("case", TRAININGS.values(), ids=TRAININGS)
def test_training(case):
    """Forward and backward; only those products that somebody needs."""
    same_as_torchs(*case)


@EVERY_NEED
@EVERY_CALL
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_projection(needs, call, bidirectional):
    options = {"proj_size": 2, "num_layers": 2, "bidirectional": bidirectional}
    same_as_torchs("lstm", options, call, needs)


@EVERY_KIND
@EVERY_OPTION
def test_forward_alone(kind, options):
    same_as_torchs(kind, options, torch.no_grad()(plain_call), set(), backward=False)


@EVERY_KIND
@EVERY_CALL
def test_backward_alone(kind, call):
    """Of a call that was made before anybody counted."""
    options = {"num_layers": 2, "bidirectional": True}
    same_as_torchs(kind, options, call, {"x"}, forward=False)


@EVERY_KIND
def test_backward_alone_of_a_cell(kind):
    """It is computed from torch's operations then, forward once more: gates * H * (I + H)."""
    ours = build(fastrnn, kind, 4, 5, cell=True)
    found = total(ours, plain_call, {"x", "h0"}, forward=False)
    assert found == 3 * 2 * 3 * sum(w.numel() for w in (ours.weight_ih, ours.weight_hh))


@EVERY_CALL
def test_recompute(call):
    """What is not kept is counted twice, being computed twice."""
    plain, frugal = fastrnn.GRU(4, 5), fastrnn.GRU(4, 5, recompute=True)
    forward = total(plain, call, set(), backward=False)
    extra = total(frugal, call, set()) - total(plain, call, set())
    assert extra == forward


@EVERY_KIND
@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
@pytest.mark.parametrize("outside", [False, True], ids=["forward-inside", "forward-outside"])
def test_second_derivative(kind, cell, outside):
    """Right under the counter, and counted."""
    ours = build(fastrnn, kind, 4, 5, cell=cell)
    x = torch.randn(3, 4) if cell else torch.randn(7, 3, 4)
    weights = list(ours.parameters())

    def gradients(loss):
        first = torch.autograd.grad(loss, weights, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), weights)

    def loss():
        return name_outputs(ours, ours(x)).popitem()[1].square().sum()

    expected = gradients(loss())
    early = loss() if outside else None
    with FlopCounterMode(display=False) as counter:
        found = gradients(early if outside else loss())
    torch.testing.assert_close(found, expected)
    assert counter.get_total_flops() > 0


class Model(nn.Module):
    def __init__(self, library):
        super().__init__()
        self.rnn, self.head = library.GRU(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def test_by_module():
    """The table says which module did it, in forward and in backward."""
    tables = []
    for library in (fastrnn, nn):
        model, x = Model(library), torch.randn(7, 3, 4)
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        counts = counter.get_flop_counts()
        tables.append({name: sum(each.values()) for name, each in counts.items()})
    assert tables[0] == tables[1]
    assert tables[0]["Model.rnn"] > 0


def test_without_numbers():
    """Fake tensors have flops, too; how many sequences are the longest, only numbers tell."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        x, sizes, states = (
            torch.randn(14, 4),
            torch.empty(7, dtype=torch.int64),
            torch.randn(2, 3, 5),
        )
        shapes = [(15, 4), (15, 5)] * 2
        weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
        y, *_ = operators.layer_packed("numba", "gru", 2, x, sizes, [states], weights)
        y.sum().backward()
    rows = [2 * 14, 3 * 14 - 3, 2 * 14, 3 * 14 - 1]
    sizes = [math.prod(shape) for shape in shapes]
    assert counter.get_total_flops() == sum(2 * n * m for n, m in zip(rows, sizes, strict=True))


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_other_engines(engine):
    ours = fastrnn.GRU(4, 5)
    with backends.use(engine):
        found = total(ours, plain_call, set())
    assert found == total(ours, plain_call, set())


ORDER = """
import sys, torch
{imports}
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    fastrnn.GRU(4, 5)(torch.randn(7, 3, 4))[0].sum().backward()
print(counter.get_total_flops())
"""
IMPORTS = {
    "before": "import torch.utils.flop_counter, fastrnn",
    "after": "import fastrnn; assert 'torch.utils.flop_counter' not in sys.modules",
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_order_of_imports(imports):
    """The counter, which takes long to load, is loaded by those who count."""
    assert run_python(ORDER.format(imports=imports))[0].split() == ["14040"]
