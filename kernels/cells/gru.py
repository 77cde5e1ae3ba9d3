"""Gated recurrent unit, as torch.nn.GRU defines it (Cho et al. 2014, with the reset gate applied
after the recurrent product, the "v3" that cuDNN made common):

    r, z = sigmoid(x + h)    n = tanh(x_n + r * h_n)
    h' = (1 - z) * n + z * h
"""

from torch import sigmoid, tanh

from ..symbolic.cell import Cell


def step(wx, uh, states, own, inputs):
    (h,) = states
    r, z = map(sigmoid, wx[:2] + uh[:2])
    n = tanh(wx[2] + r * uh[2])
    return (n + z * (h - n),)


CELL = Cell("gru", step, gates=3, states=1)
