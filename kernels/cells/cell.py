"""What a cell is, and the operations it may use.

A cell is the pointwise mathematics of one time step, and its derivative, as two plain functions on
values. What a value is, is up to the engine that runs them: a torch tensor here and in the
reference engine, a register in the CPU engine, a block in the GPU engine. The other engines replace
the operations below (the functions' globals) by their own; nothing else is allowed in a cell: no
``if``, no numeric literal, no operation but these and ``+ - *``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import relu, sigmoid, tanh, zeros_like

__all__ = ["Cell", "relu", "sigmoid", "tanh", "zero_unless_positive", "zeros_like"]


def zero_unless_positive(gradient, x):
    """``gradient``, but zero where x <= 0: the derivative of relu."""
    return torch.where(x <= 0, zeros_like(gradient), gradient)


@dataclass(frozen=True, eq=False)
class Cell:
    """One kind of recurrent cell.

    forward(x, h, states) -> (states, kept)
        x, h: tuples of ``gates`` pre-activations, W_ih x + b_ih and W_hh h + b_hh, kept apart, in
        the order of torch's weight rows; states: the hidden state first. ``kept`` is what backward
        wants to see again.
    backward(dstates, kept, before, after) -> (dgates, dstates)
        dstates: gradients of the new states; before, after: the previous and the new ones (the
        engine has both anyway). ``dgates`` holds the gradients of the pre-activations, each once;
        the returned dstates are what reaches the previous states pointwise, without the gates.
    """

    name: str
    forward: Callable
    backward: Callable
    states: int  # how many states, the hidden one included
    gates: int  # rows of the weights, in units of H
    kept: int  # length of ``kept``
    dgates: int  # length of ``dgates``
    dx: tuple[int, ...]  # for each gate, which of ``dgates`` is the gradient of x's part
    dh: tuple[int, ...]  # and of h's part
    after: tuple[int, ...]  # which of the new states backward reads
