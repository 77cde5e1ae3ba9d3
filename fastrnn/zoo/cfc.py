"""A closed-form continuous-time layer."""

import torch

import fastrnn


class CfC(fastrnn.Recurrent):
    """A liquid network solved in closed form: it goes from one state to another with time.

    Without the backbone, as ncps' CfC with backbone_layers=0.

    Call:
        layer(input, hx=None, ts=dt), dt: (T, B), the time of each step

    Formula:
        f, g, a, b = W x + U h
        t = sigmoid(a ts + b)
        h' = (1 - t) tanh(f) + t tanh(g)

    Paper: Hasani et al.: Closed-form Continuous-time Neural Networks, 2021,
        https://arxiv.org/abs/2106.13898
    """

    gates = 4

    def step(self, wx, uh, h, ts):
        f, g, a, b = wx + uh
        t = torch.sigmoid(a * ts + b)
        return (1 - t) * torch.tanh(f) + t * torch.tanh(g)
