"""Steps in all the ways in which people write them: what fastrnn.scan makes of each is the loop.

What is compiled is tested elsewhere: so these run on the reference engine.
"""

import pytest
import torch
from against_torch import difference
from scan_modules import Each, H, I, NewerSimpleRNN, loop, results
from test_scan import arguments, scanned
from torch import nn
from torch.nn import functional as F

import fastrnn

cat, tanh, sigmoid = torch.cat, torch.tanh, torch.sigmoid


def twice(value):
    """The output, and the hidden state."""
    return value, value


def with_parts(values, function):
    return function(*values)


def changed_in_place(s, x, h):
    z = s.b(h)
    z += s.a(cat((x, h), 1))
    z *= 2
    return twice(z.tanh_())


def of_a_copy(s, x, h):
    h = h.clone()
    h *= 0.5
    return twice(h + s.b(h))


# Each: (its name, step(self, x, h), rows of self.a).
STEPS = {
    "x, h": lambda s, x, h: twice(s.act(s.a(cat((x, h), 1)))),
    "h, x": lambda s, x, h: twice(s.act(s.a(cat((h, x), -1)))),
    "x on both sides": lambda s, x, h: twice(tanh(s.a(cat((x[:, :2], h, x[:, 2:]), 1)))),
    "nested": lambda s, x, h: twice(tanh(s.a(cat((x[:, :3], cat((x[:, 3:], h), 1)), 1)))),
    "hidden alone": lambda s, x, h: s.act(s.a(cat((h, x), 1))),
    "matmul": lambda s, x, h: twice(tanh(cat((x, h), 1) @ s.a.weight.t() + s.a.bias)),
    "mm": lambda s, x, h: twice(tanh(torch.mm(h, s.b.weight) + x.mm(s.a.weight.t()[:I]))),
    "addmm": lambda s, x, h: twice(tanh(torch.addmm(s.p, h, s.b.weight) + x[:, :1])),
    "x as it is": lambda s, x, h: twice(tanh(cat((x, x[:, :1]), 1) + s.b(h))),
    "no product": lambda s, x, h: twice(sigmoid(s.p) * h + x[:, :1]),
    "a row": lambda s, x, h: twice(tanh(s.b(h) + s.p[None]) * s.p.unsqueeze(0)[:, :1]),
    "no x": lambda s, x, h: twice(sigmoid(s.p) * s.b(h)),
    "network of x": lambda s, x, h: twice(tanh(s.b(h) + s.b(s.b(cat((x, x[:, :1]), 1)).relu()))),
    "gate of x": lambda s, x, h: twice(sigmoid(s.a(cat((x, s.p.expand(len(x), H)), 1))) * h),
    "unit of x": lambda s, x, h: twice(s.b(h) * F.linear(x, s.a.weight[:, :I])[:, 1:2] + s.p),
    "residual": lambda s, x, h: twice(h + tanh(s.a(cat((x, h), 1)))),
    "twice": lambda s, x, h: twice(tanh(s.b(h) * s.b(h)) + s.a(cat((x, h), 1))),
    "where": lambda s, x, h: twice(torch.where(x[:, :1] > 0, tanh(s.b(h)), h)),
    "condition": lambda s, x, h: twice((h > 0).double() * s.b(h) + (h < 0) * x[:, :1]),
    "both": lambda s, x, h: twice(torch.where((h > 0) & ~(h == 1) | (h < -1), s.b(h), h)),
    "masked_fill": lambda s, x, h: twice(tanh(s.b(h)).masked_fill(x[:, :1] > 0, 0.5)),
    "in place": changed_in_place,
    "a copy": of_a_copy,
    "constants": lambda s, x, h: twice(
        torch.maximum(torch.zeros_like(h), s.b(h)) + torch.zeros(3, H).double() + torch.ones(H)
    ),
    "of each sequence": lambda s, x, h: twice(tanh(s.b(h) + torch.arange(3.0)[:, None])),
    "lerp": lambda s, x, h: twice(torch.lerp(h, tanh(s.a(cat((x, h), 1))), s.p.sigmoid())),
    "functions": lambda s, x, h: twice(
        tanh(s.b(h).clamp(-0.5, 0.5) + F.softplus(h) + F.silu(h) + F.gelu(h) + F.elu(h) + h**2)
        - abs(h) / (2 + h * h) + 1 / (1 + h.exp()) + F.leaky_relu(h) + torch.relu(h) - (1 - h)
    ),
    "unbind": lambda s, x, h: (lambda u, *_: (h * u, tanh(s.b(h)) * u))(*s.p),
    "product of a product": lambda s, x, h: twice(tanh(s.b(tanh(s.b(h)) * x[:, :1]))),
    "reset": lambda s, x, h: twice(tanh(s.a(cat((x, h * (x[:, :1] > 0)), 1)))),
    "layer norm": lambda s, x, h: twice(tanh(F.layer_norm(s.b(h), (H,), s.p, eps=1e-3))),
    "mean": lambda s, x, h: twice(s.b(h) - s.b(h).mean(1, keepdim=True)),
}  # fmt: skip
CHUNKED = {
    "chunk": lambda s, x, h: with_parts(
        s.a(cat((x, h), 1)).chunk(3, 1), lambda i, f, g: twice(sigmoid(f) * h + i * g.tanh())
    ),
    "split": lambda s, x, h: with_parts(
        s.a(cat((x, h), 1)).split([H, 2 * H], dim=1),
        lambda i, f: twice(sigmoid(i) * tanh(f[:, H:]) + f[..., :H]),
    ),
    "narrow": lambda s, x, h: twice(
        sigmoid(s.a(cat((h, x), 1)).narrow(1, H, H)) * s.a(cat((h, x), 1))[:, :H]
    ),
    "wide ones": lambda s, x, h: with_parts(
        (s.a(cat((x, h), 1)).sigmoid() * 2).chunk(3, -1), lambda i, f, g: twice(i * h + f - g)
    ),
}  # fmt: skip
# What the output is, where the next state is another thing.
OUTPUTS = {
    "of x": lambda s, x, h: (F.linear(x, s.a.weight[:, :I]), tanh(s.b(h))),
    "of nothing": lambda s, x, h: (s.p * 2, tanh(s.b(h) + x[:, :1])),
    "the state before": lambda s, x, h: (h, tanh(s.b(h) + x[:, :1])),
    "of the state before": lambda s, x, h: (h.cos(), tanh(s.b(h) + x[:, :1])),
    "of within": lambda s, x, h: (lambda n: (n.exp(), n * h))(tanh(s.b(h) + x[:, :1])),
    "of both states": lambda s, x, h: (lambda n: (n - h, n))(tanh(s.b(h) + x[:, :1])),
    "wider": lambda s, x, h: (cat((h, x, s.b(h)), 1).log_softmax(1), tanh(s.b(h))),
    "narrower": lambda s, x, h: (s.b(h).sum(1), tanh(s.b(h))),
    "over the batch": lambda s, x, h: (s.b(h).softmax(0), tanh(s.b(h) + x.softmax(0)[:, :1])),
    "of other shape": lambda s, x, h: (x[:, :4].view(3, 2, 2), tanh(s.b(h))),
    "einsum": lambda s, x, h: (torch.einsum("bi,oi->bo", h, s.b.weight), tanh(s.b(h))),
    "normalized": lambda s, x, h: (F.normalize(s.b(h)), tanh(s.b(h) + x[:, :1])),
    "a condition": lambda s, x, h: ((s.b(h) > 0).double() * x[:, :1], tanh(s.b(h))),
}  # fmt: skip
TWO_STATES = {
    "tuple": lambda s, x, h, c: (tanh(s.b(h)) + c, c * 0.5 + h),
    "list": lambda s, x, h, c: (h, [tanh(s.b(h)) + c, c * 0.5 + h]),
    "old": lambda s, x, h, c: (c.exp(), (tanh(s.b(h)) + c, c * 0.5 + h)),
    "product with the second": lambda s, x, h, c: (c, (h * 0.5 + c, tanh(s.b(c) + h))),
    "products with both": lambda s, x, h, c: (c, (tanh(s.b(h) + s.a(cat((x, c), 1))), c + h)),
    "of both side by side": lambda s, x, h, c: (
        c, (tanh(cat((h, c), 1) @ cat((s.b.weight, s.a.weight[:, :H]), 1).t()), c + h)
    ),
    "of the second": lambda s, x, h, c: (lambda n: (s.b(n).sin(), (tanh(s.b(h)) + c, n)))(c * 0.5),
    "of within": lambda s, x, h, c: (lambda o: (s.b(o), (o * c, o + c * 0.5)))(tanh(s.b(h))),
    "kept": lambda s, x, h, c: (h, (tanh(s.b(h)) * c, c)),
}  # fmt: skip
EVERY = {**STEPS, **CHUNKED, **{f"output {name}": step for name, step in OUTPUTS.items()}}


