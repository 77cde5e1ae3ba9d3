"""Zoneout: some units keep their state for a step."""

import torch

import fastrnn


def zones(module, like, p):
    """1 for each unit and step that keeps its state, at random; what that is on average in eval."""
    return like.new_empty(like.shape).bernoulli_(p) if module.training else like.new_tensor(p)


class ZoneoutLSTM(fastrnn.Recurrent):
    """LSTM some of whose units keep their state for a step, at random.

    Both directions of a layer keep the same units. In eval the average of both is the state.

    Args:
        zoneout_h, zoneout_c: the probability to keep h, and c. Default: 0.05, 0.5.

    Formula:
        i, f, g, o = W x + U h
        n = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = zone_h h + (1 - zone_h) sigmoid(o) tanh(n)
        c' = zone_c c + (1 - zone_c) n

    Paper: Krueger et al.: Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations,
        2016, https://arxiv.org/abs/1606.01305
    """

    gates, states = 4, ("h", "c")

    def __init__(self, *sizes, zoneout_h=0.05, zoneout_c=0.5, **options):
        super().__init__(*sizes, **options)
        self.zoneout_h, self.zoneout_c = zoneout_h, zoneout_c

    def inputs_for(self, layer, like):
        zone_h, zone_c = zones(self, like, self.zoneout_h), zones(self, like, self.zoneout_c)
        return {"zone_h": zone_h, "zone_c": zone_c}

    def step(self, wx, uh, h, c, zone_h, zone_c):
        i, f, g, o = wx + uh
        new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        out = torch.sigmoid(o) * torch.tanh(new)
        return zone_h * h + (1 - zone_h) * out, zone_c * c + (1 - zone_c) * new
