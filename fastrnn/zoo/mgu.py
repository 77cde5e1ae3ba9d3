"""A unit with one gate."""

import torch

import fastrnn


class MGU(fastrnn.Recurrent):
    """GRU whose two gates are one.

    Formula:
        f = sigmoid(W x + U h)
        n = tanh(W x + U (f h))
        h' = (1 - f) h + f n

    Paper: Zhou, Wu, Zhang, Zhou: Minimal Gated Unit for Recurrent Neural Networks, 2016,
        https://arxiv.org/abs/1603.09420
    """

    gates = 2

    def step(self, wx, uh, h):
        f = torch.sigmoid(wx[0] + uh[0])
        n = torch.tanh(wx[1] + uh(f * h, 1))
        return (1 - f) * h + f * n
