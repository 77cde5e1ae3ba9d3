"""Long short-term memory, as torch.nn.LSTM defines it (Hochreiter & Schmidhuber 1997; forget gate
of Gers et al. 2000, no peepholes):

    i, f, o = sigmoid(x + h)    g = tanh(x + h)
    c' = f * c + i * g          h' = o * tanh(c')
"""

from torch import sigmoid, tanh

from ..symbolic.cell import Cell


def step(wx, uh, states, own, inputs):
    _, c = states
    i, f, g, o = wx + uh
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


CELL = Cell("lstm", step, gates=4, states=2)
