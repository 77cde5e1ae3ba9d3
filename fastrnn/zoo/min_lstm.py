"""The smallest LSTM."""

import torch

import fastrnn

from .min_gru import positive


class MinLSTM(fastrnn.Recurrent):
    """LSTM whose gates and candidate see the input alone; the gates add up to one.

    Formula:
        f, i, n = W x
        f, i = sigmoid(f), sigmoid(i)
        h' = (f h + i g(n)) / (f + i)
        g(n) = n + 0.5 if n >= 0 else sigmoid(n)

    Paper: Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: Were RNNs All We Needed?, 2024,
        https://arxiv.org/abs/2410.01201
    """

    gates = 3

    def step(self, wx, h):
        f, i, n = torch.sigmoid(wx[0]), torch.sigmoid(wx[1]), positive(wx[2])
        return (f * h + i * n) / (f + i)
