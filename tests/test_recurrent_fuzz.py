"""Random layers of a user's own cell against a plain loop over its step, sequence by sequence."""

import random

import pytest
import torch
from custom_cells import CELLS, assert_same, flat, loop
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def drawn(draw, dtype):
    """(module, x, hx, inputs, lengths, None if dense) of a random layer and call."""
    cls = draw.choice(list(CELLS.values()))
    H, I = draw.choice([1, 3, 8, 21, 33]), draw.choice([1, 5, 16])
    T, B = draw.choice([1, 2, 9, 40]), draw.choice([1, 2, 5, 17])
    options = {
        "num_layers": draw.choice([1, 1, 2]), "bidirectional": draw.random() < 0.5,
        "recompute": draw.random() < 0.3, "bias": draw.random() < 0.8,
    }  # fmt: skip
    if H % 3 == 0 and cls.signature.recurrent:
        options["heads"] = draw.choice([1, 3])
    module = cls(I, H, dtype=dtype, **options)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not (name.endswith("_l0") and draw.random() < 0.2))
    count = options["num_layers"] * (1 + options["bidirectional"])
    states = [torch.randn(count, B, H, dtype=dtype) / 2 for _ in cls.signature.states]
    shapes = {"skip": draw.choice([(T, B, H), (1, B, H), (T, B, 1)]), "mask": (T, B, 1)}
    inputs = {name: torch.rand(shapes[name], dtype=dtype) for name in cls.signature.inputs}
    lengths = [T, *[draw.randint(1, T) for _ in range(B - 1)]] if draw.random() < 0.4 else None
    return module, torch.randn(T, B, I, dtype=dtype), states, inputs, lengths


def packed_call(module, x, hx, lengths, inputs):
    if lengths is None:
        return module(x, hx, **inputs)
    y, finals = module(pack_padded_sequence(x, lengths, enforce_sorted=False), hx, **inputs)
    return pad_packed_sequence(y)[0], finals


def looped_call(module, x, hx, lengths, inputs):
    """As ``packed_call``, a sequence at a time."""
    if lengths is None:
        return loop(module, x, hx, **inputs)
    T, B, _ = x.shape
    inputs, found = {n: t.expand(T, B, -1) for n, t in inputs.items()}, []
    for b, length in enumerate(lengths):
        states = tuple([s[:, b : b + 1] for s in flat(hx)])
        given = {n: t[:length, b : b + 1] for n, t in inputs.items()}
        y, *finals = flat(loop(module, x[:length, b : b + 1], states, **given))
        found.append([torch.nn.functional.pad(y, (0, 0, 0, 0, 0, T - length)), *finals])
    return [torch.cat(each, 1) for each in zip(*found, strict=True)]


def results(call, module, dtype, x, states, inputs, lengths):
    """All that is computed in ``dtype``, forward and backward."""
    leaves = [t.to(dtype).requires_grad_() for t in (x.clone(), *states, *inputs.values())]
    x, rest = leaves[0], leaves[1:]
    hx, given = rest[: len(states)], rest[len(states) :]
    hx = tuple(hx) if len(hx) > 1 else hx[0]
    found = flat(call(module, x, hx, lengths, dict(zip(inputs, given, strict=True))))
    weights = [torch.linspace(-1, 1, t.numel()).view(t.shape).to(dtype) for t in found]
    leaves += [p for p in module.parameters() if p.requires_grad]
    return [*found, *torch.autograd.grad(found, leaves, weights)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_random_layers(seed, dtype):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(6):
        module, *given, lengths = drawn(draw, dtype)
        exact = type(module)(
            module.input_size, module.hidden_size, module.num_layers, module.bias,
            bidirectional=module.bidirectional, heads=module.heads, dtype=torch.float64,
        )  # fmt: skip
        exact.load_state_dict(module.state_dict())
        for mine, theirs in zip(module.parameters(), exact.parameters(), strict=True):
            theirs.requires_grad_(mine.requires_grad)
        expected = results(looped_call, exact, torch.float64, *given, lengths)
        found = {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found[threads] = results(packed_call, module, dtype, *given, lengths)
        assert_same(found[1], expected, TOLERANCE[dtype])
        assert_same(found[1], found[2], 0)
