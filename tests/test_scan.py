"""fastrnn.scan of whole modules, on the CPU engine, against the loop that it stands for."""

import warnings

import pytest
import torch
from against_torch import TOLERANCE, difference
from scan_modules import (
    GRUByHand,
    H,
    I,
    NewerSimpleRNN,
    Peephole,
    ResetFirst,
    SimpleRNN,
    WithNetworks,
    loop,
    results,
    states_of,
)
from torch import nn

import fastrnn

MODULES = {
    "tutorial": SimpleRNN,
    "newer tutorial": NewerSimpleRNN,
    "peephole": Peephole,
    "gru": GRUByHand,
    "networks": WithNetworks,
    "reset first, layer norm": ResetFirst,
    "nn.LSTMCell": lambda: nn.LSTMCell(I, H),
}
EVERY_MODULE = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


def arguments(module, T, B, dtype=torch.float32, count=None):
    """(xs, h0), which want gradients, of so many states."""
    count = count or (2 if isinstance(module, (Peephole, nn.LSTMCell)) else 1)
    xs = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    states = [torch.randn(B, H, dtype=dtype, requires_grad=True) for _ in range(count)]
    return xs, states[0] if count == 1 else tuple(states)


def scanned(module, xs, h0):
    """A scan that is no plain loop."""
    return fastrnn.scan(module, xs, h0, strict=True)


def exact(make, module, xs, h0):
    """The loop's results in float64."""
    truth = make().double()
    truth.load_state_dict(module.state_dict())
    xs, *states = [t.detach().double().requires_grad_() for t in (xs, *states_of(h0))]
    return results(loop, truth, xs, tuple(states) if isinstance(h0, tuple) else states[0])


def check(found, expected, tolerance):
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        ours, theirs = ours.detach(), theirs.detach()
        assert difference(ours, theirs) <= tolerance, number


@EVERY_MODULE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_outputs_and_gradients(make, dtype, calls):
    module = make().to(dtype)
    for T, B in ((1, 1), (9, 3), (30, 1), (4, 33)):
        xs, h0 = arguments(module, T, B, dtype)
        found = results(scanned, module, xs, h0)
        check(found, exact(make, module, xs, h0), TOLERANCE[dtype])
        with torch.no_grad():
            ys, hidden = scanned(module, xs, h0)
        for ours, trained in zip((ys, *states_of(hidden)), found, strict=False):
            assert ours.equal(trained)
    assert calls == {"forward": 8, "backward": 4}


@EVERY_MODULE
def test_threads(make):
    """Outputs are the same to the bit; gradients too, but for what torch itself sums."""
    module = make()
    xs, h0 = arguments(module, 12, 9)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(results(scanned, module, xs, h0))
    torch.set_num_threads(1)
    outputs = 1 + len(states_of(h0)) if make is WithNetworks else len(found[0])
    for one, two in list(zip(*found, strict=True))[:outputs]:
        assert one.equal(two)


@EVERY_MODULE
def test_bfloat16(make):
    module = make().bfloat16()
    xs, h0 = arguments(module, 6, 3, torch.bfloat16)
    found, usual = results(scanned, module, xs, h0), results(loop, module, xs, h0)
    truth = exact(make, module, xs, h0)
    assert [t.dtype for t in found] == [t.dtype for t in usual]
    for ours, theirs, right in zip(found, usual, truth, strict=True):
        assert difference(ours, right) <= max(2 * difference(theirs, right), 2e-2)


@EVERY_MODULE
def test_autocast(make):
    module = make()
    xs, h0 = arguments(module, 6, 3)
    truth = exact(make, module, xs, h0)
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = results(scanned, module, xs, h0), results(loop, module, xs, h0)
    assert [t.dtype for t in found] == [t.dtype for t in usual]
    for ours, theirs, right in zip(found, usual, truth, strict=True):
        assert difference(ours, right) <= max(2 * difference(theirs, right), 2e-2)


@EVERY_MODULE
def test_second_derivatives(make):
    module = make().double()
    xs, h0 = arguments(module, 4, 2, torch.float64)
    leaves = [xs, *states_of(h0), *module.parameters()]

    def twice(scan):
        ys, hidden = scan(module, xs, h0)
        loss = ys.sin().sum() + sum(s.cos().sum() for s in states_of(hidden))
        first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        squares = sum(g.square().sum() for g in first if g is not None)
        return torch.autograd.grad(squares, leaves, allow_unused=True, materialize_grads=True)

    check(twice(scanned), twice(loop), 1e-10)


def test_strides():
    """Weights, inputs and states may lie in any way."""
    module = SimpleRNN().double()
    module.i2h.weight.data = module.i2h.weight.data.t().contiguous().t()
    xs, h0 = torch.randn(3, 7, I).double().transpose(0, 1), torch.randn(H, 3).double().t()
    check(scanned(module, xs, h0), loop(module, xs, h0), 1e-12)


def test_frozen_parameters():
    module = GRUByHand().double()
    module.h.requires_grad_(False)
    xs, h0 = arguments(module, 5, 2, torch.float64)
    found = results(scanned, module, xs.detach(), h0)
    check(found, results(loop, module, xs.detach(), h0), 1e-10)


def test_where_there_is_nothing_to_compute_it_is_the_loop():
    module = GRUByHand()
    with warnings.catch_warnings(action="error"):
        ys, h = fastrnn.scan(module, torch.zeros(4, 0, I), torch.zeros(0, H))
    assert ys.shape == (4, 0, H)
    assert h.shape == (0, H)


def test_under_torch_func_and_in_a_trace_it_is_the_loop():
    module = NewerSimpleRNN()
    xs, h0 = torch.randn(3, 2, I), torch.zeros(2, H)
    expected = loop(module, xs, h0)[0]
    jvp = torch.func.jvp(lambda x: fastrnn.scan(module, x, h0)[0], (xs,), (xs,))
    check([jvp[0]], [expected], 1e-6)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = fastrnn.scan(module, mode.from_tensor(xs), mode.from_tensor(h0))[0]
    assert fake.shape == expected.shape


def test_a_gradient_reaches_parameters_step_after_step():
    """Training: the step is read once, the parameters at every call."""
    torch.manual_seed(1)
    modules = [NewerSimpleRNN().double() for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    xs, h0 = torch.randn(5, 3, I).double(), torch.zeros(3, H).double()
    for module, scan in zip(modules, (scanned, loop), strict=True):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            scan(module, xs, h0)[0][:, :, 0].sum().backward()
            optimizer.step()
    check(list(modules[0].parameters()), list(modules[1].parameters()), 1e-12)
