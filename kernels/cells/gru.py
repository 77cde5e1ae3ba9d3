"""Gated recurrent unit, as torch.nn.GRU defines it (Cho et al. 2014, with the reset gate applied
after the recurrent product, the "v3" that cuDNN made common):

    r, z = sigmoid(x + h)    n = tanh(x_n + r * h_n)
    h' = (1 - z) * n + z * h
"""

from .cell import Cell, sigmoid, tanh


def forward(x, h, states):
    xr, xz, xn = x
    hr, hz, hn = h
    (state,) = states
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = tanh(xn + r * hn)
    return (n + z * (state - n),), (r, z, n, hn)


def backward(dstates, kept, before, after):
    (d,) = dstates
    r, z, n, hn = kept
    (state,) = before
    dn = d - d * z
    dxn = dn - dn * n * n
    dhn = dxn * r
    dr, dz = dxn * hn * (r - r * r), d * (state - n) * (z - z * z)
    # the two gradients of n stand apart, so that x's gates and h's gates are each one run
    return (dxn, dr, dz, dhn), (d * z,)


CELL = Cell(
    "gru",
    forward,
    backward,
    states=1,
    gates=3,
    kept=4,
    dgates=4,
    dx=(1, 2, 0),
    dh=(1, 2, 3),
    after=(),
)
