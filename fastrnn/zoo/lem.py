"""Long expressive memory."""

import torch

import fastrnn


class LEM(fastrnn.Recurrent):
    """Two states that each unit moves at a speed of its own.

    Args:
        dt: the longest step in time. Default: 1.

    Formula:
        a, b, n = W x + U y
        z' = z + dt sigmoid(b) (tanh(n) - z)
        y' = y + dt sigmoid(a) (tanh(W x + U z') - y)

    Paper: Rusch, Mishra, Erichson, Mahoney: Long Expressive Memory for Sequence Modeling, 2021,
        https://arxiv.org/abs/2110.04744
    """

    gates, states = 4, ("y", "z")

    def __init__(self, *sizes, dt=1.0, **options):
        super().__init__(*sizes, **options)
        self.dt = dt

    def step(self, wx, uh, y, z):
        a, b, n = wx[:3] + uh[:3]
        z = z + self.dt * torch.sigmoid(b) * (torch.tanh(n) - z)
        new = torch.tanh(wx[3] + uh(z, 3))
        return y + self.dt * torch.sigmoid(a) * (new - y), z
