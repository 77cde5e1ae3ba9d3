"""The simple recurrent network, as torch.nn.RNN defines it (Elman 1990):

h' = tanh(x + h)    or    h' = relu(x + h)
"""

from .cell import Cell, relu, tanh, zero_unless_positive, zeros_like


def forward_tanh(x, h, states):
    new = tanh(x[0] + h[0])
    return (new,), ()


def backward_tanh(dstates, kept, before, after):
    (d,) = dstates
    (new,) = after
    return (d - d * new * new,), (zeros_like(d),)


def forward_relu(x, h, states):
    new = relu(x[0] + h[0])
    return (new,), ()


def backward_relu(dstates, kept, before, after):
    (d,) = dstates
    (new,) = after
    return (zero_unless_positive(d, new),), (zeros_like(d),)


_SHAPE = {"states": 1, "gates": 1, "kept": 0, "dgates": 1, "dx": (0,), "dh": (0,), "after": (0,)}
TANH = Cell("rnn_tanh", forward_tanh, backward_tanh, **_SHAPE)
RELU = Cell("rnn_relu", forward_relu, backward_relu, **_SHAPE)
