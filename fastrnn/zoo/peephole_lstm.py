"""An LSTM whose gates see the memory."""

import torch

import fastrnn


class PeepholeLSTM(fastrnn.Recurrent):
    """LSTM whose gates see the memory, each unit its own.

    Formula:
        i, f, g, o = W x + U h
        i, f = sigmoid(i + p_i c), sigmoid(f + p_f c)
        c' = f c + i tanh(g)
        h' = sigmoid(o + p_o c') tanh(c')

    Paper: Gers, Schraudolph, Schmidhuber: Learning Precise Timing with LSTM Recurrent Networks,
        2002, https://www.jmlr.org/papers/v3/gers02a.html
    """

    gates, states = 4, ("h", "c")
    p_i, p_f, p_o = (fastrnn.PerUnit() for _ in range(3))

    def step(self, wx, uh, h, c):
        i, f, g, o = wx + uh
        i, f = torch.sigmoid(i + self.p_i * c), torch.sigmoid(f + self.p_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.p_o * c) * torch.tanh(c), c
