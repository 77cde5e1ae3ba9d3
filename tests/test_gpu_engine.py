"""What the GPU engine does besides the numbers, in Triton's interpreter, and whom it serves."""

import math
from contextlib import contextmanager

import gpu_cells
import pytest
import torch
from against_torch import (
    EVERY_KIND,
    build,
    differences,
    make_inputs,
    outputs_and_gradients,
    twins,
)
from gpu_layers import GRID, TOLERANCE, served
from gpu_trials import FACTS, right
from interpreter import interpreted
from torch import nn

import fastrnn
from fastrnn.gpu import when
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu.kept import Table
from fastrnn.kernels.symbolic.tensors import OPERATIONS as TRUTH

__all__ = ["interpreted"]


@contextmanager
def autocast_on_gpu():
    """As torch.autocast("cuda") would be, which does nothing without a GPU; with cuDNN 9.13.

    What it would cast, the one for CPU casts: to bfloat16.
    """
    enabled = torch.is_autocast_enabled
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(torch, "is_autocast_enabled", lambda on: on == "cuda" or enabled(on))
        patch.setattr(torch._C, "_is_any_autocast_enabled", lambda: True)
        patch.setattr(torch.version, "hip", None)
        patch.setattr(torch.backends.cudnn, "version", lambda: 91300)
        yield


def autocast(kind, tolerance=0, **options):
    """float16, whatever dtype autocast has and x comes in: that is how torch casts for cuDNN."""
    layer = build(fastrnn, kind, 5, 21, bidirectional=True, **options)
    halves = build(fastrnn, kind, 5, 21, bidirectional=True, dtype=torch.float16, **options)
    halves.load_state_dict(layer.state_dict())
    x = torch.randn(4, 3, 5)
    for dtype in (torch.float32, torch.bfloat16):
        with served(GRID), autocast_on_gpu():
            found = outputs_and_gradients(layer, {"x": x.to(dtype)})
        with served(GRID):
            expected = outputs_and_gradients(halves, {"x": x.to(dtype).half()})
        expected = {name: value.to(found[name].dtype) for name, value in expected.items()}
        assert not differences(found, expected, tolerance)
        for name, value in found.items():
            cast = not name.startswith("d ")
            assert value.dtype == (torch.float16 if cast else dtype if name == "d x" else x.dtype)


@EVERY_KIND
def test_autocast(interpreted, kind):
    interpreted(autocast, kind)


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"recompute": True}], ids=str)
def test_autocast_of_stacks(interpreted, options):
    interpreted(autocast, "lstm", **options)


def test_autocast_of_projections(interpreted):
    """Their backward is torch's own, which rounds to autocast's 8 bits if that is still on."""
    interpreted(autocast, "lstm", TOLERANCE[torch.bfloat16], proj_size=6)


def own_outputs(**options):
    """Whoever changes them changes nothing that backward reads."""
    layer = fastrnn.LSTM(5, **options)
    with served(GRID):
        y, states = layer(torch.randn(4, 3, 5))
        outputs = y, *states
        grads = [torch.randn_like(output) for output in outputs]
        wanted = list(layer.parameters())
        expected = torch.autograd.grad(outputs, wanted, grads, retain_graph=True)
        for output in outputs:
            assert output.is_contiguous()
            output.data.fill_(7)
        changed = layer(torch.randn(4, 3, 5))
        for output in (changed[0], *changed[1]):
            output.mul_(2)  # in place, as torch.nn's may be
        found = torch.autograd.grad(outputs, wanted, grads)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("H", [21, 24])
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_own_outputs(interpreted, H, both):
    interpreted(own_outputs, hidden_size=H, bidirectional=both)


