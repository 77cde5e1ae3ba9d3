"""What is remembered of a module that is scanned: until the module, or the call, is another."""

import gc
import weakref

import torch
from scan_modules import Each, H, I, NewerSimpleRNN, loop
from test_scan import check, scanned
from test_scan_steps import twice
from torch import nn

import fastrnn
from fastrnn.scan.memory import _known


def same(module, xs, h0):
    with torch.no_grad():
        check(scanned(module, xs, h0), loop(module, xs, h0), 1e-5)


def test_what_a_module_becomes_is_seen():
    module = Each(lambda s, x, h: twice(s.act(s.b(h) * s.scale["by"][0]) + x[:, :1]))
    module.scale, module.drop = {"by": [2.0]}, nn.Dropout(0.5).eval()
    xs, h0 = torch.randn(4, 3, I), torch.randn(3, H)
    with fastrnn.backends.use("reference"):
        for change in (
            lambda: None,
            lambda: module.scale["by"].__setitem__(0, 3.0),
            lambda: setattr(module, "act", nn.ReLU()),
            lambda: setattr(module, "function", lambda s, x, h: (h, s.b(h) - x[:, :1])),
            lambda: setattr(module.b, "weight", nn.Parameter(torch.randn(H, H))),
            lambda: module.b.weight.data.mul_(0.5),
            lambda: module.load_state_dict(Each(None).state_dict()),
            lambda: setattr(module.b, "bias", None),
            lambda: setattr(module, "b", nn.Sequential(nn.Linear(H, H), nn.Tanh())),
        ):
            change()
            same(module, xs, h0)


def test_the_mode_is_seen():
    module = Each(lambda s, x, h: twice(s.b(h) if s.training else h + s.b(h)))
    xs, h0 = torch.randn(4, 3, I), torch.randn(3, H)
    with fastrnn.backends.use("reference"):
        for mode in (True, False, True):
            same(module.train(mode), xs, h0)


def test_shapes_are_seen():
    module = Each(lambda s, x, h: twice(s.b(h) * x.shape[0] + x[:, :1]))
    with fastrnn.backends.use("reference"):
        for B in (3, 1, 5, 3):
            same(module, torch.randn(4, B, I), torch.randn(B, H))


def test_parameters_of_a_call():
    """torch.func.functional_call gives a module others for a while."""
    module = Each(lambda s, x, h: twice(torch.tanh(s.b(h) * s.p))).double()
    xs, h0 = torch.randn(4, 3, I).double(), torch.randn(3, H).double()

    class Scan(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, scan):
            return scan(self.inner, xs, h0)[0]

    with fastrnn.backends.use("reference"):
        for _ in range(3):
            others = {"inner.p": torch.randn(H).double().requires_grad_()}
            found = [
                torch.autograd.grad(
                    torch.func.functional_call(Scan(), others, (scan,)).sum(), others["inner.p"]
                )
                for scan in (scanned, loop)
            ]
            check(found[0], found[1], 1e-10)


def test_a_module_is_not_kept():
    module = NewerSimpleRNN()
    with torch.no_grad():
        scanned(module, torch.randn(4, 3, I), torch.randn(3, H))
    assert module in _known
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
