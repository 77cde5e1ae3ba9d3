"""What takes addresses is never traced, in whatever way backward comes to run while Dynamo is
active; and what is made once for the process depends on no mode that was active then.
"""

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, build
from conftest import run_python

import fastrnn

# torch's own, of what Dynamo itself looks at
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
BACKENDS = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def setting(kind, cell):
    """A module, its loss as a function without arguments, and the gradients of its weights."""
    module = build(fastrnn, kind, 4, 5, cell=cell)
    x = torch.randn(*[7] * (not cell), 3, 4)
    state = torch.ones(*[1] * (not cell), 3, 5)
    hx = (state, state) if kind == "lstm" else state

    def loss():
        found = module(x, hx)
        return (found[0] if isinstance(found, tuple) else found).square().sum()

    def gradients():
        found = [p.grad.clone() for p in module.parameters()]
        module.zero_grad()
        return found

    loss().backward()
    return loss, gradients, gradients()


def equal(found, expected):
    return all(a.equal(b) for a, b in zip(found, expected, strict=True))


@EVERY_KIND
@CELL_OR_LAYER
@BACKENDS
def test_backward_in_a_compiled_function(kind, cell, backend):
    loss, gradients, expected = setting(kind, cell)
    torch.compile(lambda value: value.backward(), backend=backend)(loss())
    assert equal(gradients(), expected)


@EVERY_KIND
@CELL_OR_LAYER
def test_a_compiled_step_around_what_is_not_compiled(kind, cell):
    loss, gradients, expected = setting(kind, cell)
    eager = torch.compiler.disable(loss)

    def train():
        (eager() * 2 / 2).backward()

    torch.compile(train, backend="eager")()
    assert equal(gradients(), expected)


@EVERY_KIND
@CELL_OR_LAYER
def test_compiled_autograd(kind, cell):
    loss, gradients, expected = setting(kind, cell)
    compile = torch._dynamo.compiled_autograd._enable
    with compile(lambda graph: torch.compile(graph, backend="eager")):
        loss().backward()
    assert equal(gradients(), expected)


SEEN = """
import torch, fastrnn
from torch._dynamo import eval_frame, types

seen = []

def callback(frame, *rest):
    seen.append((frame.f_code if hasattr(frame, "f_code") else frame).co_filename)
    return types.ConvertFrameReturn()

x = torch.randn(7, 3, 4)
for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
    result = getattr(fastrnn, name)(4, 5)(x[0] if "Cell" in name else x)  # loads and compiles
    y = result[0] if isinstance(result, tuple) else result
    before = eval_frame.set_eval_frame(callback)
    try:
        y.sum().backward()
        result = getattr(fastrnn, name)(4, 5)(x[0] if "Cell" in name else x)
    finally:
        eval_frame.set_eval_frame(before)
print(*{"/".join(name.replace("\\\\", "/").split("/")[-3:-1]) for name in seen})
"""


def test_no_frame_of_an_engine_is_looked_at():
    """Forward and backward run where Dynamo may look at every frame that begins."""
    folders = run_python(SEEN)[0].split()
    assert any(folder.endswith("/fastrnn") for folder in folders)  # the frames around it
    assert not any(folder.endswith("kernels/cpu") for folder in folders)


FIRST = """
import torch, fastrnn
{first}
with {context}:
    module = fastrnn.{name}(4, 8, device="cpu")
    x = torch.randn({shape}, device="cpu")
    result = module(x)
    y = result[0] if isinstance(result, tuple) else result
    y.sum().backward()
    assert y.device.type == "cpu" and y.isfinite().all()
theirs = torch.nn.{name}(4, 8, device="cpu")
theirs.load_state_dict(module.state_dict())
result = theirs(x)
torch.testing.assert_close(y, result[0] if isinstance(result, tuple) else result)
torch.set_default_device(None)
assert module(x)[0].isfinite().all()
print("right")
"""
CONTEXTS = {
    "device": ("", 'torch.device("meta")'),
    "default-device": ('torch.set_default_device("meta")', "torch.enable_grad()"),
}


@pytest.mark.parametrize(("first", "context"), CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize(("name", "shape"), [("GRU", "7, 3, 4"), ("GRUCell", "3, 4")])
def test_a_first_call_under_another_default_device(first, context, name, shape):
    """What the first call makes for all later ones is made on the CPU."""
    script = FIRST.format(first=first, context=context, name=name, shape=shape)
    assert run_python(script)[0].split() == ["right"]


UNDER_AUTOCAST = """
import torch, fastrnn
module, x = fastrnn.LSTM(4, 8), torch.randn(7, 3, 4)
with torch.autocast("cpu", torch.bfloat16):
    with torch.device("meta"):
        found = module(x)
    expected = module(x)
    theirs = torch.nn.LSTM(4, 8)(x)
assert [t.dtype for t in (found[0], *found[1])] == [t.dtype for t in (theirs[0], *theirs[1])]
assert all(a.equal(b) for a, b in zip((found[0], *found[1]), (expected[0], *expected[1])))
print("right")
"""


def test_a_first_call_under_autocast_and_another_default_device():
    """It asks torch for the dtypes of its results, once for the process."""
    assert run_python(UNDER_AUTOCAST)[0].split() == ["right"]


FAKE = """
import torch, fastrnn
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    module = fastrnn.{name}(4, 8)
    result = module(torch.randn({shape}))
    (result[0] if isinstance(result, tuple) else result).sum().backward()
module = fastrnn.{name}(4, 8)
result = module(torch.randn({shape}))
assert (result[0] if isinstance(result, tuple) else result).isfinite().all()
print("right")
"""


@pytest.mark.parametrize(("name", "shape"), [("GRU", "7, 3, 4"), ("GRUCell", "3, 4")])
def test_a_first_call_with_fake_tensors(name, shape):
    assert run_python(FAKE.format(name=name, shape=shape))[0].split() == ["right"]
