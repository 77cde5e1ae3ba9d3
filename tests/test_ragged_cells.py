"""lengths, resets, return_states and streams of every cell: what the layer makes of the parts."""

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, build, difference
from hypothesis import given
from hypothesis import strategies as st
from zoo_cases import EVERY_CELL, NAMES, B, T, arguments, call
from zoo_cases import build as build_zoo

import fastrnn

LENGTHS = [2, 0, 4]
RESETS = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1]]).bool().T
# What these make of x before their loop sees steps that a chunk does not have.
LOOKS_BACK = {"QRNN", "GRUD"}


def parts(name, given):
    """(x, hx, inputs) of what ``arguments`` has."""
    states = list(getattr(fastrnn.zoo, name).signature.states)
    hx = [given[s] for s in states]
    rest = {n: t for n, t in given.items() if n not in states and n != "x"}
    return given["x"], hx[0] if len(hx) == 1 else tuple(hx), rest


def flat(result):
    """A list of all the tensors."""
    return [t for each in result for t in (each if isinstance(each, tuple) else (each,))]


@EVERY_CELL
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
def test_lengths(name, batch_first):
    """Bit for bit what packing by hand gives, and for a sequence of no steps what it began with."""
    module = build_zoo(name, batch_first=batch_first).eval()
    given = arguments(name, module)
    x, hx, inputs = parts(name, given)
    turned = [t.transpose(0, 1) if batch_first else t for t in (x, *inputs.values())]
    inputs = dict(zip(inputs, turned[1:], strict=True))
    y, finals = module(turned[0], hx, lengths=torch.tensor(LENGTHS), **inputs)
    y = y.transpose(0, 1) if batch_first else y
    there = [b for b, n in enumerate(LENGTHS) if n]
    mine = {n: t[:, there] for n, t in given.items()}
    expected, *ends = call(module, mine, lengths=[LENGTHS[b] for b in there])
    assert y[:, there].equal(expected)
    assert not y[:, 1].any()
    for final, end, initial in zip(flat([finals]), ends, flat([hx]), strict=True):
        assert final[:, there].equal(end)
        assert final[:, 1].equal(initial[:, 1])


@EVERY_CELL
def test_resets(name):
    """A piece is a sequence of its own, with the state that resets reset to."""
    module = build_zoo(name).eval()
    given = arguments(name, module)
    x, hx, inputs = parts(name, given)
    to = [s[:, [2, 0, 1]] for s in flat([hx])]
    reset_to = to[0] if len(to) == 1 else tuple(to)
    y, _ = module(x, hx, resets=RESETS, reset_to=reset_to, **inputs)
    both = module.bidirectional
    for b in range(B):
        starts = [t for t in range(T) if t == 0 or RESETS[t, b]]
        for start, stop in zip(starts, [*starts[1:], T], strict=True):
            steps, one = slice(start, stop), slice(b, b + 1)
            initial = []
            for mine, other in zip(flat([hx]), to, strict=True):
                state = (other if RESETS[start, b] else mine)[:, one].clone()
                if both:  # backward it comes from the piece behind, which ends in a reset
                    state[1::2] = (mine if stop == T else other)[1::2, one]
                initial.append(state)
            initial = initial[0] if len(initial) == 1 else tuple(initial)
            alone = {n: t[steps, one] for n, t in inputs.items()}
            expected, _ = module(x[steps, one], initial, **alone)
            assert y[steps, one].equal(expected), (b, start)


@EVERY_CELL
@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "lengths and resets"])
def test_every_state(name, ragged):
    """Those that the sequence ends with if it ends there; gradients are the reference's."""
    module = build_zoo(name).eval()
    given = arguments(name, module)
    x, hx, inputs = parts(name, given)
    options = {"lengths": torch.tensor(LENGTHS), "resets": RESETS} if ragged else {}
    *plain, states = module(x, hx, return_states=True, **options, **inputs)
    for a, b in zip(flat(plain), flat(module(x, hx, **options, **inputs)), strict=True):
        assert a.equal(b)
    leaves = [t for t in given.values() if t.requires_grad] + list(module.parameters())

    def gradients():
        found = flat(module(x, hx, return_states=True, **options, **inputs))
        weights = [torch.linspace(-1, 1, t.numel()).view_as(t).to(t) for t in found]
        loss = sum((t * w).sum() for t, w in zip(found, weights, strict=True))
        return torch.autograd.grad(loss, leaves, allow_unused=True)

    with fastrnn.backends.use("reference"):
        expected = gradients()
    for mine, theirs in zip(gradients(), expected, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or difference(mine, theirs) <= 1e-10
    if ragged:
        return
    H, D = module.hidden_size, 1 + module.bidirectional
    for t in range(T):
        ends = module(x[: t + 1], hx, **{n: v[: t + 1] for n, v in inputs.items()})[1]
        for state, end in zip(flat([states]), flat([ends]), strict=True):
            forward = state[t, :, :H]
            assert D > 1 or forward.equal(end[-1])
    assert [s.shape for s in flat([states])] == [(T, B, D * H)] * len(flat([hx]))


def stream(module, x, hx, inputs, sizes):
    """The output of chunks of these sizes, with the state carried on, and the final states."""
    outputs, start = [], 0
    for size in sizes:
        steps = slice(start, start + size)
        chunk = {n: t[steps] for n, t in inputs.items()}
        y, hx = module(x[steps], hx, **chunk)
        outputs.append(y)
        start += size
    return torch.cat(outputs), hx


@pytest.mark.parametrize("name", [n for n in NAMES if n not in LOOKS_BACK])
@pytest.mark.parametrize("sizes", [[1] * T, [2, 1, 2], [T]], ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_a_stream_of_every_cell(name, sizes, grad):
    module = build_zoo(name, layers=2, directions=1).eval()
    x, hx, inputs = parts(name, arguments(name, module))
    with torch.set_grad_enabled(grad):
        whole = flat(module(x, hx, **inputs))
        found = flat(stream(module, x, hx, inputs, sizes))
    assert all(a.equal(b) for a, b in zip(found, whole, strict=True))


@given(
    kind=st.sampled_from(KINDS), H=st.integers(1, 70), B=st.integers(1, 33),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), threads=st.integers(1, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_a_stream_drawn(kind, H, B, sizes, threads, dtype):
    torch.set_num_threads(threads)
    module = build(fastrnn, kind, 5, H, dtype=dtype)
    x = torch.randn(sum(sizes), B, 5, dtype=dtype)
    with torch.no_grad():
        found, whole = flat(stream(module, x, None, {}, sizes)), flat(module(x))
    assert all(a.equal(b) for a, b in zip(found, whole, strict=True))


@EVERY_KIND
def test_second_derivatives(kind):
    """Of lengths, resets and every state at once, against the reference's."""
    module = build(fastrnn, kind, 3, 4, dtype=torch.float64, bidirectional=True)
    x = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)

    def second():
        found = flat(module(x, lengths=LENGTHS, resets=RESETS, return_states=True))
        (dx,) = torch.autograd.grad(sum(t.square().sum() for t in found), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *module.parameters()])

    with fastrnn.backends.use("reference"):
        expected = second()
    assert all(difference(a, b) <= 1e-10 for a, b in zip(second(), expected, strict=True))
