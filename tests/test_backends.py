"""Which engine serves which tensors; the reason given; and how to say otherwise."""

import pickle
import threading
import warnings

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    FLOATS,
    compare,
    make_inputs,
    plain_call,
    twins,
)
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_padded_sequence

from fastrnn import backends, functional, modules


class Subclass(torch.Tensor):
    pass


# Tensors, the engine they get, and a word of the reason.
SITUATIONS = {
    "float32": ([torch.zeros(2)], "numba", "float32"),
    "float64": ([torch.zeros(2).double()], "numba", "float64"),
    "bfloat16": ([torch.zeros(2).bfloat16()], "numba", "bfloat16 on CPU"),
    "float16": ([torch.zeros(2).half()], "numba", "computed in float32"),
    "parameter": ([torch.zeros(2), nn.Parameter(torch.zeros(2))], "numba", "CPU"),
    "absent": ([torch.zeros(2), None], "numba", "CPU"),
    "int64": ([torch.zeros(2).long()], "torch", "int64"),
    "complex64": ([torch.zeros(2, dtype=torch.complex64)], "torch", "complex64"),
    "sparse": ([torch.zeros(2).to_sparse()], "torch", "sparse"),
    "meta": ([torch.zeros(2, device="meta")], "torch", "meta"),
    "two-devices": ([torch.zeros(2), torch.zeros(2, device="meta")], "torch", "devices"),
    "two-dtypes": ([torch.zeros(2), torch.zeros(2).double()], "torch", "dtypes"),
    "subclass": ([torch.zeros(2).as_subclass(Subclass)], "torch", "plain"),
}


@pytest.mark.parametrize(("tensors", "name", "reason"), SITUATIONS.values(), ids=SITUATIONS)
def test_explain(tensors, name, reason):
    choice = backends.explain(*tensors)
    assert choice.name == name
    assert reason in choice.reason


@EVERY_KIND
@CELL_OR_LAYER
def test_explain_a_call(kind, cell, monkeypatch):
    """Of a module: its tensors are those that the call itself chooses an engine for."""
    seen, choose = [], backends.choose

    def noted(tensors, step, layer, traced):
        seen.append(([(t.shape, t.dtype) for t in tensors if t is not None], step, layer))
        return choose(tensors, step, layer, traced)

    monkeypatch.setattr(backends, "choose", noted)
    for module in (functional, modules):  # the long way, on which it is asked
        monkeypatch.setattr(module, "usual", lambda: False)
    options = {} if cell else {"num_layers": 2, "bidirectional": True}
    ours, theirs = twins(kind, 5, 17, cell=cell, **options)
    x, *states = make_inputs(ours, 4, 3).values()
    hx = states[0] if len(states) == 1 else tuple(states)
    calls = [(x,), (x, hx)]
    if not cell:
        calls += [(x[:, 0],), (pack_padded_sequence(x, [4, 2, 1]),)]
    for call in calls:
        assert backends.explain(ours, *call).name == "numba"
        ours(*call)
        asked, chosen = seen[-2:]
        assert asked == chosen
    assert "accelerate" in backends.explain(theirs, x).reason
    with pytest.raises(TypeError, match="Linear"):
        backends.explain(nn.Linear(2, 2), x)


@EVERY_KIND
def test_trace(kind, calls):
    """A traced module is torch's operator, with no engine of ours baked in."""
    ours, theirs = twins(kind, 5, 17)
    x = torch.randn(4, 3, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(ours, (x,))
    assert calls["torch"]
    other = torch.randn(7, 2, 5)
    torch.testing.assert_close(
        traced(other)[0].double(), theirs(other.double())[0], atol=1e-6, rtol=0
    )


def test_transforms_get_the_reference():
    seen = []

    def function(x):
        seen.append(backends.explain(x))
        return x

    torch.vmap(function)(torch.zeros(2))
    with forward_ad.dual_level():
        function(forward_ad.make_dual(torch.zeros(2), torch.ones(2)))
    assert [choice.name for choice in seen] == ["reference"] * 2
    assert all("torch.func or forward-mode AD" in choice.reason for choice in seen)


def test_subclass_gets_torchs_kernels(calls):
    """A tensor subclass may mean anything by its operations: they are left to it."""
    ours, _ = twins("gru", 5, 17)
    ours(torch.randn(4, 3, 5).as_subclass(Subclass))
    assert calls.keys() == {"torch"}


REFERENCE = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
    {"cell": True},
]


