"""ONNX Runtime: its fused CPU operators LSTM, GRU and RNN (inference)."""

import numpy as np
import torch

from ..data import Call
from . import CannotServe, missing

GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # ONNX's, in torch's numbers


def available():
    return missing("onnx", "onnxruntime")


def version():
    import onnxruntime

    return onnxruntime.__version__


def build(case, data):
    return call(case, data, model(case, data), "one session, default optimisations")


def call(case, data, model, note):
    """The Call of an ONNX graph that takes and returns what ``model`` says."""
    import onnxruntime
    from onnx import numpy_helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    # threads that spin after their turn would take the cores from the peer whose turn is next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {}
    for name, state in zip("hc", data.states, strict=False):
        for i, mine in enumerate(state.split(case.directions)):
            given[f"{name}{i}"] = mine.numpy()
    named = [each.name.removesuffix("_n") for each in session.get_outputs()[1:]]
    frames = [frame.numpy() for frame in data.x.split(1 if case.streamed else case.T)]

    def run():
        states = given
        for frame in frames:
            y, *finals = session.run(None, {"x": frame, **states})
            states = dict(zip(named, finals, strict=True))
        y, *finals = (torch.from_numpy(array) for array in (y, *finals))
        if case.layers > 1:  # each state of all layers as one, as torch.nn has it
            finals = [torch.cat(finals[i :: len(data.states)]) for i in range(len(data.states))]
        return y, *finals

    weights = tuple(torch.tensor(numpy_helper.to_array(c)) for c in model.graph.initializer)
    return Call(run, weights, note)


def model(case, data):
    """The ONNX graph. Of layer i: input x{i}, states h{i} (and c{i}), output x{i + 1}.

    Raises CannotServe for a case it has nothing for.
    """
    from onnx import TensorProto, helper

    if case.training:
        raise CannotServe("inference only")
    if case.device != "cpu" or case.dtype != "float32" or case.autocast:
        raise CannotServe("set up for float32 on CPU")
    if case.packed or case.projection or case.step:
        raise CannotServe("set up without packed rows, projections and single steps")
    states = "hc"[: len(data.states)]
    layers = [_layer(case, data, i, states) for i in range(case.layers)]
    nodes = [node for layer in layers for node in layer[0]]
    constants = [constant for layer in layers for constant in layer[1]]
    nodes.insert(0, helper.make_node("Identity", ["x"], ["x0"]))
    names = [f"{s}{i}" for i in range(case.layers) for s in states]
    inputs, outputs = ["x", *names], [f"x{case.layers}", *(f"{name}_n" for name in names)]
    typed = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in group]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "layers", *typed, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _layer(case, data, i, states):
    """(nodes, constants) of one layer; its output is folded from (T, D, B, H) to (T, B, D * H)."""
    from onnx import helper, numpy_helper

    constants = [
        numpy_helper.from_array(value.numpy(), f"{name}{i}")
        for name, value in zip("WRB", _weights(case, data, i), strict=True)
    ]
    shape = np.array([-1, case.B, case.directions * case.H])
    constants.append(numpy_helper.from_array(shape, f"shape{i}"))
    cell = helper.make_node(
        case.cell,
        [f"x{i}", f"W{i}", f"R{i}", f"B{i}", "", *(f"{s}{i}" for s in states)],
        [f"y{i}", *(f"{s}{i}_n" for s in states)],
        hidden_size=case.H,
        direction="bidirectional" if case.directions > 1 else "forward",
        **({"linear_before_reset": 1} if case.cell == "GRU" else {}),
        **({"activations": ["Relu"] * case.directions} if case.nonlinearity == "relu" else {}),
    )
    nodes, folded = [cell], f"y{i}"
    if case.directions > 1:  # with one direction the reshape alone does it, and copies nothing
        folded = f"t{i}"
        nodes.append(helper.make_node("Transpose", [f"y{i}"], [folded], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", [folded, f"shape{i}"], [f"x{i + 1}"]))
    return nodes, constants


def _weights(case, data, layer):
    """ONNX's W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) of one layer."""

    def ordered(name):
        found = []
        for suffix in ("", "_reverse")[: case.directions]:
            weight = data.state_dict[f"{name}_l{layer}{suffix}"]
            gates = weight.unflatten(0, (-1, case.H))[list(GATE_ORDER[case.cell])]
            found.append(gates.flatten(0, 1))
        return torch.stack(found)

    bias = torch.cat([ordered("bias_ih"), ordered("bias_hh")], 1)
    return ordered("weight_ih"), ordered("weight_hh"), bias
