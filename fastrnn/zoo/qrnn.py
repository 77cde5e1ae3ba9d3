"""A quasi-recurrent layer."""

import torch
from torch.nn.utils.rnn import PackedSequence

import fastrnn


class QRNN(fastrnn.Recurrent):
    """A convolution over two steps, and a memory without a recurrent product (fo-pooling).

    The first layer sees a step and the one before it, zeros before the first: W has
    2 * input_size columns, those of the step before on the left. The layers above see one step, as
    in AWD-QRNN.

    Formula:
        z, f, o = W [x_before, x]
        c' = sigmoid(f) c + (1 - sigmoid(f)) tanh(z)
        output = sigmoid(o) c'

    Paper: Bradbury, Merity, Xiong, Socher: Quasi-Recurrent Neural Networks, 2016,
        https://arxiv.org/abs/1611.01576
    """

    gates, states = 3, ("c",)

    def __init__(self, input_size, hidden_size, *sizes, **options):
        super().__init__(2 * input_size, hidden_size, *sizes, **options)

    def forward(self, input, hx=None, **options):
        if isinstance(input, PackedSequence):
            rows, sizes = input.data, input.batch_sizes
            before = torch.arange(sizes[0], len(rows)) - sizes[:-1].repeat_interleave(sizes[1:])
            both = torch.cat([_shifted(rows[before], sizes[0], 0), rows], -1)
            return super().forward(input._replace(data=both), hx, **options)
        time = 1 if self.batch_first and input.dim() == 3 else 0
        before = input.narrow(time, 0, input.shape[time] - 1)
        return super().forward(torch.cat([_shifted(before, 1, time), input], -1), hx, **options)

    def step(self, wx, c):
        z, f, o = torch.tanh(wx[0]), torch.sigmoid(wx[1]), torch.sigmoid(wx[2])
        c = f * c + (1 - f) * z
        return o * c, (c,)


def _shifted(x, count, dim):
    """``x`` after ``count`` rows of zeros."""
    shape = [*x.shape[:dim], int(count), *x.shape[dim + 1 :]]
    return torch.cat([x.new_zeros(shape), x], dim)
