"""An LSTM with layer norm."""

import torch
from torch.nn.functional import layer_norm

import fastrnn

from .norm import norm


class LayerNormLSTM(fastrnn.Recurrent):
    """LSTM with a norm of W x, one of U h and one of the memory, as Haste has it.

    A norm has a scale for each gate and unit: ``wx_i``, ``uh_i`` ... The bias comes after it:
    ``b_i`` ..., so W and U have none.

    Formula:
        i, f, g, o = scale_x norm(W x) + scale_h norm(U h) + b
        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(scale norm(c') + shift)

    Paper: Ba, Kiros, Hinton: Layer Normalization, 2016, https://arxiv.org/abs/1607.06450
    """

    gates, states = 4, ("h", "c")
    wx_i, wx_f, wx_g, wx_o = (fastrnn.PerUnit(1.0) for _ in range(4))
    uh_i, uh_f, uh_g, uh_o = (fastrnn.PerUnit(1.0) for _ in range(4))
    b_i, b_f, b_g, b_o = (fastrnn.PerUnit() for _ in range(4))
    scale, shift = fastrnn.PerUnit(1.0), fastrnn.PerUnit()

    def __init__(self, input_size, hidden_size, num_layers=1, **options):
        super().__init__(input_size, hidden_size, num_layers, bias=False, **options)

    def step(self, wx, uh, h, c):
        wx = norm(wx, (self.wx_i, self.wx_f, self.wx_g, self.wx_o))
        uh = norm(uh, (self.uh_i, self.uh_f, self.uh_g, self.uh_o))
        biases = self.b_i, self.b_f, self.b_g, self.b_o
        i, f, g, o = (a + b + bias for a, b, bias in zip(wx, uh, biases, strict=True))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        seen = layer_norm(c, (self.hidden_size,), self.scale, self.shift)
        return torch.sigmoid(o) * torch.tanh(seen), c
