"""A layer as ONNX's own node: what torch.onnx.export sees in place of our operator."""

import torch

from .kernels.cells import CELLS

# The node for each cell, the order of its gates there, and its attributes, each for one direction.
NODES = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", (0,), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", (0,), {"activations": ["Relu"]}),
}


def has_node(cell, steps, directions):
    """Whether ONNX has a node for it: none projects the state, none takes packed rows."""
    return CELLS.get(cell.name) is cell and steps.batch_sizes is None and directions[0].hr is None


def check(cell, steps):
    """Raise ValueError for a layer that cannot be written out either, step by step."""
    if steps.batch_sizes is not None or not isinstance(steps.T, int):
        raise ValueError(
            f"ONNX has no node for this {cell.name}: it is written out step by step, which is for "
            f"dense input and as many steps as the example has. Leave T out of dynamic_shapes"
        )


def layer(cell, x, steps, directions, states, lengths=None):
    """As reference.layer: (output, final states). lengths: (B,), if sequences end early."""
    name, order, attributes = NODES[cell.name]
    D, B, H = states[0].shape
    T = steps.T

    def stacked(tensors):
        """(D, G*H, ...), the gates in the node's order."""
        blocks = [t.chunk(cell.gates) for t in tensors]
        return torch.stack([torch.cat([gates[i] for i in order]) for gates in blocks])

    sides = [
        stacked(side) for side in list(zip(*directions, strict=True))[:4] if side[0] is not None
    ]
    lengths = None if lengths is None else lengths.to(torch.int32)
    bias = torch.cat(sides[2:], 1) if sides[2:] else None
    attributes = {k: v * D if isinstance(v, list) else v for k, v in attributes.items()}
    attributes |= {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"}
    y, *finals = torch.onnx.ops.symbolic_multi_out(
        name,
        (x.view(T, B, -1), *sides[:2], bias, lengths, *states),
        attributes,
        dtypes=[x.dtype] * (1 + len(states)),
        shapes=[(T, D, B, H), *[(D, B, H)] * len(states)],
    )
    return y.transpose(1, 2).reshape(T * B, D * H), tuple(finals)
