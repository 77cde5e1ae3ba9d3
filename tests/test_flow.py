"""fastrnn.gradient_flow: norms of dL/dstate at every step, against autograd over a plain loop."""

import pytest
import torch
from custom_cells import LSTM, Averaged, Peephole, ResetFirst, Skip, Sorted, make, named, one_step
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn


def watched(module, x, hx, inputs):
    """(output, the states after each step, as (layers, D, T) lists of tuples) of a plain loop."""
    T, D, H = len(x), 1 + module.bidirectional, module.hidden_size
    states, found = (hx,) if isinstance(hx, torch.Tensor) else hx, []
    inputs = {
        n: (t.unsqueeze(-1) if t.dim() == 2 else t).expand(*x.shape[:2], H)
        for n, t in inputs.items()
    }
    for layer in range(module.num_layers):
        outputs, found = [], [*found, []]
        for d in range(D):
            mine, y, after = [s[layer * D + d] for s in states], [None] * T, [None] * T
            weights = named(module, f"_l{layer}" + "_reverse" * d)
            for t in reversed(range(T)) if d else range(T):
                at_t = {name: value[t] for name, value in inputs.items()}
                y[t], mine = one_step(module, weights, x[t], mine, at_t)
                after[t] = tuple(mine)
            outputs.append(torch.stack(y))
            found[-1].append(after)
        x = torch.cat(outputs, -1)
    return x, found


def norms(loss, found):
    """{number of a state: (layers, D, T)} by autograd."""
    flat = [s for layer in found for after in layer for step in after for s in step]
    grads = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
    sizes = len(found), len(found[0]), len(found[0][0]), len(found[0][0][0])
    each = torch.stack([g.norm() for g in grads]).view(sizes)
    return list(each.unbind(-1))


def square(result):
    return result[0].square().sum()


CELLS = {cls.__name__: cls for cls in (LSTM, Peephole, ResetFirst, Skip, Averaged, Sorted)}


@pytest.mark.filterwarnings("ignore:Sorted.step runs in plain PyTorch")
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_every_state_of_every_layer(name, both):
    module, x, hx, inputs = make(CELLS[name], 5, 16, num_layers=2, bidirectional=both)
    flow = fastrnn.gradient_flow(module, x, hx, loss=square, **inputs)
    y, found = watched(module, x, hx, inputs)
    loss = y.square().sum()
    assert flow.loss == pytest.approx(loss.item(), rel=1e-12)
    right = dict(zip(type(module).signature.states, norms(loss, found), strict=True))
    (mine,) = flow.norms.values()
    assert list(mine) == list(right)
    for state, expected in right.items():
        assert mine[state].shape == (2, 1 + both, 6)
        # norms are given in float32
        torch.testing.assert_close(mine[state].double(), expected.detach(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("library", [nn, fastrnn])
def test_a_model_with_torchs_layers(name, library):
    """Found by name, whosever they are; the model, and what is in ``.grad``, are left alone."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), getattr(library, name)(5, 7, 2, batch_first=True))
    x = torch.randn(3, 6, 4)
    flow = fastrnn.gradient_flow(model, x)
    assert type(model[1]) is getattr(library, name)
    assert all(p.grad is None for p in model.parameters())
    assert list(flow.norms) == ["1"]
    shapes = {s: tuple(t.shape) for s, t in flow.norms["1"].items()}
    states = ("h", "c") if name == "LSTM" else ("h",)
    assert shapes == dict.fromkeys(states, (2, 1, 6))
    # h of the last layer at the last step is the output itself: each number has the gradient 1
    assert flow.norms["1"]["h"][1, 0, -1].item() == pytest.approx((3 * 7) ** 0.5)


def test_of_packed_sequences():
    module, x, hx, _ = make(Peephole, 5, 16, bidirectional=True)
    lengths = [6, 2, 4]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    flow = fastrnn.gradient_flow(module, packed, hx, loss=lambda r: r[0].data.square().sum())
    squares = torch.zeros(2, 2, 6, dtype=torch.double)
    for b, n in enumerate(lengths):
        y, found = watched(module, x[:n, b : b + 1], [s[:, b : b + 1] for s in hx], {})
        for i, each in enumerate(norms(y.square().sum(), found)):
            squares[i, :, :n] += each.detach()[0].square()
    for i, state in enumerate(("h", "c")):
        found = flow.norms["Peephole"][state][0].double()
        torch.testing.assert_close(found, squares[i].sqrt(), rtol=1e-6, atol=1e-12)


def test_heads_and_stacks_called_twice():
    model = nn.ModuleDict({"a": fastrnn.zoo.SLSTM(8, 32, heads=2)})
    x = torch.randn(5, 2, 8)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            first, _ = self.inner["a"](x)
            return self.inner["a"](first[..., :8])[0]

    flow = fastrnn.gradient_flow(Twice(), x)
    assert list(flow.norms) == ["inner.a", "inner.a call 2"]
    assert all(t.shape == (1, 1, 5) for named in flow.norms.values() for t in named.values())


def test_an_explosion_beyond_what_float32_squares():
    rnn = fastrnn.RNN(1, 4, nonlinearity="relu", bias=False)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(4 * torch.eye(4))
        rnn.weight_ih_l0.fill_(1e-30)
    flow = fastrnn.gradient_flow(rnn, torch.ones(41, 1, 1))
    assert flow.norms["RNN"]["h"][0, 0, 0].item() == pytest.approx(2 * 4.0**40)
    assert "x 4" in str(flow)


def test_as_a_table_and_a_picture():
    pytest.importorskip("matplotlib").use("agg")
    flow = fastrnn.gradient_flow(fastrnn.GRU(3, 4, bidirectional=True), torch.randn(9, 2, 3))
    lines = str(flow).splitlines()
    assert lines[1].split()[:2] == ["layer", "state"]
    assert [line.split()[0] for line in lines[2:]] == ["GRU_l0", "GRU_l0_reverse"]
    ax = flow.plot()
    assert ax.get_yscale() == "log"
    assert len(ax.lines) == 2
    assert flow.plot(ax) is ax


class Nothing(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("module", "options", "error", "words"),
    [
        (Nothing(), {}, ValueError, "no recurrent layer"),
        (fastrnn.GRU(3, 4), {"loss": lambda r: r[0]}, ValueError, "one number"),
        (fastrnn.GRU(3, 4), {"lengths": [2, 1]}, TypeError, "without lengths and resets"),
        (fastrnn.LSTM(3, 4, proj_size=2), {}, TypeError, "proj_size"),
        (fastrnn.LSTM(3, 4).quantize(), {}, TypeError, "LSTM is quantized and has no gradient"),
    ],
)
def test_what_it_refuses(module, options, error, words):
    with pytest.raises(error, match=words):
        fastrnn.gradient_flow(module, torch.randn(5, 2, 3), **options)
    # nothing is left behind
    assert fastrnn.gradient_flow(fastrnn.GRU(3, 4), torch.randn(5, 2, 3)).norms
