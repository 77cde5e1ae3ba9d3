"""Cells of users' own that the tests share, and the plain loop that says what is right."""

import torch
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

import fastrnn
from fastrnn.kernels.symbolic.gates import Gates, Product


class Peephole(fastrnn.Recurrent):
    """Parameters of its own."""

    gates, states = 4, ("h", "c")
    p_i, p_f, p_o = (fastrnn.PerUnit(torch.nn.init.normal_) for _ in range(3))

    def step(self, wx, uh, h, c):
        i, f, g, o = wx + uh
        i, f = torch.sigmoid(i + self.p_i * c), torch.sigmoid(f + self.p_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.p_o * c) * torch.tanh(c), c


class Skip(fastrnn.Recurrent):
    """No product, an output that is no state, inputs of a step, a number that all units share."""

    gates, states = 2, ("c",)
    v, scale = fastrnn.PerUnit(0.3), fastrnn.Scalar(0.7)

    def step(self, wx, c, skip, mask):
        f = torch.sigmoid(wx[1] + self.v * c)
        c = torch.where(mask > 0.5, c, f * c + (1 - f) * wx[0])
        return self.scale * torch.tanh(c) + skip * mask, (c,)


class ResetFirst(fastrnn.Recurrent):
    """Two products in a step."""

    gates = 3

    def step(self, wx, uh, h):
        r, z = map(torch.sigmoid, wx[:2] + uh(h, (0, 1)))
        n = torch.tanh(wx[2] + uh(r * h, 2))
        return (1 - z) * n + z * h


class LSTM(fastrnn.Recurrent):
    """torch's."""

    gates, states = 4, ("h", "c")

    def step(self, wx, uh, h, c):
        i, f, g, o = wx + uh
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Averaged(fastrnn.Recurrent):
    """A mean over all units."""

    gates = 2

    def step(self, wx, uh, h):
        f, g = wx + uh
        return torch.sigmoid(f) * h + torch.tanh(g - g.mean(-1, keepdim=True))


class Sorted(fastrnn.Recurrent):
    """A step that no kernel can run."""

    def step(self, wx, uh, h):
        return torch.tanh(wx[0] + uh[0]).sort(-1).values


CELLS = {cls.__name__: cls for cls in (Peephole, Skip, ResetFirst)}


def loop(module, x, hx=None, **inputs):
    """(output, h_n) of x (T, B, I), as ``module`` has it: its step, in a loop over time."""
    cls, (T, B, _), H = type(module), x.shape, module.hidden_size
    D = 1 + module.bidirectional
    states = (hx,) if isinstance(hx, torch.Tensor) else hx
    states = states or [x.new_zeros(module.num_layers * D, B, H)] * len(cls.signature.states)
    inputs = {
        n: (t.unsqueeze(-1) if t.dim() == 2 else t).expand(T, B, H) for n, t in inputs.items()
    }
    finals = []
    for layer in range(module.num_layers):
        outputs = []
        for d in range(D):
            mine, y = [s[layer * D + d] for s in states], [None] * T
            weights = named(module, f"_l{layer}" + "_reverse" * d)
            for t in reversed(range(T)) if d else range(T):
                at_t = {name: value[t] for name, value in inputs.items()}
                y[t], mine = one_step(module, weights, x[t], mine, at_t)
            outputs.append(torch.stack(y))
            finals.append(mine)
        x = torch.cat(outputs, -1)
    finals = [torch.stack(each) for each in zip(*finals, strict=True)]
    return x, finals[0] if len(finals) == 1 else tuple(finals)


def named(module, tail):
    """{name: parameter} of a direction, without the tail of their names."""
    found = {n.removesuffix(tail): p for n, p in module.named_parameters() if n.endswith(tail)}
    if getattr(module, "heads", 1) > 1:
        blocks = [torch.block_diag(*g.chunk(module.heads)) for g in
                  found["weight_hh"].chunk(module.gates)]  # fmt: skip
        found["weight_hh"] = torch.cat(blocks)
    return found


def one_step(module, weights, x, states, inputs):
    """(output, new states) of the module's own step."""
    says, gates = type(module).signature, module.gates

    def product(value):
        return linear(value, weights["weight_hh"], weights.get("bias_hh")).chunk(gates, -1)

    given = dict(zip(says.states, states, strict=True)) | inputs
    given["wx"] = Gates(linear(x, weights["weight_ih"], weights.get("bias_ih")).chunk(gates, -1))
    if says.recurrent:
        given["uh"] = Product(product(states[0]), lambda value, gate: product(value)[gate])
    twin = object.__new__(type(module))
    twin.__dict__.update(vars(module), **{name: weights[name] for name in says.own})
    result = type(module).step(twin, *[given[name] for name in says.arguments])
    result = result if isinstance(result, tuple) else (result,)
    return result if isinstance(result[-1], tuple) else (result[0], result)


def make(cls, *sizes, dtype=torch.float64, **options):
    """(module, x (6, 3, I), hx, inputs): all that a call takes."""
    module = cls(*sizes, dtype=dtype, **options)
    count, H = module.num_layers * (1 + module.bidirectional), module.hidden_size
    x = torch.randn(6, 3, module.input_size, dtype=dtype)
    hx = tuple([torch.randn(count, 3, H, dtype=dtype) for _ in cls.signature.states])
    shapes = {"skip": (6, 3, H), "mask": (6, 3)}
    inputs = {name: torch.rand(shapes[name], dtype=dtype) for name in cls.signature.inputs}
    return module, x, hx if len(hx) > 1 else hx[0], inputs


def flat(results):
    """The tensors of a call's results, of which packed ones are rows."""
    found = []
    for each in results if isinstance(results, (tuple, list)) else (results,):
        if isinstance(each, PackedSequence):
            found.append(each.data)
        else:
            found += [each] if isinstance(each, torch.Tensor) else flat(each)
    return found


def plain_call(module, x, hx, **inputs):
    return module(x, hx, **inputs)


def trained(call, module, x, hx, inputs):
    """All that a training step yields: results, and the gradients of x, hx, inputs, parameters."""
    one = isinstance(hx, torch.Tensor)
    x, *rest = [t.detach().clone().requires_grad_() for t in (x, *flat(hx), *inputs.values())]
    states, given = rest[: len(rest) - len(inputs)], rest[len(rest) - len(inputs) :]
    hx = states[0] if one else tuple(states)
    results = flat(call(module, x, hx, **dict(zip(inputs, given, strict=True))))
    weights = [torch.linspace(-1, 1, t.numel()).view(t.shape).to(t.dtype) for t in results]
    return results, torch.autograd.grad(results, [x, *rest, *module.parameters()], weights)


def assert_same(found, expected, tolerance=1e-10):
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        scale = 1 + theirs.detach().abs().max().item()
        assert mine.shape == theirs.shape
        assert (mine.double() - theirs.double()).abs().max().item() <= tolerance * scale
