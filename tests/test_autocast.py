"""Under autocast: torch's dtypes, what is left to torch, and what is not rounded on the way."""

from contextlib import contextmanager, nullcontext
from itertools import product

import pytest
import torch
from against_torch import (
    BFLOAT16_PRODUCTS,
    CELL_OR_LAYER,
    EVERY_KIND,
    build_pair,
    compare,
    make_inputs,
    name_outputs,
    outputs_and_gradients,
    packing,
    plain_call,
    twins,
    under_autocast,
)
from torch import nn

from fastrnn import backends
from fastrnn.kernels.cpu.compiler.target import registers

WIDE, NARROW = torch.float32, torch.bfloat16
HALF = torch.float16
TO = pytest.mark.parametrize("to", [NARROW, HALF], ids="to-{}".format)
FORMS = {
    "dense": plain_call,
    "equal": packing([4, 4, 4]),
    "ragged": packing([4, 2, 1]),
    "cell": plain_call,
}
EITHER_WAY = pytest.mark.parametrize("auto", [True, False], ids=["autocast", "tensors"])


@contextmanager
def without_onednn():
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of Intel's GPUs
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def torch_fails(module, form, to):
    """Whether this is what oneDNN cannot do on most CPUs: torch.nn's LSTM raises there."""
    dense = form in ("dense", "equal")
    return type(module) is nn.LSTM and to == HALF and dense and not module.proj_size


@TO
@EVERY_KIND
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("projected", [False, True], ids=["", "projected"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
def test_dtypes_are_torchs(kind, form, projected, grad, to):
    """Of outputs, states and all gradients, whatever dtypes the input and the states come in."""
    if projected and (kind != "lstm" or form == "cell"):
        pytest.skip("torch has no such thing")
    options = {"proj_size": 7} if projected else {}
    for of_weights, of_x, of_states in product([WIDE, to], [WIDE, to], [None, WIDE, to]):
        pair = build_pair(kind, 5, 17, cell=form == "cell", dtype=of_weights, **options)
        found = []
        for module in pair:
            inputs = make_inputs(module, *((None, 3) if form == "cell" else (4, 3)))
            inputs = {n: t.to(of_x if n == "x" else of_states) for n, t in inputs.items()
                      if n == "x" or of_states}  # fmt: skip
            engine = without_onednn() if torch_fails(module, form, to) else nullcontext()
            with torch.set_grad_enabled(grad), torch.autocast("cpu", to), engine:
                if grad:
                    results = outputs_and_gradients(module, inputs, FORMS[form])
                else:
                    results = name_outputs(module, FORMS[form](module, *inputs.values()))
            found.append({name: value.dtype for name, value in results.items()})
        assert found[0] == found[1], (of_weights, of_x, of_states)


@EVERY_KIND
def test_dtypes_are_torchs_without_onednn(kind):
    found = []
    for module in build_pair(kind, 5, 17):
        with torch.autocast("cpu", NARROW), without_onednn():
            results = name_outputs(module, module(torch.ones(4, 3, 5)))
        found.append({name: value.dtype for name, value in results.items()})
    assert found[0] == found[1]


@EVERY_KIND
def test_vmap(kind, calls):
    """The reference engine's results have torch's dtypes too."""
    ours, theirs = build_pair(kind, 5, 17)
    x = torch.randn(2, 4, 3, 5)
    with torch.autocast("cpu", NARROW):
        mapped = torch.vmap(lambda x: ours(x)[0])(x)
        expected = theirs(x[1])[0]
    assert mapped.dtype == expected.dtype
    assert (mapped[1].float() - expected.float()).abs().max() < 2e-2
    assert calls.keys() == {"reference"}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("of_x", [torch.float64, HALF, NARROW, WIDE], ids=str)
@TO
def test_what_is_left_to_torch(kind, cell, of_x, to, calls):
    """Results or errors, they are torch's own."""
    if of_x in (WIDE, to) and not cell:
        pytest.skip("ours")
    pair = build_pair(kind, 5, 17, cell=cell)
    results = []
    for module in pair:
        torch.manual_seed(0)
        x = torch.randn(*(4, 3, 5)[cell:]).to(of_x)
        try:
            with torch.autocast("cpu", to):
                results.append(torch.utils._pytree.tree_leaves(module(x)))
        except RuntimeError as error:
            results.append(str(error))
    assert str(results[0]) == str(results[1])
    assert calls.keys() == {"torch"}


@EVERY_KIND
def test_autocast_may_end_within(kind):
    """Inside autocast(enabled=False) a layer is what it is outside."""
    ours, theirs = twins(kind, 5, 17)
    inputs = make_inputs(ours, 4, 3)
    with torch.autocast("cpu", NARROW):
        compare(ours, theirs, inputs, call=under_autocast(False))
    compare(ours, theirs, inputs)


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("create_graph", [False, True], ids=["once", "create_graph"])
def test_backward_within(kind, cell, create_graph):
    """Forward decides: that autocast is on in backward rounds nothing."""
    module = build_pair(kind, 5, 17, cell=cell)[0]
    x = make_inputs(module, None if cell else 4, 3, states=False)["x"].requires_grad_()
    y = name_outputs(module, module(x))
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", NARROW, enabled=enabled):
            wanted = [x, *module.parameters()]
            found.append(
                torch.autograd.grad(
                    [*y.values()], wanted, [torch.ones_like(t) for t in y.values()],
                    retain_graph=True, create_graph=create_graph,
                )
            )  # fmt: skip
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@BFLOAT16_PRODUCTS
@EVERY_KIND
def test_gradients_of_weights_are_not_rounded(kind):
    """float32 parameters get float32 gradients: sums that bfloat16 never held."""
    ours, _ = build_pair(kind, 5, 17)
    found = outputs_and_gradients(ours, make_inputs(ours, 4, 3), under_autocast(True))
    for name, _ in ours.named_parameters():
        gradient = found[f"d {name}"]
        assert gradient.dtype == WIDE
        assert not gradient.equal(gradient.bfloat16().float())


@BFLOAT16_PRODUCTS
@EVERY_KIND
def test_weights_may_change_within(kind):
    """Nothing is remembered of weights that autocast has seen before."""
    ours, _ = build_pair(kind, 5, 17)
    x = torch.randn(4, 3, 5)
    with torch.autocast("cpu", NARROW), torch.no_grad():
        before = ours(x)[0]
        for weight in ours.parameters():
            weight.zero_()
        after = ours(x)[0]
    assert before.any()
    assert not after.any()


@BFLOAT16_PRODUCTS
@EVERY_KIND
@EITHER_WAY
def test_backward_inside_autocast(kind, auto):
    """The same gradients, whether backward is called inside the context or after it."""
    ours, _ = build_pair(kind, 9, 33, dtype=WIDE if auto else NARROW)
    inputs = make_inputs(ours, 6, 5)
    outside = outputs_and_gradients(ours, inputs, under_autocast(auto))
    with torch.autocast("cpu", NARROW):
        inside = outputs_and_gradients(ours, inputs, under_autocast(auto))
    for name, value in outside.items():
        assert inside[name].equal(value), name


def test_explains():
    with torch.autocast("cpu", NARROW):
        layer = backends.explain(torch.zeros(1))
        cell = backends.explain(torch.zeros(1), step=True)
    assert (layer.name, cell.name) == ("numba", "torch")
    assert layer.reason.startswith("autocast to bfloat16 on CPU")
    assert ("computed in float32" in layer.reason) == (not registers().bfloat16)
    assert cell.reason.startswith("autocast of one step")
