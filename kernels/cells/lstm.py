"""Long short-term memory, as torch.nn.LSTM defines it (Hochreiter & Schmidhuber 1997; forget gate
of Gers et al. 2000, no peepholes):

    i, f, o = sigmoid(x + h)    g = tanh(x + h)
    c' = f * c + i * g          h' = o * tanh(c')
"""

from .cell import Cell, sigmoid, tanh, zeros_like


def forward(x, h, states):
    xi, xf, xg, xo = x
    hi, hf, hg, ho = h
    _, c = states
    i, f, g, o = sigmoid(xi + hi), sigmoid(xf + hf), tanh(xg + hg), sigmoid(xo + ho)
    c = f * c + i * g
    return (o * tanh(c), c), (i, f, g, o)


def backward(dstates, kept, before, after):
    dh, dc = dstates
    i, f, g, o = kept
    _, c = before
    _, c_new = after
    tanh_c = tanh(c_new)
    dc = dc + dh * (o - o * tanh_c * tanh_c)
    di, df, dg, do = dc * g, dc * c, dc * i, dh * tanh_c
    # sigmoid' = s - s * s, tanh' = 1 - t * t
    dgates = (di * (i - i * i), df * (f - f * f), dg - dg * g * g, do * (o - o * o))
    return dgates, (zeros_like(dh), dc * f)


CELL = Cell(
    "lstm",
    forward,
    backward,
    states=2,
    gates=4,
    kept=4,
    dgates=4,
    dx=(0, 1, 2, 3),
    dh=(0, 1, 2, 3),
    after=(1,),
)
