"""A light GRU."""

import torch

import fastrnn


class LiGRU(fastrnn.Recurrent):
    """GRU without a reset gate, with relu.

    The paper's batch norm of W x is left out.

    Formula:
        z, n = W x + U h
        h' = sigmoid(z) h + (1 - sigmoid(z)) relu(n)

    Paper: Ravanelli, Brakel, Omologo, Bengio: Light Gated Recurrent Units for Speech Recognition,
        2018, https://arxiv.org/abs/1803.10225
    """

    gates = 2

    def step(self, wx, uh, h):
        z, n = wx + uh
        z = torch.sigmoid(z)
        return z * h + (1 - z) * torch.relu(n)
