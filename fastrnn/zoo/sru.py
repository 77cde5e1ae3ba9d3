"""A simple recurrent unit."""

import torch

import fastrnn


class SRU(fastrnn.Recurrent):
    """A memory without a recurrent product, and a highway past it.

    The highway is a fourth block of W x, as in the authors' program where widths differ.

    Formula:
        x, f, r, skip = W x
        f, r = sigmoid(f + v_f c), sigmoid(r + v_r c)
        c' = f c + (1 - f) x
        output = r c' + (1 - r) skip

    Paper: Lei, Zhang, Wang, Dai, Artzi: Simple Recurrent Units for Highly Parallelizable
        Recurrence, 2017, https://arxiv.org/abs/1709.02755
    """

    gates, states = 4, ("c",)
    v_f, v_r = fastrnn.PerUnit(), fastrnn.PerUnit()

    def step(self, wx, c):
        x, f, r, skip = wx
        f, r = torch.sigmoid(f + self.v_f * c), torch.sigmoid(r + self.v_r * c)
        c = f * c + (1 - f) * x
        return r * c + (1 - r) * skip, (c,)
