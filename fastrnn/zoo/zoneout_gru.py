"""Zoneout for a GRU."""

import torch

import fastrnn

from .zoneout_lstm import zones


class ZoneoutGRU(fastrnn.Recurrent):
    """GRU some of whose units keep their state for a step, at random: as ZoneoutLSTM.

    Args:
        zoneout: the probability to keep h. Default: 0.1.

    Formula:
        r, z = sigmoid(W x + U h)
        n = tanh(W x + r U h)
        h' = zone h + (1 - zone) ((1 - z) n + z h)

    Paper: Krueger et al.: Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations,
        2016, https://arxiv.org/abs/1606.01305
    """

    gates = 3

    def __init__(self, *sizes, zoneout=0.1, **options):
        super().__init__(*sizes, **options)
        self.zoneout = zoneout

    def inputs_for(self, layer, like):
        return {"zone": zones(self, like, self.zoneout)}

    def step(self, wx, uh, h, zone):
        r, z = torch.sigmoid(wx[0] + uh[0]), torch.sigmoid(wx[1] + uh[1])
        n = torch.tanh(wx[2] + r * uh[2])
        return zone * h + (1 - zone) * ((1 - z) * n + z * h)