def compare(module, xs, h0):
    with fastrnn.backends.use("reference"):
        found = results(scanned, module, xs, h0)
        again = results(scanned, module, xs, h0)
    expected = results(loop, module, xs, h0)
    assert all(map(torch.equal, found, again))
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype == theirs.dtype
        assert difference(ours, theirs) <= 1e-10, number


@pytest.mark.parametrize("name", EVERY)
def test_a_step(name):
    module = Each(EVERY[name], rows=3 * H if name in CHUNKED else H).double()
    compare(module, *arguments(module, 4, 3, torch.float64))


@pytest.mark.parametrize("name", TWO_STATES)
def test_a_step_of_two_states(name):
    module = Each(lambda s, x, states: TWO_STATES[name](s, x, *states)).double()
    compare(module, *arguments(module, 4, 3, torch.float64, 2))


class Around(nn.Module):
    """One of torch's cells, or of ours, within a module."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.out = cell, nn.Linear(H, 3)

    def forward(self, x, hidden):
        hidden = self.cell(x, hidden)
        return self.out(hidden if isinstance(hidden, torch.Tensor) else hidden[0]), hidden


@pytest.mark.parametrize("library", [nn, fastrnn], ids=["nn", "fastrnn"])
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_within(library, name, bias):
    """On the engine, where it is the layer of that name: compiled as that is, if it was."""
    module = Around(getattr(library, name)(I, H, bias=bias)).double()
    xs, h0 = arguments(module, 4, 3, torch.float64, 2 if name == "LSTMCell" else 1)
    found, expected = results(scanned, module, xs, h0), results(loop, module, xs, h0)
    for ours, theirs in zip(found, expected, strict=True):
        assert difference(ours, theirs) <= 1e-10


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.drop = nn.Embedding(10, I), nn.BatchNorm1d(I), nn.Dropout(0.3)
        self.lin, self.out = nn.Linear(I + H, H), nn.Linear(H, 10)

    def forward(self, word, h):
        x = self.drop(self.norm(self.embed(word)))
        h = tanh(self.lin(cat((x, h), 1)))
        return F.log_softmax(self.drop(self.out(h)), -1), h


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        see = nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()
        self.see, self.rec = nn.Sequential(*see), nn.GRUCell(27, H)

    def forward(self, x, h):
        return self.rec(self.see(x), h)


class Spelled(nn.Module):
    """Each step's input is a sequence of its own, which another scan goes through."""

    def __init__(self):
        super().__init__()
        self.spell, self.rec = NewerSimpleRNN(), nn.Linear(H, H)

    def forward(self, letters, h):
        first = letters.new_zeros(letters.shape[0], H)
        _, word = fastrnn.scan(self.spell, letters.transpose(0, 1), first)
        h = tanh(self.rec(h) + word)
        return h, h


