"""The simple recurrent network, as torch.nn.RNN defines it (Elman 1990):

h' = tanh(x + h)    or    h' = relu(x + h)
"""

from torch import relu, tanh

from ..symbolic.cell import Cell


def with_tanh(wx, uh, states, own, inputs):
    return (tanh(wx[0] + uh[0]),)


def with_relu(wx, uh, states, own, inputs):
    return (relu(wx[0] + uh[0]),)


TANH = Cell("rnn_tanh", with_tanh, gates=1, states=1)
RELU = Cell("rnn_relu", with_relu, gates=1, states=1)
