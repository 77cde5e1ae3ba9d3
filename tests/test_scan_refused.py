"""What fastrnn.scan cannot do is a plain loop and a warning; and what is no call of it an error."""

import linecache

import pytest
import torch
from scan_modules import Each, GRUByHand, H, I, loop, results
from test_scan import arguments, check, scanned
from test_scan_steps import twice
from torch import nn
from torch.nn import functional as F

import fastrnn

OUTER = torch.ones(H)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2  # where it is refused

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


def unseen(s, x, h):
    try:
        return twice(s.b(h) if h.sum() > 0 else h)
    except Exception as error:
        raise AssertionError("a step cannot catch a refusal") from error


def without_gradients(s, x, h):
    with torch.no_grad():
        z = s.b(h)
    return twice(z * s.p)


def assigned(s, x, h):
    h = s.b(h)
    h[:, 0] = 0.5
    return twice(h)


def changed_part(s, x, h):
    z = s.b(h)
    left = z[:, :2]
    left *= 2
    return z, torch.tanh(z)


def given(s, x, h):
    return twice(s.b(h.mul_(0.5)))


# {name: (step, what the warning says)}; the line that it names is the step's.
REFUSED = {
    "if": (unseen, "`if`"),
    "float": (lambda s, x, h: twice(s.b(h) * float(x.detach().sum())), "__float__"),
    "print": (lambda s, x, h: print(end=f"{h}"[:0]) or twice(s.b(h)), "becomes one of Python's"),
    "numpy": (lambda s, x, h: twice(s.b(h) * torch.tensor(x.detach().numpy()[0, 0])), "numpy"),
    "function": (lambda s, x, h: twice(torch.tanh(s.b(h).cumsum(1))), "cumsum"),
    "softmax": (lambda s, x, h: twice(s.b(h).softmax(1)), "softmax"),
    "heads": (lambda s, x, h: twice(s.b(h).view(-1, 2, 3).flatten(1)), "flatten"),
    "detached": (lambda s, x, h: twice(s.b(h.detach())), "detach"),
    "power": (lambda s, x, h: twice(torch.sigmoid(s.b(h)) ** 1.5), "power of 1.5"),
    "width": (lambda s, x, h: twice(s.b(h) * F.linear(h, s.p[None])), "a product of 1 columns"),
    "one unit": (lambda s, x, h: twice(torch.tanh(s.b(h) * h[:, :1])), "one unit"),
    "one of a product": (lambda s, x, h: twice(s.b(h).chunk(H, 1)[1] * h), "one unit"),
    "rounded": (lambda s, x, h: twice(s.b(h).bfloat16().float()), "rounds to torch.bfloat16"),
    "rounded factor": (lambda s, x, h: twice(s.b(h.half().to(x))), "rounds to torch.float16"),
    "part": (lambda s, x, h: twice(h[:, :3] @ s.b.weight[:3]), "a product with (3,) columns"),
    "gates": (
        lambda s, x, h: twice(sum(F.linear(h, s.b.weight * k).tanh() for k in range(9))),
        "9 recurrent gates",
    ),
    "a norm of all gates": (
        lambda s, x, h: twice(F.layer_norm(torch.cat((s.b(h), h), 1), (2 * H,))[:, :H]),
        "layer_norm of shape",
    ),
    "an outer tensor": (lambda s, x, h: twice(s.b(h) * OUTER), "neither the module's"),
    "own gradient": (lambda s, x, h: twice(Doubled.apply(s.b(h))), "autograd.Function"),
    "no_grad": (without_gradients, "no_grad"),
    "assignment": (assigned, "__setitem__ changes"),
    "part in place": (changed_part, "mul_ changes"),
    "x of no batch": (lambda s, x, h: twice(s.b(h) + x.mean(0)[:1]), "mean meets states"),
}  # fmt: skip


def warned(module, xs, h0):
    with pytest.warns(UserWarning, match="plain loop") as caught:
        fastrnn.scan(module, xs, h0)
    return str(caught[0].message)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:is scanned as a plain loop")
def test_what_is_refused_is_a_loop(name):
    step, says = REFUSED[name]
    module = Each(step)
    xs, h0 = arguments(module, 4, 3)
    message = warned(module, xs, h0)
    assert says in message
    code = Doubled.forward.__code__ if name == "own gradient" else step.__code__
    place, text = message.splitlines()[-1].split(": ", 1)
    file, line = place.strip().rsplit(", line ", 1)
    assert file == code.co_filename
    assert int(line) in {number for _, _, number in code.co_lines()}
    assert text == linecache.getline(file, int(line)).strip()
    check(results(fastrnn.scan, module, xs, h0), results(loop, module, xs, h0), 0)  # and is silent
    with pytest.raises(TypeError, match=says[-5:]):
        scanned(module, xs, h0)


