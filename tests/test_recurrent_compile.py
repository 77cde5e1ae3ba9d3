"""torch.compile, torch.export and ONNX take a layer of a user's own cell."""

import copy

import onnxruntime
import pytest
import torch
from conftest import run_python
from custom_cells import (
    Peephole,
    ResetFirst,
    Skip,
    Sorted,
    assert_same,
    loop,
    make,
    plain_call,
    trained,
)
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim

import fastrnn

# the exporter's own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
STACK = {"num_layers": 2, "bidirectional": True}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("cls", [Peephole, Skip])
def test_compiled(cls, backend, calls):
    module, *given = make(cls, 5, 9, **STACK)
    compiled = torch.compile(plain_call, fullgraph=True, backend=backend)
    assert_same(trained(compiled, module, *given), trained(loop, module, *given))
    assert calls["forward"] == calls["backward"] == 2
    x, hx, inputs = given
    with torch.no_grad():
        assert_same(compiled(module, x, hx, **inputs), loop(module, x, hx, **inputs))


def test_compiled_for_all_sizes():
    module, *_ = make(ResetFirst, 5, 9, heads=3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for T, B in ((6, 3), (7, 4), (2, 5)):
        x = torch.randn(T, B, 5, dtype=torch.float64)
        assert_same(compiled(x), loop(module, x))


class Leaky(fastrnn.Recurrent):
    leak = 0.25

    def step(self, wx, uh, h):
        new = torch.tanh(wx[0] + uh[0])
        return self.leak * h + (1 - self.leak) * (new if self.training else new * 0.5)


def test_a_graph_is_made_anew_where_the_step_is():
    module, x, *_ = make(Leaky, 5, 9)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    graphs = 0
    for module.leak in (0.25, 0.5):
        for training in (True, False):
            module.train(training)
            assert_same(compiled(x), loop(module, x))
            assert_same(compiled(x), loop(module, x))
            graphs += 1
            assert counter.frame_count == graphs


def test_compiled_under_autocast():
    module, x, *_ = make(Peephole, 5, 9, dtype=torch.float32)

    def call(x):
        with torch.autocast("cpu", torch.bfloat16):
            return module(x)

    found, expected = torch.compile(call, fullgraph=True, backend="aot_eager")(x), call(x)
    assert [t.dtype for t in (found[0], *found[1])] == [
        t.dtype for t in (expected[0], *expected[1])
    ]
    assert_same(found, expected, 1e-6)


@pytest.mark.filterwarnings("ignore:.*runs in plain PyTorch")
def test_a_step_that_no_kernel_can_run_ends_the_graph():
    module, *given = make(Sorted, 5, 9)
    compiled = torch.compile(plain_call, backend="aot_eager")
    assert_same(trained(compiled, module, *given), trained(loop, module, *given))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="a step that no kernel can run"):
        torch.compile(module, fullgraph=True, backend="aot_eager")(given[0])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.peephole = Peephole(5, 9, dtype=torch.float64, **STACK)
        self.skip = Skip(18, 4, dtype=torch.float64)

    def forward(self, x, mask):
        y, (h, c) = self.peephole(x)
        return self.skip(y, mask=mask, skip=mask)[0], h + c


ELSEWHERE = """
import sys
import torch
import fastrnn

program = torch.export.load({path!r}).module()
x, mask, expected, gradient = torch.load({given!r})
x.requires_grad_()
found = program(x, mask)
for mine, theirs in zip(found, expected, strict=True):
    assert (mine - theirs).abs().max() < 1e-10, mine
(mine,) = torch.autograd.grad(found[0].sum(), x)
assert (mine - gradient).abs().max() < 1e-10, mine
assert "custom_cells" not in sys.modules
print("as it was")
"""


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_exported(strict, tmp_path):
    """A saved program runs for other sizes where the class is not, and trains there."""
    model, (x, mask) = Model(), torch.rand(2, 6, 3, 5, dtype=torch.float64)
    mask = mask[..., 0]
    sizes = {0: Dim("T"), 1: Dim("B")}
    given = {"dynamic_shapes": {"x": sizes, "mask": sizes}, "strict": strict}
    program = torch.export.export(model, (x, mask), **given)
    torch.export.save(program, tmp_path / "program.pt2")
    x, mask = torch.rand(8, 2, 5).double().requires_grad_(), torch.rand(8, 2).double()
    expected = model(x, mask)
    (gradient,) = torch.autograd.grad(expected[0].sum(), x)
    expected = [t.detach() for t in expected]
    torch.save((x.detach(), mask, expected, gradient), tmp_path / "given.pt")
    path, given = str(tmp_path / "program.pt2"), str(tmp_path / "given.pt")
    assert run_python(ELSEWHERE.format(path=path, given=given))[0].strip() == "as it was"


def test_written_out():
    model, x, mask = Model(), torch.rand(6, 3, 5).double(), torch.rand(6, 3).double()
    program = torch.export.export(model, (x, mask))
    program = program.run_decompositions(fastrnn.lowering.decompositions())
    assert not [n for n in program.graph.nodes if "fastrnn" in str(n.target)]
    assert_same(program.module()(x, mask), model(x, mask))


def test_onnx(tmp_path):
    """As many steps as the example has, written out: ONNX has no node for such a cell."""
    model = copy.deepcopy(Model()).float().eval()
    x, mask = torch.rand(6, 3, 5), torch.rand(6, 3)
    program = torch.onnx.export(model, (x, mask), verbose=False)
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, dict(zip(names, (x.numpy(), mask.numpy()), strict=True)))
    assert_same([torch.from_numpy(each) for each in found], model(x, mask), 1e-5)
    dynamic = {"dynamic_shapes": {"x": {0: Dim("T")}, "mask": {0: Dim("T")}}}
    with pytest.raises(torch.onnx.OnnxExporterError, match="Leave T out of dynamic_shapes"):
        torch.onnx.export(model, (x, mask), verbose=False, **dynamic)
