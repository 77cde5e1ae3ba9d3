"""Traces on a GPU: a layer is one operator. In Triton's interpreter, or of shapes alone."""

import pytest
import torch
from against_torch import EVERY_KIND, build, make_inputs, packing, plain_call
from compiling import compiled, differs, layers_in
from failing_kernels import failing
from gpu_layers import GRID, served
from gpu_trials import FACTS, right
from interpreter import interpreted
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fastrnn
from fastrnn import backends, operators
from fastrnn.gpu import when
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu.kept import Table

__all__ = ["interpreted"]


def compiles(kind, lengths=None, **options):
    """Outputs and gradients to the bit, T and B left open; forward keeps what backward needs."""
    ours = build(fastrnn, kind, 5, 21, **options)
    fast, graphs = compiled(ours)
    with served(GRID) as made:
        for T, B in ((4, 3), (5, 3), (6, 4)):
            call = packing([T] * (B - 1) + [2]) if lengths else plain_call
            made.clear()
            assert not differs(ours, fast, make_inputs(ours, T, B), call)
            assert len(made) == 4 * ours.num_layers  # both ways, by both
    assert len(graphs) <= 3
    assert len(layers_in(graphs[-1])) == ours.num_layers


@EVERY_KIND
def test_compiled_is_eager(interpreted, kind):
    interpreted(compiles, kind, num_layers=2, bidirectional=True)


@pytest.mark.parametrize(
    "options", [{"lengths": True, "bidirectional": True}, {"proj_size": 6}], ids=str
)
def test_compiled_layers(interpreted, options):
    interpreted(compiles, "lstm", **options)


def exports():
    ours = fastrnn.LSTM(5, 21, bidirectional=True)
    x = make_inputs(ours, 4, 3)["x"]
    sizes = {"input": {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}}
    with served(GRID) as made:
        program = torch.export.export(ours, (x,), dynamic_shapes=sizes).module()
        x = make_inputs(ours, 5, 4)["x"]
        made.clear()
        found, expected = (
            torch.autograd.grad(m(x)[0].square().sum(), list(m.parameters()))
            for m in (program, ours)
        )
        assert len(made) == 5  # the program's forward kept nothing, so there is one more
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_export(interpreted):
    interpreted(exports)


def decides_when_it_runs():
    """If nothing is kept: the trace had left open what T and B are."""
    layer, asked = fastrnn.GRU(5, 21), []

    def choose(tensors, step, layer, traced):
        asked.append((layer[1:], traced))
        return backends.Choice("triton" if layer[1] > 3 else "torch", "")

    def run(T, keep):
        x, h = torch.randn(T * 3, 5), torch.randn(1, 3, 21)
        given = x, None, [h], list(layer.parameters())
        found = torch.ops.fastrnn.layer("triton", "gru", keep, *given)
        expected = torch.ops.fastrnn.layer("numba", "gru", 0, *given)
        torch.testing.assert_close(found[:2], expected[:2])

    with failing("neither", None) as launched, torch.no_grad(), pytest.MonkeyPatch.context() as p:
        p.setattr(backends, "choose", choose)
        run(3, 0)
        assert not launched
        run(4, 0)
        assert launched == ["forward"] * 4
        assert asked == [((3, 1, False, False), False), ((4, 1, False, False), False)]
        with backends.use("triton"):
            run(3, 0)
        assert launched == ["forward"] * 7
        assert len(asked) == 2


def test_who_serves_is_decided_when_it_runs(interpreted):
    interpreted(decides_when_it_runs)


