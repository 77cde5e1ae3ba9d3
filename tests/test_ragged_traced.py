"""lengths and resets in torch.compile, torch.export and ONNX: what an eager call gives."""

import numpy as np
import onnxruntime
import pytest
import torch
from against_torch import EVERY_KIND, build, difference
from custom_cells import Peephole, ResetFirst, Skip, Sorted

import fastrnn

# the exporter's own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
T, B, I, H = 7, 4, 3, 9
LENGTHS = torch.tensor([3, 7, 0, 5])
CASES = {
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": torch.tensor([[0, 0, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 1]] * 2).T.bool()},
}
CASES["both"] = CASES["lengths"] | CASES["resets"]
STACK = {"num_layers": 2, "bidirectional": True, "batch_first": True}


def flat(result):
    """A list of all the tensors."""
    return [t for each in result for t in (each if isinstance(each, tuple) else (each,))]


def gradients(found, leaves):
    return torch.autograd.grad(sum(t.square().sum() for t in found), leaves, allow_unused=True)


def compiled(module, fullgraph=True):
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=fullgraph, backend="aot_eager")


def check(module, fast, x, options, **inputs):
    leaves = [x, *module.parameters()]
    found, expected = (flat(f(x, **options, **inputs)) for f in (fast, module))
    pairs = [*zip(found, expected, strict=True)]
    pairs += zip(gradients(found, leaves), gradients(expected, leaves), strict=True)
    for mine, theirs in pairs:
        assert (mine is None) == (theirs is None)
        assert mine is None or difference(mine.detach(), theirs.detach()) <= 1e-12


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("kind", "options"), [("lstm", STACK), ("lstm", {}), ("gru", STACK), ("rnn_relu", {})], ids=str
)
def test_compiled(kind, options, case):
    module = build(fastrnn, kind, I, H, dtype=torch.float64, **options)
    first = module.batch_first
    x = torch.randn(*((B, T) if first else (T, B)), I, dtype=torch.float64, requires_grad=True)
    case = {n: t.T.contiguous() if first and n == "resets" else t for n, t in case.items()}
    fast = compiled(module)
    check(module, fast, x, case)
    _, hx = module(x)
    hx = tuple(h.detach() for h in hx) if kind == "lstm" else hx.detach()
    check(module, fast, x, case, hx=hx)
    if "resets" in case:
        check(module, fast, x, case, reset_to=hx)


@pytest.mark.parametrize("case", [{}, CASES["both"]], ids=["dense", "lengths and resets"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: fastrnn.LSTM(I, H, num_layers=2, bidirectional=True),
        lambda: fastrnn.GRU(I, H),
        lambda: Peephole(I, H, bidirectional=True),
        lambda: fastrnn.zoo.SRU(I, H),
    ],
    ids=["lstm", "gru", "peephole", "an output that is no state"],
)
def test_every_state_compiled(make, case):
    module = make().double()
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    check(module, compiled(module), x, case | {"return_states": True})
    with torch.no_grad():
        found = compiled(module)(x, **case, return_states=True)
        for mine, theirs in zip(
            flat(found), flat(module(x, **case, return_states=True)), strict=True
        ):
            assert difference(mine, theirs) <= 1e-12


@pytest.mark.parametrize("cls", [Peephole, Skip, ResetFirst])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_compiled_cells_of_ones_own(cls, case):
    module = cls(I, H, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    inputs = {n: torch.rand(T, B, dtype=torch.float64) for n in cls.signature.inputs}
    check(module, compiled(module), x, case, **inputs)


def test_what_is_behind_an_end_reaches_nothing():
    module = fastrnn.LSTM(I, H).double()
    x = torch.randn(T, B, I, dtype=torch.float64)
    x[5:, 0] = torch.nan
    check(module, compiled(module), x.requires_grad_(), CASES["lengths"])


@pytest.mark.filterwarnings("ignore:Sorted.step runs in plain PyTorch:UserWarning")
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: fastrnn.LSTM(I, H, proj_size=2), {}),
        (lambda: Sorted(I, H), {}),
        (lambda: fastrnn.zoo.QRNN(I, H), {}),
    ],
    ids=["projected", "no kernel", "a forward of its own"],
)
def test_a_graph_ends_where_there_is_no_mask(make, options):
    module = make().double()
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    check(module, compiled(module, fullgraph=False), x, CASES["both"] | options)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="cannot be masked"):
        compiled(module)(x, **CASES["both"], **options)


class Model(torch.nn.Module):
    def __init__(self, kind, every=False):
        super().__init__()
        self.every = every
        self.rnn = build(fastrnn, kind, I, H, bidirectional=True)

    def forward(self, x, lengths):
        return self.rnn(x, lengths=lengths, return_states=self.every)


@EVERY_KIND
@pytest.mark.parametrize("every", [False, True], ids=["", "every state"])
def test_exported(kind, every):
    """For any lengths, and any number of steps and sequences."""
    model = Model(kind, every)
    steps, batch = (torch.export.Dim(n, min=2, max=99) for n in ("steps", "batch"))
    program = torch.export.export(
        model, (torch.randn(T, B, I), LENGTHS), dynamic_shapes=({0: steps, 1: batch}, {0: batch})
    )
    x, lengths = torch.randn(11, 3, I), torch.tensor([11, 2, 0])
    found, expected = program.module()(x, lengths), model(x, lengths)
    for mine, theirs in zip(flat(found), flat(expected), strict=True):
        assert difference(mine.detach(), theirs.detach()) <= 1e-6


@EVERY_KIND
def test_onnx(kind, tmp_path):
    """One node, whose sequence_lens are the lengths."""
    model, path = Model(kind).eval(), str(tmp_path / "model.onnx")
    given = torch.randn(T, B, I), LENGTHS
    program = torch.onnx.export(model, given, dynamo=True, verbose=False)
    program.save(path)
    nodes = [n for n in program.model.graph if n.op_type in ("LSTM", "GRU", "RNN")]
    assert len(nodes) == 1
    assert nodes[0].inputs[4] is not None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    lengths = torch.tensor([7, 1, 4, 2])
    names = [each.name for each in session.get_inputs()]
    values = [np.asarray(t) for t in (given[0], lengths)]
    found = session.run(None, dict(zip(names, values, strict=True)))
    for mine, theirs in zip(found, flat(model(given[0], lengths)), strict=True):
        assert difference(torch.from_numpy(mine), theirs.detach()) <= 1e-5
