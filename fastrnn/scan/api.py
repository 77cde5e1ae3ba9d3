"""``fastrnn.scan``: an ordinary module that is stepped by hand, run as a fused kernel."""

from contextvars import ContextVar
from functools import cache
from importlib import import_module

import torch
from torch import Tensor, nn

from ..tracing import tracing

_reading = ContextVar("fastrnn_scan_reading", default=False)  # whether a step is read just now


def scan(module, xs, h0, strict=False):
    """Step a module through a sequence, as ``y, hidden = module(x, hidden)`` for each ``x`` of it.

    The module is any, unchanged::

        rnn = SimpleRNN(57, 128, 18)
        ys, hidden = fastrnn.scan(rnn, xs, rnn.initHidden())

    One step is run and read: what depends on x alone is computed by torch for all steps at once,
    then the recurrence as one kernel, then again by torch what only the output needs. The results
    and all gradients are those of a loop. (What is random, as dropout in training, is drawn for all
    steps at once: as independent as in a loop, but other numbers.)

    In the recurrence there may be products of states and weights (nn.Linear, ``@``, also of
    ``torch.cat((x, h), 1)``; nn.LSTMCell and its kin), chunk, split, slices, and pointwise
    functions. A step that does anything else there, looks at a value (``if``), or changes its
    module, runs as a plain loop, and a warning says which line is why. A step is read again when an
    attribute or parameter of the module, or the form of what it is given, is another; what else
    it reads, as globals, it has to leave as it is. Its hooks and its Python run when it is read,
    not at every step. Under torch.compile and torch.func it is a plain loop.

    Args:
        module: ``module(x, hidden) -> (y, hidden)``, or ``-> hidden``, of which y then is the
            first (or only) state.
        xs: (T, B, ...), with T > 0.
        h0: the hidden state before the first step, (B, H), or a tuple of several.
        strict: raise what would be a warning, a TypeError.
    Returns:
        (ys, hidden): the outputs, stacked: (T, B, ...); and the last hidden state, in h0's form.
    Raises:
        TypeError, ValueError: for arguments, or results of the module, that are not as above.
    """
    states = _states(module, xs, h0)
    watched = tracing(xs) or torch._C._are_functorch_transforms_active() or _reading.get()
    if watched or not xs.numel():
        return _loop(module, xs, h0)

    def step(x, states):
        token = _reading.set(True)
        try:
            y, hidden = _results(module, module(x, _formed(states, h0)), h0)
        finally:
            _reading.reset(token)
        return y, [hidden] if isinstance(hidden, Tensor) else list(hidden)

    cut = _reader().cut_of(module, step, xs, states, strict)
    if cut is None:
        return _loop(module, xs, h0)
    ys, new = cut.run(xs, states)
    return ys, _formed(new, h0)


@cache
def _reader():
    """What reads steps; it is loaded when it is first asked for."""
    return import_module("fastrnn.scan.memory")


def _loop(module, xs, h0):
    ys, hidden = [], h0
    for x in xs.unbind(0):
        y, hidden = _results(module, module(x, hidden), h0)
        ys.append(y)
    return torch.stack(ys), hidden if isinstance(hidden, Tensor) else _formed(hidden, h0)


def _states(module, xs, h0):
    """The states of h0 as a list, of arguments that are what they should be."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"scan takes an nn.Module, not {type(module).__name__}")
    if not isinstance(xs, Tensor) or xs.dim() < 2:
        what = f"of shape {tuple(xs.shape)}" if isinstance(xs, Tensor) else type(xs).__name__
        raise TypeError(f"xs should be a tensor (T, B, ...), not {what}")
    if not len(xs):
        raise ValueError("xs should have one step or more: it has none")
    states = list(h0) if isinstance(h0, (tuple, list)) else [h0]
    if not states or not all(isinstance(s, Tensor) for s in states):
        raise TypeError(f"h0 should be a tensor (B, H), or a tuple of these, not {_described(h0)}")
    for state in states:
        if state.dim() > 1 and state.shape[0] not in (1, xs.shape[1]):
            raise ValueError(
                f"h0 should be (B, H), where B is {xs.shape[1]} as xs says, not "
                f"{tuple(state.shape)}"
            )
    return states


def _results(module, result, h0):
    """(y, hidden) of what a step has returned."""
    count = None if isinstance(h0, Tensor) else len(h0)
    y, hidden = result, result  # one state, which is the output
    if isinstance(result, (tuple, list)):
        several = len(result) == 2 and (count is None or isinstance(result[1], (tuple, list)))
        y, hidden = result if several else (result[0] if result else None, result)
    elif count == 1:
        hidden = (result,)
    states = [hidden] if count is None else hidden
    whole = isinstance(states, (tuple, list)) and len(states) == (count or 1)
    if not (whole and all(isinstance(s, Tensor) for s in (y, *states))):
        form = "a tensor" if count is None else f"a tuple of {count}"
        raise TypeError(
            f"{type(module).__name__} should return (y, hidden), or hidden, where y is a tensor "
            f"and hidden is {form}, as h0 is; it returned {_described(result)}"
        )
    return y, hidden


def _formed(states, h0):
    """States in the form of h0."""
    if isinstance(h0, Tensor):
        return states[0]
    return list(states) if isinstance(h0, list) else tuple(states)


def _described(value):
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_described, value))})"
    return (
        f"{type(value).__name__} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    )
