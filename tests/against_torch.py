"""The oracle: torch.nn in float64. What the tests build, run and measure.

``compare`` runs one of our modules and torch's on the same numbers and holds every output and every
gradient, by name, to a tolerance. The truth is always torch's module in float64, whatever dtype
ours computes in: so an error of torch's own float32 kernels is never taken for ours.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.cpu.compiler.target import registers

# The largest error allowed, relative to the largest magnitude of the tensor at hand.
TOLERANCE = {
    # a rounding is 1e-16; sums of 1e3 terms through 31 steps of recurrence may lose four digits
    torch.float64: 1e-10,
    # a rounding is 6e-8; the same loss leaves 6e-4 of room, of which a third is granted
    torch.float32: 2e-4,
    # computed in float32: one rounding on the way out, half a unit of 8 bits; or else with x,
    # weights and states of 8 bits: five such roundings
    torch.bfloat16: 2e-2 if registers().bfloat16 else 4e-3,
    # likewise, of 11 bits
    torch.float16: 5e-4,
}
# Every cell in the registry has its counterpart in torch.nn here: (class, arguments).
COUNTERPARTS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
}
KINDS = tuple(CELLS)

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
BFLOAT16_PRODUCTS = pytest.mark.skipif(not registers().bfloat16, reason="needs AVX512-BF16")
CELL_OR_LAYER = pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
# Of two bytes, and computed in float32; where bfloat16 is not, test_autocast.py is about it.
HALVES = pytest.mark.parametrize(
    "dtype", [torch.float16, *[torch.bfloat16] * (not registers().bfloat16)], ids=str
)


def build(library, kind, *sizes, cell=False, **options):
    """The layer (or the cell module) for ``kind`` from ``library``: fastrnn or torch.nn."""
    name, fixed = COUNTERPARTS[kind]
    return getattr(library, name + "Cell" * cell)(*sizes, **fixed, **options)


def build_pair(kind, *sizes, **options):
    """Our module and torch's, each made under the same seed."""
    made = []
    for library in (fastrnn, nn):
        torch.manual_seed(4)
        made.append(build(library, kind, *sizes, **options))
    return made


def twins(kind, *sizes, dtype=torch.float32, **options):
    """Our module in ``dtype``, and torch's in float64 with the same weights."""
    ours = build(fastrnn, kind, *sizes, dtype=dtype, **options)
    return ours, truth(ours, build(nn, kind, *sizes, dtype=torch.float64, **options))


def truth(ours, theirs):
    """``theirs`` with the weights, and the mode, of ``ours``."""
    theirs.load_state_dict(ours.state_dict())
    return theirs.train(ours.training)


def make_inputs(module, T, B, states=True):
    """{"x": ..., "h0": ..., "c0": ...} as ``module`` takes them; B is None for unbatched input."""
    dtype = next(module.parameters()).dtype
    batch = () if B is None else (B,)
    if not isinstance(module, nn.RNNBase):  # a cell
        shapes = {"x": (*batch, module.input_size)}
        state_shapes = [(*batch, module.hidden_size)] * 2
    else:
        dense = (*batch, T) if module.batch_first else (T, *batch)
        count = module.num_layers * (1 + module.bidirectional)
        shapes = {"x": (*dense, module.input_size)}
        widths = (module.proj_size or module.hidden_size, module.hidden_size)
        state_shapes = [(count, *batch, width) for width in widths]
    if states:
        is_lstm = isinstance(module, (nn.LSTM, nn.LSTMCell))
        names = ("h0", "c0") if is_lstm else ("h0",)
        shapes |= zip(names, state_shapes, strict=False)
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def plain_call(module, x, *states):
    """The module's own call: no state, one state or a pair of them."""
    return module(x, states[0] if len(states) == 1 else states or None)


def packing(lengths, default=None):
    """A call that packs x first. Lengths that do not fall go with enforce_sorted=False.

    default: torch's default device in the call, if it is to be another.
    """
    falling = sorted(lengths, reverse=True) == lengths

    def call(module, x, *states):
        rows = pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=falling)
        with torch.device(default) if default else nullcontext():
            return plain_call(module, rows, *states)

    return call