@EVERY_KIND
@pytest.mark.parametrize("engine", ["reference", "torch", "numba"])
@pytest.mark.parametrize("options", REFERENCE, ids=str)
def test_use(kind, options, engine, calls):
    """Each engine, when asked for, serves; and is right."""
    ours, theirs = twins(kind, 5, 17, dtype=torch.float64, **options)
    with backends.use(engine):
        assert backends.explain(torch.zeros(2)).name == engine
        compare(ours, theirs, make_inputs(ours, 4, 3))
    assert calls.keys() == ({"forward", "backward"} if engine == "numba" else {engine})


@EVERY_KIND
@FLOATS
@pytest.mark.parametrize("lengths", [[4, 3, 1], [2, 4, 4]], ids=["sorted", "unsorted"])
def test_reference_packed(kind, dtype, lengths, calls):
    """The engine in plain PyTorch, which shares the cells' formulas, against torch's own."""
    P = {"proj_size": 6} if kind == "lstm" else {}
    ours, theirs = twins(kind, 5, 17, dtype=dtype, bidirectional=True, **P)

    def call(module, x, *states):
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return plain_call(module, rows, *states)

    with backends.use("reference"):
        compare(ours, theirs, make_inputs(ours, 4, 3), call=call)
    assert calls.keys() == {"reference"}


def test_use_nests_and_ends():
    x = torch.zeros(2)
    with backends.use("torch"):
        with backends.use("reference"):
            assert backends.explain(x).name == "reference"
        assert backends.explain(x) == ("torch", "asked for by fastrnn.backends.use")
        with pytest.raises(ZeroDivisionError), backends.use("reference"):
            raise ZeroDivisionError
        assert backends.explain(x).name == "torch"
    assert backends.explain(x).name == "numba"


def test_use_is_of_one_thread():
    seen = []
    with backends.use("torch"):
        other = threading.Thread(target=lambda: seen.append(backends.explain(torch.zeros(2)).name))
        other.start()
        other.join()
    assert seen == ["numba"]


def test_unknown_engine():
    with (
        pytest.raises(ValueError, match=r"'cuda'.*numba, triton, reference, torch"),
        backends.use("cuda"),
    ):
        pass


UNSERVED = {
    "two-dtypes": (SITUATIONS["two-dtypes"][0], "devices or dtypes differ"),
    "int64": (SITUATIONS["int64"][0], "int64"),
    "meta": (SITUATIONS["meta"][0], "meta"),
}


@pytest.mark.parametrize(("tensors", "reason"), UNSERVED.values(), ids=UNSERVED)
def test_numba_asked_for_in_vain(tensors, reason):
    said = f"the numba engine cannot serve this: .*{reason}"
    with backends.use("numba"), pytest.raises(backends.Refused, match=said) as refusal:
        backends.explain(*tensors)
    passed_on = pickle.loads(pickle.dumps(refusal.value))  # as another process would see it
    assert isinstance(passed_on, RuntimeError)
    assert str(passed_on) == str(refusal.value)


@EVERY_KIND
def test_numba_asked_for_in_vain_by_a_layer(kind, calls):
    ours, _ = twins(kind, 5, 17)
    with (
        backends.use("numba"),
        torch.autocast("cpu"),
        pytest.raises(backends.Refused, match="the numba engine cannot serve this: autocast"),
    ):
        ours(torch.randn(4, 3, 5).double())
    assert not calls
