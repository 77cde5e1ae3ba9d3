"""An LSTM with one gate fewer."""

import torch

import fastrnn


class CoupledLSTM(fastrnn.Recurrent):
    """LSTM that takes in as much as it forgets (CIFG), which saves the input gate.

    Formula:
        f, g, o = W x + U h
        c' = sigmoid(f) c + (1 - sigmoid(f)) tanh(g)
        h' = sigmoid(o) tanh(c')

    Paper: Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber: LSTM: A Search Space Odyssey, 2015,
        https://arxiv.org/abs/1503.04069
    """

    gates, states = 3, ("h", "c")

    def step(self, wx, uh, h, c):
        f, g, o = wx + uh
        f = torch.sigmoid(f)
        c = f * c + (1 - f) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
