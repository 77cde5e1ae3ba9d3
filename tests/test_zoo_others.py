"""fastrnn.zoo against other people's programs: torchrecurrent, ONNX's own evaluator, ONNX Runtime.

torchrecurrent's LEM is left out: its second product takes the old z, where the paper and the
authors' program take the new one.
"""

import onnx
import onnxruntime
import pytest
import torch
import torchrecurrent
from against_torch import difference
from onnx.reference import ReferenceEvaluator
from zoo_cases import B, H, I, T, build

# For each: its name there, and what it is built with. Its JANET has the state twice.
PORTS = {
    "PeepholeLSTM": ("PeepholeLSTM", {}),
    "IndRNN": ("IndRNN", {"nonlinearity": torch.relu}),
    "JANET": ("JANET", {}),
    "LiGRU": ("LiGRU", {}),
    "MGU": ("MGU", {}),
    "UGRNN": ("UGRNN", {}),
    "CoRNN": ("coRNN", {"dt": 0.3, "gamma": 1.2, "epsilon": 0.9}),
}


def ported(name, module, other):
    """torchrecurrent's module with the parameters of ours."""
    own = {n.removesuffix("_l0"): p.detach() for n, p in module.named_parameters()}
    found = {n: own[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if n in own}
    if name == "PeepholeLSTM":
        found["weight_ph"] = torch.cat([own["p_i"], own["p_f"], own["p_o"]])
    if name == "IndRNN":
        found |= {"vector_u": own["u"], "bias_hh": torch.zeros(H)}
    if name == "JANET":
        found["beta"] = torch.tensor(module.beta, dtype=torch.float64)
    if name == "UGRNN":  # the candidate first
        found = {n: p.roll(H, 0) for n, p in found.items()}
    if name == "CoRNN":
        found = {n: p[:H] for n, p in found.items()}
        found |= {"weight_ch": own["weight_hh"][H:], "bias_ch": own["bias_hh"][H:]}
    other.load_state_dict({f"cells.0.{n}": p for n, p in found.items()})
    return other


@pytest.mark.parametrize("name", PORTS)
def test_torchrecurrent(name):
    """Outputs, the final state, and the gradients of the input and of the initial states."""
    theirs, options = PORTS[name]
    module = build(name, 1, 1)
    other = ported(name, module, getattr(torchrecurrent, theirs)(I, H, **options).double())
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    count = len(type(module).signature.states)
    hx = torch.randn(count, 1, B, H, dtype=torch.float64, requires_grad=True)
    mine = tuple(hx) if count > 1 else hx[0]
    right = result(other, x, hx, mine if name != "JANET" else (mine, mine))
    for found, exact in zip(result(module, x, hx, mine), right, strict=True):
        assert difference(found, exact) < 1e-10


def result(layer, x, leaf, hx):
    y, final = layer(x, hx)
    final = final if isinstance(final, torch.Tensor) else final[0]
    return [t.detach() for t in (y, final, *torch.autograd.grad((y**2).sum(), (x, leaf)))]


def in_onnx(op, weights, outputs, dtype=onnx.TensorProto.DOUBLE, **attributes):
    """A model of one node; its inputs are X and the weights of one direction."""
    names = [name if tensor is not None else "" for name, tensor in weights.items()]
    node = onnx.helper.make_node(op, ["X", *names], outputs, hidden_size=H, **attributes)
    given = [
        onnx.helper.make_tensor_value_info(n, dtype, None) for n in ("X", *filter(None, names))
    ]
    made = [onnx.helper.make_tensor_value_info(n, dtype, None) for n in outputs]
    graph = onnx.helper.make_graph([node], "layer", given, made)
    versions = [onnx.helper.make_opsetid("", 14)]
    return onnx.helper.make_model(graph, opset_imports=versions, ir_version=8)


def arrays(module, order):
    """{name: array} of a layer's weights as ONNX has them: its gates in another order."""

    def one(*names):
        parts = [getattr(module, f"{n}_l0").detach().split(H) for n in names]
        return torch.cat([part[g] for part in parts for g in order])[None].numpy()

    return {"W": one("weight_ih"), "R": one("weight_hh"), "B": one("bias_ih", "bias_hh")}


def check(y, found, limit=1e-10):
    assert difference(torch.from_numpy(found).squeeze(1), y.detach()) < limit


def test_peephole_lstm_is_onnxs():
    module = build("PeepholeLSTM", 1, 1)
    x, h, c = torch.randn(T, B, I), torch.randn(1, B, H), torch.randn(1, B, H)
    x, h, c = (t.double() for t in (x, h, c))
    given = arrays(module, order=(0, 3, 1, 2)) | {"lengths": None, "h": h.numpy(), "c": c.numpy()}
    peepholes = [module.p_i_l0, module.p_o_l0, module.p_f_l0]
    given["P"] = torch.cat(peepholes).detach()[None].numpy()
    run = ReferenceEvaluator(in_onnx("LSTM", given, ["Y"])).run
    given = {n: a for n, a in given.items() if a is not None}
    check(module(x, (h, c))[0], run(None, {"X": x.numpy()} | given)[0])


def test_reset_first_gru_is_onnxs():
    module = build("ResetFirstGRU", 1, 1)
    x, h = torch.randn(T, B, I).double(), torch.randn(1, B, H).double()
    given = arrays(module, order=(1, 0, 2)) | {"lengths": None, "h": h.numpy()}
    model = in_onnx("GRU", given, ["Y"], linear_before_reset=0)
    given = {n: a for n, a in given.items() if a is not None}
    check(module(x, h)[0], ReferenceEvaluator(model).run(None, {"X": x.numpy()} | given)[0])


def test_coupled_lstm_is_onnx_runtimes():
    """There the forget gate is what the input gate leaves."""
    module = build("CoupledLSTM", 1, 1, dtype=torch.float32)
    x = torch.randn(T, B, I)
    given = {}
    for name, array in arrays(module, order=(0, 2, 0, 1)).items():  # i, o, f, c
        array = array.copy()
        for first in range(0, array.shape[1], 4 * H):
            array[:, first : first + H] *= -1
        given[name] = array
    model = in_onnx("LSTM", given, ["Y"], onnx.TensorProto.FLOAT, input_forget=1)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    check(module(x)[0], session.run(None, {"X": x.numpy()} | given)[0], 1e-5)