class Counting(nn.Module):
    """A step that is another at every call, as its module is."""

    def __init__(self):
        super().__init__()
        self.lin, self.count = nn.Linear(I + H, H), 0

    def forward(self, x, h):
        self.count += 1
        return twice(self.lin(torch.cat((x, h), 1)) * self.count)


def changing():
    return Counting(), "changes an attribute"


def normed():
    module = Each(lambda s, x, h: twice(s.b(h) + s.norm(x)[:, :1]))
    module.norm = nn.BatchNorm1d(I)
    return module, "changes a tensor in place"


def hooked():
    module = GRUByHand()
    module.h.register_forward_hook(lambda *_: None)
    return module, "hooks"


def grown():
    return Each(lambda s, x, h: (h[:, :H], torch.cat((h, x), 1))), "a state of"


def of_two():
    def step(s, x, states):
        h, c = states
        return torch.cat((h, c), 1), (torch.tanh(s.b(h)) + c, c * 0.5 + h)

    return Each(step), "the output is made of several states"


def scripted():
    module = Each(lambda s, x, h: twice(s.b(h) + s.script(x)[:, :1]))
    with pytest.warns(DeprecationWarning, match="script"):
        module.script = torch.jit.script(nn.Linear(I, I))
    return module, "neither the module's"


def of_no_shape():
    step = Each(lambda s, x, h: (x.masked_select(x > 0).sum() + s.b(h).sum(), torch.tanh(s.b(h))))
    return step, "torch.vmap cannot run"


@pytest.mark.parametrize("make", [changing, normed, hooked, grown, of_two, of_no_shape, scripted])
def test_modules_that_are_refused(make):
    module, says = make()
    xs, h0 = arguments(module, 4, 3, count=2 if make is of_two else 1)
    assert says in warned(module, xs, h0)
    fastrnn.scan(module, xs, h0)  # which says nothing
    with pytest.raises(TypeError, match=says):
        scanned(module, xs, h0)


def test_it_is_said_once():
    module = Each(REFUSED["softmax"][0])
    warned(module, torch.randn(4, 3, I), torch.randn(3, H))
    for T, B in ((4, 3), (5, 3), (4, 2), (4, 1)):
        fastrnn.scan(module, torch.randn(T, B, I), torch.randn(B, H))


def test_a_state_in_place_is_the_callers():
    """The loop changes it, and a scan that cannot does so no more often."""
    module = Each(given)
    with torch.no_grad():
        xs, h0 = torch.randn(1, 3, I), torch.ones(3, H)
        warned(module, xs, h0)
    assert h0.equal(torch.full((3, H), 0.5))


XS, H0 = torch.zeros(4, 3, I), torch.zeros(3, H)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((lambda x, h: (h, h), XS, H0), TypeError, "an nn.Module, not function"),
        ((GRUByHand(), [XS], H0), TypeError, "not list"),
        ((GRUByHand(), XS[0, 0], H0), TypeError, r"\(T, B, ...\), not of shape \(5,\)"),
        ((GRUByHand(), XS[:0], H0), ValueError, "one step or more"),
        ((GRUByHand(), XS, None), TypeError, "not None"),
        ((GRUByHand(), XS, ()), TypeError, "h0 should be"),
        ((GRUByHand(), XS, (H0, None)), TypeError, "Tensor .3, 6., None"),
        ((GRUByHand(), XS, torch.zeros(2, H)), ValueError, r"B is 3 .* \(2, 6\)"),
        ((GRUByHand(), XS, torch.zeros(3, H + 1)), RuntimeError, "3x7 and 6x18"),
        ((GRUByHand(), XS[..., 1:], H0), RuntimeError, "3x4 and 5x18"),
        ((Each(lambda s, x, h: None), XS, H0), TypeError, "returned None"),
        ((Each(lambda s, x, h: (h, None)), XS, H0), TypeError, "Tensor .3, 6., None"),
        ((Each(lambda s, x, h: (h, h, h)), XS, H0), TypeError, "hidden is a tensor"),
        ((Each(lambda s, x, h: (h, (h, h))), XS, H0), TypeError, "hidden is a tensor"),
        ((Each(lambda s, x, hc: hc[0]), XS, (H0, H0)), TypeError, "a tuple of 2, as h0 is"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_errors(arguments, error, says, strict):
    with pytest.raises(error, match=says):
        fastrnn.scan(*arguments, strict=strict)
