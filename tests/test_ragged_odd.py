"""Lengths and resets where calls are odd: derived classes, torch.func, autocast, wrong states."""

import pytest
import torch
from against_torch import difference
from custom_cells import Peephole
from torch.func import grad, jvp, vmap
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
from fastrnn import backends, zoo

T, B, I, H = 5, 3, 4, 6
LENGTHS = torch.tensor([5, 2, 0])


class Tanh(fastrnn.Recurrent):
    def step(self, wx, uh, h):
        return torch.tanh(wx[0] + uh[0])


class OutputAlone(Tanh):
    def forward(self, sequence):
        return super().forward(sequence)[0]


class Scaled(Tanh):
    def forward(self, x, h, scale):
        return super().forward(x * scale, h)


class Counted(Tanh):
    def forward(self, x, lengths=None):
        return super().forward(x, lengths=None if lengths is None else lengths + 1)[0]


class Doubled(Tanh):
    def forward(self, x):
        return super().forward(x._replace(data=2 * x.data))


class Noisy(fastrnn.Recurrent):
    def step(self, wx, uh, h, noise):
        return torch.tanh(wx[0] + uh[0]) + noise


def test_a_forward_of_ones_own_takes_what_it_says():
    x = torch.randn(T, B, I)
    layer, scaled = OutputAlone(I, H), Scaled(I, H)
    assert torch.equal(layer(x), layer(sequence=x))
    assert torch.equal(scaled(x, None, 2.0)[0], scaled(x, None, scale=2.0)[0])
    with pytest.raises(TypeError, match=r"OutputAlone.forward should return \(output, final"):
        layer(x, lengths=LENGTHS)
    counted, plain = Counted(I, H), Tanh(I, H)
    plain.load_state_dict(counted.state_dict())
    expected = plain(x, lengths=torch.tensor([5, 3, 1]))[0]
    assert torch.equal(counted(x, lengths=torch.tensor([4, 2, 0])), expected)
    doubled = Doubled(I, H)
    doubled.load_state_dict(counted.state_dict())
    found, expected = doubled(x, lengths=LENGTHS), plain(2 * x, lengths=LENGTHS)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("shape", [(H,), (1,), ()])
def test_inputs_of_each_unit(shape):
    layer, x, noise = Noisy(I, 7 if shape else H), torch.randn(T, B, I), torch.randn(shape)
    noise = noise.repeat(2)[:7] if shape == (H,) else noise  # as many as there are steps in all
    whole, found = layer(x, noise=noise)[0], layer(x, noise=noise, lengths=LENGTHS)[0]
    for b, length in enumerate(LENGTHS.tolist()):
        assert torch.equal(whole[:length, b], found[:length, b])


@pytest.mark.parametrize("shape", [(T, B), (T, B, H), (1, B, H)])
def test_no_step_is_there(shape):
    """Of sequences without steps the states are the initial ones, also of steps with inputs."""
    layer, x, noise = Noisy(I, H), torch.randn(T, B, I), torch.randn(shape, requires_grad=True)
    h0 = torch.randn(1, B, H, requires_grad=True)
    y, h = layer(x, h0, noise=noise, lengths=torch.zeros(B, dtype=torch.int64))
    assert not y.any()
    assert torch.equal(h, h0)
    dh, dnoise = torch.autograd.grad(h.sum() + y.sum(), [h0, noise])
    assert torch.equal(dh, torch.ones_like(dh))
    assert not dnoise.any()


@pytest.mark.parametrize("cls", [fastrnn.LSTM, zoo.MGU, zoo.QRNN])
def test_torch_func(cls):
    layer, x = cls(I, H, dtype=torch.float64), torch.randn(T, B, I, dtype=torch.float64)
    resets, along = torch.rand(T, B) < 0.3, torch.randn_like(x)

    def loss(x):
        return layer(x, lengths=LENGTHS, resets=resets)[0].sin().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert difference(grad(loss)(x).detach(), expected) < 1e-12
    assert difference(jvp(loss, (x,), (along,))[1].detach(), (expected * along).sum()) < 1e-12


def test_packed_rows_within_torch_func():
    layer = fastrnn.GRU(I, H, dtype=torch.float64)
    rows = pack_padded_sequence(torch.randn(T, B, I, dtype=torch.float64), [5, 2, 1])

    def loss(data):
        return layer(rows._replace(data=data))[0].data.sin().sum()

    leaf = rows.data.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert difference(grad(loss)(rows.data).detach(), expected) < 1e-12


