"""A layer of a user's own cell under torch's tools: functions of functions, modes, autocast."""

import copy

import pytest
import torch
from custom_cells import CELLS, Peephole, ResetFirst, Skip, Sorted, assert_same, loop, make
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import fastrnn
from fastrnn import backends

EVERY_CELL = pytest.mark.parametrize("cls", CELLS.values(), ids=CELLS)


def function_of(module, inputs):
    """f(x, *parameters), and the parameters."""
    parameters = dict(module.named_parameters())

    def function(x, *values):
        values = dict(zip(parameters, values, strict=True))
        return functional_call(module, values, (x,), inputs)[0]

    return function, [p.detach().requires_grad_() for p in parameters.values()]


@EVERY_CELL
def test_second_derivatives(cls):
    module, x, _, inputs = make(cls, 2, 3)
    inputs = {name: t[:3] for name, t in inputs.items()}
    function, parameters = function_of(module, inputs)
    given = x[:3].requires_grad_(), *parameters
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


@EVERY_CELL
def test_torch_func(cls):
    module, x, _, inputs = make(cls, 2, 3)
    function, parameters = function_of(module, inputs)

    def loss(x, *parameters):
        return function(x, *parameters).sin().sum()

    xs = torch.randn(4, *x.shape, dtype=x.dtype)
    each = vmap(grad(loss, argnums=1), (0, *[None] * len(parameters)))(xs, *parameters)
    for x, found in zip(xs, each, strict=True):
        (expected,) = torch.autograd.grad(loss(x, *parameters), parameters[:1])
        assert_same(found, expected)
    _, tangent = jvp(lambda x: loss(x, *parameters), (x,), (xs[0],))
    along = (jacrev(lambda x: loss(x, *parameters))(x) * xs[0]).sum()
    assert_same(tangent, along)


def test_an_ensemble():
    modules = [Peephole(2, 3, dtype=torch.float64) for _ in range(3)]
    x, (parameters, _) = torch.randn(4, 2, 2).double(), stack_module_state(modules)
    found = vmap(lambda each: functional_call(modules[0], each, (x,))[0])(parameters)
    assert_same(list(found), [module(x)[0] for module in modules])


def test_checkpoint():
    module, x, hx, _ = make(ResetFirst, 5, 9)
    x.requires_grad_()
    found = checkpoint(lambda x: module(x, hx)[0].sin().sum(), x, use_reentrant=False)
    expected = loop(module, x, hx)[0].sin().sum()
    assert_same(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_engines_that_are_asked_for(calls):
    module, x, hx, inputs = make(Skip, 5, 9)
    for engine, reason in {
        "numba": "asked for by fastrnn.backends.use",
        "reference": "asked for by fastrnn.backends.use",
        "torch": "plain PyTorch, step by step, as torch has no kernel of Skip: asked for by",
    }.items():
        served = "numba" if engine == "numba" else "reference"
        with backends.use(engine):
            assert_same(module(x, hx, **inputs), loop(module, x, hx, **inputs))
            choice = backends.explain(module, x, hx, **inputs)
        assert choice.name == served
        assert choice.reason.startswith(reason)
    assert calls == {"forward": 1, "reference": 2}
    with backends.use("triton"), pytest.raises(backends.Refused, match="float64 on GPU"):
        module(x, hx, **inputs)
    assert backends.explain(module, x, **inputs) == ("numba", "float64 on CPU")


def test_profiler_and_flops():
    module, x, hx, _ = make(Peephole, 5, 9, num_layers=2, bidirectional=True)
    with torch.profiler.profile() as profile:
        module(x, hx)[0].sum().backward()
    rows = {row.key: row.count for row in profile.key_averages() if "fastrnn" in row.key}
    label = "fastrnn::Peephole{} 6x3x9 bidirectional"
    assert rows == {label.format(""): 2, label.format(" backward"): 2}
    counts = []
    for each in (module, nn.LSTM(5, 9, 2, bidirectional=True, dtype=torch.float64)):
        with FlopCounterMode(display=False) as counter:
            each(x, hx)[0].sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_flops_without_a_product():
    module, x, _, inputs = make(Skip, 5, 9)
    with FlopCounterMode(display=False) as counter:
        module(x, **inputs)
    assert counter.get_total_flops() == 2 * 18 * module.weight_ih_l0.numel()


def test_fake_tensors_and_make_fx():
    with FakeTensorMode():
        module, x, hx, inputs = make(Skip, 5, 9, num_layers=2, bidirectional=True)
        y, h = module(x, hx, **inputs)
        assert y.shape == (6, 3, 18)
        assert h.shape == (4, 3, 9)
        y.sum().backward()
        assert module.v_l0.grad.shape == (9,)
    module, x, hx, inputs = make(Skip, 5, 9)
    graph = make_fx(lambda x, h: module(x, h, **inputs))(x, hx)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("fastrnn.layer.default") == 1
    assert_same(graph(x + 1, hx), module(x + 1, hx, **inputs))


class Updated(fastrnn.Recurrent):
    """Without a parameter of its own all of its step is in autocast's dtype, but for the state."""

    def step(self, wx, uh, h):
        return torch.tanh(wx[0] + uh[0])


@pytest.mark.parametrize("cls", [Peephole, ResetFirst, Skip, Updated, Sorted])
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.filterwarnings("ignore:.*runs in plain PyTorch")
def test_autocast_has_the_dtypes_of_a_loop(cls, to):
    module, x, hx, inputs = make(cls, 5, 9, dtype=torch.float32, num_layers=2)
    exact = loop(copy.deepcopy(module).double(), x.double(), _double(hx), **_double(inputs))
    for short in (x, x[:1]):
        given = {name: t[: len(short)] for name, t in inputs.items()}
        with torch.autocast("cpu", to):
            y, finals = module(short, hx, **given)
            theirs, theirs_finals = loop(module, short, hx, **given)
        assert y.dtype == theirs.dtype
        finals, expected = (t if isinstance(t, tuple) else (t,) for t in (finals, theirs_finals))
        assert [t.dtype for t in finals] == [t.dtype for t in expected]
        if short is x:
            assert_same((y, finals), exact, 0.03 if to == torch.bfloat16 else 4e-3)
    with torch.autocast("cpu", to):
        module(x, hx, **inputs)[0].float().sum().backward()
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}


def _double(value):
    return torch.utils._pytree.tree_map(lambda t: t.double(), value)