def test_a_scan_within():
    compare(Spelled().double(), torch.randn(4, 3, 2, I).double(), torch.zeros(3, H).double())


def test_words():
    compare(Words().double().eval(), torch.randint(0, 10, (4, 3)), torch.zeros(3, H).double())


def test_pictures():
    compare(Pictures().double(), torch.randn(4, 3, 2, 8, 8).double(), torch.zeros(3, H).double())


def test_a_parametrization_is_computed_at_every_call():
    module = Each(lambda s, x, h: twice(tanh(s.b(h) + x[:, :1]))).double()
    nn.utils.parametrizations.weight_norm(module.b)
    xs, h0 = arguments(module, 4, 3, torch.float64)
    compare(module, xs, h0)
    with torch.no_grad():
        module.b.parametrizations.weight.original0.mul_(2)
    compare(module, xs, h0)


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x, h: (F.dropout(torch.ones_like(x), 0.5), tanh(s.b(h))),
        lambda s, x, h: (h, F.dropout(torch.ones_like(h), 0.5) * 1.0),
        lambda s, x, h: (torch.bernoulli(torch.full((3, H), 0.5)).double() * 2, tanh(s.b(h))),
    ],
    ids=["of x", "of a state", "of nothing"],
)
def test_what_is_random_is_drawn_for_every_step(step):
    module = Each(step).double()
    xs = torch.randn(500, 3, I).double()
    with fastrnn.backends.use("reference"):
        ys, _ = scanned(module, xs, torch.zeros(3, H).double())
    assert set(ys.unique().tolist()) == {0.0, 2.0}
    for mean in (ys.mean(0), ys.mean((1, 2))):  # each unit, and each step, has its own
        assert 0.7 < mean.mean() < 1.3
        assert mean.std() > 0
