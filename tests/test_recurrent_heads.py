"""Recurrent weights in blocks: heads."""

from unittest import mock

import pytest
import torch
from custom_cells import (
    Averaged,
    Peephole,
    ResetFirst,
    Skip,
    assert_same,
    flat,
    loop,
    make,
    plain_call,
    trained,
)

import fastrnn
from fastrnn.kernels.cpu.host import shape


@pytest.mark.parametrize("cls", [Peephole, ResetFirst])
@pytest.mark.parametrize("heads", [1, 3, 9])
def test_heads_see_their_own_states(cls, heads, calls):
    module, *given = make(cls, 5, 9, num_layers=2, bidirectional=True, heads=heads)
    assert module.weight_hh_l0.shape == (module.gates * 9, 9 // heads)
    assert_same(trained(plain_call, module, *given), trained(loop, module, *given))
    assert calls == {"forward": 2, "backward": 2}
    assert str(module).endswith(f"heads={heads})") == (heads > 1)


def test_a_head_is_a_layer_of_its_own():
    """Of two heads, each has the weights of one of two layers, gate by gate."""
    module, x, _, _ = make(ResetFirst, 5, 8, heads=2)
    for head in range(2):
        alone = ResetFirst(5, 4, dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                blocks = getattr(module, name).unflatten(0, (3, 2, 4))
                parameter.copy_(blocks[:, head].flatten(0, 1))
        assert_same(module(x)[0][..., head * 4 :][..., :4], alone(x)[0])


@pytest.mark.parametrize(("cls", "heads"), [(Peephole, 2), (Peephole, 10), (Skip, 3)])
def test_heads_that_cannot_be(cls, heads):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {heads} heads are of recurrent weights"):
        cls(5, 9, heads=heads)


class WithInputs(fastrnn.Recurrent):
    """A product, parameters of its own, and inputs of a step."""

    gates, states = 2, ("h", "c")
    p = fastrnn.PerUnit(torch.nn.init.normal_)

    def step(self, wx, uh, h, c, skip, mask):
        f, g = wx + uh
        c = torch.sigmoid(f + self.p * h) * c + torch.tanh(g) * skip
        return torch.tanh(c), (c * mask, c)


WIDE = [(Peephole, 32, 2), (ResetFirst, 48, 3), (WithInputs, 80, 4), (Averaged, 32, 2)]


@pytest.mark.parametrize(("cls", "H", "heads"), WIDE)
def test_heads_are_computed_apart(cls, H, heads, threads, calls, monkeypatch):
    monkeypatch.setattr(shape, "MIN_WORK", 0)
    module, *given = make(cls, 5, H, num_layers=2, bidirectional=True, heads=heads)
    assert_same(trained(plain_call, module, *given), trained(loop, module, *given))
    assert calls == {"forward": 2, "backward": 2}


@pytest.mark.parametrize("cls", [Peephole, ResetFirst, WithInputs])
def test_an_engine_sees_each_head_as_a_direction(cls):
    """No zeros are multiplied: what the engine is given is as wide as a head."""
    module, x, hx, inputs = make(cls, 5, 64, bidirectional=True, heads=4)
    engine, seen = fastrnn.backends.load("numba"), []

    def spy(stack, *given, **named):
        seen.append((stack.D, stack.S))
        return forward(stack, *given, **named)

    forward = engine.forward
    with mock.patch.object(engine, "forward", spy):
        module(x, hx, **inputs)
    assert seen == [(8, 16)]


@pytest.mark.parametrize("cls", [Peephole, ResetFirst, WithInputs])
def test_heads_of_sequences_that_end(cls):
    """Each sequence alone is right, and every state is there."""
    module, x, hx, inputs = make(cls, 5, 32, num_layers=2, bidirectional=True, heads=2)
    lengths, one = torch.tensor([6, 2, 4]), isinstance(hx, torch.Tensor)
    y, final, every = module(x, hx, lengths=lengths, return_states=True, **inputs)
    for b, n in enumerate(lengths.tolist()):
        mine = {name: value[:n, b : b + 1] for name, value in inputs.items()}
        states = hx[:, b : b + 1] if one else tuple(s[:, b : b + 1] for s in hx)
        right, end = loop(module, x[:n, b : b + 1], states, **mine)
        assert_same(y[:n, b : b + 1], right)
        assert_same([s[:, b : b + 1] for s in flat(final)], end)
        assert all(state.shape == y.shape for state in flat(every))


@pytest.mark.parametrize("cls", [Peephole, ResetFirst, WithInputs])
def test_heads_begin_anew(cls):
    module, x, hx, inputs = make(cls, 5, 32, heads=2)
    resets = torch.zeros(6, 3, dtype=torch.bool)
    resets[4] = True
    y, _ = module(x, hx, resets=resets, **inputs)
    for steps, states in ((slice(0, 4), hx), (slice(4, 6), None)):
        mine = {name: value[steps] for name, value in inputs.items()}
        assert_same(y[steps], loop(module, x[steps], states, **mine)[0])


@pytest.mark.parametrize("cls", [ResetFirst, WithInputs])
def test_heads_twice_and_in_a_graph(cls):
    """Second derivatives, and torch.compile and export, give what the plain loop gives."""
    module, x, hx, inputs = make(cls, 3, 32, heads=2)
    x.requires_grad_()

    def penalty(call):
        y = call(module, x, hx, **inputs)[0]
        (dx,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *module.parameters()])

    assert_same(penalty(plain_call), penalty(loop))
    right, program = module(x, hx, **inputs), torch.export.export(module, (x, hx), inputs)
    assert_same(program.module()(x, hx, **inputs), right)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_same(trained(lambda m, *a, **k: compiled(*a, **k), module, x.detach(), hx, inputs),
                trained(loop, module, x.detach(), hx, inputs))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_heads_are_the_same_for_any_number_of_threads(dtype):
    module, *given = make(WithInputs, 40, 128, num_layers=2, heads=4, dtype=dtype)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(flat(trained(plain_call, module, *given)))
    assert all(map(torch.equal, *found))
