"""A call that is known, of all layers at once, gives the bits of layer after layer; and what there
is besides plain calls finds each of the layers.
"""

import pytest
import torch
from against_torch import EVERY_KIND, build, build_pair
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import fastrnn
from fastrnn import functional, modules

OPTIONS = [
    {"num_layers": 2},
    {"num_layers": 3, "bidirectional": True, "bias": False},
    {"num_layers": 2, "batch_first": True},
    {"num_layers": 3, "recompute": True},
    {"num_layers": 2, "dropout": 0.5},  # in eval
]


@pytest.fixture
def long_way(monkeypatch):
    """Calls a function so that no call is a known one."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            for module in (functional, modules):
                patch.setattr(module, "usual", lambda: False)
            return function(*arguments)

    return call


def layer(kind, options):
    return build(fastrnn, kind, 6, 9, **options).eval()


def results(module, x, hx=None):
    y, hx = module(x, hx)
    return [y, *(hx if isinstance(hx, tuple) else (hx,))]


def gradients(module, x, **options):
    """Of all that is trained."""
    found = results(module, x)
    trained = [x, *(p for p in module.parameters() if p.requires_grad)]
    return torch.autograd.grad([t.square().sum() for t in found], trained, **options)


def equal(found, expected):
    return all(a.equal(b) for a, b in zip(found, expected, strict=True))


@EVERY_KIND
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (7, 1), (5, 4)], ids=str)
def test_a_stack_or_layer_after_layer(kind, options, T, B, long_way, calls):
    ours = layer(kind, options)
    x = torch.randn(*((B, T) if "batch_first" in options else (T, B)), 6, requires_grad=True)
    found = gradients(ours, x)
    layers = options.get("num_layers", 1)
    assert calls == {"forward": layers, "backward": layers}
    assert equal(found, long_way(gradients, ours, x))
    with torch.no_grad():
        assert equal(results(ours, x), long_way(results, ours, x))


@EVERY_KIND
def test_first_layers_that_nobody_trains(kind, calls):
    """Nothing is kept of them, and nothing computed."""
    ours = layer(kind, {"num_layers": 3})
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_("l2" in name)
    results(ours, torch.randn(5, 3, 6))[0].sum().backward()
    assert calls == {"forward": 3, "backward": 1}


@EVERY_KIND
def test_gradients_of_the_last_layer_alone(kind):
    ours, x = layer(kind, {"num_layers": 3}), torch.randn(5, 3, 6, requires_grad=True)
    last = [p for name, p in ours.named_parameters() if "l2" in name]
    expected = gradients(ours, x)[-len(last) :]
    loss = sum(t.square().sum() for t in results(ours, x))
    assert equal(torch.autograd.grad(loss, last), expected)


@EVERY_KIND
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_mode_that_watches_backward(kind, bidirectional):
    """It sees each layer, and the gradients are the same."""
    ours = layer(kind, {"num_layers": 2, "bidirectional": bidirectional})
    x = torch.randn(5, 3, 6, requires_grad=True)
    expected = gradients(ours, x)
    loss = sum(t.square().sum() for t in results(ours, x))
    with FlopCounterMode(display=False) as counted:
        found = torch.autograd.grad(loss, [x, *ours.parameters()])
    assert equal(found, expected)
    assert counted.get_total_flops() > 0


@EVERY_KIND
def test_second_derivatives_of_a_stack(kind):
    found = []
    for module in build_pair(kind, 6, 9, num_layers=2, dtype=torch.float64):
        x = torch.linspace(-1, 1, 5 * 3 * 6).double().view(5, 3, 6).requires_grad_()
        (dx, *_) = gradients(module, x, create_graph=True)
        found.append(torch.autograd.grad(dx.square().sum(), [x, *module.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # the profiler's own
def test_a_profile_of_backward_alone():
    loss = results(layer("gru", {"num_layers": 2}), torch.randn(7, 3, 6))[0].sum()
    with profile() as recorded:
        loss.backward()
    assert "fastrnn::gru backward 7x3x9" in {row.key for row in recorded.key_averages()}


@EVERY_KIND
@pytest.mark.parametrize("change", [("input_size", 5), ("hidden_size", 4)], ids=str)
def test_sizes_that_were_changed(kind, change):
    """The words are torch's. In float64: oneDNN's LSTM reads what is not there."""
    said = []
    for module in build_pair(kind, 6, 9, dtype=torch.float64):
        x = torch.randn(5, 3, 6, dtype=torch.float64)
        module(x)
        setattr(module, *change)
        with pytest.raises(RuntimeError) as error:
            module(x)
        said.append(str(error.value))
    assert said[0] == said[1]
