"""The GRU of DreamerV3."""

import torch
from torch.nn.functional import silu

import fastrnn


class BlockGRU(fastrnn.Recurrent):
    """GRU with a hidden layer before its gates, in blocks of units (DreamerV3).

    ``heads=8`` gives it the eight blocks, all of whose products are apart; the norm is over all
    units. What DreamerV3 computes of action and latent before is the input here. Its dense
    projection of the whole state is left out. The blocks of rows of weight_ih and bias_ih but for
    the first are not used.

    Formula:
        v = W x + U h
        v = silu(scale v / sqrt(mean(v^2) + 1e-4))
        r, n, u = U v
        n = tanh(sigmoid(r) n)
        h' = h + sigmoid(u - 1) (n - h)

    Paper: Hafner, Pasukonis, Ba, Lillicrap: Mastering Diverse Domains through World Models, 2023,
        https://arxiv.org/abs/2301.04104
    """

    gates = 4
    scale = fastrnn.PerUnit(1.0)

    def step(self, wx, uh, h):
        v = wx[0] + uh[0]
        v = silu(self.scale * v * torch.rsqrt((v * v).mean(-1, keepdim=True) + 1e-4))
        r, n, u = uh(v, (1, 2, 3))
        n = torch.tanh(torch.sigmoid(r) * n)
        return h + torch.sigmoid(u - 1) * (n - h)
