"""An LSTM that just forgets."""

import torch

import fastrnn


class JANET(fastrnn.Recurrent):
    """LSTM with the forget gate alone.

    Args:
        beta: how much more it takes in than it forgets. Default: 1.

    Formula:
        f, n = W x + U h
        h' = sigmoid(f) h + (1 - sigmoid(f - beta)) tanh(n)

    Paper: van der Westhuizen, Lasenby: The Unreasonable Effectiveness of the Forget Gate, 2018,
        https://arxiv.org/abs/1804.04849
    """

    gates = 2

    def __init__(self, *sizes, beta=1.0, **options):
        super().__init__(*sizes, **options)
        self.beta = beta

    def step(self, wx, uh, h):
        f, n = wx + uh
        return torch.sigmoid(f) * h + (1 - torch.sigmoid(f - self.beta)) * torch.tanh(n)
