"""Is it right? Every output and every gradient against torch.nn in float64, on the same GPU.

By the rules of fastrnn.gpu.oracle, by which the engine proves itself.
"""

from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace

import torch

import fastrnn
from fastrnn.gpu import oracle as tried
from fastrnn.gpu.oracle import ALLOWED, arithmetic, distance, worst
from fastrnn.kernels.cells import CELLS

from .. import data
from ..cases import Case

__all__ = ["ALLOWED", "arithmetic", "distance"]


def case_of(item):
    return Case(**{f.name: item["case"][f.name] for f in fields(Case)})


def cell_of(item):
    """The Cell that the item's layer runs."""
    name = item["case"]["cell"].lower()
    return CELLS[name + ("_relu" if item["relu"] else "_tanh") * (name == "rnn")]


def library(namespace, relu):
    """``namespace`` with RNN as the item wants it."""
    if not relu:
        return namespace
    return SimpleNamespace(RNN=partial(namespace.RNN, nonlinearity="relu"))


def results(namespace, case, numbers, **options):
    """{name: tensor}: the outputs and in training every gradient, of a module of ``namespace``."""
    if options:
        names = ("LSTM", "GRU", "RNN")
        namespace = SimpleNamespace(**{n: partial(getattr(namespace, n), **options) for n in names})
    layer = data.module(namespace, case)
    layer.load_state_dict(numbers.state_dict)
    return evaluate(layer, case, numbers)


def evaluate(layer, case, numbers, parameters=None):
    """As ``results``, of a module, or of a function with these named ``parameters``."""
    leaves = dict(zip(("x", "h0", "c0"), (numbers.x, *numbers.states), strict=False))

    def call(x, *states):
        given = replace(numbers, x=x, states=states)
        y, final = layer(given.input, given.hx)
        outputs = (y.data if case.packed else y, *(final if isinstance(final, tuple) else (final,)))
        return dict(zip(("output", "h_n", "c_n"), outputs, strict=False))

    parameters = dict(parameters or layer.named_parameters()) if case.training else None
    return tried.evaluate(call, leaves, numbers.grads, parameters)


def in_double(case, numbers):
    """The case and its numbers in float64: the truth is what torch.nn makes of them."""
    wide = replace(
        numbers,
        state_dict={name: value.double() for name, value in numbers.state_dict.items()},
        x=numbers.x.double(),
        states=tuple(s.double() for s in numbers.states),
        grads=tuple(g.double() for g in numbers.grads),
    )
    return replace(case, dtype="float64"), wide


def judge(case, name, relu, namespace=fastrnn, against=torch.nn):
    """{"error", "of", "allowed", "torch_error", "right"}: the tensor that is furthest off.

    name: the arithmetic; of: which tensor; against: what has torch.nn's layers.
    """
    numbers = data.make(case)
    ours, theirs = library(namespace, relu), library(against, relu)
    truth = results(theirs, *in_double(case, numbers))
    with arithmetic(name):
        found = results(ours, case, numbers)
        yardstick = results(theirs, case, numbers)
    return worst(truth, found, yardstick, name, relu)