def activations():
    import triton
    import triton.language as tl

    from fastrnn.kernels.gpu.activations import OPERATIONS

    @triton.jit
    def apply(x, y, operation: tl.constexpr):
        at = tl.arange(0, 1024)
        tl.store(y + at, operation(tl.load(x + at)))

    @triton.jit
    def apply_to_two(x, other, y, operation: tl.constexpr):
        at = tl.arange(0, 1024)
        tl.store(y + at, operation(tl.load(x + at), tl.load(other + at)))

    x = torch.cat([torch.logspace(-30, 2, 510), torch.tensor([0.0, math.inf])])
    x = torch.cat([x, -x])
    x[600] = math.nan
    # relative to each value: some roundings of 6e-8; far out, an exponential has the rounding of x
    far = 2e-6 + 1e-7 * x.double().abs()
    roundings = dict.fromkeys(("tanh", "relu", "log", "abs", "sqrt", "rsqrt", "erf"), 2e-6)
    roundings |= dict.fromkeys(("sigmoid", "exp", "expm1", "softplus"), far)
    for name, rounding in roundings.items():
        y = torch.empty_like(x)
        apply[(1,)](x, y, OPERATIONS[name])
        truth = TRUTH[name](x.double())
        allowed = rounding * truth.abs() + 1e-37
        right = ((y - truth).abs() <= allowed) | (y == truth) | (y.isnan() & truth.isnan())
        right |= (y == math.inf) & (truth > torch.finfo(torch.float32).max)
        assert right.all(), (name, x[~right], y[~right])
    for name in ("maximum", "minimum"):
        other, y = x.roll(7), torch.empty_like(x)
        apply_to_two[(1,)](x, other, y, OPERATIONS[name])
        torch.testing.assert_close(y, TRUTH[name](x, other), rtol=0, atol=0, equal_nan=True)


def operations():
    """The table has all that a step may consist of, but what is written with an operator, and a
    mean: a cell that has one is not for this engine.
    """
    from fastrnn.kernels.gpu.activations import OPERATIONS

    assert OPERATIONS.keys() == TRUTH.keys() - {"mean"}


def test_activations(interpreted):
    interpreted(activations)
    interpreted(operations)


def choices():
    """Who serves what on a GPU, as asked of CPU tensors in its place."""
    from fastrnn import backends
    from fastrnn.kernels.gpu import choice, launch

    def asked(kind="lstm", H=8, P=None, **options):
        dtype = options.pop("dtype", torch.float32)
        layer = nn.LSTM(4, H, proj_size=P) if P else twins(kind, 4, H)[1]
        layer = layer.to(dtype)
        inputs = make_inputs(layer, 3, 2).values()
        return backends._on_gpu(
            [*inputs, *layer.parameters()], options.pop("step", False), (CELLS[kind], 100, 1), False
        )

    assert asked().name == "torch"
    assert "would be interpreted" in asked().reason
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "obstacle", lambda device_type: None)
        patch.setattr(launch, "INTERPRETED", False)
        patch.setattr(choice, "table", lambda device: Table(FACTS))
        assert choice.UNPROVEN in asked().reason
        with when.asking(lambda table, key, item: right()):
            served_on_gpu(asked)


def served_on_gpu(asked):
    from fastrnn import backends

    for kind in CELLS:
        for dtype in backends.TRITON_DTYPES:
            assert asked(kind, dtype=dtype).name == "triton"
    assert asked(P=2).name == "triton"
    for name, H in (("slstm", 64), ("sru", 64), ("sru", 5000)):
        cell = gpu_cells.CELLS[name]
        tensors = [torch.zeros(3, 2, 4), *[torch.zeros(1, 2, H)] * cell.states]
        found = backends._on_gpu(tensors, False, (cell, 2, 1), False)
        assert found.name == "triton"
        assert found.reason.endswith("2.00x as fast as otherwise, proven 2026-01-02")
    refused = {
        "float64": asked(dtype=torch.float64),
        "single step": asked(step=True),
        "beyond": asked(H=5000),
    }
    with autocast_on_gpu():
        assert asked().reason.startswith("autocast to float16 on GPU")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.backends.cudnn, "version", lambda: 91200)
            assert asked().name == "triton"
            refused["cuDNN's, to float16"] = asked(dtype=torch.bfloat16)
    for word, choice in refused.items():
        assert choice.name == "torch"
        assert word in choice.reason


def test_choices(interpreted):
    interpreted(choices)


def test_no_gpu():
    """Without the interpreter CPU tensors are refused."""
    with (
        fastrnn.backends.use("triton"),
        pytest.raises(RuntimeError, match=r"the triton engine cannot serve this: .*no GPU"),
    ):
        fastrnn.backends.explain(torch.zeros(2))