def under_autocast(enabled, call=plain_call):
    """``call``, under autocast to bfloat16 or expressly not."""

    def cast_call(module, *inputs):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return call(module, *inputs)

    return cast_call


def name_outputs(module, result):
    """{"output", "h_n", "c_n"} from what a layer or a cell returns."""
    if isinstance(module, nn.RNNBase):
        output, final = result
        data = output.data if isinstance(output, PackedSequence) else output
        final = final if isinstance(final, tuple) else (final,)
        return {"output": data, **dict(zip(("h_n", "c_n"), final, strict=False))}
    final = result if isinstance(result, tuple) else (result,)
    return dict(zip(("h_n", "c_n"), final, strict=False))


def weighted_sum(outputs):
    """A loss in which the elements of the outputs have weights of their own, exact in any dtype."""
    total = 0
    for seed, value in enumerate(outputs.values()):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randint(-16, 17, value.shape, generator=generator) / 16
        total = total + (value * weights.to(value.dtype)).sum()
    return total


def outputs_and_gradients(module, inputs, call=plain_call, loss=weighted_sum, frozen=()):
    """Everything one training step yields, by name; None for a gradient that was not asked for."""
    torch.manual_seed(1)  # dropout draws from here
    leaves = {n: t.detach().requires_grad_(n not in frozen) for n, t in inputs.items()}
    outputs = name_outputs(module, call(module, *leaves.values()))
    results = {name: value.detach().clone() for name, value in outputs.items()}
    tensors = leaves | dict(module.named_parameters())
    wanted = {n: t for n, t in tensors.items() if t.requires_grad}
    found = torch.autograd.grad(loss(outputs), list(wanted.values()), allow_unused=True)
    gradients = dict.fromkeys(f"d {n}" for n in tensors)
    gradients |= zip((f"d {n}" for n in wanted), found, strict=True)
    return results | gradients


def outputs_without_grad(module, inputs, call=plain_call):
    """The outputs of the path that keeps nothing for a backward."""
    torch.manual_seed(1)
    with torch.no_grad():
        return name_outputs(module, call(module, *inputs.values()))


def compare(ours, theirs, inputs, *, call=plain_call, loss=weighted_sum, frozen=(), tolerance=None):
    """Assert that our outputs, with and without grad, and gradients are torch's, each by name."""
    exact = {name: value.double() for name, value in inputs.items()}
    expected = outputs_and_gradients(theirs, exact, call, loss, frozen)
    found = outputs_and_gradients(ours, inputs, call, loss, frozen)
    dtype = inputs["x"].dtype
    tolerance = tolerance or TOLERANCE[dtype]
    wrong = differences(found, expected, tolerance)
    untrained = outputs_without_grad(ours, inputs, call)
    wrong += [f"without grad: {line}" for line in differences(untrained, expected, tolerance)]
    wrong += [f"{n}: is {t.dtype}" for n, t in found.items() if t is not None and t.dtype != dtype]
    assert not wrong, "\n".join(["differs from torch.nn in float64:", *wrong])


def differences(found, expected, tolerance):
    """A line for each entry of ``found`` that is not the one of that name in ``expected``."""
    lines = []
    for name, value in found.items():
        error = difference(value, expected[name])
        if not error <= tolerance:
            lines.append(f"{name}: {error:.3g} (at most {tolerance:.0e})")
    return lines


def difference(value, exact):
    """The largest error relative to the largest magnitude; infinite where the two do not match.

    NaN and infinities must stand in the same places, and count for nothing otherwise.
    """
    if value is None or exact is None:
        return 0.0 if value is exact else torch.inf
    finite = exact.isfinite()
    value = value.to(exact.dtype)
    if value.shape != exact.shape or not value[~finite].allclose(exact[~finite], equal_nan=True):
        return torch.inf
    if not finite.any():
        return 0.0
    scale = exact[finite].abs().max()
    error = (value - exact)[finite].abs().max()
    return float(error / scale) if scale else float(error)
