"""An RNN with an update gate."""

import torch

import fastrnn


class UGRNN(fastrnn.Recurrent):
    """RNN with a gate between the old state and the new.

    Formula:
        g, n = W x + U h
        h' = sigmoid(g) h + (1 - sigmoid(g)) tanh(n)

    Paper: Collins, Sohl-Dickstein, Sussillo: Capacity and Trainability in Recurrent Neural
        Networks, 2016, https://arxiv.org/abs/1611.09913
    """

    gates = 2

    def step(self, wx, uh, h):
        g, n = wx + uh
        g = torch.sigmoid(g)
        return g * h + (1 - g) * torch.tanh(n)
