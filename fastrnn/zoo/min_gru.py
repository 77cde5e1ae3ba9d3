"""The smallest GRU."""

import torch

import fastrnn


def positive(x):
    """A candidate above zero."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class MinGRU(fastrnn.Recurrent):
    """GRU whose gate and candidate see the input alone.

    Formula:
        z, n = W x
        h' = (1 - sigmoid(z)) h + sigmoid(z) g(n)
        g(n) = n + 0.5 if n >= 0 else sigmoid(n)

    Paper: Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: Were RNNs All We Needed?, 2024,
        https://arxiv.org/abs/2410.01201
    """

    gates = 2

    def step(self, wx, h):
        z, n = torch.sigmoid(wx[0]), positive(wx[1])
        return (1 - z) * h + z * n
