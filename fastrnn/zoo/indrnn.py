"""A layer whose units are independent of each other."""

import torch

import fastrnn


class IndRNN(fastrnn.Recurrent):
    """Units that see their own state alone: a weight for each of them, no recurrent product.

    Formula:
        h' = relu(W x + u h)

    Paper: Li, Li, Cook, Zhu, Gao: Independently Recurrent Neural Network (IndRNN), 2018,
        https://arxiv.org/abs/1803.04831
    """

    u = fastrnn.PerUnit(torch.nn.init.uniform_)

    def step(self, wx, h):
        return torch.relu(wx[0] + self.u * h)
