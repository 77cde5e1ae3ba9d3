"""What torch.utils.flop_counter counts of our operators: the products, as it counts torch's own.

Products of a matrix alone are counted, and those of them that somebody needs: so the numbers are
those of torch.nn's layers, wherever torch counts these at all.
"""

from .kernels.cells import cell_of
from .kernels.weights import split
from .loading import when_loaded
from .tracing import PLAIN


def count(layers, gradients):
    """Have the flops of these operators counted, by all who load torch's counter."""

    def register(counter):
        counter.register_flop_formula(layers, get_raw=True)(_layer)
        counter.register_flop_formula(gradients, get_raw=True)(_gradients)

    when_loaded("torch.utils.flop_counter", register)


def count_quantized(layers, fields):
    """The same of the operator of quantized layers, which takes so many tensors of a direction,
    the values and scales of its matrices first.
    """

    def formula(
        engine, cell, weights, activations, x, batch_sizes, states, tensors, inputs=None,
        every=False, *, out_val=None,
    ):  # fmt: skip
        matrices = [m for i, m in enumerate(tensors) if i % fields in (0, 2, 4) and m is not None]
        return sum(_product(x.shape[0], m) for m in matrices)

    when_loaded(
        "torch.utils.flop_counter",
        lambda counter: counter.register_flop_formula([layers], get_raw=True)(formula),
    )


def _layer(
    engine, cell, keep, x, batch_sizes, states, weights, inputs=None, every=False, *, out_val=None
):  # fmt: skip
    """Each row meets each matrix once."""
    directions = split(weights, states[0].shape[0], cell_of(cell))
    matrices = [m for w in directions for m in (w.ih, w.hh, w.hr) if m is not None]
    return sum(_product(x.shape[0], m) for m in matrices)


def _gradients(
    engine, cell, keep, x, batch_sizes, states, weights, kept, grads, needed, inputs=None,
    every=False, *, out_val=None,
):  # fmt: skip
    """Two products for each of forward: one for the matrix's gradient, one for its factor's."""
    D, N, rule = states[0].shape[0], x.shape[0], cell_of(cell)
    need_x, need_h, *need_others = needed
    # what was not kept is computed anew
    total = 0 if keep else _layer(engine, cell, keep, x, batch_sizes, states, weights)
    first = len(states) - 1
    need_weights = split(need_others[first : first + len(weights)], D, rule)
    for d, (w, need) in enumerate(zip(split(weights, D, rule), need_weights, strict=True)):
        if not any((*needed[: 1 + len(states)], *need)):
            continue
        rows_of_h = N if need_h else N - _first(batch_sizes, states, reverse=d == 1)
        total += _product(N * (need.ih + need_x), w.ih)
        if w.hh is not None:
            total += _product(N * need.hh + rows_of_h, w.hh)
        if w.hr is not None:
            total += _product(N * (need.hr + 1), w.hr)
    return total


def _product(rows, matrix):
    return 2 * rows * matrix.numel()


def _first(batch_sizes, states, reverse):
    """How many rows the first step has, whose states are the initial ones."""
    if batch_sizes is None or not reverse:
        return states[0].shape[1]
    # how many sequences are the longest, a tensor without numbers does not know: one at least
    return int(batch_sizes[-1]) if type(batch_sizes) in PLAIN else 1
