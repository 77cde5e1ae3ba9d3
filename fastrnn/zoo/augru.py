"""A GRU with attention."""

import torch

import fastrnn


class AUGRU(fastrnn.Recurrent):
    """GRU whose update gate is scaled by an attention, a number of each step.

    Call:
        layer(input, hx=None, attention=a), a: (T, B)

    Formula:
        r, u = sigmoid(W x + U h)
        n = tanh(W x + r U h)
        h' = (1 - attention u) h + attention u n

    Paper: Zhou et al.: Deep Interest Evolution Network for Click-Through Rate Prediction, 2018,
        https://arxiv.org/abs/1809.03672
    """

    gates = 3

    def step(self, wx, uh, h, attention):
        r, u = torch.sigmoid(wx[0] + uh[0]), torch.sigmoid(wx[1] + uh[1]) * attention
        n = torch.tanh(wx[2] + r * uh[2])
        return (1 - u) * h + u * n