@pytest.mark.parametrize("cls", [fastrnn.LSTM, zoo.MGU])
def test_lengths_of_vmap(cls):
    layer, xs = cls(I, H, dtype=torch.float64), torch.randn(2, T, B, I, dtype=torch.float64)
    lengths, resets = torch.stack([LENGTHS, 5 - LENGTHS]), torch.rand(2, T, B) < 0.3

    def call(x, lengths, resets):
        return layer(x, lengths=lengths, resets=resets)[0]

    found = vmap(call)(xs, lengths, resets)
    for each, *given in zip(found, xs, lengths, resets, strict=True):
        assert difference(each.detach(), call(*given).detach()) < 1e-12
    unmasked = zoo.QRNN(I, H, dtype=torch.float64)
    with pytest.raises(TypeError, match="QRNN: lengths should have numbers that can be read"):
        vmap(lambda n: unmasked(xs[0], lengths=n)[0])(lengths)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 5, 4], [1, 1, 1]])
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16])
def test_dtypes_under_autocast_do_not_depend_on_lengths(lengths, to):
    layer, x = fastrnn.LSTM(I, H), torch.randn(T, B, I)
    with torch.autocast("cpu", to):
        y, (h, c), states = layer(x, return_states=True)
        found = layer(x, lengths=lengths, return_states=True)
    assert [found[0].dtype, *(s.dtype for s in found[1])] == [y.dtype, h.dtype, c.dtype]
    assert [s.dtype for s in found[2]] == [s.dtype for s in states]


@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_states_of_a_projected_layer_go_on_from_hx(lengths):
    """Its hidden state is narrower than the other."""
    layer, x = fastrnn.LSTM(I, H, proj_size=2), torch.randn(T, B, I)
    hx = torch.randn(1, B, 2), torch.randn(1, B, H)
    y, finals, (h, c) = layer(x, hx, lengths=lengths, return_states=True)
    plain = layer(x, hx, lengths=lengths)
    assert torch.equal(y, plain[0])
    assert all(map(torch.equal, finals, plain[1]))
    assert torch.equal(h, y)
    last = torch.tensor(lengths or [T] * B) - 1
    assert torch.equal(c[last, range(B)], finals[1][0])


def state(*shape):
    return torch.zeros(shape)


WRONG = {
    "layers": ((state(2, B, H),), RuntimeError, r"shape \(1, 3, 6\); it is \(2, 3, 6\)"),
    "width": ((state(1, B, 5),), RuntimeError, r"shape \(1, 3, 6\); it is \(1, 3, 5\)"),
    "too many": ((state(1, B, H),) * 3, RuntimeError, r"\(1, 3, 6\); it is \(1, 3, 6\), \(1, 3"),
    "a number": (0.0, TypeError, "should be a tensor or a tuple of some"),
}


@pytest.mark.parametrize("cls", [fastrnn.GRU, Tanh])
@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_wrong_states(cls, given):
    states, error, words = given
    x, none = torch.randn(T, B, I), torch.zeros(T, B, dtype=torch.bool)
    with pytest.raises(error, match=f"reset_to should be.*{words}|reset_to {words}"):
        cls(I, H)(x, resets=none, reset_to=states)
    with pytest.raises(error, match=f"hx should be.*{words}|hx {words}"):
        cls(I, H)(x, states, lengths=LENGTHS)


def test_wrong_input():
    for cls in (fastrnn.LSTM, fastrnn.GRU, Tanh):
        layer, x = cls(I, H), torch.randn(T, B, I)
        with pytest.raises(TypeError, match="takes a tensor, not a list"):
            layer(x.tolist(), lengths=LENGTHS)
        with pytest.raises(RuntimeError, match="sequence"):
            layer(x[:0], lengths=LENGTHS * 0)
        with pytest.raises(ValueError, match="float64"):
            layer(x.double(), lengths=LENGTHS)
        with pytest.raises(ValueError, match="float64"):
            layer(x.double())
        with pytest.raises(TypeError, match=r"torch.jit.trace would take these"):
            torch.jit.trace(lambda x, n, layer=layer: layer(x, lengths=n)[0], (x, LENGTHS))


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.int8])
def test_lengths_are_integers_of_any_kind(kind):
    layer, x = Tanh(I, H), torch.randn(T, B, I)
    expected = layer(x, lengths=LENGTHS)[0]
    assert torch.equal(layer(x, lengths=LENGTHS.to(kind))[0], expected)


@pytest.mark.parametrize("cls", [fastrnn.LSTM, Peephole])
def test_explain_takes_what_a_call_takes(cls):
    layer, x = cls(I, H), torch.randn(T, B, I)
    found = backends.explain(layer, x, lengths=LENGTHS, return_states=True)
    assert found == backends.explain(layer, x)
    with pytest.raises(TypeError, match="length"):
        backends.explain(layer, x, length=LENGTHS)


def test_compiled_calls_are_checked():
    layer, x = fastrnn.GRU(I, H), torch.randn(T, B, I)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        found, expected = compiled(x, lengths=[5, 2, 0]), layer(x, lengths=LENGTHS)
    assert all(difference(*pair) < 1e-6 for pair in zip(found, expected, strict=True))
    for wrong in ({"lengths": LENGTHS / 1}, {"lengths": LENGTHS[:2]}, {"resets": x[..., 0]}):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            compiled(x, **wrong)
