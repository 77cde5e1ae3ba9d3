"""The operations of a step on torch's tensors: what the reference engine computes with."""

from functools import partial
from numbers import Real

import torch
from torch.nn.functional import softplus

from .symbol import Symbol, apply


class _ClipGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value, limit):
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-ctx.limit, ctx.limit), None

    @staticmethod
    def jvp(ctx, tangent, _):
        return tangent.view_as(tangent)


def clip_gradient(value, limit):
    """``value`` as it is, whose gradient is held between ``-limit`` and ``limit`` in backward.

    In a step this bounds what flows back through time, unit by unit, where clipping the gradients
    of the weights comes too late. ``limit``: a number above zero; else ValueError.
    """
    if not (isinstance(limit, Real) and limit > 0):
        raise ValueError(f"limit should be a number above zero, not {limit!r}")
    if isinstance(value, Symbol):
        return apply("clip_gradient", value, limit)
    return _ClipGradient.apply(value, float(limit))


def _of_two(function):
    """A function of two tensors, either of which may be a number."""

    def of_two(a, b):
        like = a if isinstance(a, torch.Tensor) else b
        return function(*(t if isinstance(t, torch.Tensor) else like.new_tensor(t) for t in (a, b)))

    return of_two


def mean(x):
    """Over all hidden units; each has it."""
    return x.mean(-1, keepdim=True).expand_as(x)


OPERATIONS = {
    **{name: getattr(torch, name) for name in (
        "sigmoid", "tanh", "relu", "exp", "expm1", "log", "abs", "sqrt", "rsqrt", "erf", "where",
        "zeros_like",
    )},
    "softplus": partial(softplus, threshold=40.0),  # beyond which it is x, to the last digit
    "mean": mean,
    "maximum": _of_two(torch.maximum),
    "minimum": _of_two(torch.minimum),
    "clip_gradient": clip_gradient,
}  # fmt: skip
