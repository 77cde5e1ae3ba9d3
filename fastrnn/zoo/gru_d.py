"""A GRU for series with missing values."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastrnn


class GRUD(fastrnn.Recurrent):
    """GRU for series with missing values: with time, the input decays to its mean, the state to 0.

    One layer, forward. W has 2 * input_size columns, those of the mask on the right.

    Args:
        input_size, hidden_size, bias, batch_first, recompute, device, dtype: as in Recurrent.

    Attributes:
        mean: a buffer, the mean of each feature, zeros at first.

    Call:
        layer(input, hx=None, mask=m, delta=d) -> (output, h_n)
        input: (T, B, input_size), anything where it is missing. mask: of that shape, 1 where it is
        there and 0 where it is missing. delta: of that shape, the time since it was there last.

    Formula:
        x_decay, h_decay = exp(-relu(w delta + b)), exp(-relu(V delta + b'))
        x = x where mask = 1, else x_decay x_last + (1 - x_decay) mean
        h = h_decay h
        r, z = sigmoid(W [x, mask] + U h)
        n = tanh(W [x, mask] + U (r h))
        h' = (1 - z) h + z n

    Paper: Che, Purushotham, Cho, Sontag, Liu: Recurrent Neural Networks for Multivariate Time
        Series with Missing Values, 2016, https://arxiv.org/abs/1606.01865
    """

    gates = 3

    def __init__(self, input_size, hidden_size, bias=True, batch_first=False, recompute=False,
                 device=None, dtype=None):  # fmt: skip
        where = {"device": device, "dtype": dtype}
        options = {"bias": bias, "batch_first": batch_first, "recompute": recompute}
        super().__init__(2 * input_size, hidden_size, **options, **where)
        self.decay = nn.Linear(input_size, hidden_size, **where)
        bound = input_size**-0.5
        self.input_decay = nn.Parameter(torch.empty(input_size, **where).uniform_(0, bound))
        self.input_bias = nn.Parameter(torch.zeros(input_size, **where))
        self.register_buffer("mean", torch.zeros(input_size, **where))

    def forward(self, input, hx=None, *, mask, delta, **options):
        given, packed = (input, mask, delta), isinstance(input, PackedSequence)
        rows, mask, delta = (t.data if isinstance(t, PackedSequence) else t for t in given)
        there = mask > 0.5
        decay = torch.exp(-torch.relu(self.input_decay * delta + self.input_bias))
        if packed:
            sizes = input.batch_sizes
            lengths = (sizes.unsqueeze(1) > torch.arange(int(sizes[0]))).sum(0)
            both = [pad_packed_sequence(PackedSequence(t, sizes))[0] for t in (rows, there)]
            last = pack_padded_sequence(self._last(*both, 0), lengths).data
        else:
            last = self._last(rows, there, 1 if self.batch_first and input.dim() == 3 else 0)
        x = torch.where(there, rows, decay * last + (1 - decay) * self.mean)
        decay, x = torch.exp(-torch.relu(self.decay(delta))), torch.cat([x, mask], -1)
        return super().forward(input._replace(data=x) if packed else x, hx, decay=decay, **options)

    def _last(self, input, there, time):
        """What was there last, at each step; the mean before there was anything."""
        steps = torch.arange(input.shape[time], device=input.device)
        steps = steps.view(-1, *[1] * (input.dim() - 1 - time))
        found = torch.where(there, steps, -1).cummax(time).values
        return torch.where(found < 0, self.mean, input.gather(time, found.clamp(min=0)))

    def step(self, wx, uh, h, decay):
        h = h * decay
        r, z = map(torch.sigmoid, wx[:2] + uh(h, (0, 1)))
        n = torch.tanh(wx[2] + uh(r * h, 2))
        return (1 - z) * h + z * n
