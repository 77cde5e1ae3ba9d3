"""torch.onnx.export gives ONNX's own nodes, which ONNX Runtime runs to the same numbers."""

import onnx
import onnxruntime
import pytest
import torch
from against_torch import EVERY_KIND, build, make_inputs, plain_call
from torch import nn

import fastrnn

# the exporter's own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
NODES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
OPTIONS = {
    "plain": {},
    "stack": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no-bias": {"bias": False},
}


class Model(nn.Module):
    """What takes x, and perhaps states, and does a little more than a layer."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        self.eval()

    def forward(self, x, h0=None, c0=None):
        return plain_call(self.rnn, 2 * x, *(s for s in (h0, c0) if s is not None))


def exported(model, inputs, path, **options):
    """The ONNX graph's nodes, and a function that runs it."""
    torch.onnx.export(model, tuple(inputs), path, verbose=False, **options)
    session = onnxruntime.InferenceSession(path)

    def run(*tensors):
        names = [i.name for i in session.get_inputs()]
        given = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
        return [torch.from_numpy(result) for result in session.run(None, given)]

    return [node.op_type for node in onnx.load(path).graph.node], run


def check(model, run, inputs):
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*inputs))
    # the same float32 sums in another order
    torch.testing.assert_close(run(*inputs), expected, rtol=0, atol=1e-5)


@EVERY_KIND
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
def test_layer(kind, options, states, tmp_path):
    """A node for each layer, in a model that is exported as any other."""
    rnn = build(fastrnn, kind, 5, 8, **options)
    model = Model(rnn)
    inputs = make_inputs(rnn, 4, 3, states=states).values()
    nodes, run = exported(model, inputs, tmp_path / "model.onnx")
    assert nodes.count(NODES[kind]) == rnn.num_layers
    check(model, run, inputs)


@EVERY_KIND
def test_sizes_left_open(kind, tmp_path):
    model = Model(build(fastrnn, kind, 5, 8, num_layers=2))
    dims = {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}
    inputs, path = [torch.randn(4, 3, 5)], tmp_path / "model.onnx"
    nodes, run = exported(model, inputs, path, dynamic_shapes=(dims,))
    assert nodes.count(NODES[kind]) == 2
    for T, B in ((4, 3), (9, 6), (20, 2)):
        check(model, run, [torch.randn(T, B, 5)])


def test_projection(tmp_path):
    """ONNX has no node for it: the steps are exported, as many as there are."""
    model = Model(fastrnn.LSTM(5, 8, proj_size=3))
    inputs = [torch.randn(4, 3, 5)]
    nodes, run = exported(model, inputs, tmp_path / "model.onnx")
    assert "LSTM" not in nodes
    check(model, run, inputs)


@EVERY_KIND
def test_cell(kind, tmp_path):
    """ONNX has no node for a step: it is exported as the operations that it is made of."""
    model = Model(build(fastrnn, kind, 5, 8, cell=True))
    inputs = make_inputs(model.rnn, 1, 3).values()
    nodes, run = exported(model, inputs, tmp_path / "model.onnx")
    assert {"Gemm", "MatMul"} & set(nodes)
    check(model, run, inputs)
