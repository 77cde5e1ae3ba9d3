"""Is it right? Every output and every gradient against torch.nn in float64, on the same GPU."""

from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace

import torch

import fastrnn
from fastrnn.kernels.cells import CELLS

from .. import data
from ..cases import Case

# How far a tensor may be from the truth, by the norms. Or twice as far as torch.nn in the same
# arithmetic is, where that is more: a long sequence loses digits whoever computes it.
ALLOWED = {
    "float64": 1e-12,
    "float32": 1e-5,  # a rounding is 6e-8; sums of 1e3 terms, tens of steps
    "tf32": 1e-3,  # 10 bits of each factor: 5e-4 in a product
    "float16": 3e-3,  # 11 bits, of h at every step and of each gate that is kept
    "bfloat16": 2e-2,  # and 8 bits
}


@contextmanager
def arithmetic(name):
    """torch's own flags say how float32 is multiplied."""
    flags = _, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before, precision = [f.allow_tf32 for f in flags], matmul.fp32_precision
    for f in flags:
        f.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        for f, value in zip(flags, before, strict=True):
            f.allow_tf32 = value
        matmul.fp32_precision = precision  # which may be "none": the older flag leaves "ieee"


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
    x, *states = leaves = [
        t.detach().clone().requires_grad_(case.training) for t in (numbers.x, *numbers.states)
    ]
    given = replace(numbers, x=x, states=tuple(states))
    with torch.set_grad_enabled(case.training):
        y, final = layer(given.input, given.hx)
        outputs = (y.data if case.packed else y, *(final if isinstance(final, tuple) else (final,)))
    found = dict(zip(("output", "h_n", "c_n"), outputs, strict=False))
    if case.training:
        named = dict(zip(("x", "h0", "c0"), leaves, strict=False))
        named |= dict(parameters or layer.named_parameters())
        grads = torch.autograd.grad(outputs, list(named.values()), numbers.grads)
        found |= {f"d {n}": g for n, g in zip(named, grads, strict=True)}
    return {name: tensor.detach() for name, tensor in found.items()}


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


def distance(value, truth):
    """|value - truth| / |truth|; infinite where a value is not finite."""
    scale = truth.norm().item() or 1.0
    error = (value.double() - truth).norm().item() / scale
    return error if error == error else float("inf")


def allowed(name, relu, what):
    """How far ``what`` may be from the truth, however exact torch.nn is.

    relu' jumps: a rounding that flips the sign of a fraction f of what comes in takes f of the
    terms out of a gradient, or puts them in, and these weigh sqrt(f) by the norms.
    """
    jumps = relu and what.startswith("d ")
    return ALLOWED[name] ** (0.5 if jumps else 1)


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
    worst = {}
    for what, exact in truth.items():
        error, usual = distance(found[what], exact), distance(yardstick[what], exact)
        most = max(allowed(name, relu, what), 2 * usual)
        row = {"error": error, "of": what, "allowed": most, "torch_error": usual}
        if not worst or error / most > worst["error"] / worst["allowed"]:
            worst = row
    return worst | {"right": worst["error"] <= worst["allowed"]}
