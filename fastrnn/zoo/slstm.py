"""The sLSTM of xLSTM."""

import torch
from torch.nn.functional import logsigmoid

import fastrnn


class SLSTM(fastrnn.Recurrent):
    """LSTM with an exponential input gate, held in range by a normaliser and a stabiliser.

    ``heads=4`` gives it four heads, as in xLSTM: units that see the states of their head.

    Formula:
        z, i, f, o = W x + U h
        m' = max(log(sigmoid(f)) + m, i)
        i, f = exp(i - m'), exp(log(sigmoid(f)) + m - m')
        c' = f c + i tanh(z)
        n' = f n + i
        h' = sigmoid(o) c' / n'

    Paper: Beck et al.: xLSTM: Extended Long Short-Term Memory, 2024,
        https://arxiv.org/abs/2405.04517
    """

    gates, states = 4, ("h", "c", "n", "m")

    def step(self, wx, uh, h, c, n, m):
        z, i, f, o = wx + uh
        f = logsigmoid(f) + m
        m = torch.maximum(f, i)
        i, f = torch.exp(i - m), torch.exp(f - m)
        c, n = f * c + i * torch.tanh(z), f * n + i
        return torch.sigmoid(o) * c / n, c, n, m
