"""Modules that are stepped by hand, as people write them: what test_scan.py and its kin scan."""

import torch
from torch import nn
from torch.nn import functional as F

I, H, O = 5, 6, 4  # columns of the input, of a state, and of the output


class SimpleRNN(nn.Module):
    """The one of PyTorch's tutorial on names, in its first form."""

    def __init__(self, input_size=I, hidden_size=H, output_size=O):
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
        self.i2o = nn.Linear(input_size + hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, input, hidden):
        combined = torch.cat((input, hidden), 1)
        hidden = self.i2h(combined)
        output = self.i2o(combined)
        output = self.softmax(output)
        return output, hidden


class NewerSimpleRNN(nn.Module):
    """And in a later one."""

    def __init__(self, input_size=I, hidden_size=H, output_size=O):
        super().__init__()
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, input, hidden):
        hidden = F.tanh(self.i2h(input) + self.h2h(hidden))
        output = self.softmax(self.h2o(hidden))
        return output, hidden


class Peephole(nn.Module):
    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(I, 4 * H), nn.Linear(H, 4 * H, bias=False)
        self.p = nn.Parameter(torch.randn(3, H) * 0.1)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = (self.ih(x) + self.hh(h)).chunk(4, dim=-1)
        i = torch.sigmoid(i + self.p[0] * c)
        f = torch.sigmoid(f + self.p[1] * c)
        c = f * c + i * g.tanh()
        h = (o + self.p[2] * c).sigmoid() * torch.tanh(c)
        return h, (h, c)


class GRUByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.h = nn.Linear(I, 3 * H), nn.Linear(H, 3 * H)

    def forward(self, x, h):
        xr, xz, xn = self.x(x).split(h.shape[1], 1)
        hr, hz, hn = self.h(h).chunk(3, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = (1 - z) * n + z * h
        return h, h


class ResetFirst(nn.Module):
    """A GRU whose reset comes before the product, and whose states are normed."""

    def __init__(self):
        super().__init__()
        self.g, self.n, self.norm = nn.Linear(I + H, 2 * H), nn.Linear(I + H, H), nn.LayerNorm(H)

    def forward(self, x, h):
        r, z = torch.sigmoid(self.g(torch.cat([x, h], 1))).chunk(2, 1)
        n = torch.tanh(self.n(torch.cat([x, r * h], 1)))
        h = self.norm((1 - z) * n + z * h)
        return h, h


class WithNetworks(nn.Module):
    """One before the recurrence, and one after it that sees what came before it too."""

    def __init__(self):
        super().__init__()
        encoder = nn.Linear(I, H), nn.ReLU(inplace=True), nn.LayerNorm(H), nn.Dropout(0.0)
        self.enc = nn.Sequential(*encoder, nn.Linear(H, H))
        self.rec = nn.Linear(H, H, bias=False)
        self.dec = nn.Sequential(nn.Linear(2 * H, H), nn.GELU(), nn.Linear(H, O))

    def forward(self, x, h):
        z = self.enc(x)
        h = torch.tanh(z + self.rec(h))
        return self.dec(torch.cat([h, z], -1)), h


class Each(nn.Module):
    """A step that is a function of two Linear, a parameter, x and the hidden state."""

    def __init__(self, step, columns=I + H, rows=H):
        super().__init__()
        self.a, self.b = nn.Linear(columns, rows), nn.Linear(H, H)
        self.p, self.act, self.function = nn.Parameter(torch.randn(H)), nn.Tanh(), step

    def forward(self, x, hidden):
        return self.function(self, x, hidden)


def loop(module, xs, h0):
    """What a scan is to equal."""
    ys, hidden = [], h0
    for x in xs:
        result = module(x, hidden)
        one = isinstance(h0, torch.Tensor)
        both = isinstance(result, tuple) and isinstance(result[1], torch.Tensor) == one
        y, hidden = result if both else (states_of(result)[0], result)
        ys.append(y)
    return torch.stack(ys), hidden


def states_of(hidden):
    return [hidden] if isinstance(hidden, torch.Tensor) else list(hidden)


def results(scan, module, xs, h0):
    """[ys, states, and the gradients of xs, h0 and all parameters]: 0 where there is none."""
    leaves = [t for t in (xs, *states_of(h0), *module.parameters()) if t.requires_grad]
    ys, hidden = scan(module, xs, h0)
    outputs = [ys, *states_of(hidden)]
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(t.shape, generator=generator).to(t.dtype) for t in outputs]
    loss = sum((t * w).sum() for t, w in zip(outputs, weights, strict=True))
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    zeros = map(torch.zeros_like, leaves)
    outputs = [t.detach() for t in outputs]
    return outputs + [z if g is None else g for g, z in zip(found, zeros, strict=True)]
