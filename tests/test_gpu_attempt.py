"""A kernel that fails before it has run: others serve, eager or in a graph, and it stays so.

In Triton's interpreter, with a stub for the kernel that fails.
"""

import warnings

import pytest
import torch
from against_torch import make_inputs, packing, plain_call, twins
from failing_kernels import close, errors, failing, trained
from gpu_cells import CELLS as OWN
from gpu_cells import made
from interpreter import interpreted

import fastrnn
from fastrnn.autograd import Call
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.schedule import dense

__all__ = ["interpreted"]


class Peephole(fastrnn.Recurrent):
    gates, states = 4, ("h", "c")
    p = fastrnn.PerUnit()

    def step(self, wx, uh, h, c):
        i, f, g, o = wx + uh
        c = torch.sigmoid(f + self.p * c) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def eager(direction, number, **options):
    """Twice: the first time with one warning, and then as if there were no such kernel."""
    lengths = options.pop("lengths", None)
    call = packing(lengths) if lengths else plain_call
    ours, theirs = twins("lstm", 5, 21, **options)
    inputs = make_inputs(ours, 4, 3)
    expected = trained(theirs, {n: x.double() for n, x in inputs.items()}, call)
    error = errors()[number]
    said = f"the {direction} kernel of lstm, .*{type(error).__name__}.*torch's own kernels serve"
    with failing(direction, error) as launched:
        with pytest.warns(RuntimeWarning, match=said) as warned:
            found = trained(ours, inputs, call)
        assert len(warned) == 1
        assert launched.count(direction) == 1
        close(found, expected)
        launched.clear()
        with warnings.catch_warnings(action="error"):
            close(trained(ours, inputs, call), expected)
        assert not launched  # forward neither, where there is no backward


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_eager(interpreted, direction, number):
    interpreted(eager, direction, number)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_stacks_and_packed(interpreted, direction):
    interpreted(eager, direction, 0, lengths=[4, 2, 1], bidirectional=True)


def recorded(direction, kind, keep, lengths):
    """The operator of a graph, which knows no torch.nn."""
    ours, _ = twins(kind, 5, 21)
    x, *states = make_inputs(ours, 4, 3).values()
    rows, sizes = x.flatten(0, 1), None
    if lengths:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
        rows, sizes = packed.data, packed.batch_sizes
    rows = rows.detach().requires_grad_()
    run = torch.ops.fastrnn.layer_packed if lengths else torch.ops.fastrnn.layer
    weights = [w.detach().requires_grad_() for w in ours.parameters()]
    given = kind, int(keep), rows, sizes, states, weights

    def results(engine):
        y, *rest = run(engine, *given)
        finals = rest[: len(states)]
        total = y.sum() + sum(final.square().sum() for final in finals)
        return [y, *finals, *torch.autograd.grad(total, [rows, *weights])]

    expected = results("numba")
    with failing(direction, errors()[0]) as launched:
        with pytest.warns(RuntimeWarning, match=f"the {direction} kernel of {kind}, "):
            close(results("triton"), expected)
        launched.clear()
        with warnings.catch_warnings(action="error"):
            close(results("triton"), expected)
        assert direction not in launched


@pytest.mark.parametrize("lengths", [None, [4, 2, 1]], ids=["dense", "packed"])
@pytest.mark.parametrize("keep", [Keep.ALL, Keep.NOTHING], ids=str)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_recorded(interpreted, direction, keep, lengths):
    interpreted(recorded, direction, "gru", keep, lengths)


def own_cell(direction):
    """Which torch has not: plain PyTorch serves."""
    layer, x = Peephole(5, 21), torch.randn(4, 3, 5).requires_grad_()
    with fastrnn.backends.use("reference"):
        expected = trained(layer, {"x": x})
    said = "plain PyTorch, step by step, serves such layers"
    with failing(direction, errors()[0]) as launched:
        with pytest.warns(RuntimeWarning, match=said):
            close(trained(layer, {"x": x}), expected)
        assert launched
        launched.clear()
        with warnings.catch_warnings(action="error"):
            close(trained(layer, {"x": x}), expected)
        assert not launched


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_own_cell(interpreted, direction):
    interpreted(own_cell, direction)


def unused_parameters():
    """Gradients of what a step does not look at are zeros, in plain PyTorch too."""
    cell = OWN["sru"]
    x, weights, states, inputs = made(cell, dense(4, 3), 1, 5, 21, torch.float32)
    call = Call("triton", cell, dense(4, 3), 1)
    tensors = [x, *states, *[w for w in weights[0] if w is not None], inputs]
    with failing("backward", errors()[0]), torch.no_grad():
        _, (final,), kept = call.forward(Keep.ALL, tensors, None)
        grads = [None, torch.ones_like(final)]  # what is added to the output alone is not reached
        with pytest.warns(RuntimeWarning):
            found = call.backward(Keep.ALL, tensors, kept, grads, [True] * len(tensors))
        for gradient, tensor in zip(found, tensors, strict=True):
            assert gradient.shape == tensor.shape
        *others, dinputs = found
        assert all(gradient.any() for gradient in others)
        assert not dinputs.any()


def test_unused_parameters(interpreted):
    interpreted(unused_parameters)


def memory(direction):
    """That it gave out is an error, and the next call may be luckier."""
    ours, _ = twins("lstm", 5, 21)
    inputs = make_inputs(ours, 4, 3)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ):
        with failing(direction, error) as launched:
            for _ in range(2):
                with pytest.raises(type(error), match="out of memory"):
                    trained(ours, inputs)
            assert launched.count(direction) == 2


def asked_for():
    """By name: then the error is the user's."""
    ours, _ = twins("lstm", 5, 21)
    with (
        failing("forward", errors()[2]),
        fastrnn.backends.use("triton"),
        pytest.raises(fastrnn.backends.Refused, match="PassManager::run failed"),
    ):
        ours(torch.randn(4, 3, 5))


def captured(direction):
    """Nothing can be tried twice; but it is known when it is captured anew."""
    from fastrnn.kernels.gpu import attempt

    ours, theirs = twins("lstm", 5, 21)
    inputs = make_inputs(ours, 4, 3)
    expected = trained(theirs, {n: x.double() for n, x in inputs.items()})
    with failing(direction, errors()[0]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "capturing", lambda device: True)
        with pytest.raises(RuntimeError, match="run the model once before") as error:
            trained(ours, inputs)
        assert not isinstance(error.value, fastrnn.backends.Refused)
        with pytest.warns(RuntimeWarning):
            close(trained(ours, inputs), expected)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_stays_an_error(interpreted, direction):
    interpreted(memory, direction)
    interpreted(captured, direction)
    interpreted(asked_for)
