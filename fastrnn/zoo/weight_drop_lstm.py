"""AWD-LSTM: an LSTM whose recurrent weights are dropped."""

import torch
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

import fastrnn


class WeightDropLSTM(fastrnn.Recurrent):
    """LSTM with dropout of its recurrent weights, and one mask a sequence (AWD-LSTM).

    Training only. Each call drops recurrent weights, the same ones at all of its steps. The input
    and the output of each layer have a mask of their own for each sequence, the same at all steps;
    both directions of a layer have the same.

    Args:
        weight_dropout: the probability of each recurrent weight to be 0. Default: 0.5.
        input_dropout, hidden_dropout, output_dropout: and of each unit of the input, between
            layers, and of the output. Default: 0.

    Formula:
        i, f, g, o = W x + drop(U) h
        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')
        output = mask h'

    Paper: Merity, Keskar, Socher: Regularizing and Optimizing LSTM Language Models, 2017,
        https://arxiv.org/abs/1708.02182
    """

    gates, states = 4, ("h", "c")

    def __init__(
        self, *sizes, weight_dropout=0.5, input_dropout=0.0, hidden_dropout=0.0,
        output_dropout=0.0, **options,
    ):  # fmt: skip
        super().__init__(*sizes, **options)
        self.weight_dropout, self.input_dropout = weight_dropout, input_dropout
        self.hidden_dropout, self.output_dropout = hidden_dropout, output_dropout

    def directions(self):
        p = self.weight_dropout
        return [w._replace(hh=dropout(w.hh, p, self.training)) for w in super().directions()]

    def forward(self, input, hx=None, **options):
        if not isinstance(input, PackedSequence):
            time = 1 if self.batch_first and input.dim() == 3 else 0
            one = torch.ones_like(input.narrow(time, 0, 1))
            mask = dropout(one, self.input_dropout, self.training)
            return super().forward(input * mask, hx, **options)
        sequence = torch.cat([torch.arange(n) for n in input.batch_sizes.tolist()])
        one = torch.ones_like(input.data[: input.batch_sizes[0]])
        mask = dropout(one, self.input_dropout, self.training)
        data = input.data * mask[sequence]
        return super().forward(input._replace(data=data), hx, **options)

    def inputs_for(self, layer, like):
        p = self.output_dropout if layer == self.num_layers - 1 else self.hidden_dropout
        return {"mask": dropout(torch.ones_like(like[:1]), p, self.training)}

    def step(self, wx, uh, h, c, mask):
        i, f, g, o = wx + uh
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h * mask, (h, c)
