"""A GRU with layer norm."""

import torch

import fastrnn

from .norm import norm


class LayerNormGRU(fastrnn.Recurrent):
    """GRU with a norm of W x and one of U h, as Haste has it.

    A norm has a scale for each gate and unit: ``wx_r``, ``uh_r`` ... The biases come after it:
    ``b_r`` ..., and ``b_hn`` which the reset gate multiplies. So W and U have none.

    Formula:
        x_r, x_z, x_n = scale_x norm(W x) + b
        h_r, h_z, h_n = scale_h norm(U h)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = tanh(x_n + r (h_n + b_hn))
        h' = (1 - z) n + z h

    Paper: Ba, Kiros, Hinton: Layer Normalization, 2016, https://arxiv.org/abs/1607.06450
    """

    gates = 3
    wx_r, wx_z, wx_n = (fastrnn.PerUnit(1.0) for _ in range(3))
    uh_r, uh_z, uh_n = (fastrnn.PerUnit(1.0) for _ in range(3))
    b_r, b_z, b_n, b_hn = (fastrnn.PerUnit() for _ in range(4))

    def __init__(self, input_size, hidden_size, num_layers=1, **options):
        super().__init__(input_size, hidden_size, num_layers, bias=False, **options)

    def step(self, wx, uh, h):
        x_r, x_z, x_n = norm(wx, (self.wx_r, self.wx_z, self.wx_n))
        h_r, h_z, h_n = norm(uh, (self.uh_r, self.uh_z, self.uh_n))
        r = torch.sigmoid(x_r + h_r + self.b_r)
        z = torch.sigmoid(x_z + h_z + self.b_z)
        n = torch.tanh(x_n + self.b_n + r * (h_n + self.b_hn))
        return (1 - z) * n + z * h