@pytest.fixture
def pretended(monkeypatch):
    """Tensors of shapes alone, which pass for those of an H200: there need be no GPU."""
    from fastrnn.kernels.gpu import choice, launch

    monkeypatch.setattr(choice, "obstacle", lambda device_type: None)
    describe = launch.describe
    monkeypatch.setattr(launch, "describe", lambda device: describe(torch.device("cpu")))
    table = Table(FACTS)
    monkeypatch.setattr(choice, "table", lambda device: table)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield table


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fake_tensors(pretended, kind, dtype):
    """Shapes and dtypes of outputs and gradients are known where no kernel runs."""
    ours = build(fastrnn, kind, 5, 21, num_layers=2, bidirectional=True, dtype=dtype)
    x = torch.empty(4, 3, 5, dtype=dtype, requires_grad=True)
    with backends.use("triton"):
        y, final = ours(x)
    assert (y.shape, y.dtype) == ((4, 3, 42), dtype)
    h = final if CELLS[kind].states == 1 else final[0]
    assert h.shape == (4, 3, 21)
    leaves = [x, *ours.parameters()]
    for leaf, grad in zip(leaves, torch.autograd.grad(y.sum(), leaves), strict=True):
        assert (grad.shape, grad.dtype) == (leaf.shape, leaf.dtype)


def test_one_operator(pretended):
    ours = fastrnn.GRU(5, 21)
    with backends.use("triton"):
        graph = make_fx(lambda x: ours(x)[0], tracing_mode="fake")(torch.empty(4, 3, 5))
    assert len(layers_in(graph)) == 1


def asked(B=3, H=21, dtype=torch.float32, trains=False, layers=1, prover=None):
    """Who serves an LSTM in a trace, as explain asks, which decides nothing."""
    shapes = [(4, B, 5), (layers, B, H), (layers, B, H), (4 * H, 5), (4 * H, H)]
    options = {"dtype": dtype, "device": "cuda", "requires_grad": trains}
    tensors = [torch.empty(shape, **options) for shape in shapes]
    with when.asking(prover):
        return backends.choose(tensors, False, (CELLS["lstm"], 4, 1), traced=True)


def test_who_serves(pretended):
    """As without a trace, but that T and B may vary: what is known of some is taken for all."""
    from fastrnn.kernels.gpu import choice

    def proven(B, verdict, H=21, layers=1, trains=False):
        given = torch.float32, torch.device("cuda", 0), trains, "lstm"
        pretended.known[choice.key_of(*given, B, H, 1, False, (layers, 0))] = verdict

    assert choice.UNPROVEN in asked().reason
    proven(64, None)
    assert choice.UNPROVEN in asked().reason
    proven(64, right())
    assert asked().name == "triton"
    assert asked(B=100_000).name == "triton"
    assert choice.UNPROVEN in asked(trains=True).reason
    proven(64, right(3.0, 3.0), trains=True)
    assert "3.00x" in asked(trains=True).reason
    proven(128, right(few=0.9))  # of few steps, which a trace may be called with
    assert asked().name == "torch"
    assert "not surely faster: 0.90x" in asked().reason
    assert choice.UNPROVEN in asked(H=40).reason
    assert "beyond" in asked(H=5000).reason
    assert "float64" in asked(dtype=torch.float64).reason
    assert choice.UNPROVEN in asked(H=50, layers=2).reason
    proven(64, right(), H=50, layers=2)  # as a whole; in a graph it is layer after layer
    assert choice.UNPROVEN in asked(H=50, layers=2).reason
    proven(64, right(), H=50)
    assert asked(H=50, layers=2).name == "triton"


def test_another_trace_is_served_alike(pretended):
    """One that is made anew in mid-training, whatever has been proven since; nothing is tried."""
    from fastrnn.kernels.gpu import choice

    prover = when.Prover(pytest.fail, hindrance=pytest.fail)
    assert choice.UNPROVEN in asked(trains=True, prover=prover).reason
    for trains in (False, True):
        given = torch.float32, torch.device("cuda", 0), trains, "lstm", 64, 21, 1, False
        pretended.known[choice.key_of(*given)] = right()
    pretended.decided.clear()  # as when there are many
    assert choice.UNPROVEN in asked(trains=True, prover=prover).reason
    assert asked(prover=prover).name == "triton"


def test_who_serves_without_a_gpu():
    with FakeTensorMode():
        choice = asked()
    assert choice.name == "torch"
    assert "Triton cannot start" in choice.reason


def test_a_program_for_cpu_is_refused_elsewhere():
    """One that was exported, and then moved: its kernels would read addresses of another device."""
    with pytest.raises(backends.Refused, match="made for CPU: make it on meta"):
        operators._load("numba", torch.empty(0, device="meta"))
