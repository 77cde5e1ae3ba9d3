"""Cells that have what torch's have not, one port or more each, on the GPU engine.

The truth is the reference engine under autograd in float64.
"""

from dataclasses import replace

import torch
from gpu_layers import GRID, TOLERANCE, served
from torch import erf, exp, log, maximum, minimum, relu, rsqrt, sigmoid, sqrt, tanh, where
from torch.nn.functional import logsigmoid, softplus

from fastrnn.kernels import reference
from fastrnn.kernels.gpu import engine
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.schedule import Steps, dense
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.tensors import clip_gradient
from fastrnn.kernels.weights import Weights


def peephole(wx, uh, states, own, inputs):
    _, c = states
    i, f, g, o = wx + uh
    c = sigmoid(f + own[1] * c) * c + sigmoid(i + own[0] * c) * tanh(g)
    return sigmoid(o + own[2] * c) * tanh(c), c


def indrnn(wx, uh, states, own, inputs):
    return (relu(wx[0] + own[0] * states[0]),)


def two_gates(wx, uh, states, own, inputs):
    (h,) = states
    z = sigmoid(wx[0] + uh[0])
    return (z * h + (1 - z) * tanh(wx[1] + uh[1]),)


def five_gates(wx, uh, states, own, inputs):
    _, c = states
    i, f, g, o, r = wx + uh
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    r = sigmoid(r)
    return r * sigmoid(o) * tanh(c) + (1 - r) * softplus(wx[4]), c


def slstm(wx, uh, states, own, inputs):
    _, c, n, m = states
    i, f, z, o = wx + uh
    f = logsigmoid(f) + m
    m = maximum(f, i)
    i, f = exp(i - m), exp(f - m)
    c, n = f * c + i * tanh(z), f * n + i
    return sigmoid(o) * c / (abs(n) + 1.0), c, n, m


def sru(wx, uh, states, own, inputs):
    (c,) = states
    f, r = sigmoid(wx[1] + own[0] * c), sigmoid(wx[2])
    c = f * c + (1 - f) * wx[0]
    return r * c + (1 - r) * inputs[0], (c,)


def masked(wx, uh, states, own, inputs):
    """Its output is no state, although it has a product: the exchanged state is another."""
    h, c = states
    gap, mask = inputs
    decayed = c * exp(-softplus(own[0]) * abs(gap))
    n = tanh(wx[0] + uh[0]) + decayed
    return sigmoid(wx[1] + uh[1]) * n, (where(mask > 0, tanh(n), h), n)


def every_operation(wx, uh, states, own, inputs):
    h, c = states
    a, b = wx + uh
    m = sqrt(a * a + 1) + rsqrt(b * b + 1) + log(a * a + 0.5) + erf(b)
    inside = (abs(m) < 2.0) & ~(a == b) | (c <= -1.0)
    m = minimum(maximum(m, c), b) / (1 + abs(a))
    n = tanh(where(inside, m, clip_gradient(h, 0.01))).clamp(min=-0.5)
    return n, (n, where(inside, 1.0, 0.5) * exp(-softplus(own[0])) - 2.0)


CELLS = {cell.name: cell for cell in (
    Cell("peephole", peephole, gates=4, states=2, own=3),
    Cell("indrnn", indrnn, gates=1, states=1, recurrent=False, own=1),
    Cell("two_gates", two_gates, gates=2, states=1),
    Cell("five_gates", five_gates, gates=5, states=2),
    Cell("slstm", slstm, gates=4, states=4),
    Cell("sru", sru, gates=3, states=1, recurrent=False, own=1, inputs=1),
    Cell("masked", masked, gates=2, states=2, own=1, inputs=2),
    Cell("every_operation", every_operation, gates=2, states=2, own=1),
)}  # fmt: skip


def made(cell, steps, D, I, H, dtype):
    """(x, a Weights for each direction, states, inputs), about as large as torch's."""

    def leaf(*shape):
        return (torch.randn(shape) / 5).to(dtype)

    rows, weights = cell.gates * H, []
    for _ in range(D):
        hh, b_hh = (leaf(rows, H), leaf(rows)) if cell.recurrent else (None, None)
        own = leaf(cell.own, H) if cell.own else None
        weights.append(Weights(leaf(rows, I), hh, leaf(rows), b_hh, None, own))
    states = [leaf(D, steps.B, H) for _ in range(cell.states)]
    inputs = leaf(cell.heads * steps.N, cell.inputs, H) if cell.inputs else None
    return leaf(steps.N, I), weights, states, inputs


def truth(cell, steps, given):
    """(outputs, gradients of the inputs that are there, gradients of the outputs) in float64."""
    x, weights, states, inputs = torch.utils._pytree.tree_map(_double, given)
    y, finals = reference.layer(cell, x, steps, weights, states, inputs)
    outputs = [y, *finals]
    grads = [torch.randn_like(output) for output in outputs]
    leaves = [t for t in (x, *sum(weights, ()), *states, inputs) if t is not None]
    return outputs, torch.autograd.grad(outputs, leaves, grads), grads


def _double(tensor):
    return None if tensor is None else tensor.detach().double().requires_grad_()


def check_cell(
    name, tile=GRID, T=4, B=3, H=21, D=1, heads=1, lengths=None, dtype=torch.float32, keep=Keep.ALL
):
    cell = replace(CELLS[name], heads=heads)
    steps = Steps([sum(n > t for n in lengths) for t in range(T)]) if lengths else dense(T, B)
    given = made(cell, steps, D * heads, 5, H, dtype)
    expected, dexpected, grads = truth(cell, steps, given)
    x, weights, states, inputs = given
    with served(tile) as launches, torch.no_grad():
        rest = x, steps, weights, states
        y, finals, kept = engine.layer(cell, *rest, keep, inputs)
        need = [Weights(*(w is not None for w in each)) for each in weights]
        dx, dstates, dweights, dinputs = engine.gradients(
            cell, *rest, keep, kept, [g.to(dtype) for g in grads], True, need, inputs, True
        )
    found = [dx, *sum(dweights, ()), *dstates, dinputs if cell.inputs else None]
    found = [y, *finals, *(t for t in found if t is not None)]
    for ours, theirs in zip(found, [*expected, *dexpected], strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == dtype
        theirs = theirs.detach()
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1)
        assert error <= TOLERANCE[dtype]
    return launches
