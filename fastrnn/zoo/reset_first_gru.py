"""The GRU of the first paper."""

import torch

import fastrnn


class ResetFirstGRU(fastrnn.Recurrent):
    """GRU that resets the state before the product, not after it as torch.nn.GRU.

    It is ONNX's GRU with linear_before_reset=0 and Keras' with reset_after=False.

    Formula:
        r, z = sigmoid(W x + U h)
        n = tanh(W x + U (r h))
        h' = (1 - z) n + z h

    Paper: Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder for Statistical
        Machine Translation, 2014, https://arxiv.org/abs/1406.1078
    """

    gates = 3

    def step(self, wx, uh, h):
        r, z = torch.sigmoid(wx[0] + uh[0]), torch.sigmoid(wx[1] + uh[1])
        n = torch.tanh(wx[2] + uh(r * h, 2))
        return (1 - z) * n + z * h
